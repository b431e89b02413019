"""What lies at a path: one answer for everything that a user may name, also for what cannot be looked at."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Literal

from shiftlens.errors import InputError
from shiftlens.naming import printable


def kind_of(path: str | Path) -> Literal["file", "folder", "nothing"]:
    """Whether a file, a folder or nothing lies at a path, links followed. Pipes and devices count as nothing.

    `Path.exists` and its kin answer the same, but raise for names that the system refuses to look up.

    Raises
    ------
    InputError
        The system refuses: a folder on the way that is closed to this user, a name that is too long.
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


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder, by name.

    Raises
    ------
    InputError
        The folder cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"folder {printable(str(folder))} cannot be listed: {error.strerror or error}") from error


def with_home(path: str | Path) -> Path:
    """The path with `~` replaced by a home folder.

    Raises
    ------
    InputError
        Nobody of that name has one.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{printable(str(path))} names the home folder of nobody known here") from None
