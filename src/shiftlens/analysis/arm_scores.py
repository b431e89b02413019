"""One arm by itself: a value an image for every mean, the accuracy map, the retained region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from shiftlens.analysis.aliasing import per_image
from shiftlens.analysis.arms import NEAR, Aligned
from shiftlens.analysis.arrays import BoolArray, SweepArrays, image_slices
from shiftlens.analysis.asymmetry import Axis, opposite_pairs
from shiftlens.analysis.estimated_maps import Replicates, accuracy_replicates, right_counts
from shiftlens.analysis.regions import (
    N_CALIBRATION,
    WORST_RADIUS,
    Retained,
    connected_region,
    retained,
    worst_of_radius,
)
from shiftlens.stats import Estimate, FloatArray, Skipped, mean_estimate, resample_weights, wilson

LEVEL = 0.95
"""Share of the accuracy at (0, 0) that bounds the retained area."""

Quantity = Literal["at-rest", "near", "everywhere", "worst", "retained", "side-x", "side-y", "agreement"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


@dataclass(frozen=True, eq=False)
class Scores:
    """What one arm reaches on some images.

    Attributes
    ----------
    right
        (image, dy, dx) the answers; not kept by a comparison.
    accuracy
        (dy, dx) share.
    per_image
        One value an image for each quantity but "retained": right at (0, 0); share right within 8 px and everywhere;
        right under every shift within 4 px; share right on the positive side minus the negative one (x: right minus
        left, y: down minus up); agreement. What the grid cannot give is `Skipped`.
    area
        Cells in the region connected to (0, 0) where accuracy is 95 % of that at (0, 0) or more, times the step squared
        and the scale squared: px^2.
    retained
        The same with its interval, in the px of the net's own input; `Skipped` where none was asked for.
    areas
        (resample,) retained cells of bootstrap samples that all arms share; empty where none were asked for.
    replicates
        Of the accuracy map, of the same samples; None where none were asked for.
    worst
        Share of images right under every shift within 4 px.
    """

    right: BoolArray
    accuracy: FloatArray
    per_image: dict[Quantity, FloatArray | Skipped]
    area: float
    retained: Retained | Skipped
    areas: FloatArray
    replicates: Replicates | None
    worst: Estimate | Skipped

    def without_cells(self) -> Scores:
        """The same without its large arrays."""
        return replace(self, right=self.right[:0], replicates=None)

    @property
    def at_rest(self) -> Estimate:
        """Accuracy at (0, 0)."""
        values = self.values("at-rest")
        n, k = len(values), round(float(values.sum()))
        lo, hi = wilson(k, n)
        return Estimate(k / n, float(lo), float(hi), "share", n, "Wilson")

    def values(self, quantity: Quantity) -> FloatArray:
        """One value an image of a quantity that is not `Skipped`."""
        found = self.per_image[quantity]
        if isinstance(found, Skipped):
            raise KeyError(f"{quantity} was not measured: {found.why}")
        return found

    def mean(self, quantity: Quantity) -> float:
        """Mean over images of a quantity; -inf where it was not measured, so that it wins nothing."""
        found = self.per_image.get(quantity)
        return -np.inf if found is None or isinstance(found, Skipped) else float(found.mean())

    def estimate(self, quantity: Quantity) -> Estimate | Skipped:
        """A quantity with its interval: shares, or points for the sides; px^2 of the net's own input for the area."""
        if quantity == "at-rest":
            return self.at_rest
        if quantity == "worst":
            return self.worst
        if quantity == "retained":
            return self.retained if isinstance(self.retained, Skipped) else self.retained.area
        found = self.per_image[quantity]
        if isinstance(found, Skipped):
            return found
        if len(found) < 2:
            return Skipped(quantity, "one image has no interval")
        if quantity in ("side-x", "side-y"):
            return mean_estimate(found, "share", bounds=(-1, 1)).scaled(100, "points")
        return mean_estimate(found, "share", bounds=(0, 1))


def score(aligned: Aligned, which: int, *, n_resamples: int, seed: int = 0, chosen: BoolArray | None = None) -> Scores:
    """Return what one arm reaches.

    Parameters
    ----------
    aligned
        All arms.
    which
        Position of the arm.
    n_resamples
        Bootstrap samples over images; 0 leaves out what needs them.
    seed
        Of the bootstrap; with the same seed, all arms draw the same images.
    chosen
        (image,) which images; all by default.
    """
    arm = aligned.arms[which]
    right = arm.right.of(chosen)
    index = aligned.index if chosen is None else aligned.index[chosen]
    grid = aligned.grid(right)
    replicates = None
    if n_resamples:
        replicates = accuracy_replicates(right, resample_weights(index, n_resamples, seed))
    accuracy = right_counts(right) / len(right)
    region = connected_region(accuracy, LEVEL, grid.origin)
    cell = grid.step[0] * grid.step[1] * arm.scale**2
    kept: Retained | Skipped = Skipped(f"retained area at {LEVEL:.0%}", "no interval was asked for")
    areas = np.zeros(0)
    if replicates is not None:
        kept = retained(replicates, grid, LEVEL)
        samples = replicates.resampled[:N_CALIBRATION].reshape(-1, *grid.shape)
        areas = connected_region(samples, LEVEL, grid.origin).sum(axis=(1, 2)).astype(np.float64)
    values = _means(right, grid)
    worst = worst_of_radius(right, grid)
    values["worst"] = worst if isinstance(worst, Skipped) else _worst(right, grid)
    same = arm.agreement
    values["agreement"] = same if isinstance(same, Skipped) or chosen is None else same[chosen]
    return Scores(right, accuracy, values, float(region.sum()) * cell, kept, areas, replicates, worst)


def _means(right: BoolArray, grid: SweepArrays) -> dict[Quantity, FloatArray | Skipped]:
    """Every quantity that is a weighted mean over shifts, in one pass."""
    kept = ~grid.blank
    # Whole numbers, divided afterwards: sums of them are exact, whatever the chunks.
    weights: dict[Quantity, FloatArray] = {}
    divisors: dict[Quantity, int] = {"at-rest": 1}
    at_rest = np.zeros(grid.shape)
    at_rest[grid.origin] = 1
    weights["at-rest"] = at_rest.ravel()
    areas: tuple[tuple[Quantity, BoolArray], ...] = (("near", kept & (grid.distance <= NEAR)), ("everywhere", kept))
    for quantity, inside in areas:
        weights[quantity] = inside.ravel().astype(np.float64)
        divisors[quantity] = int(inside.sum())
    missing: dict[Quantity, FloatArray | Skipped] = {}
    sides: tuple[tuple[Quantity, Axis], ...] = (("side-x", "x"), ("side-y", "y"))
    for side, axis in sides:
        plus, minus = opposite_pairs(grid, axis)
        if not len(plus):
            missing[side] = Skipped(side, f"the grid has no pair of opposite shifts along {axis}")
            continue
        weight = np.zeros(kept.size)
        weight[plus], weight[minus] = 1, -1
        weights[side], divisors[side] = weight, len(plus)
    found = per_image(right, np.stack(list(weights.values()), axis=1))
    return {quantity: found[:, k] / divisors[quantity] for k, quantity in enumerate(weights)} | missing


def _worst(right: BoolArray, grid: SweepArrays) -> FloatArray:
    """1 for each image that is right under every shift within 4 px, otherwise 0."""
    inside = grid.distance <= WORST_RADIUS
    out = np.empty(len(right))
    for s in image_slices(len(right), inside.size):
        out[s] = right[s][:, inside].all(axis=1)
    return out
