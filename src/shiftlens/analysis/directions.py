"""In which direction a model does worst, against the opposite one: eight sectors of 45 degrees [own]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import Values
from shiftlens.analysis.differences import difference_of
from shiftlens.stats import CONFIDENCE, Estimate, Skipped, mean_estimate

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
    """Mean of a metric by direction of the move.

    Attributes
    ----------
    reach
        Shifts of at most so many px are counted.
    names, means
        Which directions the grid has, and the mean in each; intervals hold for all of them together.
    worst, opposite
        Positions in these: the direction that is furthest behind its opposite, and that one.
    gap
        How much worse that is, in points or the metric's unit, paired over images; its interval holds for all pairs of
        opposites together.
    """

    reach: float
    names: tuple[str, ...]
    means: tuple[Estimate, ...]
    worst: int
    opposite: int
    gap: Estimate


def directions(values: Values) -> Directions | Skipped:
    """Return the mean in each of the eight directions, out to half the picture or as far as all sides of the grid go.

    A direction is held against its opposite only: those two hold the same distances, shift for shift, while a sector
    around an axis and one around a diagonal do not. Shifts whose opposite is not on the grid are left out.
    """
    sweep, metric, site = values.sweep, values.metric, "direction of the move"
    half = np.inf if sweep.picture_size is None else min(sweep.picture_size) / 2
    reach = float(min(sweep.reach, half))
    if sweep.n_images < 2:
        return Skipped(site, "one image has no interval")
    angle = np.arctan2(sweep.dys[:, None].astype(np.float64), sweep.dxs[None, :].astype(np.float64))
    sector = np.mod(np.rint(angle / (np.pi / 4)), 8).astype(np.int64)
    paired = np.isin(-sweep.dys, sweep.dys)[:, None] & np.isin(-sweep.dxs, sweep.dxs)[None, :]
    inside = (sweep.distance > 0) & (sweep.distance <= reach) & ~sweep.blank & paired
    cells = {k: chosen for k in range(8) if (chosen := inside & (sector == k)).any()}
    if not cells:
        return Skipped(site, "the grid holds no pair of opposite shifts")
    there = list(cells)
    each = [values.per_image(chosen) for chosen in cells.values()]
    if any(np.count_nonzero(~np.isnan(one)) < 2 for one in each):
        return Skipped(site, "one image has no interval")
    together = 1 - (1 - CONFIDENCE) / len(there)
    means = [mean_estimate(one, metric.unit, bounds=metric.bounds, confidence=together) for one in each]
    # Opposite of sector k is sector k + 4: the one is there whenever the other is.
    pairs = [(there.index(k), there.index(k + 4)) for k in there if k < 4]
    for_all = 1 - (1 - CONFIDENCE) / len(pairs)
    gaps = []
    for one, other in pairs:
        first = metric.sign * means[one].value <= metric.sign * means[other].value
        worst, best = (one, other) if first else (other, one)
        gap = difference_of(metric, metric.sign * (each[best] - each[worst]), confidence=for_all)
        gaps.append((gap, worst, best))
    gap, worst, best = max(gaps, key=lambda found: found[0].value)
    return Directions(reach, tuple(NAMES[k] for k in there), tuple(means), worst, best, gap)
