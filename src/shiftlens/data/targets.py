"""What is true of images beside a class: masks, boxes with labels, or both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.tasks.task import IGNORED_PIXEL, NO_OBJECT


@dataclass(frozen=True, eq=False)
class Targets:
    """Masks [n, h, w] of classes (255: counts for nothing), boxes [n, k, (left, top, right, bottom, class)], or both.

    Images with fewer boxes than the fullest one have rows of class -1.
    """

    masks: NDArray[np.uint8] | None = None
    boxes: NDArray[np.float64] | None = None

    @property
    def _given(self) -> dict[str, NDArray[Any]]:
        both = {"masks": self.masks, "boxes": self.boxes}
        return {kind: values for kind, values in both.items() if values is not None}

    @property
    def kind(self) -> str:
        """What they are: "masks", "boxes", or "masks and boxes"."""
        return " and ".join(self._given)

    def only(self, kind: str) -> Targets | None:
        """Those of one kind, "masks" or "boxes"; None where there are none."""
        values = self._given.get(kind)
        return None if values is None else Targets(**{kind: values})

    def at(self, positions: Any) -> Targets:
        """Those of some images."""
        return Targets(**{kind: values[positions] for kind, values in self._given.items()})

    @property
    def digest(self) -> str:
        """Of kinds, shapes and all numbers."""
        total = hashlib.sha256()
        for kind, values in self._given.items():
            content = np.ascontiguousarray(values)
            total.update(f"{kind} {content.dtype.str} {content.shape}".encode())
            total.update(content.tobytes())
        return total.hexdigest()

    def refuse_other_size(self, size: tuple[int, int] | None, name: str) -> None:
        """Refuse masks of another size than the images', or boxes outside of images of (h, w) pixels.

        Raises
        ------
        InputError
            Names the image and the box.
        """
        if size is None:
            raise InputError(f"{name} has {self.kind} and images of several sizes; give images of one size")
        h, w = size
        if self.masks is not None and self.masks.shape[1:] != (h, w):
            mh, mw = self.masks.shape[1:]
            raise InputError(f"masks of {name} are {mh}x{mw}, its images {h}x{w}: give both at the model's input size")
        if self.boxes is not None:
            there = self.boxes[:, :, 4] != NO_OBJECT
            bad = there & ((self.boxes[:, :, :4] < 0) | (self.boxes[:, :, :4] > (w, h, w, h))).any(axis=2)
            if bad.any():
                image, box = np.argwhere(bad)[0]
                raise InputError(
                    f"box {box} of image {image} of {name} is {self.boxes[image, box, :4].tolist()}, outside of the "
                    f"image of {h}x{w}"
                )


def as_targets(given: Any, n: int, name: str) -> Targets | None:
    """Masks [n, h, w], or a list of `{"boxes": [k, 4], "labels": [k]}`, as targets; None for anything else.

    Each or none of the list may have a `"mask"` [h, w] as well.

    Raises
    ------
    InputError
        Another number of them than images, boxes that are none, or classes that are no whole numbers from 0.
    """
    if isinstance(given, Sequence) and len(given) and all(isinstance(each, Mapping) for each in given):
        _refuse_count(len(given), n, "tables of boxes", name)
        boxes = _padded([_table(each, k, name) for k, each in enumerate(given)])
        return Targets(boxes=boxes, masks=_masks_of(given, name))
    array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given
    if not isinstance(array, np.ndarray) or array.ndim != 3:
        return None
    _refuse_count(len(array), n, "masks", name)
    return Targets(masks=_checked_masks(array, name))


def _masks_of(given: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.uint8] | None:
    there = [k for k, each in enumerate(given) if "mask" in each]
    if not there:
        return None
    missing = next((k for k, each in enumerate(given) if "mask" not in each), None)
    if missing is not None:
        raise InputError(f"image {missing} of {name} needs a mask, as image {there[0]} has one")
    masks = [np.asarray(torch.as_tensor(each["mask"]).cpu()) for each in given]
    shapes = [mask.shape for mask in masks]
    other = next((k for k, shape in enumerate(shapes) if len(shape) != 2 or shape != shapes[0]), None)
    if other is not None:
        raise InputError(f"masks of {name} must be [h, w], all of one size, got {shapes[other]} for image {other}")
    return _checked_masks(np.stack(masks), name)


def _checked_masks(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if array.dtype.kind not in "iu" or (array.size and not 0 <= int(array.min()) <= int(array.max()) <= IGNORED_PIXEL):
        raise InputError(f"masks of {name} must be whole numbers from 0 to 255 (255 is ignored), got {array.dtype}")
    return array.astype(np.uint8)


def _refuse_count(found: int, n: int, what: str, name: str) -> None:
    if found != n:
        raise InputError(f"{what} of {name} must be as many as the images: expected {n}, got {found}")


def _table(objects: Mapping[str, Any], image: int, name: str) -> NDArray[np.float64]:
    where = f"image {image} of {name}"
    missing = {"boxes", "labels"} - objects.keys()
    if missing:
        raise InputError(f"{where} needs {' and '.join(sorted(missing))} beside {', '.join(map(str, objects))}")
    boxes, labels = (np.asarray(torch.as_tensor(objects[key]).cpu()) for key in ("boxes", "labels"))
    boxes = boxes.reshape(-1, 4).astype(np.float64) if boxes.size % 4 == 0 else boxes
    if boxes.ndim != 2 or labels.shape != (len(boxes),):
        raise InputError(f"{where} needs boxes [k, 4] and labels [k], got {boxes.shape} and {labels.shape}")
    if len(labels) and (labels.dtype.kind not in "iu" or int(labels.min()) < 0):
        raise InputError(f"labels of {where} must be whole numbers from 0, got {labels.tolist()!r:.60}")
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    if bad.any():
        box = int(np.argmax(bad))
        raise InputError(
            f"box {box} of {where} is {boxes[box].tolist()}: expected left < right and top < bottom, in pixels"
        )
    return np.concatenate([boxes, labels[:, None].astype(np.float64)], axis=1)


def _padded(tables: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    out = np.full((len(tables), max(map(len, tables)), 5), NO_OBJECT)
    for row, table in zip(out, tables, strict=True):
        row[: len(table)] = table
    return out
