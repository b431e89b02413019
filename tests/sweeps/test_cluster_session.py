"""What surrounds a Ray session of this machine: its token, its folder, and who cleans up. Ray itself is not started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from shiftlens.cluster import ray_keeper as raykeeper
from shiftlens.cluster import ray_session as raysession
from shiftlens.errors import InputError

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")

PARENT = """
import os
import subprocess
import sys
import time
from pathlib import Path

from shiftlens.cluster.ray_session import _Keeper

keeper = _Keeper()
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
sleep = "import time; time.sleep(300)"
# As Ray's agents do: the file is not their standard output, and they change their name.
out = (keeper.folder / "ray.out").open("w")
agent = subprocess.Popen(["sh", "-c", f"exec {sys.executable} -c '{sleep}' 7>&1 >/dev/null"], stdout=out)
out.close()
reader = subprocess.Popen([sys.executable, "-c", sleep], stdin=(keeper.folder / "ray.out").open(), **quiet)
log = (keeper.folder / "driver.log").open("w")
forked = os.fork()
if forked == 0:  # as data loaders do: it holds the pipe of the keeper open
    time.sleep(300)
print(keeper.folder, agent.pid, reader.pid, forked, flush=True)
time.sleep(300)
"""


def wait_for(happened: Callable[[], object], seconds: float = raykeeper.PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@linux_only
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_writes_its_output_below_the_folder_dies_with_a_process_that_is_killed(death: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        folder, *numbers = parent.stdout.readline().split()
        agent, reader, forked = (psutil.Process(int(number)) for number in numbers)
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(death)
        parent.wait()
        try:
            wait_for(lambda: is_gone(agent))
            wait_for(lambda: not Path(folder).exists())
            assert not is_gone(reader)
            assert not is_gone(forked)
        finally:
            for process in family:
                if not is_gone(process):
                    process.kill()


def test_the_folder_is_for_this_user_only_and_goes_when_told() -> None:
    keeper = raysession._Keeper()
    assert keeper.folder.stat().st_mode & 0o777 == 0o700
    (keeper.folder / "deep").mkdir()
    (keeper.folder / "deep" / "file").touch()
    keeper.end()
    assert not keeper.folder.exists()


def test_a_long_name_of_the_temporary_folder_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(raysession.tempfile, "gettempdir", lambda: str(long))
    folder = raysession._private_folder()
    folder.rmdir()
    assert not list(long.iterdir())
    assert len(os.fsencode(folder)) <= raysession.LONGEST_FOLDER
    session = "/ray/session_2026-11-26_18-14-34_979347_4194304/sockets/plasma_store"
    assert len("x" * raysession.LONGEST_FOLDER + session) == (107 if sys.platform == "linux" else 103)


def test_no_folder_at_all_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(raysession.tempfile, "mkdtemp", full)
    with pytest.raises(
        InputError, match=r"Ray needs a folder for its sockets, found none \(.*No space left.*set TMPDIR"
    ):
        raysession._private_folder()


def test_the_mode_of_the_user_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    assert not raysession._read_authentication()
    with raysession._environment(raysession._alone()):
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
        assert os.environ["RAY_AUTH_TOKEN"] != "a" * 64
        assert raysession._read_authentication()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert not raysession._read_authentication()


class NoRay:
    """Stands in for Ray: what happens in `init` is told."""

    __version__ = "9"

    def __init__(self, happens: Callable[[], None] = lambda: None, address: str = "127.0.0.1:1") -> None:
        self.happens, self.address = happens, address
        self.asked: dict[str, Any] = {}
        self.n_shutdowns = 0

    def init(self, **asked: Any) -> None:
        self.asked = asked
        assert Path(asked["_temp_dir"]).parent.is_dir()
        self.happens()

    def shutdown(self) -> None:
        self.n_shutdowns += 1

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address=self.address)


def late() -> None:
    raise TimeoutError("the raylet is late\nby 3 s")


def interrupted() -> None:
    raise KeyboardInterrupt("Ctrl-C")


@pytest.mark.parametrize(
    ("ray", "error", "says"),
    [
        (NoRay(late), InputError, "Ray could not be started on this machine: the raylet is late"),
        (NoRay(interrupted), KeyboardInterrupt, "Ctrl-C"),
        (NoRay(address="192.0.2.7:6379"), InputError, "Ray 9 listens on 192.0.2.7:6379, which the network can reach"),
    ],
)
def test_what_was_started_in_part_is_ended(ray: NoRay, error: type[BaseException], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        raysession._start(ray, 1)
    assert "\n" not in str(caught.value)
    assert ray.n_shutdowns == 1
    assert not Path(ray.asked["_temp_dir"]).parent.exists()


def test_without_a_token_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raysession, "_read_authentication", lambda: False)
    ray = NoRay()
    with pytest.raises(InputError, match="Ray does not ask for a token here: it was not started"):
        raysession._start(ray, 1)
    assert ray.asked == {}


def test_nothing_is_left_of_a_session_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = NoRay()
    end = raysession._start(ray, 3)
    assert (ray.asked["num_cpus"], ray.asked["num_gpus"]) == (3, 0)
    assert ray.asked["_node_ip_address"] == "127.0.0.1"
    folder = Path(ray.asked["_temp_dir"]).parent
    assert folder.is_dir()
    end()
    assert ray.n_shutdowns == 1
    assert not folder.exists()
