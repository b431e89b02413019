"""Is it the same to the left as to the right, and up as down? With and without the data's own asymmetry [own]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shiftlens.analysis.arrays import IntArray, SweepArrays, Values, image_slices
from shiftlens.analysis.differences import Differences, Effects
from shiftlens.analysis.matched_images import matched_rows
from shiftlens.stats import Skipped
from shiftlens.tasks.task import Variable

Axis = Literal["x", "y"]
SIDES: dict[Axis, tuple[str, str]] = {"x": ("right", "left"), "y": ("down", "up")}


@dataclass(frozen=True, eq=False)
class Asymmetry(Effects):
    """A metric on the positive side minus that on the negative side, each pair of opposite shifts once.

    Attributes
    ----------
    axis
        "x": (dx, dy) against (-dx, dy), positive is right. "y": (dx, dy) against (dx, -dy), positive is down.
    dys, dxs
        (pair,) the positive member of each pair.
    without_data
        Whether the data's own asymmetry is taken out by the flip control.
    metric
        What is compared.
    """

    axis: Axis
    dys: IntArray
    dxs: IntArray
    without_data: bool
    metric: Variable

    @property
    def stronger_side(self) -> str:
        """The side to which the model bears moving better: right, left, down, up, or neither."""
        if self.overall.value == 0:
            return "neither"
        return SIDES[self.axis][0 if self.overall.value * self.metric.sign > 0 else 1]

    @property
    def family_p(self) -> float:
        """Simes' p-value that any pair differs."""
        return float(self.q.min())

    @property
    def strongest(self) -> int:
        """Which pair has the smallest p-value; among equals the largest effect."""
        return int(np.lexsort((-np.abs(self.effect), self.p))[0])


def opposite_pairs(sweep: SweepArrays, axis: Axis) -> tuple[IntArray, IntArray]:
    """Return the flat cells (positive member, negative member) of every pair that is on the grid and not blank."""
    cells = np.arange(sweep.blank.size).reshape(sweep.shape)
    along, which = (sweep.dxs, 1) if axis == "x" else (sweep.dys, 0)
    positive = along[(along > 0) & np.isin(-along, along)]
    here, there = np.searchsorted(along, positive), np.searchsorted(along, -positive)
    keep = ~sweep.blank.take(here, which)
    return cells.take(here, which)[keep], cells.take(there, which)[keep]


def asymmetry(values: Values, axis: Axis, *, without_data: bool = False) -> Asymmetry | Skipped:
    """Return the asymmetry along one axis: as it is, or the model's own, by the sweep of the mirrored pictures.

    For a model without a preferred side, acc(+d, x) = acc(-d, flip x). Half the difference of acc(+d, x) - acc(-d,
    flip x) between +d and -d is what the model adds: the data's own asymmetry has opposite signs in the two sweeps and
    cancels, and so does what the model finds harder about mirrored pictures in general.
    """
    sweep = values.sweep
    if without_data and "flip" not in sweep.controls:
        return Skipped("asymmetry left/right without the data's own", "there is no flip control")
    flip = values.of("flip") if without_data else None
    plus, minus = opposite_pairs(sweep, axis)
    rows, flip_rows = matched_rows(sweep, sweep if flip is None else flip.sweep)
    n, site = len(rows), f"asymmetry {'left/right' if axis == 'x' else 'up/down'}"
    if not len(plus):
        return Skipped(site, f"the grid has no pair of opposite shifts along {axis}")
    if n < 2:
        return Skipped(site, "one image has no interval")
    found = Differences(values.metric, n, len(plus), terms=1 if flip is None else 2)
    for s in image_slices(n, values.n_cells):
        here = values.rows(rows[s])
        sides = here[:, plus] - here[:, minus]
        if flip is not None:
            there = flip.rows(flip_rows[s])
            sides = sides + there[:, plus] - there[:, minus]
        found.add(s, sides)
    if not found.squares.any():
        return Skipped(site, "no image changes between opposite shifts")
    dys, dxs = sweep.dys[plus // sweep.shape[1]], sweep.dxs[plus % sweep.shape[1]]
    return Asymmetry(
        **vars(found.effects()), axis=axis, dys=dys, dxs=dxs, without_data=without_data, metric=values.metric
    )
