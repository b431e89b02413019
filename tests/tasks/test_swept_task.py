"""A task that is none of ours, swept for real: held against a plain loop in float64, on every path and in every way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.data.imageset import ImageSet
from shiftlens.devices import machine_kind
from shiftlens.engine import device_windows, direct, tuning
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.evaluators import prepare
from shiftlens.engine.on_device import DeviceEvaluator
from shiftlens.engine.passes import with_passes
from shiftlens.engine.plan import Plan
from shiftlens.errors import InputError, ModelOutputError, StoreError
from shiftlens.models.loading import Model, wrap
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.storage.checksums import seal_of, state_seal_of
from shiftlens.sweeping import run_sweep, sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.header import read_header
from shiftlens.sweeps.integrity import verify_sweep
from shiftlens.sweeps.layout import KNOWN, state_of
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.task import OBJECT, State, Task, Variable, beyond
from sweeps import small_sweeps as small

H, W, N = 8, 10, 8
GRID = ShiftGrid((8, 12), 4)
NEAR = 0.25


class Drift(Task):
    """How far the outputs drift from those of the unshifted image; of each object, one of the outputs."""

    name = "drift"
    variables = (
        Variable("near", "bool", "share", "higher", "share", "outputs nearly as without a shift", bounds=(0, 1)),
        Variable("drift", "float32", "px", "lower", "number", bounds=(0, np.inf), optional=True),
        Variable("score", "float32", "px", "lower", "number", dims=OBJECT),
        Variable("by_place", "float64", long_name="windows that are near, by where they were moved", dims=("y", "x")),
    )
    needs_reference = True
    needs_shifts = True

    def n_objects(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        return targets

    def prepare(self, reference: Tensor, targets: Tensor) -> State:
        there = torch.arange(int(targets.max()), device=targets.device) < targets[:, None]
        return {"reference": reference, "there": there}

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
        assert shifts is not None
        off = (outputs - state["reference"]).abs()
        near, there = off.amax(1) < NEAR, state["there"]
        by_place = torch.zeros(H * W, dtype=torch.float64, device=outputs.device)
        by_place.index_add_(0, shifts[:, 1] % H * W + shifts[:, 0] % W, near.double())
        return {
            "near": near,
            "drift": torch.where(shifts[:, 0] == GRID.max_x, torch.nan, off.sum(1)),
            "score": torch.where(there, off[:, : there.shape[1]] + shifts[:, :1], 99.0),
            "by_place": by_place.reshape(H, W),
        }


DRIFT = Drift()


class InMetres(Drift):
    variables = tuple(replace(each, unit="m") if each.name == "drift" else each for each in Drift.variables)


class Net(nn.Module):
    """Four numbers of an image [1, 8, 10], which depend on where its content is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(4 * 4 * 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.pool(self.conv(x).relu()).flatten(1))
        return scores


def model_of(net: nn.Module | None = None) -> Model:
    return wrap(net or Net(), mean=(0.5,), std=(0.25,), size=(H, W))


def images(n: int = N) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 1, H, W), dtype=np.uint8)
    pixels[:, :, :4] = 0  # so that some windows are blank
    return ImageSet(pixels, np.arange(n) % 4, class_names=list("abcd"))


def moved(image: NDArray[np.float64], dy: int, dx: int, control: str | None, fill: str) -> NDArray[np.float64]:
    out = np.full_like(image, -2.0) if fill == "black" else np.empty_like(image)
    for y in range(H):
        for x in range(W):
            if control == "occlusion":
                if 0 <= y + dy < H and 0 <= x + dx < W:
                    out[:, y, x] = image[:, y, x]
            elif fill == "edge":
                out[:, y, x] = image[:, np.clip(y - dy, 0, H - 1), np.clip(x - dx, 0, W - 1)]
            elif 0 <= y - dy < H and 0 <= x - dx < W:
                out[:, y, x] = image[:, y - dy, x - dx]
    return out


def by_hand(data: ImageSet, control: str | None = None, fill: str = "black") -> dict[str, NDArray[Any]]:
    """A plain loop over images and shifts, in double precision."""
    net = Net().double().eval()

    def answer(window: NDArray[np.float64]) -> NDArray[np.float64]:
        with torch.no_grad():
            return np.asarray(net(torch.from_numpy(window[None]))[0])

    shape, most = GRID.shape, int(data.labels.max())
    found: dict[str, NDArray[Any]] = {
        "near": np.zeros((len(data), *shape), bool),
        "drift": np.zeros((len(data), *shape)),
        "score": np.full((len(data), most, *shape), np.nan),
        "by_place": np.zeros((H, W)),
    }
    for k in range(len(data)):
        image = (data.batch([k])[0] / 255.0 - 0.5) / 0.25
        image = image[:, :, ::-1].copy() if control == "flip" else image
        reference = answer(image)
        for (iy, dy), (ix, dx) in ((y, x) for y in enumerate(GRID.dys) for x in enumerate(GRID.dxs)):
            off = np.abs(answer(moved(image, dy, dx, control, fill)) - reference)
            told_dy, told_dx = (0, 0) if control == "occlusion" else (dy, dx)
            found["near"][k, iy, ix] = off.max() < NEAR
            found["drift"][k, iy, ix] = np.nan if told_dx == GRID.max_x else off.sum()
            found["score"][k, : data.labels[k], iy, ix] = off[: data.labels[k]] + told_dx
            found["by_place"][told_dy % H, told_dx % W] += off.max() < NEAR
    return found


def assert_right(found: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]], atol: float = 1e-4) -> None:
    assert 0 < right["near"].mean() < 1, "or this would show nothing"
    for name in ("near", "by_place"):
        np.testing.assert_array_equal(found[name], right[name], err_msg=name)
    for name in ("drift", "score"):
        np.testing.assert_allclose(found[name], right[name], rtol=0, atol=atol, err_msg=name)


def stored(result: Sweep) -> dict[str, NDArray[Any]]:
    values = {name: result.dataset[name].values for name in ("near", "drift", "score", "by_place")}
    return values | {"by_place": values["by_place"].sum(axis=0)}


def swept(path: Path, data: ImageSet | None = None, net: nn.Module | None = None, **options: Any) -> Sweep:
    options = {"engine": "direct", "dtype": "float32", "device": "cpu", "task": DRIFT} | options
    return sweep(model_of(net), images() if data is None else data, GRID, out=path, **options)


@pytest.fixture
def chunks_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def set_size(n_images: int) -> None:
        monkeypatch.setattr(request, "CHUNK_EVALUATIONS", n_images * GRID.n_shifts)
        monkeypatch.setattr(request, "images_of_a_sum", lambda _: n_images)

    return set_size


@pytest.mark.parametrize("engine", ["direct", "dedup"])
@pytest.mark.parametrize("fill", ["black", "edge"])
def test_a_sweep_has_the_numbers_of_a_plain_loop(
    tmp_path: Path, engine: str, fill: str, chunks_of: Callable[[int], None]
) -> None:
    chunks_of(3)
    result = swept(tmp_path / "s.zarr", engine=engine, fill=fill, batch_size=7)
    right = by_hand(images(), fill=fill)
    assert_right(stored(result), right)
    assert result.header.task.name == "drift"
    assert result.dataset["n_objects"].values.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert np.array_equal(np.isnan(result.dataset["score"].values), np.isnan(right["score"]))
    np.testing.assert_array_equal(result.mean_of("near"), right["near"].mean(axis=0))
    np.testing.assert_allclose(result.mean_of("drift")[:, :-1], right["drift"].mean(axis=0)[:, :-1], atol=1e-5)
    assert np.isnan(result.mean_of("drift")[:, -1]).all(), "no window has a value there"
    with pytest.raises(InputError, match="unknown metric 'accuracy'; expected one of near, drift"):
        result.accuracy  # noqa: B018
    assert verify_sweep(tmp_path / "s.zarr").ok


@pytest.mark.parametrize("engine", ["direct", "dedup"])
def test_controls_have_the_numbers_of_a_plain_loop(tmp_path: Path, engine: str) -> None:
    result = swept(tmp_path / "s.zarr", engine=engine, controls=("occlusion", "flip", "canvas"))
    for control in ("occlusion", "flip"):
        assert_right(stored(result.control(control)), by_hand(images(), control))
    centre = tuple(n // 2 for n in GRID.shape)
    unshifted = result.control("canvas").dataset["drift"].values[:, centre[0], centre[1]]
    np.testing.assert_allclose(unshifted, 0, atol=1e-5)


@pytest.mark.parametrize("engine", ["direct", "dedup"])
def test_chunks_change_no_number(tmp_path: Path, chunks_of: Callable[[int], None], engine: str) -> None:
    chunks_of(N)
    one = stored(swept(tmp_path / "one.zarr", engine=engine))
    chunks_of(4)
    two = swept(tmp_path / "two.zarr", engine=engine)
    assert two.dataset.sizes["chunk"] == 2
    assert_right(stored(two), one, atol=1e-6)


@pytest.mark.parametrize("control", [None, "occlusion", "flip"])
@pytest.mark.parametrize(("batch_size", "cut"), [(1, 0), (6, 0), (64, 0), (6, 1), (64, 1)])
def test_the_path_of_a_gpu_has_the_same_numbers(control: str | None, batch_size: int, cut: int) -> None:
    data, black = images(5), Fill.parse("black")
    here, engine = machine_kind(torch.device("cpu")), "dedup" if cut else "direct"
    plan = Plan(engine, "float32", batch_size, False, False, False, "cpu", here, cut)
    run = with_passes(DeviceEvaluator(model_of(), plan, GRID, black), model_of())
    right = by_hand(data, control)

    def check(n: int) -> None:
        found, most = run(data.batch(slice(0, n)), data.labels[:n], control, DRIFT), int(data.labels[:n].max())
        assert found["score"].shape == (n, most, *GRID.shape)
        found["score"][beyond(data.labels[:n], most)] = np.nan  # until it is stored, nobody looks at it
        part = {name: values[:n] for name, values in right.items()} | {"score": right["score"][:n, :most]}
        assert_right(found, part | {"by_place": right["by_place"] if n == len(data) else found["by_place"]})

    # Twice over the same buffers; then with other numbers of objects, over others.
    for n in (5, 5, 2):
        check(n)


@pytest.mark.parametrize("path", [DirectEvaluator, DeviceEvaluator])
def test_a_few_images_at_a_time_have_the_same_numbers(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the canvases of a whole chunk would not fit the memory."""
    monkeypatch.setattr(direct, "MAX_CANVAS", 2 * 24 * 34)
    monkeypatch.setattr(device_windows, "MAX_NUMBERS", 2 * 24 * 30)
    plan = Plan("direct", "float32", 64, False, False, False, "cpu", machine_kind(torch.device("cpu")))
    data = images()
    found = path(model_of(), plan, GRID, Fill.parse("black"))(data.batch(slice(0, N)), data.labels, task=DRIFT)
    found["score"][beyond(data.labels, 3)] = np.nan
    assert_right(found, by_hand(data))


def test_sums_have_the_same_bits_whatever_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tenths(Drift):
        """Sums that would show another order of the batches."""

        def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
            rows = super().outcome(outputs, shifts, state)
            return rows | {"by_place": torch.full((H, W), float(outputs.sum()), dtype=torch.float64)}

    plan = Plan("direct", "float32", 16, False, False, False, "cpu", machine_kind(torch.device("cpu")))
    data, found = images(), []
    original = direct.replicas
    for n in (1, 3):
        monkeypatch.setattr(direct, "replicas", lambda net, _, n=n: original(net, n))
        run = DirectEvaluator(model_of(), plan, GRID, Fill.parse("edge"))
        found.append(run(data.batch(slice(0, N)), data.labels, task=Tenths()))
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_an_interrupted_sweep_is_resumed_to_the_same_bytes(tmp_path: Path, chunks_of: Callable[[int], None]) -> None:
    chunks_of(3)
    whole = swept(tmp_path / "whole.zarr", controls=("flip",))

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path / "part.zarr", controls=("flip",), progress=stop)
    part = open_sweep(tmp_path / "part.zarr", partial=True)
    assert 0 < part.n_written <= N
    with pytest.raises(StoreError, match="another task: drift, this run has classification; choose another path"):
        swept(tmp_path / "part.zarr", task="classification")
    with pytest.raises(
        StoreError, match=r"with other variables of the task drift: .*'unit': 'px'.*, this run has .*'m'"
    ):
        swept(tmp_path / "part.zarr", task=InMetres())
    again = swept(tmp_path / "part.zarr", controls=("flip",))
    assert small.tree(again.path) == small.tree(whole.path)


class Softened(Drift):
    def __init__(self, by: float) -> None:
        self.by = by

    @property
    def settings(self) -> dict[str, Any]:
        return {"by": self.by}


def test_a_task_is_resumed_with_its_own_settings_only(tmp_path: Path) -> None:
    first = swept(tmp_path / "s.zarr", task=Softened(0.5))
    assert first.header.task.settings == {"by": 0.5}
    assert swept(tmp_path / "s.zarr", task=Softened(0.5)).complete
    for other, shown in ((Softened(1), r"\{'by': 1\}"), (DRIFT, r"\{\}")):
        with pytest.raises(StoreError, match=r"drift with other settings: \{'by': 0.5\}, this run has " + shown):
            swept(tmp_path / "s.zarr", task=other)


def test_a_torn_chunk_is_computed_again(tmp_path: Path, chunks_of: Callable[[int], None]) -> None:
    chunks_of(3)
    result = swept(tmp_path / "s.zarr")
    before = small.tree(result.path)
    for name in ("score/c/1/0/0/0", "by_place/c/0/0/0", "n_objects/c/0"):
        (result.path / name).unlink()
        if name.startswith("n_objects"):
            with pytest.raises(StoreError, match="damaged"):
                open_sweep(result.path)
        else:
            assert [fault.what for fault in verify_sweep(result.path).faults] == ["torn"]
        swept(result.path)
        assert small.tree(result.path) == before


@pytest.mark.parametrize("engine", ["direct", "dedup"])
def test_a_larger_sweep_reuses_the_chunks_of_a_smaller_one(
    tmp_path: Path, engine: str, chunks_of: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks_of(2)
    swept(tmp_path / "few.zarr", images().subset(np.array([0, 1, 2, 3])), engine=engine)
    plain = swept(tmp_path / "plain.zarr", engine=engine)
    computed = small.evaluated(monkeypatch)
    reused = swept(tmp_path / "reused.zarr", reuse=tmp_path / "few.zarr", engine=engine)
    assert len(computed) == N - 4
    assert_right(stored(reused), stored(plain), atol=1e-6)
    if engine == "direct":  # how a net is cut in two is measured, and stored
        assert small.tree(reused.path) == small.tree(plain.path)


def test_images_of_more_objects_widen_what_is_reused(tmp_path: Path, chunks_of: Callable[[int], None]) -> None:
    chunks_of(1)
    swept(tmp_path / "few.zarr", images().subset(np.array([1, 2])))
    reused = swept(tmp_path / "reused.zarr", reuse=tmp_path / "few.zarr")
    order = np.array([1, 2, 0, 3, 4, 5, 6, 7])
    assert_right(stored(reused), by_hand(images().subset(order)))


def test_a_share_stops_an_adaptive_sweep(tmp_path: Path) -> None:
    said: list[str] = []
    result, stats = run_sweep(
        model_of(), images(400), GRID, out=tmp_path / "s.zarr", half_width=20, task=DRIFT, announce=said.append
    )
    assert 0 < result.n_images < 400
    assert stats.metric == "near"
    assert " images every near is known to ±" in stats.known_lines()[0]
    assert any("images every near is known to ±" in line for line in said)
    np.testing.assert_array_equal(result.dataset["n_objects"], images(400).labels[result.dataset["index"]])
    assert result.dataset["by_place"].values.sum() == result.dataset["near"].values.sum()


def test_objects_are_read_one_after_the_other(tmp_path: Path, chunks_of: Callable[[int], None]) -> None:
    chunks_of(3)
    result, right = swept(tmp_path / "s.zarr"), by_hand(images())["score"]
    found = result.objects("score")
    assert found.dims == ("object", "dy", "dx")
    assert found["image"].values.tolist() == [1, 2, 2, 3, 3, 3, 5, 6, 6, 7, 7, 7]
    flat = np.concatenate([right[k, : k % 4] for k in range(N)])
    np.testing.assert_allclose(found, flat, atol=1e-4)
    some = result.objects("score", slice(2, 4))
    assert some["image"].values.tolist() == [2, 2, 3, 3, 3]
    np.testing.assert_array_equal(some, found[1:6])
    with pytest.raises(InputError, match="unknown variable of objects 'drift'"):
        result.objects("drift")


def test_classification_costs_no_other_forward_pass(tmp_path: Path) -> None:
    class Counts(Net):
        seen = 0

        def forward(self, x: Tensor) -> Tensor:
            Counts.seen += len(x)
            return super().forward(x)

    plan = Plan("direct", "float32", 16, False, False, False, "cpu", machine_kind(torch.device("cpu")))
    data, counts = images(3), {}
    for task in (CLASSIFICATION, DRIFT):
        model, Counts.seen = model_of(Counts()), 0
        prepare(model, plan, GRID, Fill.parse("edge"))(data.batch(slice(0, 3)), data.labels, task=task)
        counts[task.name] = Counts.seen
    one_again = 1
    assert counts["classification"] == 3 * GRID.n_shifts + one_again
    assert counts["drift"] == 3 * GRID.n_shifts + 3 + 2 * one_again


def test_auto_takes_float32_where_no_margin_tells_near_ties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(tuning, "LONG_MACS", 0)
    said: list[str] = []
    for _ in range(2):
        result, stats = run_sweep(
            model_of(), images(), GRID, out=tmp_path / "s.zarr", device="cpu", task=DRIFT, announce=said.append
        )
    assert (stats.dtype, result.header.plan.settle) == ("float32", 0)
    assert len([line for line in said if "drift has no margins" in line]) == 1


def test_numbers_that_change_from_call_to_call_are_refused(tmp_path: Path) -> None:
    class Wanders(Net):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Wanders.calls += 1
            return super().forward(x) + (0.5 if Wanders.calls > 120 else 0.0)

    with pytest.raises(ModelOutputError, match=r"the sweep found (drift|score) .*, the module alone (drift|score) "):
        swept(tmp_path / "s.zarr", net=Wanders(), batch_size=4, data=images(40))


class Wrong(Drift):
    def __init__(self, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
        self.change = change

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
        return self.change(super().outcome(outputs, shifts, state))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows | {"score": rows["score"] / 0}, "the score is not finite at image 1, 2, 3"),
        (lambda rows: rows | {"drift": rows["drift"] / 0}, "the drift is not finite at image 0, 1"),
        (lambda rows: rows | {"by_place": rows["by_place"] * torch.nan}, "the by_place is not finite somewhere"),
        (lambda rows: rows | {"more": rows["near"]}, r"expected rows .* of task drift, got .*'more'"),
        (lambda rows: {"near": rows["near"]}, r"expected rows .*'drift'.* of task drift, got \{'near'"),
        (
            lambda rows: rows | {"drift": rows["drift"].mean()},
            r"expected rows .*'drift': \(\d+,\).*, got .*'drift': \(\)",
        ),
        (lambda rows: rows | {"score": rows["score"][:, :1]}, r"expected rows .*'score': \(\d+, 3\).*, got .*, 1\)"),
        (lambda rows: rows | {"by_place": rows["by_place"][0]}, r"expected rows .*\(8, 10\).*, got .*: \(10,\)"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused(
    tmp_path: Path, chunks_of: Callable[[int], None], change: Any, why: str
) -> None:
    chunks_of(N)
    with pytest.raises(ModelOutputError, match=why):
        swept(tmp_path / "s.zarr", task=Wrong(change))


class Nameless(Drift):
    name = "classification"


class Uncounted(Drift):
    def n_objects(self, targets: NDArray[np.int64]) -> NDArray[np.int64]:
        return targets - 1


class Plain(Drift):
    name = "plain"
    variables = (Variable("class_of", "uint8"),)


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("classificaton", "unknown task 'classificaton'; did you mean 'classification'"),
        (3, "expected a task or the name of one"),
        (Nameless(), "classification is the name of another task"),
        (Plain(), "the task plain has no metric"),
        (Uncounted(), r"drift must tell how many objects each of 8 images has, got array\(\[-1, "),
    ],
)
def test_what_is_no_task_is_refused_before_anything_is_written(tmp_path: Path, task: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        swept(tmp_path / "s.zarr", task=task)
    assert not list(tmp_path.iterdir())


def test_a_control_of_other_numbers_of_objects_is_refused(tmp_path: Path) -> None:
    data = images()
    for name, labels in (("a", data.labels), ("b", data.labels[::-1].copy())):
        swept(tmp_path / name, ImageSet(data.batch(slice(0, N)), labels), controls=("flip",))
    shutil.rmtree(tmp_path / "a" / "control_flip")
    shutil.copytree(tmp_path / "b" / "control_flip", tmp_path / "a" / "control_flip")
    with pytest.raises(StoreError, match=r"its .*n_objects are of another"):
        open_sweep(tmp_path / "a").control("flip")


def test_a_sum_over_a_chunk_is_not_that_of_a_part_of_it(tmp_path: Path, chunks_of: Callable[[int], None]) -> None:
    chunks_of(4)
    swept(tmp_path / "few.zarr", images().subset(np.array([0, 1, 2, 3])), engine="dedup")
    chunks_of(2)
    reused = swept(tmp_path / "reused.zarr", reuse=tmp_path / "few.zarr", engine="dedup")
    assert_right(stored(reused), by_hand(images()))


def test_numbers_of_objects_are_under_the_seal(tmp_path: Path) -> None:
    path = swept(tmp_path / "s.zarr").path
    array = zarr.open_array(str(path), path="n_objects", mode="r+")
    counts = np.asarray(array[:])
    array[:] = counts[::-1]
    with pytest.raises(StoreError, match="are not those it was made with"):
        open_sweep(path)
    for wrong in (counts + 1, counts - 1):  # by who knows how the seal is made
        array[:] = wrong
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        known = [zarr.open_array(str(path), path=name, mode="r")[:] for name in (*KNOWN, "n_objects")]
        seal = seal_of({name: attributes[name] for name in read_header(path).to_attributes()}, *known)
        state = state_seal_of(seal, state_of(attributes))
        small.edit(path, lambda a, seals={"seal": seal, "state_seal": state}: a.update(seals))
        with pytest.raises(StoreError, match="expected up to 3 objects an image, got"):
            open_sweep(path)
