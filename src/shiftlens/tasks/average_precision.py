"""Average precision as COCO defines it: detections matched at ten IoUs, precision at 101 recalls, mean over classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.tasks.task import OfDataset, Weights

if TYPE_CHECKING:
    from torch import Tensor

IOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""AP is the mean over them, AP50 is that of the first."""
_RECALLS = np.linspace(0, 1, 101)


def greedy_matches(iou: Tensor, scores: Tensor, thresholds: Tensor) -> Tensor:
    """Match detections with objects: from the best score down, each takes the free object of the largest IoU.

    Parameters
    ----------
    iou
        [window, detection, object]; below 0 where they cannot match.
    scores
        [window, detection].
    thresholds
        [threshold], above 0: the least IoU of a match.

    Returns
    -------
    Tensor
        [window, threshold, detection]: the place of the object that a detection takes, -1 where it takes none.
    """
    import torch

    n, n_found, n_objects = iou.shape
    matches = torch.full((n, len(thresholds), n_found), -1, device=iou.device)
    if 0 in iou.shape:
        return matches
    able = (iou >= thresholds.min()).any(2)
    # Those that reach an object, the best score first, then all others: of most windows these are few.
    order = torch.argsort(torch.where(able, scores, -torch.inf), dim=1, descending=True, stable=True)
    free = torch.ones(n, len(thresholds), n_objects, dtype=torch.bool, device=iou.device)
    window = torch.arange(n, device=iou.device)
    places = torch.arange(n_objects, device=iou.device)
    for rank in order[:, : int(able.sum(1).max())].T:
        best, which = torch.where(free, iou[window, rank][:, None], -1.0).max(2)
        which = torch.where(best >= thresholds, which, -1)
        matches[window, :, rank] = which
        free &= which[:, :, None] != places
    return matches


def bits(flags: Tensor) -> Tensor:
    """Flags [window, threshold, k] as one whole number [window, k]: bit t is the flag of threshold t."""
    import torch

    values = 2 ** torch.arange(flags.shape[1], device=flags.device)
    return (flags * values[:, None]).sum(1)


def average_precision(rows: Mapping[str, NDArray[Any]]) -> OfDataset:
    """Prepare AP and AP50 of images under one shift, as a function of how often each image counts.

    Parameters
    ----------
    rows
        `detection_score` and `detection_class` [image, rank], NaN where there is no detection; `detection_hits` and
        `detection_ignored`, as `bits`: matches an object, or one that is ignored, at each of `IOUS`; `object_class`
        [image, object], NaN where none is in view.

    Returns
    -------
    Callable
        From weights [image] to `ap` and `ap50`; NaN where no image has an object in view.
    """
    score, label, objects = (rows[name] for name in ("detection_score", "detection_class", "object_class"))
    image, rank = np.nonzero(~np.isnan(score))
    # All detections of a class from the best score down; those of the same score in the order of the images.
    order = np.lexsort((-score[image, rank], label[image, rank]))
    image, rank = image[order], rank[order]
    classes = label[image, rank]
    bit = np.arange(len(IOUS))[:, None]
    hit, ignored = (
        np.asarray(rows[name][image, rank], np.int64) >> bit & 1 == 1
        for name in ("detection_hits", "detection_ignored")
    )
    per_class = []
    for each in np.unique(objects[~np.isnan(objects)]):
        mine = slice(np.searchsorted(classes, each), np.searchsorted(classes, each, "right"))
        counted = ~ignored[:, mine] | hit[:, mine]
        per_class.append((image[mine], hit[:, mine], counted, (objects == each).sum(1)))

    def measured(weights: Weights) -> dict[str, float]:
        found = [
            _precisions(hit * weights[of], counted * weights[of], float(n_true @ weights))
            for of, hit, counted, n_true in per_class
            if n_true @ weights > 0
        ]
        mean = np.mean(found, axis=0) if found else np.full(len(IOUS), np.nan)
        return {"ap": float(mean.mean()), "ap50": float(mean[0])}

    return measured


def _precisions(hit: NDArray[np.float64], counted: NDArray[np.float64], n_true: float) -> NDArray[np.float64]:
    """AP at each IoU [threshold] of weighted detections [threshold, rank] of one class, the best score first."""
    right, shown = np.cumsum(hit, axis=1), np.cumsum(counted, axis=1)
    recall = right / n_true
    precision = right / np.maximum(shown, np.finfo(np.float64).tiny)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([highest, np.zeros((len(hit), 1))], axis=1)
    return np.array([row[np.searchsorted(r, _RECALLS)].mean() for row, r in zip(padded, recall, strict=True)])
