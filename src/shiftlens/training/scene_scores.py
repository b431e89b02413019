"""How good a segmenter or detector is on unshifted scenes: pixel accuracy, mean IoU, AP at IoU 0.5, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from numpy.typing import NDArray

from shiftlens.data.targets import Targets
from shiftlens.tasks.moving import box_overlap
from shiftlens.tasks.task import NO_OBJECT

N_DRAWS = 1_000
_RECALLS = np.linspace(0, 1, 101)

Weights = NDArray[np.float64]
"""How often each image counts [n]."""


def with_intervals(
    measured: Callable[[Weights], dict[str, float]], n: int, seed: int = 0
) -> dict[str, float | list[float]]:
    """Numbers of `n` images with their 95 % bootstrap intervals over images, as `NAME` and `NAME_interval`."""
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_DRAWS).astype(np.float64)
    tables = [measured(weights) for weights in draws]
    out: dict[str, float | list[float]] = {}
    for name, value in measured(np.ones(n)).items():
        low, high = np.percentile([table[name] for table in tables], [2.5, 97.5])
        out |= {name: float(value), f"{name}_interval": [float(low), float(high)]}
    return out


def segmentation_scores(
    predicted: Integer[np.ndarray, "n h w"], masks: Integer[np.ndarray, "n h w"], n_classes: int
) -> Callable[[Weights], dict[str, float]]:
    """Pixel accuracy, and the mean over classes of the IoU over all pixels of all images."""
    # [image, true class, predicted class]
    pairs = (masks.astype(np.int64) * n_classes + predicted).reshape(len(masks), -1)
    counts = np.stack([np.bincount(row, minlength=n_classes**2) for row in pairs]).reshape(-1, n_classes, n_classes)

    def measured(weights: Weights) -> dict[str, float]:
        total = np.tensordot(weights, counts, 1)
        common = np.diagonal(total)
        union = total.sum(0) + total.sum(1) - common
        there = union > 0
        return {
            "mean_iou": float((common[there] / union[there]).mean()),
            "pixel_accuracy": float(common.sum() / total.sum()),
        }

    return measured


def detection_scores(
    tables: Float[np.ndarray, "n rank 6"], targets: Targets, iou_threshold: float = 0.5
) -> Callable[[Weights], dict[str, float]]:
    """AP at one IoU, the mean over classes, as COCO computes it (101 recalls).

    `tables` are those of `tasks.outputs.detection_table`; `targets` hold boxes.
    """
    boxes = targets.boxes
    assert boxes is not None
    hits = np.stack([_hits(table, truth, iou_threshold) for table, truth in zip(tables, boxes, strict=True)])
    image = np.repeat(np.arange(len(tables)), tables.shape[1])
    scores, classes, hit = tables[:, :, 4].ravel(), tables[:, :, 5].ravel(), hits.ravel()
    per_class = []
    for label in np.unique(boxes[:, :, 4][boxes[:, :, 4] != NO_OBJECT]):
        mine = np.flatnonzero(classes == label)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        per_class.append((image[mine], hit[mine], (boxes[:, :, 4] == label).sum(1)))

    def measured(weights: Weights) -> dict[str, float]:
        found = [_average_precision(weights[i], hit, float(weights @ n_true)) for i, hit, n_true in per_class]
        return {"ap50": float(np.nanmean(found))}

    return measured


def _hits(table: NDArray[np.float64], truth: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Which rows of a table, best first, take an object of their class that none before has taken."""
    import torch

    iou = box_overlap(torch.from_numpy(table[:, None, :4]), torch.from_numpy(truth[None, :, :4]))[0].numpy()
    iou[table[:, None, 5] != truth[None, :, 4]] = 0
    hits = np.zeros(len(table), np.bool_)
    for k in np.flatnonzero(table[:, 5] != NO_OBJECT):
        best = int(iou[k].argmax()) if iou.shape[1] else 0
        if iou.shape[1] and iou[k, best] >= least:
            hits[k] = True
            iou[:, best] = 0
    return hits


def _average_precision(weights: Weights, hit: NDArray[np.bool_], n_true: float) -> float:
    if not n_true:
        return float("nan")
    right, shown = np.cumsum(weights * hit), np.cumsum(weights)
    recall = right / n_true
    precision = np.maximum.accumulate((right / np.maximum(shown, 1e-12))[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS - 1e-12)
    return float(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean())


def scores_text(metrics: dict[str, Any], names: Sequence[tuple[str, str]]) -> str:
    """`mean IoU 74.1 % [72.0, 76.1], ...` of pairs (key, name)."""
    parts = []
    for key, name in names:
        low, high = metrics[f"{key}_interval"]
        parts.append(f"{name} {100 * metrics[key]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    return ", ".join(parts)
