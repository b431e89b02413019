"""One writer for each output: locks that die with their process, and what a dead process left behind.

There are two. A hidden sibling `.NAME.lock` holds the place, also before anything is there. It is never inside the Zarr
group, where readers would warn about a foreign file, and it stays when it is free: to remove it would let two processes
hold "the same" lock. The folder itself is locked too (`flock` goes by device and inode), so it stays one output when it
is mounted a second time, or renamed while it is written.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from shiftlens.errors import StoreError

_SYNCS_FOLDERS = hasattr(os, "O_DIRECTORY")
"""Windows opens no folders; it keeps their entries safe itself."""
_SYNCS_AT_ONCE = 16

_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")


class FolderLock:
    """The right to write to a folder, whatever path or mount leads to it; nothing where the system has no such lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def take(self) -> None:
        """Lock the folder that lies at the path now, if one does; one that was locked before is freed.

        Raises
        ------
        StoreError
            Another process holds it.
        """
        self.free()
        if not (_SYNCS_FOLDERS and self._path.is_dir()):
            return
        self._handle = os.open(self._path, os.O_RDONLY)
        if not locked(self._handle):
            raise _busy(self._path)

    def free(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def locked(handle: int) -> bool:
    """Lock an open file or folder until it is closed; False where another process has it.

    True where the system has no such lock: Windows, and network file systems that lock no folders.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _busy(path: Path) -> StoreError:
    return StoreError(f"{path} is busy: another process is writing to it; wait for it or stop it")


@contextmanager
def output_lock(path: Path) -> Iterator[FolderLock]:
    """Hold the only right to write to `path`; parents are made, nothing is waited for.

    Yields the lock on the folder at `path`. Whoever makes that folder calls its `take` then.

    Raises
    ------
    StoreError
        Another process holds it, or the lock file cannot be written.
    """
    real = Path(os.path.realpath(path))  # unlike resolve(), calm about links in a circle
    lock = FileLock(real.parent / f".{real.name}.lock")
    with disk_errors(path, "write to"):
        real.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise _busy(path) from None
    folder = FolderLock(path)
    try:
        with disk_errors(path, "write to"):
            folder.take()
        yield folder
    finally:
        folder.free()
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
        _sync_all([file for file in building.rglob("*") if file.is_file()])
        if target.is_dir():
            target.rmdir()
        building.rename(target)
        if _SYNCS_FOLDERS:
            with suppress(PermissionError):  # a folder that may be written to and not read
                _sync(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def set_aside(path: Path, anchor: Path | None = None) -> Path:
    """Rename a folder to what `clean_strays` removes, in one go: a death while it is removed must not leave half of it.

    The caller holds the lock on it, or on `anchor`, in which it lies.
    """
    aside = _building_name(anchor or path)
    path.rename(aside)
    return aside


def clean_strays(path: Path) -> None:
    """Remove what a process that died while writing to `path` left; the caller holds the lock.

    These are half-built groups beside `path`, and the `.partial` files of the Zarr library inside it (a name that ends
    in 32 hexadecimal digits and `.partial`; any other file is left alone).
    """
    real = path.resolve()
    half_built = re.compile(re.escape(f".{real.name}.") + r"[0-9a-f]{32}\.building")
    for sibling in siblings(real):
        if half_built.fullmatch(sibling.name) and sibling.is_dir() and not sibling.is_symlink():
            shutil.rmtree(sibling)
    if real.is_dir():
        for stray in real.rglob("*.partial"):
            if _PARTIAL.fullmatch(stray.name):
                stray.unlink()


def folder_at(path: Path) -> tuple[int, int] | None:
    """Device and inode of what lies at a path: the same as before, or was it moved? None where nothing is."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def remove_stub(files: Iterable[Path], root: Path) -> None:
    """Remove files, and the folders up to `root` that are empty then: what was written where a store is no more."""
    for file in files:
        with suppress(OSError):
            file.unlink()
        for folder in file.parents:
            if not folder.is_relative_to(root):
                break
            with suppress(OSError):  # the folder holds something else
                folder.rmdir()


def siblings(path: Path) -> list[Path]:
    """What lies beside a path; nothing where the folder may be written to and not read."""
    try:
        return list(path.parent.iterdir())
    except PermissionError:
        return []


def _building_name(anchor: Path) -> Path:
    real = anchor.resolve()
    return real.parent / f".{real.name}.{uuid.uuid4().hex}.building"


def _sync(place: Path) -> None:
    """Force a file or folder to the disk, so that it survives a power loss."""
    handle = os.open(place, os.O_RDONLY if place.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_all(files: Collection[Path]) -> None:
    # Side by side, since a journalling file system puts those that wait at the same time into one commit.
    with ThreadPoolExecutor(_SYNCS_AT_ONCE, thread_name_prefix="sync") as pool:
        for _ in pool.map(_sync, files):
            pass


class Unsynced:
    """Files that were written and not yet forced to the disk.

    A file that a power loss tore is recognised and computed again, so nothing has to wait for the disk: files are
    forced there together, now and then, and all of them before the sweep is called complete.
    """

    SECONDS = 10.0
    """Between two times; what a power loss can cost, besides the chunks in flight."""

    def __init__(self) -> None:
        self._files: dict[Path, None] = {}
        self._last = time.monotonic()

    def add(self, *files: Path) -> None:
        """Remember files."""
        self._files.update(dict.fromkeys(files))

    def sync_now_and_then(self) -> None:
        """`sync`, if the last time is long ago."""
        if time.monotonic() - self._last >= self.SECONDS:
            self.sync()

    def sync(self) -> None:
        """Force all of them to the disk."""
        _sync_all(self._files)
        self._files.clear()
        self._last = time.monotonic()
