"""By how much a sweep is worse than a baseline: the same images in both, paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arms import Aligned, align
from shiftlens.analysis.arrays import FloatArray, Values
from shiftlens.analysis.comparable import source_of
from shiftlens.gate import quantities as q
from shiftlens.gate.evidence import Evidence, Means, means_of
from shiftlens.gate.region_bounds import RadiusLoss, radius
from shiftlens.stats import Skipped


@dataclass(frozen=True, eq=False)
class Pair:
    """A baseline and a sweep on their common images and shifts.

    Attributes
    ----------
    base, new
        Both as they are.
    aligned
        One metric of both, the baseline first.
    """

    base: q.Reading
    new: q.Reading
    aligned: Aligned

    @staticmethod
    def of(base: q.Reading, new: q.Reading, metric: str | None, *, partial: bool) -> Pair:
        """Bring two sweeps together.

        Raises
        ------
        InputError
            Other images, classes, fill or shifts: says which.
        """
        sources = [source_of(each.name, each.sweep) for each in (base, new)]
        return Pair(base, new, align(sources, 0, metric=metric, partial=partial))

    @property
    def values(self) -> tuple[Values, Values]:
        """The metric of the baseline and of the sweep."""
        return self.aligned.arrays(0).values(), self.aligned.arrays(1).values()

    def common(self, base: FloatArray, new: FloatArray) -> tuple[FloatArray, FloatArray]:
        """One value an image of each sweep, (image,), of the images that both hold."""
        found = []
        for reading, values in ((self.base, base), (self.new, new)):
            order = np.argsort(reading.arrays.positions)
            where = np.searchsorted(reading.arrays.positions, self.aligned.index, sorter=order)
            found.append(values[order[where]])
        return found[0], found[1]


def _loss(pair: Pair, differences: NDArray[np.floating], what: str) -> Evidence | Skipped:
    metric = pair.aligned.metric
    return means_of(differences, metric.difference_bounds, metric.difference_unit, metric.factor, what)


def unshifted_loss(pair: Pair) -> Evidence | Skipped:
    """By how much the metric on unshifted images is worse."""
    base, new = pair.values
    return _loss(pair, pair.aligned.metric.sign * (q.unshifted(base) - q.unshifted(new)), "unshifted images")


def near_loss(pair: Pair) -> Evidence | Skipped:
    """By how much its mean within 8 px is worse."""
    base, new = pair.values
    return _loss(pair, pair.aligned.metric.sign * (q.near(base) - q.near(new)), "mean within 8 px")


def drop_loss(pair: Pair, px: float) -> Evidence | Skipped:
    """By how much the metric is worse under any shift within `px`, each shift against the same one."""
    base, new = pair.values
    cells = np.flatnonzero(q.cells_within(base.sweep, px).ravel())
    return _loss(pair, pair.aligned.metric.sign * (q.rows(base, cells) - q.rows(new, cells)), "drop")


def side_loss(pair: Pair) -> Evidence | Skipped:
    """By how much the size of an asymmetry is larger, on the axis where that is more.

    |new| - |base| is the largest over the signs of new, of the smallest over the signs of base, of a difference: an
    asymmetry that has only turned round is no change.
    """
    base, new = pair.values
    metric = pair.aligned.metric
    groups, unchanged = [], []
    for axis in q.AXES:
        a, b = q.sides(new, axis), q.sides(base, axis)
        mean = float(np.nanmean(b))
        for sign in (1, -1):
            groups.append(np.stack([sign * a - b, sign * a + b], axis=1))
            unchanged.append([(sign - 1) * mean, (sign + 1) * mean])
    columns = np.stack(groups, axis=1)
    if np.count_nonzero(~np.isnan(columns), axis=0).min() < 2:
        return Skipped("side difference", "fewer than two images have a value")
    low, high = (2 * bound for bound in metric.difference_bounds)
    return Means(columns, low, high, metric.difference_unit, metric.factor, np.array(unchanged))


def consistency_loss(pair: Pair) -> Evidence | Skipped:
    """By how much pairwise consistency is lower, in points."""
    base, new = pair.common(q.consistency(pair.base), q.consistency(pair.new))
    return means_of(base - new, (-1.0, 1.0), "points", 100.0, "consistency")


def swing_gain(pair: Pair, px: float) -> Evidence | Skipped:
    """By how much the confidence swings more, in points."""
    base, new = pair.common(q.confidence_swing(pair.base, px), q.confidence_swing(pair.new, px))
    return means_of(new - base, (-1.0, 1.0), "points", 100.0, "confidence swing")


def radius_loss(pair: Pair) -> Evidence | Skipped:
    """By how many px of the comparison's unit the retained radius is smaller."""
    found = []
    for values, arm in zip(pair.values, pair.aligned.arms, strict=True):
        each = radius(values, arm.scale, pair.new.seed)
        if isinstance(each, Skipped):
            return each
        found.append(each)
    if found[0].at_least and found[1].at_least:
        return Skipped("retained radius", "both regions touch the grid's edge: sweep further out")
    return RadiusLoss(found[0], found[1])


def border_gain(pair: Pair) -> Evidence | Skipped:
    """How many times as large the border ratio is; paired by groups of images.

    Raises
    ------
    InputError
        The task stores nothing by the place in the frame.
    """
    groups = same_groups(*(q.border_errors(reading) for reading in (pair.base, pair.new)))
    if groups is None or not np.array_equal(pair.base.arrays.positions, pair.new.arrays.positions):
        return Skipped("border ratio", "expected the same images in the same groups in both sweeps")
    found = []
    for each in map(q.log_border_ratio, groups):
        if isinstance(each, Skipped):
            return each
        found.append(each)
    (base, base_without), (new, new_without) = found
    return q.ratio_of(new - base, new_without - base_without, "times")


def same_groups(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Sums over the groups of the same images in both, (group, ...); None where groups of one cut those of the other.

    A sweep that grew from a small one has the small one's short groups.
    """
    if len(a) < len(b):
        swapped = same_groups(b, a)
        return None if swapped is None else (swapped[1], swapped[0])
    for k in (10, 5, 2, 1):  # how many groups of one size of a sweep make one of another
        if -(-len(a) // k) == len(b):
            return np.add.reduceat(a, np.arange(0, len(a), k)), b
    return None
