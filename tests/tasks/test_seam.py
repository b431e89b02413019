"""A task that is none of ours: its variables are stored, checked, merged and averaged as they are described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from shiftlens.analysis.arrays import from_sweep
from shiftlens.errors import InputError, StoreError
from shiftlens.sweeps.integrity import verify_sweep
from shiftlens.sweeps.looks import Schedule
from shiftlens.sweeps.sweep_result import open_sweep
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.stored_form import task_from_table, task_to_table
from shiftlens.tasks.task import OBJECT, Stored, Variable
from sweeps import small_sweeps as small

ERROR = Variable("error", "float32", "px", "lower", "number", "distance", bounds=(0, np.inf), optional=True)
FOUND = Variable("found", "bool", "share", "higher", "share", "found at all", bounds=(0, 1))
PLACE = Variable("by_place", "float64", "px", long_name="summed distance by place", dims=("y", "x"))
TASK = Stored((ERROR, FOUND, PLACE), "finding")
N = 7


def rows(images: slice) -> dict[str, np.ndarray]:
    """Numbers of some images; whole numbers, so that sums do not depend on their order."""
    random = np.random.default_rng(0)
    error = random.integers(0, 50, (N, 3, 5)).astype(np.float32)
    error[random.random(error.shape) < 0.2] = np.nan
    error[:, 0, 0] = np.nan
    place = random.integers(0, 9, (N, 6, 7)).astype(np.float64)
    found = random.random(error.shape) < 0.5
    return {"error": error[images], "found": found[images], "by_place": place[images].sum(axis=0)}


def written(path: Path, chunk_size: int = 3, chunks: tuple[int, ...] | None = None) -> Path:
    store = small.create(path, N, chunk_size, task=TASK)
    group = store.main
    for chunk in range(group.n_chunks) if chunks is None else chunks:
        group.write(chunk, rows(group.span(chunk)))
    if chunks is None:
        group.finish()
    return path


@pytest.fixture
def done(tmp_path: Path) -> Path:
    return written(tmp_path / "s.zarr")


def test_the_file_holds_what_the_task_stores(done: Path) -> None:
    sweep, right = open_sweep(done), rows(slice(None))
    assert sweep.header.task == TASK
    assert set(sweep.dataset.data_vars) >= {"error", "found", "by_place", "mean_error", "mean_found", "checksum"}
    assert not {"prediction", "loss", "accuracy", "mean_loss"} & set(sweep.dataset.variables)
    assert np.array_equal(sweep.dataset["error"], right["error"], equal_nan=True)
    assert np.array_equal(sweep.dataset["found"], right["found"])
    assert sweep.dataset["error"].attrs == {"long_name": "distance", "units": "px"}
    assert sweep.dataset["by_place"].dims == ("chunk", "y", "x")
    assert verify_sweep(done).ok


def test_means_leave_out_windows_without_a_value(done: Path) -> None:
    sweep, right = open_sweep(done), rows(slice(None))
    found, error = sweep.dataset["mean_found"].values, sweep.dataset["mean_error"].values
    for iy, ix in np.ndindex(3, 5):
        there = [v for v in right["error"][:, iy, ix].tolist() if v == v]
        assert found[iy, ix] == sum(right["found"][:, iy, ix].tolist()) / N
        assert np.isnan(error[iy, ix]) if not there else error[iy, ix] == pytest.approx(sum(there) / len(there))
    assert np.isnan(error[0, 0])


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7])
def test_an_accumulator_is_the_same_over_chunk_sizes(tmp_path: Path, chunk_size: int) -> None:
    sweep = open_sweep(written(tmp_path / "s.zarr", chunk_size))
    assert np.array_equal(sweep.dataset["by_place"].sum("chunk"), rows(slice(None))["by_place"])


def test_a_resumed_sweep_has_the_same_bytes(tmp_path: Path, done: Path) -> None:
    part = written(tmp_path / "part.zarr", chunks=(2,))
    partial = open_sweep(part, partial=True)
    assert partial.written.tolist() == [False] * 6 + [True]
    assert np.isneginf(partial.dataset["error"].values[:6]).all()
    group = small.SweepStore(part, writable=True).main
    for chunk in (0, 1):
        group.write(chunk, rows(group.span(chunk)))
    group.finish()
    assert small.tree(part) == small.tree(done)


@pytest.mark.parametrize("name", ["error", "found", "by_place"])
def test_other_numbers_than_written_are_told(done: Path, name: str) -> None:
    array = zarr.open_array(str(done), path=name, mode="r+")
    values = array[:]
    values[1] = 1 - np.nan_to_num(values[1])
    array[:] = values
    faults = verify_sweep(done).faults
    assert ("wrong", 0 if name != "by_place" else 1) in [(each.what, each.chunk) for each in faults]


@pytest.mark.parametrize("name", ["error", "found", "by_place"])
def test_a_chunk_that_is_gone_is_told(done: Path, name: str) -> None:
    inner = done / name / "c" / "1" / "0" / "0"
    inner.unlink()
    assert [(each.what, each.chunk) for each in verify_sweep(done).faults] == [("torn", 1)]
    with pytest.raises(StoreError, match="chunk 1"):
        open_sweep(done).dataset[name].load()


def test_a_chunk_without_one_of_its_variables_is_refused(tmp_path: Path) -> None:
    group = small.create(tmp_path / "s.zarr", N, 3, task=TASK).main
    lawful = rows(slice(0, 3))
    with pytest.raises(ValueError, match="expected by_place of"):
        group.write(0, lawful | {"by_place": lawful["by_place"][:2]})
    with pytest.raises(ValueError, match="by_place"):
        group.write(0, {name: values for name, values in lawful.items() if name != "by_place"})


def test_a_sweep_of_another_task_is_refused(done: Path) -> None:
    with pytest.raises(StoreError, match="of another task: finding, this run has classification"):
        small.HEADER.refuse_other(open_sweep(done).header, "s.zarr")


def test_an_analysis_takes_the_task_from_the_file(done: Path) -> None:
    arrays = from_sweep(open_sweep(done))
    assert [each.name for each in arrays.metrics] == ["error", "found"]
    assert np.array_equal(arrays.values("error")[:], rows(slice(None))["error"].reshape(N, 15), equal_nan=True)
    assert np.array_equal(arrays.values("found")[:], rows(slice(None))["found"].reshape(N, 15))


@pytest.mark.parametrize("task", [TASK, Stored((ERROR,), "far")])
def test_an_analysis_of_a_part_has_the_images_that_are_written(tmp_path: Path, task: Stored) -> None:
    group = small.create(tmp_path / "s.zarr", N, 3, task=task).main
    names = {each.name for each in task.variables}
    group.write(1, {name: values for name, values in rows(slice(3, 6)).items() if name in names})
    arrays = from_sweep(open_sweep(tmp_path / "s.zarr", partial=True))
    assert arrays.positions.tolist() == [30, 40, 50]
    assert np.array_equal(arrays.values("error")[:], rows(slice(3, 6))["error"].reshape(3, 15), equal_nan=True)


@pytest.mark.parametrize("task", [CLASSIFICATION, TASK])
def test_a_task_survives_its_table(task: Stored) -> None:
    assert task_from_table(task_to_table(task)) == task


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"dtype": "object"},
        {"dtype": "zap"},
        {"better": "wider"},
        {"kind": "sum"},
        {"bounds": [1, 0]},
        {"bounds": None},
        {"dims": ["image", "../dx", "dx"]},
        {"optional": 1},
        {"other": 1},
    ],
)
def test_a_strange_variable_is_refused(change: dict[str, object]) -> None:
    table = task_to_table(Stored((ERROR,), "finding"))
    table["variables"][0] |= change
    with pytest.raises(InputError, match="variable"):
        task_from_table(table)


@pytest.mark.parametrize("name", ["label", "dx", "n_objects", "checksum", "mean_error"])
def test_a_variable_of_a_name_that_the_file_needs_is_refused(tmp_path: Path, name: str) -> None:
    score = Variable("score", "float16", "share", "higher", "number", dims=OBJECT)
    with pytest.raises(InputError, match=f"variables of the task finding need other names than {name}"):
        small.create(tmp_path / "s.zarr", task=Stored((ERROR, score, Variable(name, "float32")), "finding"))
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(("task", "first"), [(TASK, "mean_error"), (Stored((FOUND, ERROR), "f"), "mean_found")])
def test_the_first_metric_stops_an_adaptive_sweep(task: Stored, first: str, tmp_path: Path) -> None:
    store = small.create(tmp_path / "s.zarr", N, 3, task=task, schedule=Schedule.declared(N, 3))
    assert store.main.header.schedule is not None
    assert next(iter(store.main.means_of)) == first


def test_an_accumulator_too_large_for_the_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="by_place of at most"):
        small.create(tmp_path / "s.zarr", task=TASK, image_size=(10**6, 10**6))
