"""How good a segmenter or detector is on unshifted scenes: pixel accuracy, mean IoU, AP at IoU 0.5, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from shiftlens.data.targets import Targets
from shiftlens.tasks.average_precision import average_precision
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.task import Weights

N_DRAWS = 1_000


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
    tables: Float[np.ndarray, "n rank 6"], targets: Targets, size: tuple[int, int]
) -> Callable[[Weights], dict[str, float]]:
    """AP at IoU 0.5, the mean over classes, as a sweep has it of unshifted images of (h, w) pixels.

    `tables` are those of `tasks.outputs.detection_table`; `targets` hold boxes.
    """
    import torch

    assert targets.boxes is not None
    task = Detection(size=size, shape=tables.shape[1:])
    found = torch.from_numpy(tables)
    state = task.prepare(found, torch.from_numpy(np.asarray(targets.boxes)))
    rows = task.outcome(found, torch.zeros(len(tables), 2, dtype=torch.int64), state)
    measured = average_precision({name: values.numpy() for name, values in rows.items()})
    return lambda weights: {"ap50": measured(weights)["ap50"]}


def scores_text(metrics: dict[str, Any], names: Sequence[tuple[str, str]]) -> str:
    """`mean IoU 74.1 % [72.0, 76.1], ...` of pairs (key, name)."""
    parts = []
    for key, name in names:
        low, high = metrics[f"{key}_interval"]
        parts.append(f"{name} {100 * metrics[key]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    return ", ".join(parts)
