"""Ctrl-C in the middle of a sweep on Ray workers of this machine: one line, nobody left behind, and it goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import small_sweeps as small
from test_cluster_alive import ALONE, PATIENCE, STARTS, ours, wait_for

from shiftlens.data.images import load_images
from shiftlens.models.loading import load_model
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.sweep_result import open_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

N, GRID = 24, ShiftGrid(2)

NET = """
import os
import time

import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.slow = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow")
        self.head = torch.nn.Linear(64, 10)

    def forward(self, x):
        if os.path.exists(self.slow):
            time.sleep(0.5)
        return self.head(x.mean(1).flatten(1))
"""

COMMAND = f"""
import signal
import sys

# A shell's background job ignores Ctrl-C, and so would this child of a test that runs in one.
signal.signal(signal.SIGINT, signal.default_int_handler)

from shiftlens.cli.app import main
from shiftlens.sweeps import request

request.CHUNK_EVALUATIONS = 2 * {GRID.n_shifts}
sys.exit(main(sys.argv[1:]))
"""


def begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A sweep that has its plan and nothing else, and the same one finished without interruption, by this process."""
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 2 * GRID.n_shifts)
    model = load_model(f"{folder}/net.py:Net", mean=0.5, std=0.5, input_size=8, device="cpu")
    images = load_images("digits", limit=N)

    def stop(n_done: int, n_total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(model, images, GRID, out=folder / "clean.zarr", progress=stop)
    out = Path(shutil.copytree(folder / "clean.zarr", folder / "s.zarr"))
    sweep(model, images, GRID, out=folder / "clean.zarr")
    return out, folder / "clean.zarr"


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    # In a session of its own, as a terminal has one: Ctrl-C goes to every process of it.
    options = ["--mean", "0.5", "--std", "0.5", "--input-size", "8", "--limit", str(N), "--max-shift", "2"]
    where = ["--model", f"{folder}/net.py:Net", "--data", "digits", "--out", str(out), "--cluster", "local:1"]
    own = {name: value for name, value in os.environ.items() if name not in ALONE} | {"PYTHONPATH": ALONE["PYTHONPATH"]}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", COMMAND, "sweep", *where, *options],
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def n_written(out: Path) -> int:
    return open_sweep(out, partial=True).n_written


def test_ctrl_c_ends_the_workers_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(NET)
    out, clean = begun(tmp_path, monkeypatch)
    slow = tmp_path / "slow"
    slow.touch()
    for _ in range(STARTS):
        process = start(tmp_path, out)
        until = time.monotonic() + PATIENCE
        while process.poll() is None and n_written(out) < 4:
            assert time.monotonic() < until, "no chunk was written"
            time.sleep(0.05)
        if process.poll() is None:
            break
        with process:
            assert process.stderr is not None
            assert "Ray could not be started on this machine" in process.stderr.read()
    there = psutil.Process(process.pid).children(recursive=True)
    assert len(ours(there)) >= 3
    folder = Path(next(p for p in there if "ray_keeper.py" in " ".join(p.cmdline())).cmdline()[-2])
    assert folder.is_dir()
    os.killpg(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said == ""
    assert "Traceback" not in errors
    assert "lost its worker" not in errors
    last = errors.strip().splitlines()[-1]
    assert last.endswith("interrupted; run the same command again: sweeps and trainings resume where they stopped")
    wait_for(lambda: not ours(there))
    assert not folder.exists()
    n_there = n_written(out)
    assert 4 <= n_there < N

    slow.unlink()
    for _ in range(STARTS):
        with start(tmp_path, out) as again:
            said, errors = again.communicate(timeout=PATIENCE)
        if again.returncode == 0:
            break
        assert "Ray could not be started on this machine" in errors
    assert f"resuming {out}: {n_there * GRID.n_shifts:,} of" in errors
    assert small.tree(out) == small.tree(clean)
