"""A sweep that takes over what a smaller one holds: the same bytes, nothing computed twice, nothing mixed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import small_sweeps
from small_sweeps import Net

from shiftlens.data.imageset import ImageSet
from shiftlens.engine import evaluators as door
from shiftlens.engine.plan import Plan
from shiftlens.errors import InputError, StoreError
from shiftlens.models.wrapping import Model, wrap
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import sweep
from shiftlens.sweeps import header as attributes
from shiftlens.sweeps import request, runner
from shiftlens.sweeps.sweep_result import Sweep, open_sweep

GRID = ShiftGrid((2, 3))
ARRAYS = ("prediction", "loss", "confidence", "label", "accuracy", "mean_loss", "checksum")


def model(seed: int = 0) -> Model:
    return wrap(Net(seed=seed), mean=0.4, std=0.25, name="net")


def pictures(n: int = 20, seed: int = 0) -> ImageSet:
    random = np.random.default_rng(seed)
    return ImageSet(random.integers(0, 256, (n, 1, 6, 8), dtype=np.uint8), random.integers(0, 3, n), name="noise")


FEWER = [4, 17, 3, 9, 11, 0, 8]
"""Images of the smaller sweep: two chunks of 3, and one of 1 that the larger sweep fills up."""


def order(fewer: list[int]) -> list[int]:
    """In which a sweep of all takes the images."""
    return [*fewer, *(k for k in range(20) if k not in fewer)]


ORDER = order(FEWER)


@pytest.fixture(autouse=True)
def chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 3 * GRID.n_shifts)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    return small_sweeps.evaluated(monkeypatch)


def same(a: Sweep, b: Sweep, control: str | None = None) -> None:
    for name in ARRAYS:
        left, right = ((s if control is None else s.control(control)).dataset for s in (a, b))
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def anew(out: Path, fewer: list[int] = FEWER, **how: Any) -> Sweep:
    """The sweep that a larger one must be equal to."""
    return sweep(
        model(), pictures().subset(np.array(order(fewer)), named=True), GRID, out=out, **({"dtype": "float32"} | how)
    )


def places(given: list[tuple[str, bytes]], images: ImageSet, control: str = "") -> list[int]:
    at = {images.batch([k])[0].tobytes(): k for k in range(len(images))}
    return [at[picture] for name, picture in given if name == control]


@pytest.mark.parametrize("engine", ["direct", "dedup"])
def test_the_result_is_that_of_a_sweep_in_that_order(
    tmp_path: Path, engine: str, evaluated: list[tuple[str, bytes]]
) -> None:
    images = pictures()
    small = tmp_path / "small.zarr"
    sweep(model(), images.subset(np.array(FEWER)), GRID, out=small, engine=engine, dtype="float32")
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    evaluated.clear()
    large = sweep(model(), images, GRID, out=tmp_path / "large.zarr", engine=engine, dtype="float32", reuse=small)
    # The last chunk of the smaller one holds a single image: it is computed with those that now fill it up.
    assert sorted(places(evaluated, images)) == sorted(set(range(20)) - set(FEWER[:6]))
    assert before == {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    again = anew(tmp_path / "anew.zarr", engine=engine)
    np.testing.assert_array_equal(large.dataset["index"], ORDER)
    assert large.header.plan == again.header.plan
    same(large, again)


def test_another_chunk_size_is_copied_only_where_images_are_computed_one_by_one(
    tmp_path: Path, evaluated: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures()
    for engine, copied in (("direct", []), ("dedup", FEWER[:4])):
        monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 3 * GRID.n_shifts)
        small = tmp_path / f"small-{engine}.zarr"
        sweep(model(), images.subset(np.array(FEWER)), GRID, out=small, engine=engine, dtype="float32")
        evaluated.clear()
        monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 4 * GRID.n_shifts)
        out = tmp_path / f"large-{engine}.zarr"
        large = sweep(model(), images, GRID, out=out, engine=engine, dtype="float32", reuse=small)
        assert sorted(places(evaluated, images)) == sorted(set(range(20)) - set(copied))
        anew = sweep(
            model(),
            images.subset(np.array(ORDER), named=True),
            GRID,
            out=tmp_path / f"anew-{engine}.zarr",
            engine=engine,
            dtype="float32",
        )
        same(large, anew)


def test_controls_are_taken_over_where_there_are_any(tmp_path: Path, evaluated: list[tuple[str, bytes]]) -> None:
    images, small = pictures(), tmp_path / "small.zarr"
    sweep(model(), images.subset(np.array(FEWER[:6])), GRID, out=small, dtype="float32", controls=["occlusion"])
    evaluated.clear()
    controls = ["occlusion", "flip"]
    large = sweep(model(), images, GRID, out=tmp_path / "l.zarr", dtype="float32", controls=controls, reuse=small)
    new = sorted(set(range(20)) - set(FEWER[:6]))
    assert sorted(places(evaluated, images, "occlusion")) == new
    assert sorted(places(evaluated, images, "flip")) == list(range(20))
    again = anew(tmp_path / "a.zarr", FEWER[:6], controls=controls)
    for control in controls:
        same(large, again, control)


def test_what_is_torn_or_not_there_yet_is_computed(tmp_path: Path, evaluated: list[tuple[str, bytes]]) -> None:
    images, small = pictures(), tmp_path / "small.zarr"
    sweep(model(), images.subset(np.array(FEWER)), GRID, out=small, dtype="float32")
    (small / "loss" / "c" / "0" / "0" / "0").write_bytes(b"torn")
    (small / "prediction" / "c" / "2" / "0" / "0").unlink()
    evaluated.clear()
    large = sweep(model(), images, GRID, out=tmp_path / "large.zarr", dtype="float32", reuse=small)
    assert sorted(places(evaluated, images)) == sorted(set(range(20)) - set(FEWER[3:6]))
    same(large, anew(tmp_path / "anew.zarr"))


def test_an_interrupted_one_goes_on(tmp_path: Path, evaluated: list[tuple[str, bytes]]) -> None:
    images, small, out = pictures(), tmp_path / "small.zarr", tmp_path / "large.zarr"
    sweep(model(), images.subset(np.array(FEWER)), GRID, out=small, dtype="float32")

    def stop(n_done: int, n_total: int) -> None:
        if n_done > 10 * GRID.n_shifts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(model(), images, GRID, out=out, dtype="float32", reuse=small, progress=stop)
    assert not open_sweep(out, partial=True).complete
    evaluated.clear()
    large = sweep(model(), images, GRID, out=out, dtype="float32", reuse=small)
    assert large.complete
    assert 0 < len(evaluated) < 14
    same(large, anew(tmp_path / "anew.zarr"))


def test_of_an_adaptive_sweep_what_it_took(tmp_path: Path, evaluated: list[tuple[str, bytes]]) -> None:
    images, early = pictures(400), tmp_path / "early.zarr"
    taken = sweep(model(), images, GRID, out=early, dtype="float32", engine="dedup", half_width=40)
    assert 0 < taken.n_images < 400
    evaluated.clear()
    large = sweep(model(), images, GRID, out=tmp_path / "all.zarr", dtype="float32", engine="dedup", reuse=early)
    n = taken.n_images // 3 * 3  # whole chunks of the larger one
    assert len(evaluated) == 400 - n
    for name in ("prediction", "loss", "confidence", "index"):
        np.testing.assert_array_equal(large.dataset[name][: taken.n_images], taken.dataset[name], err_msg=name)


def test_the_plan_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, small = pictures(), tmp_path / "small.zarr"
    first = sweep(model(), images.subset(np.array(FEWER)), GRID, out=small, dtype="float64")

    def measured(*_: Any, **__: Any) -> Plan:
        raise AssertionError("a plan was measured")

    monkeypatch.setattr(runner, "make_plan", measured)
    assert sweep(model(), images, GRID, out=tmp_path / "l.zarr", reuse=small).header.plan == first.header.plan


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": model(seed=1)}, "another model"),
        ({"fill": "mean"}, "another fill"),
        ({"grid": ShiftGrid((2, 2))}, "another max-shift"),
        ({"dtype": "float64"}, "another dtype"),
        ({"images": pictures(seed=1)}, "other images"),
        ({"images": pictures().subset(np.arange(5))}, "not among the 5 asked for"),
    ],
)
def test_nothing_is_mixed(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    small, out = tmp_path / "small.zarr", tmp_path / "large.zarr"
    sweep(model(), pictures().subset(np.array(FEWER)), GRID, out=small, dtype="float32")
    asked: dict[str, Any] = {"model": model(), "images": pictures(), "grid": GRID, "dtype": "float32"} | changes
    with pytest.raises(StoreError, match=why) as error:
        sweep(out=out, reuse=small, **asked)
    assert "small.zarr" in str(error.value)
    assert not out.exists()


def test_what_cannot_be_reused_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    with pytest.raises(StoreError, match="no sweep at"):
        sweep(model(), pictures(), GRID, out=out, reuse=tmp_path / "nothing.zarr")
    with pytest.raises(InputError, match="is the sweep that is written"):
        sweep(model(), pictures(), GRID, out=out, reuse=out)
    with pytest.raises(InputError, match="leave reuse out"):
        sweep(model(), pictures(), GRID, out=out, reuse=tmp_path / "nothing.zarr", half_width=5)
    assert not out.exists()
    assert not list(tmp_path.iterdir())


def test_a_sweep_that_goes_on_keeps_its_plan(tmp_path: Path) -> None:
    images, small, out = pictures(), tmp_path / "small.zarr", tmp_path / "large.zarr"
    sweep(model(), images.subset(np.array(FEWER)), GRID, out=small, dtype="float32")
    sweep(model(), images.subset(np.array(ORDER), named=True), GRID, out=out, dtype="float64")
    with pytest.raises(StoreError, match="another plan"):
        sweep(model(), images, GRID, out=out, reuse=small)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (attributes, lambda: {"torch": "0.1"}, "small.zarr was begun with torch"),
        (door, lambda device: "cpu of another kind", "the stored plan was made for"),
    ],
)
def test_what_would_move_the_last_bits_is_refused(
    tmp_path: Path, place: ModuleType, value: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, out = tmp_path / "small.zarr", tmp_path / "large.zarr"
    sweep(model(), pictures().subset(np.array(FEWER)), GRID, out=small, dtype="float32")
    monkeypatch.setattr(place, "software_versions" if place is attributes else "machine_kind", value)
    with pytest.raises(StoreError, match=why):
        sweep(model(), pictures(), GRID, out=out, dtype="float32", reuse=small)
    assert not out.exists()
