"""Quantities of other tasks than classification."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import shiftlens as sl
from shiftlens.analysis.object_curves import object_swing
from shiftlens.errors import InputError
from shiftlens.gate.against import border_gain
from shiftlens.gate.quantities import Reading, border_ratio
from shiftlens.stats import Estimate, Skipped
from shiftlens.tasks.task import ByPlace
from tasks.small_tasks import BOXES, GRID, PIXELS, detector, unet, wrapped


def counted(rng: np.random.Generator, n_chunks: int, near: float, inside: float, better: str) -> Reading:
    """Errors of windows (or, where higher is better, what is no error) by place, planted near the border and inside."""
    edge = np.ones((40, 40), np.bool_)
    edge[10:-10, 10:-10] = False
    count = np.full((n_chunks, 40, 40), 500.0)
    wrong = rng.binomial(500, np.where(edge, near, inside), count.shape).astype(np.float64)
    total = count - wrong if better == "higher" else wrong
    data = xr.Dataset({"total": (("chunk", "y", "x"), total), "count": (("chunk", "y", "x"), count)})
    task: Any = SimpleNamespace(name="planted", by_place=ByPlace("rate", "total", "count", "share", better))
    arrays: Any = SimpleNamespace(task=task, positions=np.arange(n_chunks))
    sweep: Any = SimpleNamespace(dataset=data)
    return Reading("planted", sweep, arrays)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_border_ratio_is_that_of_the_errors_and_its_bounds_hold(better: str) -> None:
    held = 0
    for draw in range(40):
        found = border_ratio(counted(np.random.default_rng(draw), 8, 0.03, 0.01, better))
        assert not isinstance(found, Skipped)
        assert found.value == pytest.approx(3.0, rel=0.05)
        lo, hi = found.bounds(0.05)
        held += lo <= 3.0 <= hi
    assert held >= 30  # 90 % of 40


def test_a_border_ratio_needs_groups_of_images_and_errors() -> None:
    rng = np.random.default_rng(0)
    few = border_ratio(counted(rng, 4, 0.03, 0.01, "lower"))
    assert isinstance(few, Skipped)
    assert "5 groups of images, there are 4: sweep more images" in few.why
    none = border_ratio(counted(rng, 8, 0.0, 0.0, "lower"))
    assert isinstance(none, Skipped)
    assert "no error is counted" in none.why


def test_a_border_ratio_against_a_baseline_is_the_ratio_of_both_by_the_same_groups_of_images() -> None:
    base, new = (counted(np.random.default_rng(k), 8, near, 0.01, "lower") for k, near in enumerate((0.015, 0.03)))
    pair: Any = SimpleNamespace(base=base, new=new)
    found = border_gain(pair)
    assert not isinstance(found, Skipped)
    assert found.value == pytest.approx(2.0, rel=0.05)
    lo, hi = found.bounds(0.001)
    assert 1.5 < lo < 2.0 < hi < 2.7
    # A sweep that grew from a small one has shorter groups.
    data = pair.new.sweep.dataset
    pair.new.sweep.dataset = xr.Dataset({name: (("chunk", "y", "x"), data[name].values.repeat(2, 0)) for name in data})
    assert border_gain(pair).value == pytest.approx(found.value)
    pair.new = counted(np.random.default_rng(2), 9, 0.03, 0.01, "lower")
    other = border_gain(pair)
    assert isinstance(other, Skipped)
    assert "same images" in other.why


@pytest.mark.slow
def test_a_gate_fails_a_unet_whose_padding_was_changed(tmp_path: Path) -> None:
    before, scenes = sl.load_model("pretrained:unet-digits"), sl.load_images("digits-scenes", limit=60)
    after, _ = sl.repair(before, padding="reflect")
    grid = sl.ShiftGrid((0, 4), 4)
    base, new = (
        sl.sweep(net, scenes, grid, out=tmp_path / f"{name}.zarr", task="segmentation")
        for name, net in (("before", before), ("after", after))
    )
    found = sl.check(new, baseline=base, allowed={"border_ratio": 1.25}, mode="lenient")
    assert not found.passed, str(found)
    assert found.conditions[0].title == "border_ratio at most 1.25 times that of before"
    assert found.conditions[0].n_images == 12  # groups of images
    assert sl.check(base, baseline=base, allowed={"border_ratio": 1.25}).passed
    # The mean over all pixels hardly moves.
    assert sl.check(new, baseline=base, allowed={"near": 1}, mode="lenient").passed


def test_the_swing_of_a_detector_is_that_of_its_objects(tmp_path: Path) -> None:
    images = sl.ImageSet(PIXELS, BOXES)
    sweep = sl.sweep(wrapped(detector()), images, GRID, out=tmp_path / "s.zarr", task="detection")
    found = sl.check(sweep, max_confidence_swing=(1, 4), mode="lenient").conditions[0]
    expected = object_swing(sweep)
    assert isinstance(expected, Estimate)
    assert found.value == pytest.approx(expected.value)
    assert found.n_images == 2  # one image has no objects
    # Against itself nothing swings more.
    same = sl.check(sweep, baseline=sweep, allowed={"confidence_swing": 5}, mode="lenient").conditions[0]
    assert same.value == 0


def test_a_task_without_classes_has_no_consistency_and_no_confidence(tmp_path: Path) -> None:
    sweep = sl.sweep(wrapped(unet()), sl.ImageSet(PIXELS), GRID, out=tmp_path / "s.zarr", task="dense")
    for limit, what in (
        ({"min_consistency": 0.5}, "predicted classes"),
        ({"max_confidence_swing": 0.5}, "confidences"),
    ):
        with pytest.raises(InputError, match=what):
            sl.check(sweep, gate=limit)
