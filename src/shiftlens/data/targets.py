"""What is true of images beside a class: masks, boxes with labels, or both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shiftlens.data.decode import SizeRule
from shiftlens.data.lazy_masks import LazyMasks, on_rule
from shiftlens.errors import InputError
from shiftlens.tasks.task import CROWD, IGNORED_PIXEL, NO_OBJECT

Sizes = NDArray[np.int64]
"""(h, w) in pixels of each image, [n, 2]."""

_LEAST_AREA = 1e-6


@dataclass(frozen=True, eq=False)
class Targets:
    """Masks [n, h, w] of classes (255: counts for nothing), boxes [n, k, (left, top, right, bottom, class)], or both.

    Images with fewer boxes than the fullest one have rows of class -1 at the end. A class of -2 - k is a crowd of
    objects of class k: it is never missed, and what lies on it is no false alarm.
    """

    masks: NDArray[np.uint8] | LazyMasks | None = None
    boxes: NDArray[np.float64] | None = None

    @property
    def _given(self) -> dict[str, Any]:
        both = {"masks": self.masks, "boxes": self.boxes}
        return {kind: values for kind, values in both.items() if values is not None}

    def __len__(self) -> int:
        """Number of images."""
        return len(next(iter(self._given.values())))

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
        masks = self.masks.at(positions) if isinstance(self.masks, LazyMasks) else self.masks
        if isinstance(masks, np.ndarray):
            masks = masks[positions]
        return Targets(masks, None if self.boxes is None else self.boxes[positions])

    @property
    def digest(self) -> str:
        """Of kinds, shapes and all numbers; of masks in files over their stored form."""
        total = hashlib.sha256()
        for kind, values in self._given.items():
            if isinstance(values, LazyMasks):
                total.update(f"{kind} {len(values)}".encode() + values.digest)
                continue
            content = np.ascontiguousarray(values)
            total.update(f"{kind} {content.dtype.str} {content.shape}".encode())
            total.update(content.tobytes())
        return total.hexdigest()

    def fitted(self, rule: SizeRule, sizes: Sizes, name: str) -> Targets:
        """The same after the images are brought to one size: boxes scaled and clipped, masks by the nearest pixel.

        A box of which nothing is left in view is left out.

        Raises
        ------
        InputError
            Boxes outside of their image: see `refuse_other_size`.
        """
        masks, boxes = self.masks, self.boxes
        if boxes is not None:
            Targets(boxes=boxes).refuse_other_size(sizes, name)
            boxes = _fitted_boxes(boxes, rule, sizes)
        if isinstance(masks, LazyMasks):
            masks = replace(masks, rule=rule)
        elif masks is not None:
            Targets(masks=masks).refuse_other_size(sizes, name)
            masks = np.stack([on_rule(mask, rule, f"mask {k} of {name}") for k, mask in enumerate(masks)])
        return Targets(masks, boxes)

    def refuse_other_size(self, sizes: tuple[int, int] | Sizes, name: str) -> None:
        """Refuse masks of another size than their image's, (h, w) of all or of each, or boxes outside of it.

        Raises
        ------
        InputError
            Names the image and the box.
        """
        each = np.broadcast_to(np.asarray(sizes, np.int64), (len(self), 2))
        if isinstance(self.masks, LazyMasks):
            self.masks.refuse_other_size(each)
        elif self.masks is not None:
            other = (each != self.masks.shape[1:]).any(axis=1)
            if other.any():
                (mh, mw), (h, w) = self.masks.shape[1:], each[int(np.argmax(other))]
                raise InputError(f"masks of {name} are {mh}x{mw}, its images {h}x{w}: give both in one size")
        if self.boxes is not None:
            there = self.boxes[:, :, 4] != NO_OBJECT
            limits = each[:, None, [1, 0, 1, 0]]
            bad = there & ((self.boxes[:, :, :4] < 0) | (self.boxes[:, :, :4] > limits)).any(axis=2)
            if bad.any():
                image, box = np.argwhere(bad)[0]
                h, w = each[image]
                raise InputError(
                    f"box {box} of image {image} of {name} is {self.boxes[image, box, :4].tolist()}, outside of the "
                    f"image of {h}x{w}"
                )

    def refuse_classes_beyond(self, n_classes: int, name: str, model: str) -> None:
        """Refuse a class number that a model of `n_classes` does not have; every mask is looked at once.

        Raises
        ------
        InputError
            Names the image and the class.
        """
        for kind, found in self.highest_classes().items():
            if (found >= n_classes).any():
                image = int(np.argmax(found >= n_classes))
                raise InputError(
                    f"{kind} of image {image} of {name} have class {found[image]}, {model} has {n_classes} (0 to "
                    f"{n_classes - 1}); a label map says which class is which (--label-map)"
                )

    @property
    def classes(self) -> set[int]:
        """Every class number there is; what counts for nothing is none."""
        found: set[int] = set()
        if self.masks is not None:
            there = self.masks.classes if isinstance(self.masks, LazyMasks) else set(np.unique(self.masks).tolist())
            found |= there - {IGNORED_PIXEL}
        if self.boxes is not None:
            found |= {int(k) for k in np.unique(box_classes(self.boxes))} - {int(NO_OBJECT)}
        return found

    def highest_classes(self) -> dict[str, NDArray[np.int64]]:
        """By kind, the highest class [n] of each image; 0 or less where it has none."""
        found: dict[str, NDArray[np.int64]] = {}
        if isinstance(self.masks, LazyMasks):
            found["masks"] = self.masks.highest
        elif self.masks is not None:
            found["masks"] = np.where(self.masks == IGNORED_PIXEL, 0, self.masks).max(axis=(1, 2)).astype(np.int64)
        if self.boxes is not None:
            classes = box_classes(self.boxes).astype(np.int64)
            found["boxes"] = classes.max(axis=1, initial=int(NO_OBJECT))
        return found

    def renumbered(self, table: Mapping[int, int]) -> Targets:
        """The same with other class numbers; what the table does not name keeps its own, and 255 in a mask stays."""
        masks, boxes = self.masks, self.boxes
        if boxes is not None:
            boxes = boxes.copy()
            old = box_classes(boxes)
            new = np.array([table.get(int(k), int(k)) for k in old.ravel()], np.float64).reshape(old.shape)
            boxes[:, :, 4] = np.where(boxes[:, :, 4] <= CROWD, CROWD - new, new)
        if masks is not None:
            numbers = np.array([table.get(k, k) for k in range(IGNORED_PIXEL)] + [IGNORED_PIXEL], np.uint8)
            masks = replace(masks, numbers=numbers) if isinstance(masks, LazyMasks) else numbers[masks]
        return Targets(masks, boxes)


def box_classes(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Classes [n, k] of boxes [n, k, 5], a crowd's too; -1 where there is no box."""
    return np.where(boxes[:, :, 4] <= CROWD, CROWD - boxes[:, :, 4], boxes[:, :, 4])


def as_targets(given: Any, n: int, name: str) -> Targets | None:
    """Masks [n, h, w], or a list of `{"boxes": [k, 4], "labels": [k]}`, as targets; None for anything else.

    Each or none of the list may have a `"mask"` [h, w] as well.

    Raises
    ------
    InputError
        Another number of them than images, boxes that are none, or classes that are no whole numbers from 0.
    """
    if isinstance(given, Targets):
        _refuse_count(len(given), n, given.kind, name)
        return given
    if isinstance(given, Sequence) and len(given) and all(isinstance(each, Mapping) for each in given):
        _refuse_count(len(given), n, "tables of boxes", name)
        boxes = padded([box_table(each, f"image {k} of {name}") for k, each in enumerate(given)])
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


def box_table(objects: Mapping[str, Any], where: str) -> NDArray[np.float64]:
    """Rows [k, 5] of one image's boxes [k, 4] and labels [k].

    Raises
    ------
    InputError
        Names the image and the box: boxes that are none, or labels that are no whole numbers from 0.
    """
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


def padded(tables: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Tables [k, 5] of each image as one array, with rows of class -1 below."""
    out = np.full((len(tables), max(map(len, tables), default=0), 5), NO_OBJECT)
    for row, table in zip(out, tables, strict=True):
        row[: len(table)] = table
    return out


def _image_name(k: int) -> str:
    return f"image {k}"


def _fitted_boxes(boxes: NDArray[np.float64], rule: SizeRule, sizes: Sizes) -> NDArray[np.float64]:
    tables = []
    limits = (rule.size[1], rule.size[0]) * 2
    for k, (table, (h, w)) in enumerate(zip(boxes, sizes.tolist(), strict=True)):
        new_h, new_w, top, left = rule.placing((h, w), partial(_image_name, k))
        table = table[table[:, 4] != NO_OBJECT].copy()
        scaled = table[:, :4] * (new_w / w, new_h / h, new_w / w, new_h / h) - (left, top, left, top)
        table[:, :4] = np.clip(scaled, 0, limits)
        area = (table[:, 2] - table[:, 0]) * (table[:, 3] - table[:, 1])
        tables.append(table[area > _LEAST_AREA])
    return padded(tables)
