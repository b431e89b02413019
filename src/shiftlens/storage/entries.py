"""What may lie in a result's folder, looked at before Zarr opens any of it: the folder may come from a stranger.

Zarr follows links, waits for pipes, and takes the memory that a compressed chunk asks for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr

from shiftlens.errors import StoreError
from shiftlens.naming import printable
from shiftlens.storage.locking import disk_errors

MOST_METADATA = 16 * 2**20
"""Bytes of a `zarr.json`; those of this tool have some thousands."""

MOST_CHUNK = 2**31
"""Bytes of any other file."""

DEEPEST = 32
"""Folders within folders; a result of this tool has six or so."""

CODECS = ("BytesCodec", "ZstdCodec")
"""What this tool writes its arrays with; others could unpack to any size, or run code that is installed."""

_MAGIC = b"\x28\xb5\x2f\xfd"


def nothing_at(path: Path) -> bool:
    """Whether nothing lies at a path, not even a link that leads nowhere.

    Raises
    ------
    OSError
        Nobody can say: links in a circle on the way, a folder that is closed, a name that is too long.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def metadata_of(path: Path) -> bytes:
    """The bytes of a `zarr.json`.

    Raises
    ------
    StoreError
        It is a link or too large.
    OSError
        It cannot be read.
    """
    _refuse(path, path.lstat())
    return path.read_bytes()


def refuse_strange_entries(folder: Path) -> None:
    """Refuse a result in which something is neither a folder nor a file of a size that this tool writes.

    The folder itself may be a link: its owner said where it is.

    Raises
    ------
    StoreError
        Names the entry.
    """
    with disk_errors(folder, "read"):
        for path, facts in _entries(folder):
            _refuse(path, facts)


def _entries(folder: Path, depth: int = 1) -> Iterator[tuple[Path, os.stat_result]]:
    if depth > DEEPEST:
        raise StoreError(f"{printable(str(folder))} is nested deeper than anything in a result; expected no more there")
    with os.scandir(folder) as found:
        for entry in found:
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process has just renamed it
            yield Path(entry.path), facts
            if stat.S_ISDIR(facts.st_mode):
                yield from _entries(Path(entry.path), depth + 1)


def _refuse(path: Path, facts: os.stat_result) -> None:
    what = ""
    if stat.S_ISLNK(facts.st_mode):
        what = "is a link (copy the result with what its links lead to)"
    elif not stat.S_ISDIR(facts.st_mode) and not stat.S_ISREG(facts.st_mode):
        what = "is a pipe or a device"
    elif stat.S_ISREG(facts.st_mode):
        most = MOST_METADATA if path.name == "zarr.json" else MOST_CHUNK
        if facts.st_size > most:
            what = f"has {facts.st_size:,} bytes, expected at most {most:,}"
    if what:
        raise StoreError(f"{printable(str(path))} {what}; expected folders and files of a result and nothing else")


def refuse_other_codecs(where: str, array: zarr.Array[Any]) -> None:
    """Refuse an array that is packed in another way than this tool packs.

    Raises
    ------
    StoreError
        Names what is there.
    """
    codecs = getattr(array.metadata, "codecs", ())
    found = tuple(type(codec).__name__ for codec in codecs)
    if array.shards is not None or found not in (CODECS, CODECS[:1]):
        raise StoreError(f"{where} is damaged: expected arrays packed by bytes and zstd, got {', '.join(found)}")


def refuse_swollen(file: Path, most: int) -> None:
    """Refuse a chunk that says it unpacks to more than `most` bytes; of one that is torn, nothing is said here.

    Raises
    ------
    ValueError
        As from a chunk that cannot be decoded.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(18)
    except OSError:
        return
    if head[:4] != _MAGIC or len(head) < 6:
        return
    size = _content_size(head)
    if size is None or size > most:
        raise ValueError(f"a chunk of {most} bytes would unpack to {'any size' if size is None else size}")


def _content_size(head: bytes) -> int | None:
    """What a Zstandard frame says of its content; None where it says nothing. Source: RFC 8878, section 3.1.1.1."""
    flag, single, dictionary = head[4] >> 6, head[4] >> 5 & 1, head[4] & 3
    width = (single, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[dictionary]
    if not width:
        return None
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)
