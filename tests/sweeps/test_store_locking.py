"""One writer at a time, and what a dead writer left."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_sweeps as small
import torch
import xarray as xr
import zarr

from shiftlens.data.imageset import ImageSet
from shiftlens.errors import StoreError
from shiftlens.models.wrapping import Model, wrap
from shiftlens.shifts import ShiftGrid
from shiftlens.storage import locking
from shiftlens.storage.locking import built_beside, clean_strays, output_lock
from shiftlens.sweeping import sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.integrity import verify_sweep
from shiftlens.sweeps.sweep_result import open_sweep
from shiftlens.sweeps.sweep_store import SweepStore

HOLDER = """
import sys, time
from pathlib import Path
from shiftlens.storage.locking import output_lock
with output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_that_the_output_is_busy(tmp_path: Path) -> None:
    with (
        output_lock(tmp_path / "s.zarr"),
        pytest.raises(StoreError, match=r"s\.zarr is busy: another process"),
        output_lock(tmp_path / "s.zarr"),
    ):
        raise AssertionError("two writers")
    with output_lock(tmp_path / "s.zarr"):
        pass


def test_the_lock_goes_by_the_real_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.create(tmp_path / "s.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "s.zarr")
    monkeypatch.chdir(tmp_path)
    with output_lock(Path("link.zarr")), pytest.raises(StoreError, match="busy"), output_lock(tmp_path / "s.zarr"):
        raise AssertionError("two writers")


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "s.zarr")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="busy"), output_lock(tmp_path / "s.zarr"):
            raise AssertionError("two writers")
        holder.kill()
    with output_lock(tmp_path / "s.zarr"):
        pass


def test_an_error_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), output_lock(tmp_path / "s.zarr"):
        raise KeyboardInterrupt
    with output_lock(tmp_path / "s.zarr"):
        pass


def test_parents_are_made_and_a_file_among_them_is_named(tmp_path: Path) -> None:
    with output_lock(tmp_path / "a" / "b" / "s.zarr"):
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write to .*s\.zarr"), output_lock(tmp_path / "file" / "s.zarr"):
        raise AssertionError("a lock below a file")


def test_a_lock_beside_a_sweep_disturbs_no_reader(tmp_path: Path) -> None:
    with output_lock(tmp_path / "s.zarr"):
        small.fill(small.create(tmp_path / "s.zarr", controls=("flip",)))
        assert xr.open_zarr(tmp_path / "s.zarr", consolidated=False).sizes["image"] == 7


def test_strays_of_a_dead_writer_go_and_nothing_else(tmp_path: Path) -> None:
    small.fill(small.create(tmp_path / "s.zarr", controls=("flip",)))
    small.create(tmp_path / "other.zarr")
    kept = small.tree(tmp_path)
    stray = uuid.uuid4().hex
    strays = [
        tmp_path / "s.zarr" / f"zarr.{stray}.partial",
        tmp_path / "s.zarr" / "loss" / "c" / "0" / "0" / f"0.{stray}.partial",
        tmp_path / "s.zarr" / "control_flip" / "loss" / f"zarr.{stray}.partial",
        tmp_path / f".s.zarr.{stray}.building" / "loss" / "zarr.json",
    ]
    others = [
        tmp_path / f"zarr.{stray}.partial",
        tmp_path / "other.zarr" / f"zarr.{stray}.partial",
        tmp_path / "s.zarr" / "notes.partial",
        tmp_path / f".other.zarr.{stray}.building" / "zarr.json",
        tmp_path / ".s.zarr.mine.building" / "file",
    ]
    for file in strays + others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    clean_strays(tmp_path / "s.zarr")
    assert not any(file.exists() for file in strays)
    assert not strays[-1].parent.parent.exists()
    assert small.tree(tmp_path) == kept | {str(f.relative_to(tmp_path)): b"x" for f in others}


def _dies_while_building(target: Path) -> None:
    with built_beside(target, target) as building:
        building.mkdir()
        (building / "half").write_text("x")
        assert not target.exists()
        raise RuntimeError("died")


def test_a_group_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="died"):
        _dies_while_building(tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


# ---- the folder itself


@contextmanager
def mounted_again(place: Path, at: Path) -> Iterator[None]:
    """The folder at a second path: a bind mount where that is permitted; the system's name for it where not."""
    at.mkdir()
    done = subprocess.run(["mount", "--bind", str(place), str(at)], capture_output=True, check=False)
    if done.returncode != 0:
        at.rmdir()
        # Another name for the same device and inode, as far as the lock can see.
        place.rename(at)
        yield
        return
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks no folders")
def test_a_store_that_is_mounted_a_second_time_is_still_one_output(tmp_path: Path) -> None:
    small.create(tmp_path / "s.zarr")
    (tmp_path / "elsewhere").mkdir()
    there = tmp_path / "elsewhere" / "t.zarr"
    with (
        output_lock(tmp_path / "s.zarr"),
        mounted_again(tmp_path / "s.zarr", there),
        pytest.raises(StoreError, match=r"t\.zarr is busy: another process"),
        output_lock(there),
    ):
        raise AssertionError("two writers")
    with output_lock(tmp_path / "s.zarr"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks no folders")
def test_a_store_that_was_just_made_is_locked_too(tmp_path: Path) -> None:
    with output_lock(tmp_path / "s.zarr") as folder:
        small.create(tmp_path / "s.zarr")
        folder.take()
        (tmp_path / "s.zarr").rename(tmp_path / "t.zarr")
        with pytest.raises(StoreError, match=r"t\.zarr is busy"), output_lock(tmp_path / "t.zarr"):
            raise AssertionError("two writers")
    with output_lock(tmp_path / "t.zarr"):
        pass


def test_a_file_system_that_locks_no_folders_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real = fcntl.flock

    def none_for_folders(handle: int, operation: int) -> None:
        if locking.os.path.isdir(f"/proc/self/fd/{handle}") or locking.os.fstat(handle).st_mode & 0o040000:
            raise OSError(9, "Bad file descriptor")
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", none_for_folders)
    small.create(tmp_path / "s.zarr")
    with (
        output_lock(tmp_path / "s.zarr"),
        pytest.raises(StoreError, match="busy"),
        output_lock(tmp_path / "s.zarr"),
    ):
        raise AssertionError("two writers")


# ---- moved or deleted while it is written

GRID = ShiftGrid((1, 2))


def pictures() -> ImageSet:
    random = np.random.default_rng(0)
    return ImageSet(random.integers(0, 256, (7, 1, 6, 8), dtype=np.uint8), np.arange(7) % 3, name="noise")


def model() -> Model:
    return wrap(lambda x: torch.stack([x[:, 0, k].mean(dim=1) for k in range(3)], dim=1), mean=0.4, std=0.25)


def _moved(s: Path) -> None:
    s.rename(s.with_name("t.zarr"))


def _moved_with_its_parent(s: Path) -> None:
    s.parent.rename(s.parent.with_name("later"))


def _replaced(s: Path) -> None:
    _moved(s)
    small.create(s)


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize(
    ("go", "now_at"),
    [
        (_moved, "runs/t.zarr"),
        (_moved_with_its_parent, "later/s.zarr"),
        (_replaced, "runs/t.zarr"),
        (shutil.rmtree, ""),
    ],
)
def test_a_store_that_goes_in_mid_run_leaves_no_stub_and_goes_on_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: Callable[[Path], Any], now_at: str, at: int
) -> None:
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 3 * GRID.n_shifts)
    net, out, n_seen = model(), tmp_path / "runs" / "s.zarr", 0
    options: dict[str, Any] = {"dtype": "float32", "controls": ("flip",)}
    clean = sweep(net, pictures(), GRID, out=tmp_path / "clean.zarr", **options)

    def progress(n_done: int, n_total: int) -> None:
        nonlocal n_seen
        n_seen += 1
        if n_done >= at * 3 * GRID.n_shifts and out.exists() and not (tmp_path / "gone").exists():
            (tmp_path / "gone").touch()
            go(out)

    with pytest.raises(StoreError, match=r"s\.zarr.* is no longer there: it was moved or deleted") as caught:
        sweep(net, pictures(), GRID, out=out, progress=progress, **options)
    assert "\n" not in str(caught.value)
    assert "stays there" not in str(caught.value)
    assert n_seen >= at
    if go is _replaced:
        assert open_sweep(out, partial=True).n_written == 0, "another store is not written to"
    else:
        assert not out.exists(), "a stub"
    if go is _moved_with_its_parent:
        assert not out.parent.exists()
    if now_at:
        assert open_sweep(tmp_path / now_at, partial=True).n_written >= 3
        assert verify_sweep(tmp_path / now_at).n_whole >= at
        sweep(net, pictures(), GRID, out=tmp_path / now_at, **options)
        assert small.tree(tmp_path / now_at) == small.tree(clean.path)


@pytest.mark.parametrize("control", [None, "flip"])
@pytest.mark.parametrize("what", ["chunk", "means"])
def test_a_store_that_goes_in_the_middle_of_a_write_leaves_no_stub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: str | None, what: str
) -> None:
    store = small.create(tmp_path / "s.zarr", controls=("flip",))
    small.fill(store, control, finish=False)
    group: SweepGroup = store.group(control)
    result = small.cut(small.numbers(7), group.span(0))
    put = zarr.Array.__setitem__

    def goes_before(array: Any, where: Any, values: Any) -> None:
        if (tmp_path / "s.zarr").exists():
            (tmp_path / "s.zarr").rename(tmp_path / "t.zarr")
        put(array, where, values)  # Zarr makes the folders again

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", goes_before)
        with pytest.raises(StoreError, match="no longer there"):
            group.write(0, result) if what == "chunk" else group.finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.zarr"]
    assert SweepStore(tmp_path / "t.zarr").group(control).finished().all()
