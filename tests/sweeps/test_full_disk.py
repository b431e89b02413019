"""A disk that fills while a sweep is written: one line, exit code 2, what is finished is kept, the same bytes later.

The disk is a small tmpfs that is really filled; where mounting one is not permitted, Zarr's writer counts the bytes and
refuses as such a disk does.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_sweeps as small
from zarr.storage import _local

from shiftlens.cli import main
from shiftlens.sweeps import request
from shiftlens.sweeps.integrity import verify_sweep
from shiftlens.sweeps.sweep_result import open_sweep

N = 40
CHUNKS = 20
ROOM = 192 * 1024
"""Bytes: the empty groups and some of the chunks."""


@pytest.fixture(params=["real", "fake"])
def small_disk(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder with little room, and what gives it more."""
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "real" and _mounted(place):
        try:
            yield place, lambda: _mount("-o", "remount,size=16m", str(place))
        finally:
            subprocess.run(["umount", str(place)], check=True)
        return
    real, left = _local._put, [ROOM]

    def put(path: Path, value: Any, exclusive: bool = False) -> int:
        if path.is_relative_to(place):
            left[0] -= 4096 * -(-len(value) // 4096)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, value, exclusive)

    def more() -> None:
        left[0] = 2**24

    monkeypatch.setattr(_local, "_put", put)
    yield place, more


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True, capture_output=True)


def _mounted(place: Path) -> bool:
    try:
        _mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place))
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False
    return True


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A sweep of 20 chunks; `--out` is left to say."""
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", N // CHUNKS * 9)
    (tmp_path / "net.py").write_text(
        "import torch\n\n\ndef make():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 10))\n"
    )
    options = ["--mean", "0", "--limit", str(N), "--max-shift", "1", "--dtype", "float32", "--engine", "direct"]
    return ["sweep", "--model", f"{tmp_path / 'net.py'}:make", *options, "--quiet"]


def test_a_disk_that_fills_in_mid_run(
    small_disk: tuple[Path, Callable[[], None]], command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk, more_room), clean = small_disk, tmp_path / "clean.zarr"
    out = disk / "s.zarr"
    assert main([*command, "--out", str(clean)]) == 0
    capsys.readouterr()

    for _ in range(2):  # the second time nothing fits at all
        assert main([*command, "--out", str(out)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert f"no space left on the disk of {out}; what is finished stays there" in said.err

    sweep = open_sweep(out, partial=True)
    assert 0 < sweep.n_written < N
    right = open_sweep(clean).dataset
    for name in ("prediction", "loss", "confidence"):
        there = sweep.dataset[name].values[sweep.written]
        np.testing.assert_array_equal(there, right[name].values[sweep.written])
    verification = verify_sweep(out)
    assert verification.n_whole == sweep.n_written // 2
    assert {fault.what for fault in verification.faults} <= {"absent", "torn"}

    more_room()
    assert main([*command, "--out", str(out)]) == 0
    assert small.tree(out) == small.tree(clean)
    assert verify_sweep(out).ok
