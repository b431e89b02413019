"""A result's folder while it is written: nothing may be made in its place once it was moved or deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiftlens.errors import StoreError
from shiftlens.storage.locking import disk_errors, folder_at, remove_stub

KEPT = "what is finished stays there, and the same call goes on from it"
"""What is said where the disk refuses to take more."""


class WrittenFolder:
    """The folder that lies at `path` now; `root` is the folder up to which a stub in its place is removed."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root = path, root
        self._folder = folder_at(path)

    def refuse_gone(self) -> None:
        """Refuse a folder that was moved or deleted since; `StoreError` says what to do."""
        if folder_at(self._path) != self._folder:
            raise StoreError(
                f"{self._path} is no longer there: it was moved or deleted while it was written, and nothing is made "
                "in its place; if it was moved, the same call with its new path goes on from what is finished"
            )

    @contextmanager
    def writing(self, *files: Path) -> Iterator[None]:
        """Around all that is written, with the names of new files: nothing of them stays where the folder is gone.

        Raises
        ------
        StoreError
            The disk is full or refuses, or the folder was moved or deleted.
        """
        self.refuse_gone()
        try:
            with disk_errors(self._path, "write to", KEPT):
                yield
        finally:
            if folder_at(self._path) != self._folder and not (self._path / "zarr.json").exists():
                # It went just now, and Zarr has made the folders again.
                remove_stub(files, self._root)
            self.refuse_gone()
