"""A torch data set of (image, target) in the form of torchvision's v2 transforms: boxes and labels, or masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from shiftlens.data.example_images import Source, picture_of
from shiftlens.data.image_items import ItemPictures, class_names_of
from shiftlens.data.lazy_masks import LazyMasks, Mask
from shiftlens.data.targets import Targets, box_table, padded
from shiftlens.errors import InputError
from shiftlens.naming import one_line
from shiftlens.tasks.task import CROWD, IGNORED_PIXEL

_N_PROBED = 4  # items read twice, to notice a random transform


def has_targets(dataset: Any) -> bool:
    """Whether the first item is (image, target) with masks or boxes, not with a class number."""
    try:
        _, target = dataset[0]
    except Exception:  # no such item: said where classes are read
        return False
    return _is_mask(target) or (isinstance(target, Mapping) and bool({"boxes", "masks"} & target.keys()))


def open_target_dataset(dataset: Any, name: str) -> Source:
    """Images of a data set whose targets are masks [h, w], or `{"boxes": [k, 4], "labels": [k]}`, or both in one.

    Boxes are (left, top, right, bottom), or a `BoundingBoxes` of any form; `"masks"` [k, h, w] are drawn into one map
    of classes, `"iscrowd"` [k] is heeded. Boxes are read at once, item by item; masks when they are needed.

    Raises
    ------
    InputError
        Items that change from one reading to the next, or targets that are none: the item is named.
    """
    items = _Items(dataset, name)
    for position in range(min(len(items), _N_PROBED)):
        first, second = items.item(position), items.item(position)
        where = items.where(position)
        if not np.array_equal(picture_of(first[0], where), picture_of(second[0], where)):
            raise InputError(f"{where} changes from one reading to the next: use the dataset without random transforms")
    target = items.item(0)[1]
    boxes = None
    if isinstance(target, Mapping) and "boxes" in target:
        boxes = padded([items.table(position) for position in range(len(items))])
    masks = None
    if _is_mask(target) or "masks" in target:
        masks = LazyMasks(items, np.arange(len(items)))
    return Source(ItemPictures(_Images(items), name), Targets(masks, boxes), class_names_of(dataset))


class _Items:
    """Items of a data set, checked; a reader of its masks."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset
        self._name = name

    def __len__(self) -> int:
        """How many there are."""
        return len(self._dataset)

    def where(self, position: int) -> str:
        """How an error names an item."""
        return f"picture {position} of {self._name}"

    def item(self, position: int) -> tuple[Any, Any]:
        """(image, target)."""
        where = self.where(position)
        try:
            image, target = self._dataset[position]
        except Exception as error:  # the user's code may raise anything
            raise InputError(f"{where}: the dataset raised {type(error).__name__}: {one_line(error)}") from error
        return image, target

    def table(self, position: int) -> NDArray[np.float64]:
        """Rows (left, top, right, bottom, class) of an item."""
        _, target = self.item(position)
        if not isinstance(target, Mapping):
            raise InputError(f"{self.where(position)}: expected boxes and labels, got {type(target).__name__}")
        table = box_table(_corners(target), self.where(position))
        crowd = np.asarray(target.get("iscrowd", np.zeros(len(table)))).astype(bool)
        if crowd.shape == (len(table),):
            table[:, 4] = np.where(crowd, CROWD - table[:, 4], table[:, 4])
        return table

    def stored(self, position: int) -> bytes:
        """Checksum of a mask."""
        import hashlib

        mask = self.mask(position)
        return hashlib.sha256(f"{mask.shape}".encode() + mask.tobytes()).digest()

    def mask(self, position: int) -> Mask:
        """Class numbers [h, w]."""
        _, target = self.item(position)
        where = self.where(position)
        found = target.get("masks") if isinstance(target, Mapping) else target
        if found is None:
            raise InputError(f"{where} has no masks, as others have")
        array = np.asarray(found.detach().cpu() if isinstance(found, torch.Tensor) else found)
        if isinstance(target, Mapping) and array.ndim == 3 and "labels" in target:
            array = _drawn(array, np.asarray(target["labels"]), where)
        elif array.ndim == 3 and len(array) == 1:
            array = array[0]
        if array.ndim != 2 or array.dtype.kind not in "iub":
            raise InputError(f"{where}: expected a mask [h, w] of class numbers, got {array.dtype} {array.shape}")
        if array.size and not 0 <= int(array.min()) <= int(array.max()) <= IGNORED_PIXEL:
            raise InputError(
                f"{where}: a mask has class numbers from 0 to 255 (255 is ignored), got {int(array.max())}"
            )
        return array.astype(np.uint8)


class _Images:
    def __init__(self, items: _Items) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, position: int) -> Any:
        return self._items.item(position)[0]


def _is_mask(target: Any) -> bool:
    if isinstance(target, torch.Tensor | np.ndarray):
        return target.ndim == 2 or (target.ndim == 3 and len(target) == 1)
    return isinstance(target, Image.Image)


def _corners(target: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with boxes as (left, top, right, bottom), where they say that they have another form."""
    boxes = target.get("boxes")
    if getattr(boxes, "format", None) is None:
        return target
    from torchvision.transforms.v2 import functional

    return {**target, "boxes": functional.convert_bounding_box_format(boxes, new_format="XYXY")}


def _drawn(masks: NDArray[Any], labels: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Masks [k, h, w] of objects as one map of their classes, the later above the earlier; 0 where no object is."""
    if labels.shape != (len(masks),) or (
        len(labels) and not 0 < int(labels.min()) <= int(labels.max()) < IGNORED_PIXEL
    ):
        raise InputError(f"{where}: expected for masks [k, h, w] labels [k] from 1 to 254, got {labels.tolist()!r:.60}")
    out = np.zeros(masks.shape[1:], np.int64)
    for mask, label in zip(masks, labels, strict=True):
        out[mask != 0] = label
    return out
