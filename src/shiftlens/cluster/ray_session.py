"""Connecting to a Ray cluster, or starting one on this machine that neither listens nor speaks to the network.

What is started here listens on loopback alone, asks for a token, and keeps its files in a folder that only this user
may enter; `ray_keeper` ends and removes what is left of it, however this process ends.
"""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from shiftlens.cluster import ray_keeper
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError
from shiftlens.naming import count_of, one_line

CONNECT_SECONDS = 10.0
"""A head that does not answer within this is not there."""

_LONGEST_NAME = "/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
LONGEST_FOLDER = (107 if sys.platform == "linux" else 103) - len(_LONGEST_NAME)
"""Bytes of a folder below which Ray's sockets still have names that the system takes."""

_FORMS = "local, local:N (workers), auto, or HOST:PORT of the cluster's head (its port is 6379 unless it was told else)"


def parse_cluster(text: str) -> tuple[str, int | None]:
    """`local`, `local:N`, `auto` or `HOST:PORT` as the kind or address, and the number of workers asked for.

    Raises
    ------
    InputError
        Another form, or Ray is not installed.
    """
    local = re.fullmatch(r"local(?::([1-9]\d{0,3}))?", text)
    address = re.fullmatch(r"(?!local:)(\[[0-9a-fA-F:]+\]|[^\s/:\[\]]+):\d{1,5}", text)
    if not local and not address and text != "auto":
        raise InputError(f"cluster must be {_FORMS}, got {text!r}")
    if importlib.util.find_spec("ray") is None:
        raise InputError("a cluster needs Ray, which is not installed: pip install 'shiftlens[cluster]'")
    if local:
        return "local", int(local[1]) if local[1] else None
    return text, None


def device_on_cluster(device: str, cluster: str | None = None, *, gpus: bool = False) -> str:
    """What `device` means on a cluster, each of whose workers has a core or, where `gpus` will do, a GPU.

    Raises
    ------
    InputError
        Another device, or a GPU on a cluster of this machine, which has none, or not as many as workers were asked for.
    """
    if device == "cuda" and gpus:
        kind, n_workers = ("auto", None) if cluster is None else parse_cluster(cluster)
        if kind == "local":
            resolve_device(device)
            if (n_workers or 1) > torch.cuda.device_count():
                there = count_of(torch.cuda.device_count(), "GPU")
                raise InputError(f"cluster local:{n_workers} asks for a GPU for each worker, this machine has {there}")
        return device
    if device not in ("auto", "cpu"):
        if gpus:
            raise InputError(
                f"each worker of a cluster has a core, or with device cuda a GPU: expected device auto, cpu or cuda, "
                f"got {device}"
            )
        raise InputError(f"a cluster computes on the cores of its machines: expected device auto or cpu, got {device}")
    return "cpu"


def connect(kind: str, n_workers: int | None, *, gpus: bool = False) -> tuple[Any, Callable[[], None]]:
    """Ray, connected, and what to call at the end: it undoes what this did, and nothing that was there before.

    With `gpus`, so many workers of a cluster of this machine have a GPU each; None: as many as there are.

    Raises
    ------
    InputError
        Nothing answers, another version of Ray or Python answers, or this process is connected to something else.
    """
    import ray

    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if kind not in ("auto", here):
            raise InputError(
                f"this process is connected to the Ray cluster at {here} already, asked for {kind}; say auto to use it"
            )
        return ray, lambda: None
    if kind == "local":
        if gpus:
            n_gpus = n_workers or torch.cuda.device_count()
            return ray, _start(ray, max(n_cores(), n_gpus), n_gpus)
        return ray, _start(ray, n_workers or n_cores())
    if kind != "auto":
        _knock(kind)
    try:
        with _environment({"RAY_USAGE_STATS_ENABLED": "0"}):
            ray.init(address=kind, **_QUIET)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        raise InputError(f"cannot join the Ray cluster at {kind}: {type(error).__name__}: {one_line(error)}") from error
    return ray, ray.shutdown


_QUIET: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}


def _start(ray: Any, n_cpus: int, n_gpus: int = 0) -> Callable[[], None]:
    """Start Ray for this process alone; returns what ends it and leaves nothing behind."""
    keeper = _Keeper()

    def end() -> None:
        try:
            ray.shutdown()
        finally:
            keeper.end()
            _read_authentication()  # the user's own again, for a cluster of theirs

    try:
        with _environment(_alone()), _loopback_only():
            if not _read_authentication():
                raise InputError("Ray does not ask for a token here: it was not started; leave --cluster out")
            ray.init(
                address="local",
                num_cpus=n_cpus,
                num_gpus=n_gpus,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(keeper.folder / "ray"),  # Ray opens its own folder to everybody, but not the one above
                **_QUIET,
            )
        address = ray.get_runtime_context().gcs_address
        if not ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback:
            raise InputError(f"Ray {ray.__version__} listens on {address}, which the network can reach: it was ended")
    except BaseException as error:
        with suppress(Exception):
            end()
        if isinstance(error, InputError) or not isinstance(error, Exception):
            raise
        # Ray raises bare exceptions when one of its processes is late
        raise InputError(
            f"Ray could not be started on this machine: {one_line(error)}; where other work keeps the cores busy, "
            "its processes are too late for each other: try again, or leave --cluster out"
        ) from error
    return end


class _Keeper:
    """A folder for one Ray session that only this user may enter, and the process that ends and removes all of it.

    Raises
    ------
    InputError
        No folder can be made, or only one whose name is too long for Ray's sockets.
    """

    def __init__(self) -> None:
        self.folder = _private_folder()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", ray_keeper.__file__, str(self.folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what a terminal or a job sends to all processes of a sweep must not end this one
        )

    def end(self) -> None:
        """Returns when nothing is left, within a minute in any case."""
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(b"end", timeout=2 * ray_keeper.PATIENCE)


def _private_folder() -> Path:
    tried = []
    for place in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
        try:
            folder = tempfile.mkdtemp(prefix="shiftlens-", dir=os.path.realpath(place))
        except OSError as error:
            tried.append(f"{place}: {error.strerror}")
            continue
        if len(os.fsencode(folder)) <= LONGEST_FOLDER:
            return Path(folder)
        shutil.rmtree(folder, ignore_errors=True)
        tried.append(f"{place}: its name is too long for Ray's sockets")
    raise InputError(
        f"Ray needs a folder for its sockets, found none ({'; '.join(tried)}); "
        f"set TMPDIR to one of at most {LONGEST_FOLDER - len('/shiftlens-12345678')} characters"
    )


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Ray listens on loopback alone where it takes clusters for impossible, as on macOS; else on all interfaces."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _read_authentication() -> bool:
    """Let Ray read mode and token from the environment again, and say whether it asks for a token.

    By itself it reads them once in a process. Whoever can reach a cluster that asks for none can run code on it.
    """
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    return bool(raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN)


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _alone() -> dict[str, str]:
    """Environment of a cluster that is for this process only: a token nobody else knows, and no way out.

    Ray's helper processes look up cloud metadata and usage hosts even when told not to; a proxy that is not there
    stops them.
    """
    nowhere, here = "http://127.0.0.1:9", "127.0.0.0/8,127.0.0.1,127.0.0.2,127.0.0.3,localhost,::1"
    names = {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": here}
    return {
        **names,
        **{name.upper(): value for name, value in names.items()},
        "RAY_USAGE_STATS_ENABLED": "0",
        # On a busy machine Ray's half minutes are not enough.
        "RAY_worker_register_timeout_seconds": "300",
        "RAY_raylet_start_wait_time_s": "60",
        "RAY_worker_niceness": "0",  # the workers are the sweep, not something beside it
        # Whatever the user's own variables say. The token is in no file.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Variables for the processes that are started inside; this process has its own again afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    logger = logging.getLogger("ray")
    level = logger.level
    os.environ.update(changes)
    logger.setLevel(logging.ERROR)  # advice to who starts clusters by hand
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _knock(address: str) -> None:
    """Ray itself waits for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster answers at {address}: {error}; start its head with 'ray start --head --port={port}'"
        ) from None
