"""One writer at a time, and what a dead writer left."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import small_sweeps as small
import xarray as xr

from shiftlens.errors import StoreError
from shiftlens.sweeps.locking import built_beside, clean_strays, output_lock

HOLDER = """
import sys, time
from pathlib import Path
from shiftlens.sweeps.locking import output_lock
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
