"""What is true of images beside a class: masks, or boxes with labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.tasks.task import IGNORED_PIXEL, NO_OBJECT


@dataclass(frozen=True, eq=False)
class Targets:
    """Masks [n, h, w] of class numbers (255: counts for nothing), or boxes [n, k, (left, top, right, bottom, class)].

    Images with fewer boxes than the fullest one have rows of class -1.
    """

    masks: NDArray[np.uint8] | None = None
    boxes: NDArray[np.float64] | None = None

    @property
    def kind(self) -> str:
        """Which of both they are: "masks" or "boxes"."""
        return "boxes" if self.masks is None else "masks"

    @property
    def values(self) -> NDArray[Any]:
        """The masks, or the table of boxes."""
        found = self.boxes if self.masks is None else self.masks
        if found is None:
            raise ValueError("targets hold masks or boxes")
        return found

    def __len__(self) -> int:
        return len(self.values)

    def at(self, positions: Any) -> Targets:
        """Those of some images."""
        name = self.kind
        return replace(self, **{name: self.values[positions]})

    @property
    def digest(self) -> str:
        """Of kind, shape and all numbers."""
        content = np.ascontiguousarray(self.values)
        total = hashlib.sha256(f"{self.kind} {content.dtype.str} {content.shape}".encode())
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

    Raises
    ------
    InputError
        Another number of them than images, boxes that are none, or classes that are no whole numbers from 0.
    """
    if isinstance(given, Sequence) and len(given) and all(isinstance(each, Mapping) for each in given):
        _refuse_count(len(given), n, "tables of boxes", name)
        return Targets(boxes=_padded([_table(each, k, name) for k, each in enumerate(given)]))
    array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given
    if not isinstance(array, np.ndarray) or array.ndim != 3:
        return None
    _refuse_count(len(array), n, "masks", name)
    if array.dtype.kind not in "iu" or (array.size and not 0 <= int(array.min()) <= int(array.max()) <= IGNORED_PIXEL):
        raise InputError(f"masks of {name} must be whole numbers from 0 to 255 (255 is ignored), got {array.dtype}")
    return Targets(masks=array.astype(np.uint8))


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
