"""Real processes and real disks: SIGKILL, Ctrl-C, a second writer, a disk that is full."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_sweeps as small

from shiftlens.errors import StoreError
from shiftlens.sweeps.sweep_result import Sweep, open_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

N = 24
N_SHIFTS = 49

NET = '''
import os
import time

import torch

LOG = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Net(torch.nn.Module):
    """Writes down every picture that it is shown: picture k is k + 1 at its brightest, wherever it is shifted to."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(3 * 6 * 6, 3)

    def forward(self, x):
        for level in (x.amax(dim=(1, 2, 3)) * 255).round().int().tolist():
            os.write(LOG, f"{level - 1}\\n".encode())
        time.sleep(float(os.environ["DELAY"]) * len(x))
        while os.path.exists(os.environ["HOLD"]):
            time.sleep(0.01)
        return self.head(x.flatten(1))


def factory():
    return Net()
'''

CHILD = """
import os
import signal
import sys

# A shell's background job ignores Ctrl-C, and so would this child of a test that runs in one.
signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import torch

from shiftlens.devices import machine_kind
from shiftlens.errors import ShiftlensError
from shiftlens.shifts import ShiftGrid
from shiftlens.data.imageset import ImageSet
from shiftlens.models.loading import load_model
from shiftlens.sweeps import request
from shiftlens.sweeps import runner
from shiftlens.sweeping import sweep
from shiftlens.engine.plan import Plan

torch.set_num_threads(1)
request.CHUNK_EVALUATIONS = 2 * 49
# One plan for all runs: a measured one may differ from run to run, and with it the last bits.
plan = Plan("direct", "float32", 16, False, False, False, "cpu", machine_kind(torch.device("cpu")))
runner.make_plan = lambda *args, **options: plan
log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
random = np.random.default_rng(0)
pictures = random.integers(0, 2, (24, 3, 6, 6)) * np.arange(1, 25)[:, None, None, None]
pictures[:, :, 2:4, 2:4] = np.arange(1, 25)[:, None, None, None]
images = ImageSet(pictures.astype(np.uint8), np.arange(24) % 3)
model = load_model(os.environ["NET"] + ":factory", mean=0.0, std=1.0, input_size=6, device="cpu")


def report(n_done, n_total):
    os.write(log, f"progress {n_done}\\n".encode())


try:
    sweep(model, images, ShiftGrid(3), out=sys.argv[1], controls=("occlusion",), progress=report)
except ShiftlensError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class Bench:
    """Runs the child above against outputs in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "net.py").write_text(NET)

    def start(self, out: Path, log: str, delay: float = 0.0, hold: str = "hold") -> subprocess.Popen[str]:
        environment = {
            "NET": str(self.folder / "net.py"),
            "LOG": str(self.folder / log),
            "DELAY": str(delay),
            "HOLD": str(self.folder / hold),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CHILD, str(out)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, out: Path, log: str) -> None:
        with self.start(out, log) as child:
            _, errors = child.communicate()
        assert child.returncode == 0, errors

    def log(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def wait_for(self, child: subprocess.Popen[str], log: str, line: str) -> None:
        while child.poll() is None and not any(entry.startswith(line) for entry in self.log(log)):
            time.sleep(0.005)

    def evaluated(self, name: str) -> tuple[list[int], list[int]]:
        """The pictures that the net was shown for the sweep itself and for its control, one entry a shift.

        The look at the model and the plan come before the first report of progress and are not counted.
        """
        shown: tuple[list[int], list[int]] = ([], [])
        n_done = None
        for line in self.log(name):
            if line.startswith("progress"):
                n_done = int(line.split()[1])
            elif n_done is not None:
                shown[n_done >= N * N_SHIFTS].append(int(line))
        return shown


def _finished(out: Path) -> tuple[set[int], set[int]]:
    """Pictures that are finished in the sweep itself and in its control."""
    if not out.exists():
        return set(), set()
    sweep = open_sweep(out, partial=True)
    both = sweep, sweep.control("occlusion", partial=True)
    main, control = (set(np.flatnonzero(s.written).tolist()) for s in both)
    return main, control


def _die(bench: Bench, child: subprocess.Popen[str], log: str, out: Path, how: str, chance: random.Random) -> None:
    if how == "early":
        # While it loads, plans, or makes the group.
        bench.wait_for(child, log, "-1")
        time.sleep(chance.uniform(0, 0.1))
    elif how == "between":
        # A loss chunk that is there without its prediction is a write that is under way.
        bench.wait_for(child, log, "progress")
        until = time.monotonic() + 1
        while time.monotonic() < until and child.poll() is None:
            losses, predictions = (len(list((out / a).glob("c/*/0/0"))) for a in ("loss", "prediction"))
            if losses > predictions:
                break
    else:
        bench.wait_for(child, log, "progress")
        time.sleep(chance.uniform(0, 1.0))
    child.send_signal(signal.SIGKILL)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _same(a: Sweep, b: Sweep) -> None:
    for name in ("prediction", "loss", "confidence", "accuracy", "mean_loss"):
        np.testing.assert_array_equal(a.dataset[name].values, b.dataset[name].values)


def test_ten_kills_change_nothing_and_nothing_finished_is_computed_again(bench: Bench, tmp_path: Path) -> None:
    bench.run(tmp_path / "clean.zarr", "clean")
    for shown in bench.evaluated("clean"):
        counts = [shown.count(k) for k in range(N)]
        # Each picture and shift once, and one window of each chunk of two pictures a second time.
        assert min(counts) == N_SHIFTS
        assert [sum(counts[k : k + 2]) for k in range(0, N, 2)] == [2 * N_SHIFTS + 1] * (N // 2)
    chance = random.Random(0)
    out = tmp_path / "s.zarr"
    n_evaluated = n_useful_kills = 0
    ways = ["early", "random", "between", "random", "early", "between", "random", "random", "between", "random"]
    for k, how in enumerate([*ways, "to the end"]):
        before = _finished(out)
        if how == "to the end":
            bench.run(out, f"log{k}")
        else:
            with bench.start(out, f"log{k}", delay=0.0025) as child:
                _die(bench, child, f"log{k}", out, how, chance)
            assert child.returncode == -signal.SIGKILL, "it ended before it was killed: make it slower"
        after = _finished(out)
        n_useful_kills += before != after and how != "to the end"
        for shown, there, now in zip(bench.evaluated(f"log{k}"), before, after, strict=True):
            assert there.isdisjoint(shown)
            assert there <= now
            n_evaluated += len(shown)
    assert n_useful_kills >= 3, "hardly anything was finished between the kills: the test shows little"
    # Each picture and shift once, and again only what was in flight at each kill: one chunk of two pictures.
    assert 2 * N * N_SHIFTS <= n_evaluated <= 2 * N * N_SHIFTS + N + len(ways) * (2 * N_SHIFTS + 1)
    a, b = open_sweep(out), open_sweep(tmp_path / "clean.zarr")
    _same(a, b)
    _same(a.control("occlusion"), b.control("occlusion"))
    assert small.tree(out) == small.tree(tmp_path / "clean.zarr")
    assert not list(tmp_path.glob("**/*.partial"))
    assert not list(tmp_path.glob(".*.building"))


def test_a_second_process_is_refused_while_the_first_goes_on(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    with bench.start(out, "first", delay=0.004) as first:
        bench.wait_for(first, "first", "progress")
        hold = bench.folder / "hold"
        hold.touch()  # however long the second one takes to start
        with bench.start(out, "second", hold="nothing holds this one") as second:
            _, errors = second.communicate()
        assert first.poll() is None, "the first one ended too early: the test shows nothing"
        hold.unlink()
        assert second.returncode == 1
        assert errors.startswith("StoreError: ")
        assert f"{out} is busy" in errors
        assert bench.evaluated("second") == ([], [])
        _, errors = first.communicate()
        assert first.returncode == 0, errors
    assert open_sweep(out).complete


def test_ctrl_c_keeps_what_is_finished_and_frees_the_output(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    # Slow enough that it cannot be over before the signal arrives, however busy the machine is.
    with bench.start(out, "first", delay=0.03) as child:
        bench.wait_for(child, "first", f"progress {4 * N_SHIFTS}")
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate()
    assert child.returncode in (1, 130, -signal.SIGINT)
    assert "KeyboardInterrupt" in errors
    assert len(_finished(out)[0]) >= 4
    bench.run(out, "last")
    assert open_sweep(out).complete


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 kB: room for the empty groups and a few chunks."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)]
    try:
        done = subprocess.run(options, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_more_room_lets_it_go_on(bench: Bench, tmp_path: Path, small_disk: Path) -> None:
    out = small_disk / "s.zarr"
    with bench.start(out, "first") as child:
        _, errors = child.communicate()
    assert child.returncode == 1
    assert errors.startswith("StoreError: no space left on the disk of ")
    assert errors.count("\n") == 1
    there = _finished(out)[0]
    assert 0 < len(there) < N
    with pytest.raises(StoreError, match="not complete"):
        open_sweep(out)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    bench.run(out, "second")
    bench.run(tmp_path / "clean.zarr", "clean")
    assert json.loads((out / "zarr.json").read_text())["attributes"]["complete"] is True
    assert small.tree(out) == small.tree(tmp_path / "clean.zarr")


def test_a_disk_without_room_for_the_empty_group_is_left_clean(bench: Bench, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(120_000))
    with bench.start(small_disk / "s.zarr", "first") as child:
        _, errors = child.communicate()
    assert child.returncode == 1
    assert errors.startswith("StoreError: no space left")
    assert sorted(p.name for p in small_disk.iterdir()) == [".s.zarr.lock", "ballast"]
