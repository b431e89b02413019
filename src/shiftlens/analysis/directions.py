"""In which direction a model does worst, against the opposite one: eight sectors of 45 degrees [own]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import SweepArrays
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
    """Mean accuracy by direction of the move.

    Attributes
    ----------
    reach
        Shifts of at most so many px are counted.
    names, accuracy
        Which directions the grid has, and the mean accuracy in each; intervals hold for all of them together.
    worst, opposite
        Positions in these: the direction that is furthest behind its opposite, and that one.
    gap
        Opposite minus worst in points, paired over images; its interval holds for all pairs of opposites together.
    """

    reach: float
    names: tuple[str, ...]
    accuracy: tuple[Estimate, ...]
    worst: int
    opposite: int
    gap: Estimate

    @property
    def differs(self) -> bool:
        """Whether the two differ, with all pairs of opposites looked at."""
        return self.gap.lo > 0


def directions(sweep: SweepArrays) -> Directions | Skipped:
    """Return the mean accuracy of the eight directions, out to half the picture or as far as all sides of the grid go.

    A direction is held against its opposite only: those two hold the same distances, shift for shift, while a sector
    around an axis and one around a diagonal do not. Shifts whose opposite is not on the grid are left out.
    """
    site = "direction of the move"
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
    there, values = list(cells), sweep.values("accuracy")
    shares = [values.per_image(chosen) for chosen in cells.values()]
    together = 1 - (1 - CONFIDENCE) / len(there)
    accuracy = [mean_estimate(share, "share", bounds=(0, 1), confidence=together) for share in shares]
    # Opposite of sector k is sector k + 4: the one is there whenever the other is.
    pairs = [(there.index(k), there.index(k + 4)) for k in there if k < 4]
    for_all = 1 - (1 - CONFIDENCE) / len(pairs)
    gaps = []
    for one, other in pairs:
        worst, best = (one, other) if accuracy[one].value <= accuracy[other].value else (other, one)
        difference = 100 * (shares[best] - shares[worst])
        gaps.append((mean_estimate(difference, "points", bounds=(-100, 100), confidence=for_all), worst, best))
    gap, worst, best = max(gaps, key=lambda each: each[0].value)
    return Directions(reach, tuple(NAMES[k] for k in there), tuple(accuracy), worst, best, gap)
