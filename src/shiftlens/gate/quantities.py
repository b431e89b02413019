"""What a condition can be on, measured on one sweep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arms import NEAR
from shiftlens.analysis.arrays import BoolArray, FloatArray, SweepArrays, Values, row_means
from shiftlens.analysis.asymmetry import Axis, opposite_pairs
from shiftlens.analysis.consistency import pairwise_share
from shiftlens.analysis.object_curves import swing_per_image
from shiftlens.analysis.places import jackknife_error, place_sums, too_few_groups
from shiftlens.errors import InputError
from shiftlens.gate.evidence import Evidence, Stated, means_of
from shiftlens.gate.region_bounds import radius
from shiftlens.stats import Skipped
from shiftlens.sweeps.sweep_result import Sweep

AXES: tuple[Axis, ...] = ("x", "y")


@dataclass(frozen=True, eq=False)
class Reading:
    """One sweep, ready to be measured.

    Attributes
    ----------
    name
        As the conditions call it.
    sweep, arrays
        The sweep, and its images that are measured.
    seed
        Of bootstraps.
    """

    name: str
    sweep: Sweep
    arrays: SweepArrays
    seed: int = 0

    @property
    def n_images(self) -> int:
        """Images that are measured."""
        return self.arrays.n_images

    def values(self, metric: str | None) -> Values:
        """A metric by name, the task's default by default; `InputError` where there is none of that name."""
        return self.arrays.values(metric)


def unshifted(values: Values) -> FloatArray:
    """The metric of each image at (0, 0), (image,)."""
    at = np.zeros(values.sweep.shape, np.bool_)
    at[values.sweep.origin] = True
    return values.per_image(at)


def near(values: Values) -> FloatArray:
    """Its mean under all shifts within 8 px, (image,)."""
    return values.per_image(~values.sweep.blank & (values.sweep.distance <= NEAR))


def cells_within(arrays: SweepArrays, px: float) -> BoolArray:
    """(dy, dx): shifts of at most so many px that leave some of the image.

    Raises
    ------
    InputError
        The grid does not reach so far, or has no such shift.
    """
    if px > arrays.reach:
        raise InputError(f"expected a distance within the grid, which reaches {arrays.reach} px, got {px:g} px")
    inside: BoolArray = ~arrays.blank & (arrays.distance <= px)
    if inside.sum() < 2:
        raise InputError(f"expected shifts within {px:g} px, got a grid with a step of {max(arrays.step)} px")
    return inside


def rows(values: Values, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    """The values under some shifts (flat cells), (image, cell)."""
    return np.concatenate([np.asarray(values[s][:, cells], np.float32) for s in values.sweep.slices()])


def sides(values: Values, axis: Axis) -> FloatArray:
    """Each image's mean on the positive side minus that on the negative one, (image,).

    Raises
    ------
    InputError
        The grid has no pair of opposite shifts along the axis.
    """
    plus, minus = opposite_pairs(values.sweep, axis)
    if not len(plus):
        raise InputError(f"expected a grid with opposite shifts along {axis} for a side difference, got none")
    # Signed: a share's values are bytes.
    parts = (np.asarray(values[s], np.float32) for s in values.sweep.slices())
    return np.concatenate([row_means(part[:, plus] - part[:, minus]) for part in parts])


def consistency(reading: Reading) -> FloatArray:
    """Each image's share of equal predictions over all pairs of shifts, (image,).

    Raises
    ------
    InputError
        The task predicts no class, or the grid holds one shift.
    """
    arrays = reading.arrays
    if "prediction" not in arrays.variables:
        raise InputError(f"expected a sweep with predicted classes for consistency, got task {_task(reading)}")
    tested = ~arrays.blank.ravel()
    if tested.sum() < 2:
        raise InputError("expected a grid with shifts for consistency, got (0, 0) only")
    found = []
    for s in arrays.slices():
        prediction = np.asarray(arrays.prediction[s]).reshape(-1, tested.size)[:, tested]
        found.append(pairwise_share(prediction, max(len(arrays.class_names), int(prediction.max()) + 1)))
    return np.concatenate(found)


def confidence_swing(reading: Reading, px: float) -> FloatArray:
    """Each image's largest less its smallest confidence under shifts within `px`, (image,).

    Of a classifier the probability of the true class; of a detector the mean over objects.

    Raises
    ------
    InputError
        The sweep has neither.
    """
    arrays = reading.arrays
    inside = cells_within(arrays, px)
    if _task(reading) == "classification" and "loss" in arrays.variables and len(arrays.labels):
        parts = []
        for s in arrays.slices():
            confidence = np.exp(-np.asarray(arrays.loss[s], np.float64).reshape(-1, inside.size)[:, inside.ravel()])
            parts.append(confidence.max(axis=1) - confidence.min(axis=1))
        return np.concatenate(parts)
    found = swing_per_image(reading.sweep, radius=px)
    if isinstance(found, Skipped):
        raise InputError(f"expected a sweep with confidences for a confidence swing, got task {_task(reading)}")
    return found


def border_ratio(reading: Reading) -> Evidence | Skipped:
    """The rate of errors near the border over that inside; by groups of images, from the logarithm's jackknife.

    Raises
    ------
    InputError
        The task stores nothing by the place in the frame.
    """
    found = log_border_ratio(border_errors(reading))
    return found if isinstance(found, Skipped) else ratio_of(*found, "ratio")


def border_errors(reading: Reading) -> FloatArray:
    """Errors and windows counted near the border and inside: (group of images, near or inside, errors or windows).

    Raises
    ------
    InputError
        The task stores nothing by the place in the frame.
    """
    what = reading.arrays.task.by_place
    if what is None:
        raise InputError(f"expected a task that stores rates by place for a border ratio, got {_task(reading)}")
    groups = place_sums(reading.sweep.dataset, what).groups
    if what.better == "higher":  # the share of what is missed: a ratio above 1 is worse, as elsewhere
        groups = np.stack([groups[..., 1] - groups[..., 0], groups[..., 1]], axis=-1)
    return groups


def log_border_ratio(groups: FloatArray) -> tuple[float, FloatArray] | Skipped:
    """The logarithm of the border ratio, and that without each group of images, (group,); `groups` as above."""
    if why := too_few_groups(len(groups)):
        return Skipped("border ratio", why)
    whole = groups.sum(axis=0)
    if (whole <= 0).any():
        return Skipped("border ratio", "no error is counted near the border or inside")
    if (whole - groups <= 0).any():
        return Skipped("border ratio", "one group of images holds every error near the border or inside")

    def log_ratio(s: FloatArray) -> FloatArray:
        return np.asarray(np.log(s[..., 0, 0] * s[..., 1, 1]) - np.log(s[..., 0, 1] * s[..., 1, 0]))

    return float(log_ratio(whole)), log_ratio(whole - groups)


def ratio_of(log_ratio: float, without: FloatArray, unit: str) -> Stated:
    """A ratio of its logarithm and that without each group of images: the jackknife."""
    n, se = len(without), jackknife_error(without)
    return Stated(log_ratio, se, n - 1, unit, n, "jackknife over groups of images", exponential=True)


def unshifted_evidence(values: Values) -> Evidence | Skipped:
    """The metric on unshifted images."""
    return means_of(unshifted(values), values.metric.bounds, values.metric.unit, what="unshifted images")


def near_evidence(values: Values) -> Evidence | Skipped:
    """The mean within 8 px."""
    return means_of(near(values), values.metric.bounds, values.metric.unit, what="mean within 8 px")


def drop_evidence(values: Values, px: float) -> Evidence | Skipped:
    """The largest drop from (0, 0) to any shift within `px`; of a metric whose lower values are better, the rise."""
    inside = cells_within(values.sweep, px)
    inside[values.sweep.origin] = False
    metric, cells = values.metric, np.flatnonzero(inside.ravel())
    drops = metric.sign * (unshifted(values)[:, None] - rows(values, cells))
    return means_of(drops, metric.difference_bounds, metric.difference_unit, metric.factor, "drop")


def side_evidence(values: Values) -> Evidence | Skipped:
    """The larger of the sizes of both asymmetries."""
    metric = values.metric
    one = np.stack([sides(values, axis) for axis in AXES], axis=1)
    signed = np.concatenate([one, -one], axis=1)
    return means_of(signed, metric.difference_bounds, metric.difference_unit, metric.factor, "side difference")


def consistency_evidence(reading: Reading) -> Evidence | Skipped:
    """Pairwise consistency."""
    return means_of(consistency(reading), (0.0, 1.0), "share", what="consistency")


def swing_evidence(reading: Reading, px: float) -> Evidence | Skipped:
    """Mean swing of the confidence."""
    return means_of(confidence_swing(reading, px), (0.0, 1.0), "share", what="confidence swing")


def radius_evidence(reading: Reading, values: Values, limit: float) -> Evidence | Skipped:
    """The retained radius.

    Raises
    ------
    InputError
        The whole grid is smaller than a circle of the limit's radius.
    """
    arrays = reading.arrays
    whole = float(np.sqrt(arrays.distance.size * arrays.step[0] * arrays.step[1] / np.pi))
    if limit > whole:
        raise InputError(
            f"expected a retained radius within the grid, whose whole area is that of a circle of {whole:.1f} px, got "
            f"{limit:g} px: sweep further out"
        )
    return radius(values, seed=reading.seed)


def _task(reading: Reading) -> str:
    return str(reading.arrays.task.name)
