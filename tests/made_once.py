"""Files that several test processes use: made by the first that asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills, whichever process of this run comes first; nobody may write into it later."""
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent
    with FileLock(shared / f"{name}.lock"):
        if not (shared / name / "done").exists():
            (shared / name).mkdir()
            make(shared / name)
            (shared / name / "done").touch()
    return shared / name
