"""Does the prediction stay the same? Agreement and pairwise consistency, also among the images that start right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.estimated_maps import MapEstimate, share_map
from shiftlens.stats import Estimate, FloatArray, Skipped, mean_estimate

FEW_CLASSES = 32


@dataclass(frozen=True, eq=False)
class Consistency:
    """Consistency of the predictions over all shifts that leave some of the picture.

    Attributes
    ----------
    agreement
        Map: share of images whose prediction equals the one at (0, 0).
    mean_agreement
        Mean of it over all shifts but (0, 0).
    pairwise
        Share of equal predictions over all pairs of shifts of an image, mean over images.
    right_pairwise
        The same among the images that are right at (0, 0): accuracy-controlled [own use].
    flip_rate
        P(prediction differs from that at (0, 0) | right at (0, 0)), mean over shifts.
    """

    agreement: MapEstimate
    mean_agreement: Estimate
    pairwise: Estimate
    right_pairwise: Estimate | Skipped
    flip_rate: Estimate | Skipped


def pairwise_share(prediction: NDArray[np.integer], n_classes: int) -> FloatArray:
    """Return each image's share of equal predictions among all pairs of shifts, sum_k n_k (n_k - 1) / (m (m - 1)).

    Predictions are (image, shift), m >= 2 shifts, from 0 to n_classes - 1.
    """
    n, m = prediction.shape
    if n_classes <= FEW_CLASSES:
        counts = np.stack([np.count_nonzero(prediction == k, axis=1) for k in range(n_classes)], axis=1)
    else:
        cells = prediction.astype(np.int64) + (np.arange(n) * n_classes)[:, None]
        counts = np.bincount(cells.ravel(), minlength=n * n_classes).reshape(n, n_classes)
    pairs: FloatArray = (counts * (counts - 1)).sum(axis=1) / (m * (m - 1))
    return pairs


def consistency(sweep: SweepArrays) -> Consistency | Skipped:
    """Return every measure of consistency, in one pass over the predictions."""
    n = sweep.n_images
    n_classes = len(sweep.class_names)
    if "prediction" not in sweep.variables or not len(sweep.labels):
        return Skipped("consistency", "the task predicts no class")
    tested = ~sweep.blank.ravel()
    m = int(tested.sum())
    if n_classes < 2:
        return Skipped("consistency", "a model of one class always agrees with itself")
    if m < 2 or n < 2:
        return Skipped("consistency", "one image has no interval" if n < 2 else "the grid holds no shift but (0, 0)")
    origin = sweep.origin_cell
    counts = np.zeros(tested.size, np.int64)
    mean_same, pairs, right = np.empty(n), np.empty(n), np.empty(n, np.bool_)
    for s in sweep.slices():
        prediction = np.asarray(sweep.prediction[s]).reshape(-1, tested.size)
        same = prediction == prediction[:, origin : origin + 1]
        right[s] = prediction[:, origin] == sweep.labels[s]
        counts += same.sum(axis=0, dtype=np.int32)
        mean_same[s] = (np.count_nonzero(same[:, tested], axis=1) - 1) / (m - 1)
        top = max(n_classes, int(prediction.max()) + 1) if n_classes <= FEW_CLASSES else n_classes
        pairs[s] = pairwise_share(prediction if tested.all() else prediction[:, tested], top)
    n_right = int(right.sum())
    why = Skipped("accuracy-controlled consistency", f"{n_right} images are right at (0, 0), which has no interval")
    enough = n_right >= 2
    return Consistency(
        agreement=share_map(counts.reshape(sweep.shape), n),
        mean_agreement=_share(mean_same),
        pairwise=_share(pairs),
        right_pairwise=_share(pairs[right]) if enough else why,
        flip_rate=_share(1 - mean_same[right]) if enough else why,
    )


def _share(values: FloatArray) -> Estimate:
    return mean_estimate(values, "share", bounds=(0, 1))
