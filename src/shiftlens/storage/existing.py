"""What lies at a path: a result of which kind and version, or something else; looked at before any of it is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftlens.errors import StoreError
from shiftlens.naming import printable
from shiftlens.storage.entries import metadata_of, nothing_at, refuse_strange_entries
from shiftlens.storage.locking import built_beside, clean_strays, disk_errors, output_lock, set_aside


@dataclass(frozen=True)
class Found:
    """What lies at a path: `kind` and `version` of a result, None of anything else; `what` says it in words."""

    what: str
    kind: str | None = None
    version: Any = None


def found_at(path: Path) -> Found | None:
    """Look at a path without opening more than its `zarr.json`; None for nothing, or an empty directory.

    Raises
    ------
    StoreError
        The path cannot be read, or `zarr.json` is a link or too large.
    """
    metadata = path / "zarr.json"
    with disk_errors(path, "read"):
        if nothing_at(path):
            return None
        if not path.is_dir():
            return Found("it is a file")
        if not metadata.is_file():
            names = sorted(entry.name for entry in path.iterdir())
            shown = printable(", ".join(names[:3])) + (", ..." if len(names) > 3 else "")
            return Found(f"it is a directory with {len(names)} entries ({shown})") if names else None
        text = metadata_of(metadata)
    try:
        document = json.loads(text)
        attributes = document["attributes"] if document.get("node_type") == "group" else {}
        kind, version = attributes.get("kind"), attributes.get("schema_version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return Found("its zarr.json is not the metadata of a Zarr group")
    if not isinstance(kind, str):
        return Found("it holds a Zarr node of something else")
    return Found(f"it holds a result of kind {kind[:60]!r}", kind, version)


@dataclass(frozen=True)
class Kind:
    """A kind of result: its `kind` attribute, its name in words, its schema version, how to make it again."""

    name: str
    noun: str
    version: int
    remedy: str

    def lies_at(self, path: Path) -> bool:
        """Whether a result of this kind, of any version, lies at `path`; False for nothing.

        Raises
        ------
        StoreError
            Something else is there. Nothing is touched.
        """
        return self._found(path) is not None

    def readable_at(self, path: Path) -> bool:
        """The same, of this version, with nothing but folders and files in it.

        Raises
        ------
        StoreError
            Something else is there, another version, or an entry that is a link, a pipe or too large.
        """
        found = self._found(path)
        if found is None:
            return False
        self.refuse_other_version(path, found.version)
        refuse_strange_entries(path)
        return True

    def replace(self, target: Path, write: Callable[[Path], object]) -> None:
        """Write a whole result at `target`, in place of an older one of this kind: killed, one of the two is there.

        `write` fills the folder that it is given.

        Raises
        ------
        StoreError
            Something else is there, or the disk refuses.
        """
        old, real = self.lies_at(target), target.resolve()
        with output_lock(target), disk_errors(target, "write to"):
            clean_strays(target)
            with built_beside(real, target) as building:
                write(building)
                aside = set_aside(real) if old else None
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)

    def _found(self, path: Path) -> Found | None:
        found = found_at(path)
        if found is not None and found.kind != self.name:
            raise StoreError(f"{path} must be {self.noun} or not exist, but {found.what}; it is left as it is")
        return found

    def refuse_other_version(self, path: Path, version: Any) -> None:
        """Refuse a schema version other than this one; `StoreError` says whether it is older, newer or none."""
        if type(version) is int and version == self.version:
            return
        what = f"{path} is {self.noun} of schema version {version!r:.20}, "
        if type(version) is int and 1 <= version < self.version:
            raise StoreError(f"{what}which this version no longer reads; {self.remedy}")
        newer = "a newer shiftlens wrote it, or it is damaged"
        raise StoreError(f"{what}this shiftlens reads {self.version}: {newer}")
