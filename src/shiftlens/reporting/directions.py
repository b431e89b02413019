"""In which direction a model does worst: eight sectors of 45 degrees, out to one reach, paired over images [own]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.metrics.arrays import SweepArrays
from shiftlens.stats import CONFIDENCE, Estimate, FloatArray, Skipped, mean_estimate

NAMES = (
    "to the right",
    "down and right",
    "down",
    "down and left",
    "to the left",
    "up and left",
    "up",
    "up and right",
)
"""Sectors in order of the angle, which grows from dx > 0 to dy > 0 (down)."""


@dataclass(frozen=True)
class Directions:
    """Mean accuracy by direction of the move.

    Attributes
    ----------
    reach
        Shifts of at most so many px are counted.
    names, accuracy
        Which directions the grid has, and the mean accuracy in each; intervals hold for all of them together.
    worst, best
        Positions in these.
    gap
        Best minus worst in points, paired over images; its interval allows for the choice among all pairs.
    """

    reach: float
    names: tuple[str, ...]
    accuracy: tuple[Estimate, ...]
    worst: int
    best: int
    gap: Estimate

    @property
    def differs(self) -> bool:
        """Whether the best and the worst direction differ, the choice among all of them allowed for."""
        return self.gap.lo > 0


def directions(sweep: SweepArrays) -> Directions | Skipped:
    """Return the mean accuracy of the eight directions, out to half the picture or as far as all sides of the grid go.

    Parameters
    ----------
    sweep
        The arrays.
    """
    site = "direction of the move"
    reach = _reach(sweep)
    if sweep.n_images < 2:
        return Skipped(site, "one image has no interval")
    angle = np.arctan2(sweep.dys[:, None].astype(np.float64), sweep.dxs[None, :].astype(np.float64))
    sector = np.mod(np.rint(angle / (np.pi / 4)), 8).astype(np.int64)
    inside = (sweep.distance > 0) & (sweep.distance <= reach) & ~sweep.blank
    there = [k for k in range(8) if (inside & (sector == k)).any()]
    if len(there) < 2:
        return Skipped(site, "the grid holds fewer than two directions")
    weights = np.stack([((inside & (sector == k)) / (inside & (sector == k)).sum()).ravel() for k in there], axis=1)
    shares = _per_image(sweep, weights)
    together = 1 - (1 - CONFIDENCE) / len(there)
    accuracy = [mean_estimate(column, "share", bounds=(0, 1), confidence=together) for column in shares.T]
    values = [each.value for each in accuracy]
    worst, best = int(np.argmin(values)), int(np.argmax(values))
    pairs = len(there) * (len(there) - 1) // 2
    difference = 100 * (shares[:, best] - shares[:, worst])
    gap = mean_estimate(difference, "points", bounds=(-100, 100), confidence=1 - (1 - CONFIDENCE) / pairs)
    return Directions(reach, tuple(NAMES[k] for k in there), tuple(accuracy), worst, best, gap)


def _reach(sweep: SweepArrays) -> float:
    sides = [int(side.max()) for side in (-sweep.dys, sweep.dys, -sweep.dxs, sweep.dxs)]
    reach = float(min((side for side in sides if side > 0), default=0))
    return reach if sweep.picture_size is None else min(reach, min(sweep.picture_size) / 2)


def _per_image(sweep: SweepArrays, weights: FloatArray) -> FloatArray:
    """(image, column): each image's weighted mean of right answers."""
    out = np.empty((sweep.n_images, weights.shape[1]))
    light = weights.astype(np.float32)
    for s in sweep.slices():
        out[s] = sweep.correct[s].reshape(-1, len(light)).astype(np.float32) @ light
    return out
