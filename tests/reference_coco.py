"""AP and mean IoU of a data set, as plain loops over objects, detections and pixels: slow, and independent of ours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0, 1, 101).tolist()  # as COCO rounds them: 0.07 may be just above 7 / 100


def overlap(a: Any, b: Any, *, over_first: bool = False) -> float:
    """Intersection over union of two boxes, or over the area of the first."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (areas[0] if over_first else areas[0] + areas[1] - width * height)


def clipped(box: Any, size: tuple[int, int]) -> list[float]:
    """A box cut to a frame of (h, w)."""
    h, w = size
    return [min(max(float(value), 0.0), limit) for value, limit in zip(box, (w, h, w, h), strict=True)]


def in_view(objects: Any, shift: tuple[int, int], size: tuple[int, int]) -> list[tuple[list[float], float, bool]]:
    """Box, class and whether it is ignored, of each object [left, top, right, bottom, class] that is left in view."""
    dx, dy = shift
    found = []
    for left, top, right, bottom, label in objects:
        box = clipped((left + dx, top + dy, right + dx, bottom + dy), size)
        share = max(box[2] - box[0], 0) * max(box[3] - box[1], 0) / ((right - left) * (bottom - top))
        if share > 0:
            found.append((box, float(label), share < 0.5))
    return found


def seen(found: Any, size: tuple[int, int]) -> list[list[float]]:
    """Detections [left, top, right, bottom, score, class] that are in the frame, clipped."""
    cut = [[*clipped(row[:4], size), float(row[4]), float(row[5])] for row in found if row[5] >= 0]
    return [row for row in cut if row[2] > row[0] and row[3] > row[1]]


def data_set_ap(images: list[tuple[Any, Any]], size: tuple[int, int], shift: tuple[int, int]) -> tuple[float, float]:
    """AP and AP50 of (objects, detections) of each image, under one shift."""
    placed = [(in_view(objects, shift, size), seen(found, size)) for objects, found in images]
    labels = sorted({label for objects, _ in placed for _, label, ignored in objects if not ignored})
    by_threshold = []
    for threshold in THRESHOLDS:
        of_classes = [_ap_of_class(placed, label, threshold) for label in labels]
        by_threshold.append(sum(of_classes) / len(of_classes) if of_classes else math.nan)
    return sum(by_threshold) / len(by_threshold), by_threshold[0]


def _ap_of_class(placed: list[tuple[Any, Any]], label: float, threshold: float) -> float:
    marks: list[tuple[float, bool]] = []
    n_true = 0
    for objects, found in placed:
        wanted = [box for box, own, ignored in objects if own == label and not ignored]
        excused = [box for box, own, ignored in objects if own == label and ignored]
        n_true += len(wanted)
        free = list(range(len(wanted)))
        for *box, score, own in sorted(found, key=lambda row: -row[4]):
            if own != label:
                continue
            best = max(free, key=lambda k: overlap(box, wanted[k]), default=None)
            if best is not None and overlap(box, wanted[best]) >= threshold:
                free.remove(best)
                marks.append((score, True))
            elif not any(overlap(box, each, over_first=True) >= threshold for each in excused):
                marks.append((score, False))
    marks.sort(key=lambda mark: -mark[0])
    curve, right = [], 0
    for n, (_, hit) in enumerate(marks, 1):
        right += hit
        curve.append((right / n_true, right / n))
    total = 0.0
    for least in RECALLS:
        total += max((precision for recall, precision in curve if recall >= least), default=0.0)
    return total / 101


def data_set_iou(images: list[tuple[Any, Any]], shift: tuple[int, int]) -> float:
    """Mean over classes of the IoU of (mask, predicted classes of the shifted image), over the pixels of all images."""
    dx, dy = shift
    counts: dict[int, list[int]] = {}
    for mask, predicted in images:
        h, w = mask.shape
        for y in range(h):
            for x in range(w):
                if not (0 <= y - dy < h and 0 <= x - dx < w) or mask[y - dy, x - dx] == 255:
                    continue
                truth, guess = int(mask[y - dy, x - dx]), int(predicted[y, x])
                for label in {truth, guess}:
                    both = counts.setdefault(label, [0, 0])
                    both[0] += truth == guess
                    both[1] += 1
    return sum(a / b for a, b in counts.values()) / len(counts) if counts else math.nan
