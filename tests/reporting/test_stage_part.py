"""The stage's data: which images, and what the page is told of each at every shift."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reporting.planted import Page, sweep
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.data.images import load_images
from shiftlens.reporting import report
from shiftlens.reporting.encoding import deflated
from shiftlens.reporting.stage_part import MOST_IMAGES, changing, choose, loss_codes, stage_part
from shiftlens.reporting.thumbnails import Source
from shiftlens.sweeps.sweep_result import Sweep

NO_LABELS = np.zeros(0, np.int64)


def inflated(packed: dict[str, Any]) -> np.ndarray[Any, Any]:
    plain = np.frombuffer(zlib.decompress(base64.b64decode(packed["deflate"]), wbits=-15), np.uint8)
    planes = plain.reshape(packed["planes"], *packed["shape"]).astype(np.int64)
    table = np.asarray(sum(plane << (8 * k) for k, plane in enumerate(planes)))
    if packed["axes"]:
        table = np.where(table % 2, -(table + 1) // 2, table // 2)
    for axis in range(-packed["axes"], 0):
        table = np.cumsum(table, axis=axis)
    return table.astype(np.uint16)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return sweep(tmp_path_factory.mktemp("stage") / "one.zarr", centre=(1.5, 0))


@pytest.mark.parametrize("axes", [0, 1, 2])
@pytest.mark.parametrize("largest", [0, 9, 255, 256, 65535])
def test_a_table_comes_back_as_it_was(largest: int, axes: int) -> None:
    values = np.random.default_rng(largest).integers(0, largest + 1, (3, 5, 7))
    packed = deflated(values, axes)
    assert packed["planes"] == 1 if largest < 10 else packed["planes"] == 2 or largest < 65535
    np.testing.assert_array_equal(inflated(packed), values)


def test_losses_are_kept_as_they_are_displayed() -> None:
    loss = np.array([0, 0.0004, 0.0126, 0.0994, 0.0999, 0.1, 0.126, 2.344, 654.3, 1e30, np.inf])
    codes = loss_codes(loss)
    shown = np.where(codes < 100, codes / 1000, (codes - 90) / 100)
    np.testing.assert_allclose(shown[:9], [0, 0, 0.013, 0.099, 0.10, 0.10, 0.13, 2.34, 654.3], atol=1e-9)
    # What is beyond the codes is the largest of them, which the page shows as "over".
    assert codes[9:].tolist() == [65535, 65535]


def test_the_share_counts_shifts_of_at_most_half_the_image() -> None:
    d = np.arange(-3, 4)
    prediction = np.zeros((2, 7, 7), np.uint8)
    prediction[0, :, d == 3] = 1  # dx 3: more than half of 4 px
    prediction[1, d == 1, :] = 1  # dy 1: one of five rows
    arrays = SweepArrays({"prediction": prediction}, np.array([0, 1]), d, d, picture_size=(4, 4))
    np.testing.assert_allclose(changing(arrays), [0, 1 / 5])


def test_the_groups_are_what_their_names_say() -> None:
    random = np.random.default_rng(0)
    shares, labels = random.permutation(100) / 100, random.integers(0, 5, 100)
    right, among = random.random(100) < 0.8, random.random(100) < 0.9
    usable = right & among
    groups = dict(choose(shares, labels, right, among))
    assert list(groups) == ["Most fragile", "Typical", "Most robust", "One per class"]
    assert shares[groups["Most fragile"]].tolist() == sorted(shares[usable])[::-1][:8]
    assert shares[groups["Most robust"]].tolist() == sorted(shares[usable])[:8]
    middle = np.median(shares[usable])
    away = np.abs(shares[usable] - middle)
    np.testing.assert_allclose(np.abs(shares[groups["Typical"]] - middle), np.sort(away)[:8])
    assert labels[groups["One per class"]].tolist() == [0, 1, 2, 3, 4]
    assert usable[np.concatenate(list(groups.values()))].all()


def test_many_classes_no_labels_and_nothing_right() -> None:
    shares, everything, nothing = np.linspace(0, 1, 300), np.ones(300, np.bool_), np.zeros(300, np.bool_)
    groups = choose(shares, np.arange(300), everything, everything)
    assert len(np.unique(np.concatenate([rows for _, rows in groups]))) <= MOST_IMAGES
    # In even steps from the first class to the last.
    assert groups[-1][1][[0, -1]].tolist() == [0, 299]
    assert len(groups[-1][1]) == MOST_IMAGES - 24
    assert len(choose(shares, NO_LABELS, everything, everything)) == 3
    assert choose(shares, NO_LABELS, nothing, everything)[0][1][0] == 299


def test_the_page_holds_the_sweep_s_own_numbers(one: Sweep, tmp_path: Path) -> None:
    made = Page(report(one, tmp_path / "r.html").path)
    stage = made.data["stage"]
    (model,) = stage["models"]
    at = {int(p): k for k, p in enumerate(one.dataset["index"].values)}
    rows = [at[p] for p in stage["position"]]
    dataset = one.dataset
    np.testing.assert_array_equal(inflated(model["prediction"]), dataset.prediction.values[rows])
    np.testing.assert_array_equal(inflated(model["confidence"]), np.rint(1000.0 * dataset.confidence.values[rows]))
    np.testing.assert_array_equal(inflated(model["loss"]), loss_codes(dataset.loss.values[rows].astype(np.float64)))
    assert stage["label"] == dataset.label.values[rows].tolist()
    assert sorted({k for group in stage["groups"] for k in group["images"]}) == list(range(len(rows)))
    assert stage["half"] == [16, 16]


def test_two_models_only_where_they_can_be_compared(one: Sweep, tmp_path: Path) -> None:
    other = sweep(tmp_path / "other.zarr", edge=4.0)
    white = sweep(tmp_path / "white.zarr", fill=one.header.fill.parse("1.0"))
    part = stage_part([one, white, other], ["one", "white", "other"], Source())
    assert part is not None
    assert part.view["models"] == ["one", "other"]
    alone = stage_part([one, white], ["one", "white"], Source())
    assert alone is not None
    assert alone.view["models"] == ["one"]


def test_only_images_that_both_models_hold_are_shown(one: Sweep, tmp_path: Path) -> None:
    few = sweep(tmp_path / "few.zarr", n=20)
    part = stage_part([one, few], ["one", "few"], Source())
    assert part is not None
    assert len(part.data["models"]) == 2
    assert set(part.data["position"]) <= set(few.dataset["index"].values.tolist())


def test_without_images_there_is_no_stage(one: Sweep, tmp_path: Path) -> None:
    other = sweep(tmp_path / "mine.zarr", data="mine", data_digest="sha256:0")
    assert stage_part([other], ["mine"], Source()) is None
    assert stage_part([other], ["mine"], Source(load_images("digits"))) is None
    made = Page(report(other, tmp_path / "r.html").path)
    assert made.data["stage"] is None
    assert 'id="stage"' not in made.text
    # Another sweep of the report may have one.
    part = stage_part([other, one], ["mine", "one"], Source())
    assert part is not None
    assert part.view["models"] == ["one"]
