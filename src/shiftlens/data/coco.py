"""`coco:IMAGES,ANNOTATIONS.json`: boxes and masks of one annotation file in COCO's form."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from shiftlens.data.example_images import Source
from shiftlens.data.folders import FolderPictures
from shiftlens.data.lazy_masks import LazyMasks, Mask
from shiftlens.data.targets import Targets, padded
from shiftlens.errors import InputError
from shiftlens.naming import distinct, one_line, printable
from shiftlens.paths import kind_of, read_file, with_home
from shiftlens.tasks.task import CROWD, IGNORED_PIXEL

MOST_CLASSES = 10_000
"""Category ids below this: a number that becomes a list of names must not fill the memory."""

ROUNDING = 1.0
"""Pixels by which a box may lie outside of its image: it is clipped. Published annotations are rounded."""

Number = Annotated[float, Field(allow_inf_nan=True)]


class _Image(BaseModel):
    id: int
    file_name: str
    height: int | None = None
    width: int | None = None


class _Category(BaseModel):
    id: Annotated[int, Field(ge=0, lt=MOST_CLASSES)]
    name: str


class _Object(BaseModel):
    image_id: int
    category_id: int
    bbox: Annotated[list[Number], Field(min_length=4, max_length=4)]
    iscrowd: Annotated[int, Field(ge=0, le=1)] = 0
    segmentation: Any = None


class _Annotations(BaseModel):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category]


def open_coco(spec: str) -> Source:
    """Open `IMAGES,ANNOTATIONS.json`: the images that the file lists, in its order, with boxes and masks.

    Classes are the file's category ids; in masks 0 is what no object covers, and a crowd counts for nothing. Masks are
    there where every object has a segmentation.

    Raises
    ------
    InputError
        A file that is none of COCO's form, images that are missing, or a box that is none: named in one line.
    """
    folder, comma, name = spec.rpartition(",")
    if not comma or not folder or not name:
        raise InputError(f"expected coco:IMAGES,ANNOTATIONS.json, got {f'coco:{spec}'!r}")
    root, path = with_home(folder), with_home(name)
    if kind_of(root) != "folder":
        raise InputError(f"{root} is no folder; expected the folder of the images that {path} lists")
    read = _read(path)
    files = [_inside(image.file_name, path) for image in read.images]
    missing = [file for file in files if kind_of(root / file) != "file"]
    if missing:
        shown = ", ".join(printable(file) for file in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise InputError(
            f"{len(missing):,} of {len(files):,} images of {path} are not in {root}: {shown}; put them there, or take "
            "them out of the file"
        )
    of_image: dict[int, list[_Object]] = {image.id: [] for image in read.images}
    for k, each in enumerate(read.annotations):
        if each.image_id not in of_image:
            raise InputError(f"{path}: annotation {k} is of image {each.image_id}, which the file does not list")
        of_image[each.image_id].append(each)
    names = _class_names(read, path)
    notes: list[str] = []
    pictures = FolderPictures(root, files, ())
    tables = _tables(read.images, of_image, path, pictures, notes)
    pictures.notes = tuple(notes)
    masks = None
    if read.annotations and all(each.segmentation for each in read.annotations):
        reader = _ObjectMasks(path, read.images, [of_image[image.id] for image in read.images], pictures)
        masks = LazyMasks(reader, np.arange(len(files)))
    return Source(pictures, Targets(masks, padded(tables)), names)


def _read(path: Path) -> _Annotations:
    try:
        read = _Annotations.model_validate_json(read_file(path, str(path)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} has no COCO annotations: {place + ': ' if place else ''}{first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} has no COCO annotations: {one_line(error)}") from None
    if not read.images:
        raise InputError(f"{path} lists no images")
    listed = {"image": [each.id for each in read.images], "category": [each.id for each in read.categories]}
    for what, ids in listed.items():
        twice = next((number for number, n in Counter(ids).items() if n > 1), None)
        if twice is not None:
            raise InputError(f"{path} has the {what} id {twice} twice")
    return read


def _inside(name: str, path: Path) -> str:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or not pure.parts:
        raise InputError(f"{path}: file_name {name!r:.80} leads out of the folder of images")
    return str(pure)


def _class_names(read: _Annotations, path: Path) -> list[str]:
    known = {each.id: each.name for each in read.categories}
    for k, each in enumerate(read.annotations):
        if each.category_id not in known:
            raise InputError(f"{path}: annotation {k} has category id {each.category_id}, which the file does not list")
    # A number that is no category id gets itself as its name.
    return distinct(known.get(k, str(k)) for k in range(max(known, default=0) + 1))


def _tables(
    images: Sequence[_Image], of_image: dict[int, list[_Object]], path: Path, pictures: FolderPictures, notes: list[str]
) -> list[NDArray[np.float64]]:
    """Rows (left, top, right, bottom, class) of each image, with what was done to boxes that are almost right."""
    tables, n_empty = [], 0
    for position, image in enumerate(images):
        rows = []
        for k, each in enumerate(of_image[image.id]):
            x, y, w, h = each.bbox
            where = f"{path}: box {k} of {printable(image.file_name)} is {each.bbox}"
            if not all(map(math.isfinite, each.bbox)) or w < 0 or h < 0:
                raise InputError(f"{where}: expected x, y, width and height of at least 0, in pixels")
            if w == 0 or h == 0:
                n_empty += 1
                continue
            rows.append((x, y, x + w, y + h, CROWD - each.category_id if each.iscrowd else each.category_id))
        table = np.array(rows, np.float64).reshape(-1, 5)
        if len(table):
            high, wide = image.height, image.width
            size = next(pictures.facts([position])).size if high is None or wide is None else (high, wide)
            table = clipped(table, size, f"{path}: box {{}} of {printable(image.file_name)}")
        tables.append(table)
    if n_empty:
        notes.append(f"boxes without area are left out: {n_empty:,}")
    return tables


def clipped(table: NDArray[np.float64], size: tuple[int, int], where: str) -> NDArray[np.float64]:
    """Boxes that end within a pixel of their image (h, w) cut to it; `where` has a place for the box's number.

    Raises
    ------
    InputError
        A box that lies further outside, or wholly.
    """
    limits = np.array([size[1], size[0]] * 2, np.float64)
    boxes = table[:, :4]
    cut = np.clip(boxes, 0, limits)
    bad = (np.abs(cut - boxes) > ROUNDING).any(axis=1) | (cut[:, 2:] <= cut[:, :2]).any(axis=1)
    if bad.any():
        k = int(np.argmax(bad))
        raise InputError(f"{where.format(k)} is {boxes[k].tolist()}, outside of the image of {size[0]}x{size[1]}")
    return np.concatenate([cut, table[:, 4:]], axis=1)


class _ObjectMasks:
    """Class maps that are drawn of the objects' polygons and run lengths, the later object above the earlier one."""

    def __init__(
        self, path: Path, images: Sequence[_Image], objects: Sequence[list[_Object]], pictures: FolderPictures
    ) -> None:
        self._path = path
        self._images = images
        self._objects = objects
        self._pictures = pictures

    def __len__(self) -> int:
        """How many there are."""
        return len(self._images)

    def where(self, position: int) -> str:
        """How an error names the mask."""
        return f"the mask of {printable(self._images[position].file_name)} in {self._path}"

    def stored(self, position: int) -> bytes:
        """Checksum of the objects as the file has them."""
        rows = [(each.category_id, each.iscrowd, each.segmentation) for each in self._objects[position]]
        return hashlib.sha256(json.dumps(rows).encode()).digest()

    def mask(self, position: int) -> Mask:
        """Class numbers [h, w]: 0 where no object is, 255 where a crowd is."""
        h, w = next(self._pictures.facts([position])).size
        out = np.zeros((h, w), np.uint8)
        for k, each in enumerate(self._objects[position]):
            where = f"{self._path}: segmentation {k} of {printable(self._images[position].file_name)}"
            if not 0 < each.category_id < IGNORED_PIXEL:
                raise InputError(
                    f"{where} has category id {each.category_id}; in masks 0 is no object and 255 counts for nothing: "
                    "number the categories from 1 to 254"
                )
            out[decoded(each.segmentation, (h, w), where)] = IGNORED_PIXEL if each.iscrowd else each.category_id
        return out


def decoded(segmentation: Any, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """Pixels [h, w] of polygons ([x, y, x, y, ...] each) or run lengths, as COCO's own code rasterises them.

    Raises
    ------
    InputError
        Names it by `where`: neither of both, another size than the image's, or no decoder is installed.
    """
    try:
        coder: Any = importlib.import_module("faster_coco_eval.core.mask")
    except ImportError:
        raise InputError("masks of COCO files need faster-coco-eval: pip install 'shiftlens[data]'") from None
    h, w = size
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [h, w]:
            raise InputError(f"{where} has size {segmentation.get('size')!r:.40}, its image {h}x{w}")
        counts = segmentation.get("counts")
        if isinstance(counts, list):
            right = all(type(n) is int and n >= 0 for n in counts) and sum(counts) == h * w
        else:
            right = isinstance(counts, str) and counts.isascii() and _n_pixels(counts) == h * w
        if not right:
            raise InputError(f"{where} has run lengths that do not add up to the {h}x{w} pixels of its image")
        run_lengths = {"size": [h, w], "counts": counts.encode() if isinstance(counts, str) else counts}
        code = [coder.frPyObjects(run_lengths, h, w) if isinstance(counts, list) else run_lengths]
    else:
        polygons = segmentation if isinstance(segmentation, list) else []
        right = bool(polygons) and all(
            isinstance(each, list)
            and len(each) >= 6
            and len(each) % 2 == 0
            and all(type(v) in (int, float) and abs(v) <= 16 * max(h, w) for v in each)
            for each in polygons
        )
        if not right:
            raise InputError(f"{where} is neither polygons [[x, y, x, y, ...], ...] near its image nor run lengths")
        code = coder.frPyObjects(polygons, h, w)
    found: NDArray[np.uint8] = np.asarray(coder.decode(coder.merge(code)))
    return found.astype(np.bool_)


def _n_pixels(counts: str) -> int:
    """Pixels that compressed run lengths are for; -1 for text that is none.

    COCO writes a run as digits of 5 bits, the lowest first, with a sixth that says whether more follow; from the third
    run on as the difference to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for code in counts.encode():
        digit = code - 48
        if not 0 <= digit < 64 or shift > 60:
            return -1
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return -1
        value = shift = 0
    return sum(runs) if shift == 0 else -1
