"""`folder:PATH`: one folder a class, with or without folders for the splits around them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np

from shiftlens.data.decode import PICTURE_SUFFIXES
from shiftlens.data.example_images import WITHOUT_LABELS, EncodedPictures, Source
from shiftlens.errors import InputError
from shiftlens.naming import printable
from shiftlens.paths import entries_of, kind_of, read_file

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""Folder or file names that mean a split, in lower case."""


class FolderPictures(EncodedPictures):
    """Picture files below one folder; each is opened when its picture is asked for."""

    def __init__(self, root: Path, files: list[str], notes: tuple[str, ...]) -> None:
        self._root = root
        self._files = files
        self.notes = notes

    def __len__(self) -> int:
        """How many there are."""
        return len(self._files)

    def where(self, position: int) -> str:
        """How an error names a picture."""
        return f"picture {position} ({self._root / self._files[position]})"

    def encoded(self, position: int) -> bytes:
        """The bytes of the file."""
        return read_file(self._root / self._files[position], self.where(position))


def open_folder(root: Path, split: str) -> Source:
    """List the pictures of a folder in a fixed order: classes by name, then files by name, deeper folders included.

    `root` holds class folders, or split folders (train, and test or val) of class folders; without a test folder, the
    validation folder serves. `InputError`: no such folder, no class folders, no pictures, or no folder for the split.
    """
    kind = kind_of(root)
    if kind == "nothing":
        raise InputError(f"folder {root} does not exist; expected a folder with one folder a class")
    if kind == "file":
        raise InputError(f"{root} is a file; expected a folder with one folder a class")
    classes = _class_folders(root)
    splits = {SPLIT_FOLDERS[name.lower()]: name for name in classes if name.lower() in SPLIT_FOLDERS}
    part, parts = root, [root]
    if classes and len(splits) == len(classes):
        parts = [root / splits[name] for name in pick_splits(splits, split, str(root))]
        part = parts[0] if len(parts) == 1 else root
        # All splits together decide the numbering, or a class that one of them lacks would shift the others.
        classes = sorted({name for folder in splits.values() for name in _class_folders(root / folder)})
    if not classes:
        here = [file.name for file in entries_of(part) if file.suffix.lower() in PICTURE_SUFFIXES]
        if not here:
            raise InputError(f"{part} holds no folders; expected one folder a class")
        named = ", ".join(printable(name) for name in here[:3]) + (", ..." if len(here) > 3 else "")
        raise InputError(
            f"{part} holds no folders, only pictures ({named}); expected one folder a class: put them into one "
            f"folder a class, or load them as (images, labels) in Python; {WITHOUT_LABELS}"
        )
    files: list[str] = []
    labels: list[int] = []
    skipped: list[str] = []
    for (label, name), each in product(enumerate(classes), parts):
        if kind_of(each / name) == "nothing":
            continue  # a class of another split
        found = [file for file in files_below(each / name) if not file.name.startswith(".")]
        pictures = [file for file in found if file.suffix.lower() in PICTURE_SUFFIXES]
        skipped += [file.relative_to(part).as_posix() for file in found if file.suffix.lower() not in PICTURE_SUFFIXES]
        files += [str(file.relative_to(part)) for file in pictures]
        labels += [label] * len(pictures)
    if not files:
        raise InputError(f"{part} holds {len(classes)} class folders and no pictures (.png, .jpg, .webp, .tif, ...)")
    notes = (f"skipped files that are no pictures by name: {len(skipped):,} (first: {skipped[0]})",) if skipped else ()
    has_splits = parts != [root] and set(splits) != {"train"}
    return Source(FolderPictures(part, files, notes), np.array(labels, dtype=np.int64), classes, has_splits)


def pick_splits(there: Iterable[str], split: str, where: str) -> list[str]:
    """Which of a source's own splits serve: the asked one, all, or for a missing test validation, else train."""
    names = set(there)
    if split == "all":
        return sorted(names)
    for name in (split, *(("validation", "train") if split == "test" else ())):
        if name in names:
            return [name]
    raise InputError(f"{where} has no split {split!r}, only {', '.join(sorted(names))}")


def _class_folders(root: Path) -> list[str]:
    visible = (entry for entry in entries_of(root) if not entry.name.startswith("."))
    return sorted(entry.name for entry in visible if kind_of(entry) == "folder")


def files_below(root: Path) -> list[Path]:
    """All files below a folder by name. Links are followed, as a set may be made of links; loops are cut."""

    def refuse(error: OSError) -> None:
        raise InputError(f"folder {error.filename} cannot be listed: {error.strerror}") from error

    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    try:
        for folder, below, names in os.walk(root, followlinks=True, onerror=refuse):
            facts = Path(folder).stat()
            if (facts.st_dev, facts.st_ino) in seen:
                below.clear()
                continue
            seen.add((facts.st_dev, facts.st_ino))
            below[:] = sorted(name for name in below if not name.startswith("."))
            files += [Path(folder) / name for name in names]
    except OSError as error:
        refuse(error)
    except RecursionError:
        raise InputError(f"folder {root} holds folders nested too deep; expected pictures a few folders down") from None
    return sorted(files)
