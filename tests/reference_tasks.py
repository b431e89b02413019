"""The numbers of one window of each task, in NumPy and plain loops, made of outputs of the net: independent of ours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_coco import in_view, overlap, seen

Map = NDArray[Any]


def _views(shift: tuple[int, int], size: tuple[int, int]) -> tuple[Any, Any]:
    """Where content lies that is in the frame (h, w) before and after: slices after the shift, and before."""
    (dx, dy), (h, w) = shift, size
    after = slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0))
    before = slice(max(-dy, 0), h + min(-dy, 0)), slice(max(-dx, 0), w + min(-dx, 0))
    return after, before


def _inner(shift: tuple[int, int], size: tuple[int, int], margin: int) -> Map:
    """Pixels of the view that are `margin` from every border, before and after."""
    after, before = _views(shift, size)
    rows, columns = np.indices(size)
    far = (rows >= margin) & (rows < size[0] - margin) & (columns >= margin) & (columns < size[1] - margin)
    return far[after] & far[before]


def _mean(values: Map) -> float:
    return float(values.mean()) if values.size else math.nan


def segmentation(found: Map, still: Map, mask: Map | None, shift: tuple[int, int], margin: int) -> dict[str, Any]:
    """Logits [class, h, w] under a shift and without, and the mask of the unshifted image."""
    size = found.shape[1:]
    after, before = _views(shift, size)
    guess, same = found.argmax(0)[after], found.argmax(0)[after] == still.argmax(0)[before]
    rows = {
        "pixel_agreement": _mean(same),
        "interior_agreement": _mean(same[_inner(shift, size, margin)]),
        "mean_iou": math.nan,
        "pixel_accuracy": math.nan,
    }
    if mask is not None:
        truth = mask[before]
        rows["pixel_accuracy"] = _mean((guess == truth)[truth != 255])
        shares = []
        for label in range(len(found)):
            judged = truth != 255
            union = int((((truth == label) | (guess == label)) & judged).sum())
            if union:
                shares.append(int(((truth == label) & (guess == label) & judged).sum()) / union)
        rows["mean_iou"] = _mean(np.array(shares))
    return rows


def dense(found: Map, still: Map, shift: tuple[int, int], margin: int) -> dict[str, Any]:
    """Maps [channel, h, w] under a shift and without."""
    size = found.shape[1:]
    after, before = _views(shift, size)
    off = np.abs(found.astype(np.float64)[:, after[0], after[1]] - still[:, before[0], before[1]])
    inner = _inner(shift, size, margin)
    return {"mae": _mean(off), "mse": _mean(off**2), "interior_mae": _mean(off[:, inner])}


def detection(objects: Any, found: Any, shift: tuple[int, int], size: tuple[int, int], least: float) -> dict[str, Any]:
    """Objects [left, top, right, bottom, class] of the unshifted image, those found of at least a score."""
    placed, rows = in_view(objects, shift, size), seen(found, size)
    taken: dict[int, list[float]] = {}
    n_unmatched = 0
    for *box, score, label in sorted(rows, key=lambda row: -row[4]):
        if score < least:
            continue
        wanted = [k for k, (_, own, ignored) in enumerate(placed) if own == label and not ignored and k not in taken]
        best = max(wanted, key=lambda k: overlap(box, placed[k][0]), default=None)
        if best is not None and overlap(box, placed[best][0]) >= 0.5:
            taken[best] = box
        elif not any(own == label and out and overlap(box, b, over_first=True) >= 0.5 for b, own, out in placed):
            n_unmatched += 1
    shown = [(k, box, label) for k, (box, label, ignored) in enumerate(placed) if not ignored]
    best_scores = [
        max((row[4] for row in rows if row[5] == label and overlap(row[:4], box) >= 0.5), default=0.0)
        for _, box, label in shown
    ]
    ious = [overlap(taken[k], box) for k, box, _ in shown if k in taken]
    centres = [math.dist(_centre(box), _centre(placed[k][0])) for k, box in taken.items()]
    return {
        "recall": len(taken) / len(shown) if shown else math.nan,
        "confidence": _mean(np.array(best_scores)),
        "box_iou": _mean(np.array(ious)),
        "center_error": _mean(np.array(centres)),
        "n_unmatched": n_unmatched,
    }


def _centre(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def embedding(found: Map, still: Map) -> dict[str, Any]:
    """Vectors [d] under a shift and without."""
    a, b = found.astype(np.float64), still.astype(np.float64)
    return {"cosine": float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))}
