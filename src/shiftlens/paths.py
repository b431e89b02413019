"""What lies at a path: one answer for everything that a user may name, also for what cannot be looked at."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Literal

from shiftlens.errors import InputError
from shiftlens.naming import printable


def kind_of(path: str | Path) -> Literal["file", "folder", "nothing"]:
    """Whether a file, a folder or nothing lies at a path, links followed. Pipes and devices count as nothing.

    `Path.exists` and its kin answer the same, but raise for names that the system refuses to look up: `InputError`
    here.
    """
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "nothing"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "nothing"  # links in a circle: they lead nowhere
        raise InputError(f"{printable(str(path))} cannot be read: {error.strerror or error}") from None
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "nothing"


MOST_BYTES = 2**30
"""Largest file that is read into memory whole: a picture within Pillow's limit has half of that at most."""


def read_file(path: Path, where: str) -> bytes:
    """The bytes of a file that is not too large; a pipe or a device is never waited for.

    `InputError` names it by `where`: it cannot be read, is no file, or has more than `MOST_BYTES`.
    """
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # noqa: PTH123
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise InputError(f"{where} is a pipe, a device or a folder; expected a file")
            if facts.st_size > MOST_BYTES:
                raise InputError(f"{where} has {facts.st_size:,} bytes; expected at most {MOST_BYTES:,}")
            return file.read()
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from error


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder, by name."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"folder {printable(str(folder))} cannot be listed: {error.strerror or error}") from error


def output_path(out: str | Path) -> Path:
    """The path of a result that replaces what lies there; `InputError` for `""` and `"."`, the current directory."""
    if Path(out) == Path():
        raise InputError(f"out must name the result, such as result.zarr, got {str(out)!r}: the current directory")
    return Path(out)


def with_home(path: str | Path) -> Path:
    """The path with `~` replaced by a home folder; `InputError` where nobody of that name has one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{printable(str(path))} names the home folder of nobody known here") from None
