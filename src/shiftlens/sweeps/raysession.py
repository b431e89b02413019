"""Connecting to a Ray cluster, or starting one on this machine that neither listens nor speaks to the network."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from shiftlens.errors import InputError
from shiftlens.naming import one_line

CONNECT_SECONDS = 10.0
"""A head that does not answer within this is not there."""

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


def connect(kind: str, n_workers: int | None) -> tuple[Any, bool]:
    """Ray, connected, and whether this made the connection (so that it should end it).

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
        return ray, False
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}
    if kind == "local":
        try:
            with _environment(_alone()):
                ray.init(
                    address="local",
                    num_cpus=n_workers or n_cores(),
                    include_dashboard=False,
                    # Linux alone has every address that begins with 127; Ray hangs on 127.0.0.1.
                    _node_ip_address="127.0.0.2" if sys.platform == "linux" else None,
                    **quiet,
                )
        except Exception as error:  # Ray raises bare exceptions when one of its processes is late
            raise InputError(
                f"Ray could not be started on this machine: {one_line(error)}; where other work keeps the cores busy, "
                "its processes are too late for each other: try again, or leave --cluster out"
            ) from error
        return ray, True
    if kind != "auto":
        _knock(kind)
    try:
        with _environment({"RAY_USAGE_STATS_ENABLED": "0"}):
            ray.init(address=kind, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        raise InputError(f"cannot join the Ray cluster at {kind}: {type(error).__name__}: {one_line(error)}") from error
    return ray, True


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
        # Ray asks for a token by itself when it starts a cluster in a process; this one is in no file. It reads it once
        # in a process, so that every cluster of this process has the same.
        "RAY_AUTH_TOKEN": _token(),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


@cache
def _token() -> str:
    return secrets.token_hex(32)


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
