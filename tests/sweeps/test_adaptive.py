"""Adaptive sweeps: where they stop, that they stop there whatever happens on the way, and who knows about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_sweeps as small
import torch
import xarray as xr
from torch import Tensor, nn

import shiftlens
from shiftlens.analysis.arrays import from_sweep
from shiftlens.data.imageset import ImageSet
from shiftlens.data.selection import stratified_order
from shiftlens.devices import machine_kind
from shiftlens.engine.plan import Plan
from shiftlens.errors import InputError, ModelOutputError, StoreError
from shiftlens.models.wrapping import Model, wrap
from shiftlens.narrative.comparing import compare
from shiftlens.narrative.findings import findings
from shiftlens.narrative.setting import Setting
from shiftlens.sequential import RunningBand
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import run_sweep
from shiftlens.sweeps import runner
from shiftlens.sweeps.integrity import verify_sweep
from shiftlens.sweeps.looks import Schedule, short_chunk
from shiftlens.sweeps.sweep_result import Sweep, open_sweep

GRID = ShiftGrid((1, 2))
N = 500
CHUNK = 25
LOOKS = (200, 250, 325, 425, 500)


ON_A_CLUSTER = """
import sys
import test_adaptive as here
for out in sys.argv[1:]:  # the second one on a cluster of its own
    here.swept(here.named_net(), here.picture_set(), out, 5, engine="direct", dtype="float32", cluster="local:2")
"""


class Count:
    """What all nets were shown, kept outside of them: what a net holds is part of its digest, but for `_` names."""

    seen = 0
    _limit = 10**9


class Net(nn.Module):
    """Right for about a third of the pictures; raises beyond so many."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        Count.seen += len(x)
        if Count.seen > Count._limit:
            raise ValueError("no more")
        scores: Tensor = self.head(x.flatten(1))
        return scores


@pytest.fixture(autouse=True)
def one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan("direct", "float32", 64, False, False, False, "cpu", machine_kind(torch.device("cpu")))
    monkeypatch.setattr(runner, "make_plan", lambda *args, **options: plan)


def picture_set() -> ImageSet:
    random = np.random.default_rng(0)
    # Classes in blocks: in the source's own order no beginning would be a fair sample.
    return ImageSet(random.integers(0, 256, (N, 3, 4, 4), dtype=np.uint8), np.sort(random.integers(0, 3, N)))


def named_net() -> Model:
    return wrap(Net(), mean=0.5, std=0.25, name="net")


@pytest.fixture(scope="module")
def pictures() -> ImageSet:
    return picture_set()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(Count, "seen", 0)
    monkeypatch.setattr(Count, "_limit", 10**9)
    return named_net()


def swept(model: Model, pictures: ImageSet, out: str | Path, half_width: float | None, **options: Any) -> Sweep:
    return run_sweep(model, pictures, GRID, out=out, half_width=half_width, announce=lambda text: None, **options)[0]


def width_by_hand(right: Any, labels: Any, index: Any, n: int) -> float:
    band = RunningBand(labels, index, GRID.n_shifts, LOOKS)
    band.add(right[:n].reshape(n, -1))
    return band.look().half_width


def test_it_stops_at_the_first_look_that_is_narrow_enough(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    order = stratified_order(pictures.labels, pictures.index)
    exact = swept(model, pictures.subset(order), tmp_path / "exact.zarr", None)
    right = exact.dataset["prediction"].values == pictures.labels[order][:, None, None]
    by_hand = {n: width_by_hand(right, pictures.labels[order], order, n) for n in LOOKS}
    assert by_hand[500] == 0 < by_hand[425] < by_hand[325] < by_hand[250] < by_hand[200]
    for asked, n in ((by_hand[200], 200), (by_hand[325] + 0.01, 325), (0.1, 500)):
        before = Count.seen
        sweep = swept(model, pictures, tmp_path / f"{asked}.zarr", asked)
        assert sweep.complete
        assert (sweep.n_images, sweep.n_population, sweep.n_written) == (n, N, n)
        assert sweep.half_width == by_hand[n]
        assert sweep.half_width_asked == asked
        assert np.array_equal(sweep.accuracy, right[:n].mean(axis=0))
        assert np.array_equal(sweep.dataset["index"], order[:n])
        assert np.array_equal(sweep.dataset["prediction"], exact.dataset["prediction"][:n])
        again = sweep.n_written // 25 + 1  # one window of each chunk
        assert n * GRID.n_shifts <= Count.seen - before <= n * GRID.n_shifts + again + 10  # and a look at the net
    assert exact.half_width is None
    assert exact.n_population == N


def test_the_file_says_what_was_declared_and_what_was_reached(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    sweep = swept(model, pictures, out, 7)
    raw = xr.open_zarr(out, consolidated=False)
    assert json.loads(raw.attrs["adaptive"]) == {"draws": 2048, "level": 0.95, "looks": list(LOOKS), "seed": 0}
    assert raw.attrs["half_width"] == 7.0
    assert raw.attrs["n_images_used"] == sweep.n_images == 250
    assert raw.attrs["half_width_reached"] == sweep.half_width <= 7
    assert raw.attrs["complete"] is True
    assert raw.sizes["image"] == N
    assert np.isnan(raw["loss"][250:]).all()
    assert not np.isnan(raw["loss"][:250]).any()
    assert (raw["prediction"][250:] == 255).all()
    assert np.isfinite(raw["accuracy"]).all()
    assert verify_sweep(out).ok
    assert verify_sweep(out).n_images == 250
    assert open_sweep(out).dataset.sizes["image"] == 250
    assert not open_sweep(out).dataset["loss"].isnull().any()


def test_interrupted_anywhere_it_ends_in_the_same_bytes(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.zarr", tmp_path / "a.zarr"
    swept(model, pictures, whole, 5, controls=("occlusion",))
    used = open_sweep(whole).n_images
    assert 200 < used < N
    for limit in (900, 2000, 700, 3800):
        Count.seen, Count._limit = 0, limit
        with pytest.raises(ModelOutputError, match="no more"):
            swept(model, pictures, out, 5, controls=("occlusion",))
    Count._limit = 10**9
    assert not open_sweep(out).control("occlusion", partial=True).complete
    swept(model, pictures, out, 5, controls=("occlusion",))
    assert small.tree(out) == small.tree(whole)
    before = Count.seen
    swept(model, pictures, out, 5, controls=("occlusion",))
    assert Count.seen <= before + 10
    assert small.tree(out) == small.tree(whole)


def test_a_narrower_width_goes_on_from_what_is_there(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    swept(model, pictures, out, 9)
    assert open_sweep(out).n_images == 200
    n_before = Count.seen
    swept(model, pictures, out, 5)
    assert Count.seen - n_before <= 125 * (GRID.n_shifts + 1) + 10  # one window of each chunk again
    swept(model, pictures, tmp_path / "straight.zarr", 5)
    assert 200 < open_sweep(out).n_images < N
    assert small.tree(out) == small.tree(tmp_path / "straight.zarr")
    swept(model, pictures, out, 0)
    swept(model, pictures, tmp_path / "all.zarr", 0)
    assert open_sweep(out).half_width == 0
    assert small.tree(out) == small.tree(tmp_path / "all.zarr")


def test_a_wider_width_stays_with_the_narrower_one(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    out, said = tmp_path / "a.zarr", []
    swept(model, pictures, out, 5)
    before, n_seen = small.tree(out), Count.seen
    again = run_sweep(model, pictures, GRID, out=out, half_width=12, announce=said.append)[0]
    assert small.tree(out) == before
    assert Count.seen <= n_seen + 10
    assert again.half_width_asked == 5
    assert any("is measured to ±5 points, narrower than ±12: it stays so" in text for text in said)


def test_what_a_look_shows_is_said_and_progress_ends_where_it_stops(
    model: Model, pictures: ImageSet, tmp_path: Path
) -> None:
    said: list[str] = []
    seen: list[tuple[int, int]] = []
    _, stats = run_sweep(
        model,
        pictures,
        GRID,
        out=tmp_path / "a.zarr",
        half_width=7,
        announce=said.append,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert sum("of 500 images every accuracy is known to ±" in text for text in said) == 2
    assert seen[-1] == (250 * GRID.n_shifts, 250 * GRID.n_shifts)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert stats.to_dict()["n_images"] == 500
    assert stats.to_dict()["n_images_used"] == 250
    assert 0 < stats.to_dict()["half_width"] <= 7
    seen.clear()
    options = {"half_width": 30, "announce": said.append, "progress": lambda done, total: seen.append((done, total))}
    run_sweep(model, pictures, GRID, out=tmp_path / "b.zarr", **options)
    assert seen[0] == (0, N * GRID.n_shifts)
    assert seen[-1] == (200 * GRID.n_shifts, 200 * GRID.n_shifts)  # at the first look, so nothing was expected before


def test_looks_wait_for_chunks_that_come_in_any_order(
    model: Model, pictures: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(model, pictures, tmp_path / "straight.zarr", 5, controls=("flip",))
    n_seen = Count.seen

    class Backwards(runner._Here):
        """Takes all jobs that it can get, like a cluster with many cores, and is done with the last one first."""

        def __call__(self, jobs: Any, tick: Any) -> Any:
            return reversed(list(super().__call__(list(jobs), tick)))

    monkeypatch.setattr(runner, "_Here", Backwards)
    swept(model, pictures, tmp_path / "a.zarr", 5, controls=("flip",))
    assert Count.seen - n_seen <= 2 * (325 * GRID.n_shifts + 325 // 25 + 1) + 10  # one window of each chunk again
    assert small.tree(tmp_path / "a.zarr") == small.tree(tmp_path / "straight.zarr")


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_cluster_stops_at_the_same_look(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    here = swept(model, pictures, tmp_path / "here.zarr", 5)
    # In a process of its own: Ray reads its tokens once in a process, and other tests use clusters without.
    paths = [str(Path(shiftlens.__file__).resolve().parents[1]), str(Path(__file__).parent)]
    subprocess.run(
        [sys.executable, "-c", ON_A_CLUSTER, str(tmp_path / "there.zarr"), str(tmp_path / "again.zarr")],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert small.tree(tmp_path / "there.zarr") == small.tree(tmp_path / "again.zarr")
    there = open_sweep(tmp_path / "there.zarr")
    assert there.n_images == here.n_images == 325
    assert there.half_width == here.half_width
    assert np.array_equal(there.accuracy, here.accuracy)


def test_controls_are_measured_on_the_same_images(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    swept(model, pictures, out, 9)
    sweep = swept(model, pictures, out, 9, controls=("flip",))
    control = sweep.control("flip")
    assert control.complete
    assert np.array_equal(control.dataset["index"], sweep.dataset["index"])
    sweep = swept(model, pictures, out, 5)
    assert sweep.control("flip").n_images == 200 < sweep.n_images
    assert from_sweep(sweep).controls["flip"].n_images == 200
    sweep = swept(model, pictures, out, 5, controls=("flip",))
    assert sweep.control("flip").n_images == sweep.n_images
    straight = tmp_path / "straight.zarr"
    swept(model, pictures, straight, 5, controls=("flip",))
    assert small.tree(out) == small.tree(straight)


def test_a_lost_chunk_is_computed_again_to_the_same_bytes(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    swept(model, pictures, out, 7, controls=("flip",))
    before = small.tree(out)
    (out / "prediction" / "c" / "3" / "0" / "0").unlink()
    (out / "control_flip" / "loss" / "c" / "1" / "0" / "0").write_bytes(b"torn")
    assert not verify_sweep(out).ok
    swept(model, pictures, out, 7, controls=("flip",))
    assert small.tree(out) == before


def test_few_images_are_all_measured(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    sweep = swept(model, pictures.subset(slice(100)), tmp_path / "a.zarr", 30)
    assert sweep.n_images == sweep.n_population == 100
    assert sweep.half_width == 0


def test_an_exact_sweep_and_an_adaptive_one_are_not_mixed(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    exact, adaptive = tmp_path / "exact.zarr", tmp_path / "adaptive.zarr"
    # In the fixed order already, so that nothing but the declaration differs.
    ordered = pictures.subset(stratified_order(pictures.labels, pictures.index))
    swept(model, ordered, exact, None)
    swept(model, ordered, adaptive, 7)
    before = small.tree(adaptive)
    with pytest.raises(StoreError, match=r"begun without a half-width.*leave the half-width out"):
        swept(model, ordered, exact, 7)
    with pytest.raises(StoreError, match="adaptive sweep: expected a half-width to go on"):
        swept(model, ordered, adaptive, None)
    assert small.tree(adaptive) == before


@pytest.mark.parametrize("asked", [-1, 100, float("nan"), float("inf"), True, "6"])
def test_a_half_width_is_a_number_of_points(model: Model, pictures: ImageSet, tmp_path: Path, asked: Any) -> None:
    with pytest.raises(InputError, match=r"half-width in points, from 0 \(all images\) to below 100, got"):
        swept(model, pictures, tmp_path / "a.zarr", asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_images_used", 251), ("n_images_used", "all"), ("n_images_used", None), ("half_width_reached", "x")],
)
def test_forged_ends_are_refused(model: Model, pictures: ImageSet, tmp_path: Path, name: str, value: Any) -> None:
    out = tmp_path / "a.zarr"
    swept(model, pictures, out, 7)
    metadata = json.loads((out / "zarr.json").read_text())
    metadata["attributes"][name] = value
    (out / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=f"{name}"):
        open_sweep(out)


@pytest.mark.parametrize(
    "change",
    [{"looks": []}, {"looks": [5, 5]}, {"looks": "x"}, {"level": 1.0}, {"draws": 100}, {"draws": 2**40}, {"seed": -1}],
)
def test_forged_schedules_are_refused(change: dict[str, Any]) -> None:
    table = json.loads(Schedule((200, 500)).to_json())
    assert Schedule.from_table(table) == Schedule((200, 500))
    with pytest.raises(InputError, match="schedule of looks"):
        Schedule.from_table(table | change)


@pytest.mark.parametrize(
    ("usual", "n_images", "chunk"), [(16, 10_000, 16), (64, 10_000, 64), (233, 359, 17), (5, 3, 1), (100, 1000, 50)]
)
def test_chunks_are_short_enough_to_stop_between(usual: int, n_images: int, chunk: int) -> None:
    assert short_chunk(usual, n_images) == chunk


def test_findings_say_how_many_images_and_how_sure(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    sweep = swept(model, pictures, out, 7, controls=("flip",))
    found = findings(sweep)
    said = found.named("adaptive")
    assert said is not None
    assert said.severity == "info"
    assert said.value == sweep.half_width
    assert said.unit == "points"
    assert "250 of 500 images" in said.statement
    assert f"±{sweep.half_width:.1f} points" in said.statement
    assert "simultaneous 95 % confidence band" in said.statement
    assert said.action is not None
    assert ("--half-width", "3.5") in pairwise(said.action.command)
    assert found.named("incomplete") is None
    assert found.named("control-incomplete") is None
    assert ("--half-width", "7") in pairwise(Setting.of(sweep).sweep_command(control="flip"))
    assert ("--limit", "500") in pairwise(Setting.of(sweep).sweep_command())
    everything = findings(swept(model, pictures, tmp_path / "b.zarr", 0)).named("adaptive")
    assert everything is not None
    assert "All 500 images" in everything.statement
    assert everything.remedy is None


def test_findings_of_an_interrupted_one_are_about_a_fair_sample(
    model: Model, pictures: ImageSet, tmp_path: Path
) -> None:
    Count._limit = 3000
    with pytest.raises(ModelOutputError):
        swept(model, pictures, tmp_path / "a.zarr", 7)
    sweep = open_sweep(tmp_path / "a.zarr", partial=True)
    assert sweep.half_width is None
    found = findings(sweep)
    assert found.named("adaptive") is None
    said = found.named("incomplete")
    assert said is not None
    assert "class-stratified subset" in said.evidence
    assert said.action is not None
    assert ("--half-width", "7") in pairwise(said.action.command)


def test_comparisons_are_on_the_common_images(model: Model, pictures: ImageSet, tmp_path: Path) -> None:
    narrow = swept(model, pictures, tmp_path / "narrow.zarr", 5)
    wide = swept(model, pictures, tmp_path / "wide.zarr", 9)
    exact = swept(model, pictures, tmp_path / "exact.zarr", None)
    everything = swept(model, pictures, tmp_path / "all.zarr", 0)
    made = compare([exact, narrow, wide])
    assert made.n_images == wide.n_images
    assert all(np.array_equal(made.means[0], mean) for mean in made.means)
    said = made.findings.named("adaptive")
    assert said is not None
    assert f"'narrow' {narrow.n_images} of 500 (±{narrow.half_width:.1f} points)" in said.statement
    left = made.findings.named("images-left-out")
    assert left is not None
    assert "class-stratified subset" in left.evidence
    # The same images in another order.
    assert compare([exact, everything]).n_images == N
    other = replace_images(pictures)
    with pytest.raises(InputError, match="the same images"):
        compare([swept(model, other, tmp_path / "other.zarr", 5), narrow])


def replace_images(pictures: ImageSet) -> ImageSet:
    """Other pictures under the same name, with the same labels."""
    return ImageSet(255 - pictures.batch(slice(None)), pictures.labels, name=pictures.name)


def test_a_schedule_that_does_not_fit_the_images_is_damage(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="looks"):
        small.create(tmp_path / "a.zarr", n=300, chunk_size=3, schedule=Schedule((200, 300)))
    made = small.create(tmp_path / "b.zarr", n=300, chunk_size=4, schedule=Schedule((200, 300)))
    assert made.main.header.schedule == replace(Schedule((1,)), looks=(200, 300))
