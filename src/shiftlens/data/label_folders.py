"""`yolo:DIR`, `masks:IMAGES,MASKS`, `fiftyone:DIR` and `images:DIR`: folders of images with labels in files."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, StrictInt, StrictStr, ValidationError

from shiftlens.data.coco import MOST_CLASSES, clipped
from shiftlens.data.decode import PICTURE_SUFFIXES, decode_mask
from shiftlens.data.example_images import Source
from shiftlens.data.folders import SPLIT_FOLDERS, FolderPictures, files_below, pick_splits
from shiftlens.data.lazy_masks import LazyMasks, Mask
from shiftlens.data.targets import Targets, padded
from shiftlens.errors import InputError
from shiftlens.naming import distinct, printable
from shiftlens.paths import kind_of, read_file, with_home


def open_unlabelled(folder: str) -> Source:
    """Open `images:DIR`: every image below a folder, in the order of their names, without labels.

    Raises
    ------
    InputError
        No such folder, or no images in it.
    """
    root = _folder(folder, "images")
    return Source(FolderPictures(root, _pictures_below(root), ()), None, None)


def open_masks(spec: str, split: str) -> Source:
    """Open `IMAGES,MASKS`: for each image below the one folder a mask of the same path below the other.

    Suffixes may differ. Folders `train`, `val` or `test` in the path are splits.

    Raises
    ------
    InputError
        No such folders, no images, or images without a mask: named in one line.
    """
    folder, comma, other = spec.rpartition(",")
    if not comma or not folder or not other:
        raise InputError(f"expected masks:IMAGES,MASKS (two folders), got {f'masks:{spec}'!r}")
    root, below = _folder(folder, "images"), _folder(other, "masks")
    files, has_splits = _of_split(_pictures_below(root), split, str(root))
    masks = {str(PurePosixPath(file).with_suffix("")): file for file in _pictures_below(below)}
    stems = [str(PurePosixPath(file).with_suffix("")) for file in files]
    missing = [file for file, stem in zip(files, stems, strict=True) if stem not in masks]
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(files):,} images of {root} have no mask in {below}: {_some(missing)}"
        )
    reader = MaskFiles(below, [masks[stem] for stem in stems])
    return Source(FolderPictures(root, files, ()), Targets(LazyMasks(reader, np.arange(len(files)))), None, has_splits)


class MaskFiles:
    """Mask files below one folder; each is opened when its mask is asked for."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self._root = root
        self._files = files

    def __len__(self) -> int:
        """How many there are."""
        return len(self._files)

    def where(self, position: int) -> str:
        """How an error names the mask."""
        return f"mask {self._root / self._files[position]}"

    def stored(self, position: int) -> bytes:
        """Checksum of the file."""
        return hashlib.sha256(self._data(position)).digest()

    def mask(self, position: int) -> Mask:
        """Class numbers [h, w]."""
        return decode_mask(self._data(position), self.where(position))

    def _data(self, position: int) -> bytes:
        return read_file(self._root / self._files[position], self.where(position))


def open_yolo(folder: str, split: str) -> Source:
    """Open `yolo:DIR`: images below a folder and, for each, a text file with a line `class x y w h` for each box.

    The text file lies where the image does, or in `labels` where the image lies in `images`; numbers are shares of the
    image's width and height, x and y those of the centre. A line with more numbers is a polygon, of which the box is
    taken. An image without a text file has no objects. Class names stand in `data.yaml` or `classes.txt`.

    Raises
    ------
    InputError
        No such folder, no images or no text files, or a line that is none: file and line are named.
    """
    root = _folder(folder, "images and labels")
    files, has_splits = _of_split(_pictures_below(root), split, str(root))
    pictures = FolderPictures(root, files, ())
    tables = []
    n_found = 0
    for position, file in enumerate(files):
        path = root / _label_file(file)
        if kind_of(path) != "file":
            tables.append(np.empty((0, 5)))
            continue
        n_found += 1
        table = _yolo_table(path)
        if len(table):
            h, w = next(pictures.facts([position])).size
            table[:, :4] *= (w, h, w, h)
            table = clipped(table, (h, w), f"{printable(str(path))}: box {{}}")
        tables.append(table)
    if not n_found:
        raise InputError(f"{root} holds no text files of boxes, such as {_label_file(files[0])} for {files[0]}")
    if n_found < len(files):
        pictures.notes = (f"images without a text file of boxes, taken to show no object: {len(files) - n_found:,}",)
    return Source(pictures, Targets(boxes=padded(tables)), _yolo_names(root, tables), has_splits)


Label = StrictInt | StrictStr


class _Labelled(BaseModel):
    label: Label


class _Box(_Labelled):
    bounding_box: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]


class _FiftyOne(BaseModel):
    classes: list[str] | None = None
    labels: dict[str, list[_Box]] | dict[str, Label | _Labelled]


def open_fiftyone(folder: str) -> Source:
    """Open `fiftyone:DIR`: images in `data` and one `labels.json`, as FiftyOne exports image data sets.

    `labels` of the file gives each image, by its path without suffix, a class, or a list of objects with a `label` and
    a `bounding_box` (left, top, width, height, as shares of the image). A class is a number in the list `classes`, or a
    name where there is no such list.

    Raises
    ------
    InputError
        No such folder or file, a file of another form, images that are missing, or a class that is not listed.
    """
    root = _folder(folder, "data and labels.json")
    path, below = root / "labels.json", _folder(str(root / "data"), "images")
    try:
        read = _FiftyOne.model_validate_json(read_file(path, str(path)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = printable(".".join(map(str, first["loc"])))
        raise InputError(f"{path} has no labels in FiftyOne's form: {where:.80}: {first['msg']}") from None
    there = {str(PurePosixPath(file).with_suffix("")): file for file in _pictures_below(below)}
    missing = [name for name in read.labels if name not in there]
    if missing or not read.labels:
        shown = f"{len(missing):,} of {len(read.labels):,} images of {path} are not in {below}: {_some(missing)}"
        raise InputError(shown if missing else f"{path} lists no images")
    objects = [each if isinstance(each, list) else [each] for each in read.labels.values()]
    plain = [[each if isinstance(each, int | str) else each.label for each in some] for some in objects]
    names = read.classes or sorted({str(label) for some in plain for label in some})
    known = {k if read.classes else name: k for k, name in enumerate(names)}
    unknown = [label for some in plain for label in some if label not in known]
    if unknown:
        expected = f"a number from 0 to {len(names) - 1}" if read.classes else "a name, as no classes are listed"
        raise InputError(f"{path}: expected {expected} as class, got {printable(repr(unknown[0])):.60}")
    codes = [[known[label] for label in some] for some in plain]
    pictures = FolderPictures(below, [there[name] for name in read.labels], ())
    if not isinstance(next(iter(read.labels.values())), list):
        return Source(pictures, np.array(codes, np.int64)[:, 0], distinct(names))
    tables = []
    for position, (some, numbers) in enumerate(zip(objects, codes, strict=True)):
        h, w = next(pictures.facts([position])).size
        shares = np.array([each.bounding_box for each in some if isinstance(each, _Box)], np.float64).reshape(-1, 4)
        corners = np.concatenate([shares[:, :2], shares[:, :2] + shares[:, 2:]], axis=1) * (w, h, w, h)
        table = np.column_stack([corners, np.array(numbers, np.float64)])
        tables.append(clipped(table, (h, w), f"{pictures.where(position)}: box {{}}"))
    return Source(pictures, Targets(boxes=padded(tables)), distinct(names))


def _yolo_table(path: Path) -> NDArray[np.float64]:
    """Rows (left, top, right, bottom, class) as shares of width and height."""
    rows = []
    text = read_file(path, str(path)).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{printable(str(path))}, line {number}"
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        n = len(values)
        if not (n == 5 or (n >= 7 and n % 2 == 1)) or not all(map(math.isfinite, values)):
            raise InputError(f"{where}: expected class x y width height, as shares of the image, got {line!r:.60}")
        label = values[0]
        if label != int(label) or not 0 <= label < MOST_CLASSES:
            raise InputError(f"{where}: expected a class from 0 to {MOST_CLASSES - 1}, got {words[0]!r:.40}")
        if n == 5:
            x, y, w, h = values[1:]
            if w <= 0 or h <= 0:
                raise InputError(f"{where}: expected a box with a width and a height above 0, got {line!r:.60}")
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        else:
            xs, ys = values[1::2], values[2::2]
            box = (min(xs), min(ys), max(xs), max(ys))
        rows.append((*box, label))
    return np.array(rows, np.float64).reshape(-1, 5)


def _label_file(file: str) -> str:
    parts = list(PurePosixPath(file).with_suffix(".txt").parts)
    last = max((k for k, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if last is not None:
        parts[last] = "labels"
    return str(PurePosixPath(*parts))


def _yolo_names(root: Path, tables: Sequence[NDArray[np.float64]]) -> list[str] | None:
    """Names of the classes from `classes.txt` or `data.yaml`; None without any, or with fewer than classes."""
    names: list[str] = []
    for name in ("classes.txt", "data.yaml"):
        if kind_of(root / name) == "file":
            text = read_file(root / name, str(root / name)).decode("utf-8", "replace")
            names = text.split("\n") if name == "classes.txt" else _yaml_names(text)
            break
    names = [each.strip() for each in names]
    while names and not names[-1]:
        names.pop()
    highest = max((int(table[:, 4].max()) for table in tables if len(table)), default=-1)
    if names and highest >= len(names):
        raise InputError(f"{root} names {len(names)} classes, and its boxes have class {highest}")
    return distinct(names) if names else None


def _yaml_names(text: str) -> list[str]:
    """The list under `names:`, in one line, one a line, or numbered; [] for anything else."""
    found = re.search(r"^names:[ \t]*(\[[^\]]*\])?[^\n]*\n?((?:[ \t]*(?:-|\d+:)[^\n]*\n?)*)", text, re.MULTILINE)
    if found is None:
        return []
    if found[1]:
        return [each.strip().strip("'\"") for each in found[1][1:-1].split(",")]
    return [re.sub(r"^\s*(-|\d+:)\s*", "", line).strip().strip("'\"") for line in found[2].splitlines() if line.strip()]


def _folder(name: str, what: str) -> Path:
    root = with_home(name)
    kind = kind_of(root)
    if kind != "folder":
        raise InputError(f"{root} {'is a file' if kind == 'file' else 'does not exist'}; expected a folder of {what}")
    return root


def _pictures_below(root: Path) -> list[str]:
    files = [file for file in files_below(root) if not file.name.startswith(".")]
    found = [file.relative_to(root).as_posix() for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    if not found:
        raise InputError(f"{root} holds no images (.png, .jpg, .webp, .tif, ...), at any depth")
    return found


def _of_split(files: list[str], split: str, where: str) -> tuple[list[str], bool]:
    """The files of a split, and whether there are splits: a folder of such a name in the path of every file."""
    splits = [
        next(
            (SPLIT_FOLDERS[part.lower()] for part in PurePosixPath(file).parts[:-1] if part.lower() in SPLIT_FOLDERS),
            "",
        )
        for file in files
    ]
    if not all(splits):
        return files, False
    chosen = pick_splits(splits, split, where)
    has_splits = set(splits) != {"train"}
    return [file for file, part in zip(files, splits, strict=True) if part in chosen], has_splits


def _some(names: Sequence[str]) -> str:
    return ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
