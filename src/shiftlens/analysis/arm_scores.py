"""One arm by itself: a value an image for every mean, the metric's map, the retained region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arms import NEAR, Aligned
from shiftlens.analysis.arrays import BoolArray, FloatArray, Values, row_means
from shiftlens.analysis.asymmetry import Axis, opposite_pairs
from shiftlens.analysis.differences import difference_of, mean_of, sums_of
from shiftlens.analysis.estimated_maps import Replicates, estimated_map
from shiftlens.analysis.regions import (
    N_CALIBRATION,
    WORST_RADIUS,
    Retained,
    connected_region,
    retained,
    share_estimate,
    worst_of_radius,
    worst_per_image,
)
from shiftlens.stats import Estimate, Skipped, resample_weights
from shiftlens.tasks.classification import AGREEMENT
from shiftlens.tasks.task import Variable

LEVEL = 0.95
"""Share of the performance at (0, 0) that bounds the retained area."""

Quantity = Literal["at-rest", "near", "everywhere", "worst", "retained", "side-x", "side-y", "agreement"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


@dataclass(frozen=True, eq=False)
class Scores:
    """What one arm reaches on some images.

    Attributes
    ----------
    cells
        (image, dy, dx) the values; not kept by a comparison.
    map
        (dy, dx) mean over images.
    per_image
        One value an image for each quantity but "retained": at (0, 0); mean within 8 px and everywhere; the worst
        within 4 px; mean on the positive side minus the negative one (x: right minus left, y: down minus up);
        agreement. What the grid or the task cannot give is `Skipped`.
    area
        Cells in the region connected to (0, 0) where performance is 95 % of that at (0, 0) or more, times the step
        squared and the scale squared: px^2.
    retained
        The same with its interval; `Skipped` where none was asked for.
    areas
        (resample,) retained cells of bootstrap samples that all arms share; empty where none were asked for.
    replicates
        Of the map, of the same samples; None where none were asked for.
    worst
        Mean of the worst within 4 px: of a share, the images that have it under every shift.
    metric
        What is measured.
    """

    cells: NDArray[Any]
    map: FloatArray
    per_image: dict[Quantity, FloatArray | Skipped]
    area: float
    retained: Retained | Skipped
    areas: FloatArray
    replicates: Replicates | None
    worst: Estimate | Skipped
    metric: Variable

    def without_cells(self) -> Scores:
        """The same without its large arrays."""
        return replace(self, cells=self.cells[:0], replicates=None)

    @property
    def unshifted(self) -> Estimate:
        """The metric at (0, 0); an interval of one image's number is NaN."""
        found = self.estimate("at-rest")
        if isinstance(found, Skipped):
            value = self.metric.sign * self.performance("at-rest")
            return Estimate(value, np.nan, np.nan, self.metric.unit, 1, found.why)
        return found

    def measured(self, quantity: Quantity) -> Variable:
        """What a quantity is of: the metric, but for agreement."""
        return AGREEMENT if quantity == "agreement" else self.metric

    def values(self, quantity: Quantity) -> FloatArray:
        """One value an image of a quantity that is not `Skipped`."""
        found = self.per_image[quantity]
        if isinstance(found, Skipped):
            raise KeyError(f"{quantity} was not measured: {found.why}")
        return found

    def performance(self, quantity: Quantity) -> float:
        """Mean over images, higher is better; -inf where it was not measured, so that it wins nothing."""
        found = self.per_image.get(quantity)
        if found is None or isinstance(found, Skipped) or np.isnan(found).all():
            return -np.inf
        return self.measured(quantity).sign * float(np.nanmean(found))

    def estimate(self, quantity: Quantity) -> Estimate | Skipped:
        """A quantity with its interval, in the metric's unit (sides of a share in points)."""
        if quantity == "worst":
            return self.worst
        if quantity == "retained":
            return self.retained if isinstance(self.retained, Skipped) else self.retained.area
        found, metric = self.per_image[quantity], self.measured(quantity)
        if isinstance(found, Skipped):
            return found
        if quantity == "at-rest" and metric.is_share:
            return share_estimate(found)
        made = mean_of(metric, found, quantity)
        return difference_of(metric, found) if quantity in ("side-x", "side-y") and isinstance(made, Estimate) else made


def score(aligned: Aligned, which: int, *, n_resamples: int, seed: int = 0, chosen: BoolArray | None = None) -> Scores:
    """Return what one arm reaches on all images, or on those `chosen`, (image,).

    0 resamples leave out what needs them; with the same seed, all arms draw the same images.
    """
    arm, grid = aligned.arms[which], aligned.arrays(which, chosen)
    values, metric, origin = grid.values(), aligned.metric, grid.origin
    made = estimated_map(values, resample_weights(grid.positions, n_resamples, seed)) if n_resamples else None
    kept: Retained | Skipped = Skipped(f"retained area at {LEVEL:.0%}", "no interval was asked for")
    areas, replicates = np.zeros(0), None
    if isinstance(made, Skipped):
        kept = made
    elif made is not None:
        replicates = made[1]
        kept = retained(replicates, grid, LEVEL)
        if not isinstance(kept, Skipped):
            kept = replace(kept, area=kept.area.scaled(arm.scale**2, "px^2"))
        samples = metric.sign * replicates.resampled[:N_CALIBRATION].reshape(-1, *grid.shape)
        areas = connected_region(samples, LEVEL, origin).sum(axis=(1, 2)).astype(np.float64)
    mean = sums_of(values).mean.reshape(grid.shape)
    cell = grid.step[0] * grid.step[1] * arm.scale**2
    area = float(connected_region(metric.sign * mean, LEVEL, origin).sum()) * cell
    per_image, worst, same = _means(values), worst_of_radius(values), arm.agreement
    per_image["worst"] = worst if isinstance(worst, Skipped) else worst_per_image(values, WORST_RADIUS)
    per_image["agreement"] = same if isinstance(same, Skipped) or chosen is None else same[chosen]
    cells = np.asarray(grid.variables[metric.name])
    return Scores(cells, mean, per_image, area, kept, areas, replicates, worst, metric)


def _means(values: Values) -> dict[Quantity, FloatArray | Skipped]:
    """Every quantity that is a mean over shifts."""
    grid = values.sweep
    kept, unshifted = ~grid.blank, np.zeros(grid.shape, np.bool_)
    unshifted[grid.origin] = True
    out: dict[Quantity, FloatArray | Skipped] = {
        "at-rest": values.per_image(unshifted),
        "near": values.per_image(kept & (grid.distance <= NEAR)),
        "everywhere": values.per_image(kept),
    }
    sides: tuple[tuple[Quantity, Axis], ...] = (("side-x", "x"), ("side-y", "y"))
    for side, axis in sides:
        plus, minus = opposite_pairs(grid, axis)
        if len(plus):
            out[side] = np.concatenate(
                [row_means(v[:, plus] - v[:, minus]) for v in map(values.__getitem__, grid.slices())]
            )
        else:
            out[side] = Skipped(side, f"the grid has no pair of opposite shifts along {axis}")
    return out
