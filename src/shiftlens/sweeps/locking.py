"""One writer for each output: a lock that dies with its process, and what a dead process left behind.

The lock is a hidden sibling `.NAME.lock` of the output. It is never inside the Zarr group, where readers would warn
about a foreign file, and it stays when it is free: to remove it would let two processes hold "the same" lock.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from shiftlens.errors import StoreError

_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")


@contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Hold the only right to write to `path`; parents are made, nothing is waited for.

    Raises
    ------
    StoreError
        Another process holds it, or the lock file cannot be written.
    """
    real = path.resolve()
    lock = FileLock(real.parent / f".{real.name}.lock")
    with disk_errors(path, "write to"):
        real.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(f"{path} is busy: another process is writing to it; wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def disk_errors(path: Path, doing: str, kept: str = "") -> Iterator[None]:
    """Turn what the disk refuses into one `StoreError` that names `path`; `kept` says what is safe all the same."""
    try:
        yield
    except OSError as error:
        after = f"; {kept}" if kept else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left on the disk of {path}{after}") from error
        raise StoreError(f"cannot {doing} {path}: {error.strerror or error}{after}") from error


@contextmanager
def built_beside(target: Path, anchor: Path) -> Iterator[Path]:
    """A new directory beside `anchor` that becomes `target` in one rename when the block ends well, else vanishes.

    `target` must be absent, or an empty directory. The caller holds the lock on `anchor`.
    """
    building = _building_name(anchor)
    try:
        yield building
        for file in building.rglob("*"):
            if file.is_file():
                _sync(file)
        if target.is_dir():
            target.rmdir()
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def clean_strays(path: Path) -> None:
    """Remove what a process that died while writing to `path` left; the caller holds the lock.

    These are half-built groups beside `path`, and the `.partial` files of the Zarr library inside it (a name that ends
    in 32 hexadecimal digits and `.partial`; any other file is left alone).
    """
    real = path.resolve()
    half_built = re.compile(re.escape(f".{real.name}.") + r"[0-9a-f]{32}\.building")
    for sibling in real.parent.iterdir():
        if half_built.fullmatch(sibling.name) and sibling.is_dir() and not sibling.is_symlink():
            shutil.rmtree(sibling)
    if real.is_dir():
        for stray in real.rglob("*.partial"):
            if _PARTIAL.fullmatch(stray.name):
                stray.unlink()


def _building_name(anchor: Path) -> Path:
    real = anchor.resolve()
    return real.parent / f".{real.name}.{uuid.uuid4().hex}.building"


def _sync(file: Path) -> None:
    """Metadata is written once and everything hangs on it, so it must survive a power loss."""
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
