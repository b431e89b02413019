"""What is found beside a task's metrics: it stands among the tests of the sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from shiftlens.analysis.places import Places
from shiftlens.data.imageset import ImageSet
from shiftlens.narrative.findings import measured
from shiftlens.narrative.task_findings import _rates
from shiftlens.shifts import ShiftGrid
from shiftlens.stats import Skipped, holm
from shiftlens.sweeping import sweep
from shiftlens.sweeps import request
from shiftlens.tasks.dense import BY_PLACE
from tasks.small_tasks import PIXELS, H, W, detector, wrapped


def test_the_border_is_tested_with_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Conv2d(1, 1, 3, padding=1)  # its zeros are dark for bright images
    nn.init.constant_(net.weight, 1.0)
    grid, pixels = ShiftGrid((2, 2), 2), np.random.default_rng(0).integers(180, 256, (6, 1, H, W), dtype=np.uint8)
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", grid.n_shifts)  # the border's interval is over chunks
    made = sweep(wrapped(net), ImageSet(pixels), grid, out=tmp_path / "s.zarr", task="dense", fill="edge")
    metrics, found = measured(made, None, 0)
    test, border = metrics.test("border rate"), found.named("border-rate")
    assert border is not None
    names, p_values = [each.name for each in metrics.tests], [each.p_value for each in metrics.tests]
    assert border.p_value == test.holm_p == holm(np.array(p_values))[names.index("border rate")]
    assert test.p_value < test.holm_p <= 0.02
    assert f"Corrected for all {len(names)} tests of the sweep (Holm)" in border.evidence
    assert border.severity == "warn"
    assert "further inside" in border.statement
    assert "border rate" in found.of_kind("tests")[0].statement
    assert found.named("interior-margin") is None  # the net sees 1 px to a side
    # In units without a threshold every significant difference warns; a user may set one.
    assert measured(made, None, 0, {"": 1e9})[1].named("border-rate").severity == "info"


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (0.0, "is 0.600; further inside it is 0"),  # or that of rounding, as the processor's sums come out
        (1e-8, "is 0.600, more than 1,000 times that further inside ("),
        (0.25, "is 0.600, 2.4 times that further inside (0.250)"),
    ],
)
def test_an_error_at_the_border_is_compared_with_that_inside(inside: float, said: str) -> None:
    error, none = BY_PLACE, np.zeros(0)
    skipped = Skipped("border", "not asked here")
    sides = {"left": 0.7, "right": 0.5}
    text = _rates(Places(error, none, np.zeros(0, np.int64), none, 6, 0.6, inside, sides, skipped))
    assert said in text
    assert text.endswith("it is highest at the left border, 0.700")


def test_a_border_that_no_object_reaches_has_no_rate(tmp_path: Path) -> None:
    boxes = [{"boxes": [[12, 8, 20, 16]], "labels": [0]}] * 2
    images = ImageSet(np.random.default_rng(0).integers(0, 256, (2, 1, H, W), dtype=np.uint8), boxes)
    made = sweep(wrapped(detector()), images, ShiftGrid(1), out=tmp_path / "s.zarr", task="detection")
    border = measured(made, None, 0)[1].named("border-rate")
    assert border is not None
    assert border.statement.startswith("Within 6 px of a border, the recall of objects centred there is not known")
    assert "nan" not in border.statement


def test_sentences_name_a_metric_in_words_not_by_its_key(tmp_path: Path) -> None:
    boxes = [{"boxes": [[12, 8, 20, 16]], "labels": [0]}] * 2
    images = ImageSet(np.random.default_rng(0).integers(0, 256, (2, 1, H, W), dtype=np.uint8), boxes)
    made = sweep(wrapped(detector()), images, ShiftGrid(1), out=tmp_path / "s.zarr", task="detection")
    for metric in made.metrics:
        metrics, found = measured(made, metric.name, 0)
        said = [*(each.statement for each in found), *(each.name for each in metrics.tests)]
        for key in (each.name for each in made.metrics if each.name != each.called):
            assert not [text for text in said if key in text]
    # Ids do not change with the words.
    assert found.named("skipped-irregularities-of-n-unmatched") is not None


def test_an_interior_that_the_border_may_reach_is_named(tmp_path: Path) -> None:
    net = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(7)))  # 7 px to a side, of 24
    made = sweep(wrapped(net), ImageSet(PIXELS), ShiftGrid((0, 1)), out=tmp_path / "s.zarr", task="dense")
    found = measured(made, None, 0)[1].named("interior-margin")
    assert found is not None
    assert "The interior begins 6 px from every border" in found.statement
    assert found.value == 6
