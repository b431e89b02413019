"""Pickles that do something when they are read: they make a file."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from hostile.machinery import CANARY


class Payload:
    """Makes the canary of a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / CANARY)

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.path,))


def pickled(folder: Path, protocol: int = 2) -> bytes:
    return pickle.dumps(Payload(folder), protocol=protocol)


def by_eval(folder: Path) -> bytes:
    """The same by a name that every Python has: `builtins.eval`."""
    code = f"__import__('os').mkdir({str(folder / CANARY)!r})".encode()
    return b"\x80\x02c__builtin__\neval\nX" + len(code).to_bytes(4, "little") + code + b"\x85R."
