"""A real Ray cluster of two nodes on this machine: same bytes, whoever dies, and nobody left behind."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import small_sweeps as small

import shiftlens
from shiftlens.cluster import ray_workers as cluster
from shiftlens.cluster import remote
from shiftlens.cluster.pools import Gpus
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import ModelOutputError, StoreError
from shiftlens.models.loading import load_model
from shiftlens.models.wrapping import Model
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import run_sweep, sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.sweep_result import open_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GRID = ShiftGrid(2)
N = 24
PATIENCE = 120.0
"""Seconds for anything that must happen, however busy the machine is."""
SOON = 30.0
"""Seconds for all of a sweep that is killed to be gone; without a keeper Ray's agents take up to minutes."""
STARTS = 4

NET = '''
import os
import signal
import sys
import time

import torch


class Net(torch.nn.Module):
    """Picture k is k + 1 at its brightest, wherever it is shifted to. Files in a folder say what befalls it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.folder = os.environ["NET_FOLDER"]
        self.head = torch.nn.Linear(3 * 6 * 6, 3)

    def forward(self, x):
        for k in set((x.amax(dim=(1, 2, 3)) * 255 - 1).round().int().tolist()):
            if os.path.exists(f"{self.folder}/raise-{k}"):
                raise ValueError("no such picture")
            if os.path.exists(f"{self.folder}/always-{k}"):
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                os.unlink(f"{self.folder}/die-{k}")
            except FileNotFoundError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        if os.path.exists(f"{self.folder}/slow"):
            time.sleep(0.5)
        # In Ray's workers only: the process that writes looks at the net too, before it asks them.
        while sys.argv[0].endswith("default_worker.py") and os.path.exists(f"{self.folder}/hold"):
            open(f"{self.folder}/holds-{os.getpid()}", "w").close()
            time.sleep(0.02)
        return self.head(x.flatten(1))
'''

DRIVER = """
import sys

import test_cluster_alive as here

from shiftlens.sweeps import request
from shiftlens.sweeping import sweep

request.CHUNK_EVALUATIONS = 2 * here.GRID.n_shifts


def report(n_done, n_total):
    print(n_done, flush=True)


sweep(here.net(sys.argv[1]), here.pictures(), here.GRID, out=sys.argv[2], cluster=sys.argv[3], progress=report)
"""

STRANGER = """
import sys

from ray._raylet import GcsClient

GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, 10)
print("in")
"""

ALONE = {
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "127.0.0.0/8,127.0.0.1,127.0.0.2,127.0.0.3,localhost",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    # On a busy machine Ray's half minutes are not enough.
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONPATH": os.pathsep.join([str(Path(shiftlens.__file__).parents[1]), str(Path(__file__).parent)]),
}


def net(folder: str | Path) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NET_FOLDER", str(folder))
        return load_model(f"{folder}/net.py:Net", mean=0.0, std=1.0, input_size=6, device="cpu")


def pictures() -> ImageSet:
    random = np.random.default_rng(0)
    found = random.integers(0, 2, (N, 3, 6, 6)) * np.arange(1, N + 1)[:, None, None, None]
    found[:, :, 2:4, 2:4] = np.arange(1, N + 1)[:, None, None, None]
    return ImageSet(found.astype(np.uint8), np.arange(N) % 3)


class Bench:
    """A net, and a sweep that is begun, with its plan; the same one finished without a cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "net.py").write_text(NET)
        self.model = net(folder)
        self.clean = folder / "clean.zarr"

        def stop(n_done: int, n_total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sweep(self.model, pictures(), GRID, out=self.clean, controls=("flip",), progress=stop)
        self.begun = shutil.copytree(self.clean, folder / "begun.zarr")
        sweep(self.model, pictures(), GRID, out=self.clean, controls=("flip",))

    def run(self, out: Path, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Go on with the begun sweep on the cluster; what was announced."""
        said: list[str] = []
        options: dict[str, Any] = {"controls": ("flip",), "cluster": "auto", "announce": said.append}
        if not out.exists():
            shutil.copytree(self.begun, out)
        run_sweep(self.model, pictures(), GRID, out=out, progress=progress, **options)
        return said


@pytest.fixture(autouse=True)
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 2 * GRID.n_shifts)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "CHUNK_EVALUATIONS", 2 * GRID.n_shifts)
        return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def befalls(bench: Bench) -> Iterator[Callable[[str], Path]]:
    """Makes a file that the net looks for; all are gone afterwards."""
    made: list[Path] = []

    def make(name: str) -> Path:
        made.append(bench.folder / name)
        made[-1].touch()
        return made[-1]

    yield make
    for file in (*made, *bench.folder.glob("holds-*")):
        file.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head and one more node, of one core each; this process is connected."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ALONE.items():
            patch.setenv(name, value)
        import ray

        machines = started()
        quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}
        # On the head, since the other node will go.
        ray.init(address=machines.address, _node_ip_address="127.0.0.2", **quiet)
        yield machines
        ray.shutdown()
        machines.shutdown()
    wait_for(lambda: not ours(psutil.Process().children(recursive=True)))


def started() -> Any:
    """The two nodes; on a busy machine Ray's processes may be late for each other, which it takes for their death."""
    from ray.cluster_utils import Cluster

    # A dead node is told after five seconds instead of half a minute.
    health = {"initial_delay_ms": 0, "period_ms": 1000, "failure_threshold": 5}
    head = {
        "num_cpus": 1,
        "num_gpus": 1,  # which nobody looks for before a plan for one is computed
        "node_ip_address": "127.0.0.2",
        "include_dashboard": False,
        "_system_config": {f"health_check_{name}": value for name, value in health.items()},
    }
    for left in reversed(range(STARTS)):
        try:
            machines = Cluster(initialize_head=True, head_node_args=head)
            machines.extra = machines.add_node(num_cpus=1, num_gpus=1, node_ip_address="127.0.0.3")
            return machines
        except Exception as error:
            if not left or "timed out" not in str(error).lower():
                raise
            for process in ours(psutil.Process().children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    process.kill()
    return None


def ours(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of Ray that are alive."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and "ray" in " ".join(process.cmdline()):
                found.append(process)
    return found


def wait_for(happened: Callable[[], object], seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)


def test_same_bytes_and_a_worker_killed_in_mid_chunk_is_told(
    bench: Bench, tmp_path: Path, nodes: Any, befalls: Callable[[str], Path]
) -> None:
    death = befalls("die-7")
    said = bench.run(tmp_path / "s.zarr")
    assert not death.exists()
    assert said[0] == "computing on 2 cores of 2 nodes"
    assert [line for line in said if "lost its worker" in line] == [
        next(line for line in said if line.startswith("chunk 3 (images 6 to 7) lost its worker (WorkerCrashedError"))
    ]
    assert small.tree(tmp_path / "s.zarr") == small.tree(bench.clean)


class WithoutLooking(remote.GpuWorker):
    """Takes the GPU that it was given for one."""

    def greet(self) -> str:
        return ""


def test_workers_with_a_gpu_each_write_the_same_bytes_and_one_that_is_killed_is_replaced(
    bench: Bench, tmp_path: Path, nodes: Any, befalls: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray hands out GPUs that are not there, and the plan is one of this CPU: who computes is what differs."""
    monkeypatch.setattr(cluster, "pool_of", lambda device: Gpus)
    monkeypatch.setattr(remote, "GpuWorker", WithoutLooking)
    death = befalls("die-7")
    said = bench.run(tmp_path / "s.zarr")
    assert not death.exists()
    assert said[0] == "computing on 2 GPUs of 2 nodes"
    (told,) = (line for line in said if "lost its worker" in line)
    assert told.startswith("chunk 3 (images 6 to 7) lost its worker (ActorDiedError")
    assert small.tree(tmp_path / "s.zarr") == small.tree(bench.clean)


def test_a_model_that_raises_names_its_images_as_without_a_cluster(
    bench: Bench, tmp_path: Path, nodes: Any, befalls: Callable[[str], Path]
) -> None:
    befalls("raise-10")
    with pytest.raises(
        ModelOutputError, match=r"raised ValueError .* no such picture at image .*10.* of images; .* stay"
    ):
        bench.run(tmp_path / "s.zarr")
    there = open_sweep(tmp_path / "s.zarr", partial=True).written
    assert not there[10]
    assert there.sum() >= 4, "a chunk is sent only when there is room for it, so two came back before this one went"


def test_a_chunk_that_kills_every_worker_ends_the_sweep(
    bench: Bench, tmp_path: Path, nodes: Any, befalls: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LOST_AT_MOST", 1)
    befalls("always-22")
    with pytest.raises(StoreError, match=r"chunk 11 \(images 22 to 23\) has lost 2 workers one after the other"):
        bench.run(tmp_path / "s.zarr")


def test_a_driver_that_is_killed_loses_only_what_was_in_flight(
    bench: Bench, tmp_path: Path, nodes: Any, befalls: Callable[[str], Path]
) -> None:
    out = Path(shutil.copytree(bench.begun, tmp_path / "s.zarr"))
    slow = befalls("slow")
    command = [sys.executable, "-W", "error", "-c", DRIVER, str(bench.folder), str(out), nodes.address]
    with subprocess.Popen(command, env=os.environ | ALONE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        done = [int(driver.stdout.readline()) for _ in range(4)]
        driver.send_signal(signal.SIGKILL)
    assert driver.returncode == -signal.SIGKILL
    assert done == [2 * k * GRID.n_shifts for k in range(4)]
    n_written = open_sweep(out, partial=True).n_written
    assert 6 <= n_written < N
    slow.unlink()
    counts: list[int] = []
    bench.run(out, lambda n_done, n_total: counts.append(n_done))
    assert counts[0] == n_written * GRID.n_shifts
    assert small.tree(out) == small.tree(bench.clean)


def test_a_node_that_is_removed_is_told_and_the_others_go_on(
    bench: Bench, tmp_path: Path, nodes: Any, befalls: Callable[[str], Path]
) -> None:
    hold = befalls("hold")

    def remove() -> None:
        wait_for(lambda: len(list(bench.folder.glob("holds-*"))) == 2)  # each core is in the middle of a chunk
        workers = [psutil.Process(int(file.name.removeprefix("holds-"))) for file in bench.folder.glob("holds-*")]
        nodes.remove_node(nodes.extra, allow_graceful=False)
        wait_for(lambda: len(ours(workers)) == 1)  # before that it could still answer
        hold.unlink()

    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(remove)
        said = bench.run(tmp_path / "s.zarr")
    removal.result()
    lost = [line for line in said if "lost its worker" in line]
    assert len(lost) == 1
    assert "127.0.0.3" in lost[0]
    assert small.tree(tmp_path / "s.zarr") == small.tree(bench.clean)


def is_refused(address: str, **own: str) -> bool:
    """Whether the cluster at an address lets nobody in who has these variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | own
    command = [sys.executable, "-c", STRANGER, address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode == 0) == ("in" in done.stdout.splitlines())
    assert done.returncode == 0 or "AuthenticationError" in done.stderr, done.stderr
    return done.returncode != 0


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_a_cluster_of_this_machine_is_silent_and_dies_with_its_driver(
    bench: Bench, tmp_path: Path, befalls: Callable[[str], Path], death: signal.Signals
) -> None:
    out = Path(shutil.copytree(bench.begun, tmp_path / "s.zarr"))
    befalls("slow")
    command = [sys.executable, "-W", "error", "-c", DRIVER, str(bench.folder), str(out), "local:1"]
    own = {name: value for name, value in os.environ.items() if name not in ALONE} | {"PYTHONPATH": ALONE["PYTHONPATH"]}
    own |= {"RAY_AUTH_MODE": "disabled"}  # must not count
    for _ in range(STARTS):
        driver = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert driver.stdout is not None
        assert driver.stderr is not None
        first = driver.stdout.readline()
        if first:
            break
        with driver:
            assert "Ray could not be started on this machine" in driver.stderr.read()
    with driver:
        assert int(first) == 0
        assert int(driver.stdout.readline()) == 2 * GRID.n_shifts
        befalls("hold")  # the rest of the sweep lasts until its end below
        there = psutil.Process(driver.pid).children(recursive=True)
        assert len(ours(there)) >= 3
        sockets = [c for process in [psutil.Process(driver.pid), *ours(there)] for c in process.net_connections("inet")]
        heard = {c.raddr.ip for c in sockets if c.raddr}
        open_to = {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN}
        assert heard
        assert open_to
        for ip in heard | open_to:
            assert ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback, (heard, open_to)

        head = next(process for process in there if process.name() == "gcs_server")
        address = f"127.0.0.1:{next(c.laddr.port for c in head.net_connections('inet') if c.status == 'LISTEN')}"
        token = head.environ()["RAY_AUTH_TOKEN"]
        assert not is_refused(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
        assert is_refused(address, RAY_AUTH_MODE="disabled")
        assert is_refused(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)

        log = next(file.path for file in head.open_files() if "/logs/" in file.path)
        folder = Path(log.partition("/ray/")[0])
        assert folder.stat().st_mode & 0o777 == 0o700
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if token.encode() in path.read_bytes()]
        assert not [process for process in ours(there) if token in " ".join(process.cmdline())]
        driver.send_signal(death)
    assert driver.returncode != 0  # after SIGTERM, Ray's own handler decides on the number
    wait_for(lambda: not ours(there), SOON)
    wait_for(lambda: not folder.exists(), SOON)
    assert 2 <= open_sweep(out, partial=True).n_written < N
