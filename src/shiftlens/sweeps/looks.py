"""What an adaptive sweep declares before its first image: the order of the images, and when it is looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.data.imageset import ImageSet
from shiftlens.data.selection import stratified_order
from shiftlens.errors import InputError
from shiftlens.sequential import N_MULTIPLIERS, look_schedule
from shiftlens.stats import CONFIDENCE, mean_interval, wilson, z_value
from shiftlens.tasks.variable import Variable

MOST_IMAGES = 64
"""A chunk has at most so many: an interrupted sweep serves the images of finished chunks."""
LEAST_CHUNKS = 20
"""Of an adaptive sweep, at least: looks happen between chunks."""


@dataclass(frozen=True)
class Schedule:
    """The looks of an adaptive sweep, and how its band is made: see `shiftlens.sequential`.

    It does not depend on the width asked for: the bands of all looks hold together, so a narrower one may be asked for
    later.

    Attributes
    ----------
    looks
        Numbers of images, ascending; the last is all of them.
    level
        Confidence of all cells and all looks together.
    draws, seed
        Of the bootstrap.
    metric
        Whose means the band is around; None for the default metric of the task.
    """

    looks: tuple[int, ...]
    level: float = CONFIDENCE
    draws: int = N_MULTIPLIERS
    seed: int = 0
    metric: str | None = None

    @staticmethod
    def declared(n_images: int, chunk_size: int, metric: str | None = None) -> Schedule:
        """The schedule of a new sweep of `n_images` in chunks of `chunk_size`."""
        return Schedule(look_schedule(n_images, chunk_size), metric=metric)

    def to_json(self) -> str:
        """One line of JSON with sorted keys; without a `metric` that is the default one."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None}, sort_keys=True)

    @staticmethod
    def from_table(table: dict[str, Any]) -> Schedule:
        """Read a stored schedule.

        Raises
        ------
        InputError
            It is none.
        """
        looks = table.get("looks")
        numbers = [table.get(key) for key in ("draws", "seed")]
        level = table.get("level")
        if (
            not isinstance(looks, list)
            or not looks
            or not all(type(n) is int for n in (*looks, *numbers))
            or any(a >= b for a, b in zip([0, *looks], looks, strict=False))
            or type(level) is not float
            or not 0 < level < 1
            or not 256 <= table["draws"] <= 2**16
            or table["draws"] % 256
            or not 0 <= table["seed"] < 2**64
            or not isinstance(table.get("metric"), str | None)
        ):
            raise InputError(f"expected a schedule of looks, got {str(table)[:80]}")
        return Schedule(tuple(looks), level, table["draws"], table["seed"], table.get("metric"))


def short_chunk(chunk_size: int, n_images: int) -> int:
    """Images in a chunk of an adaptive sweep, where an exact one would take `chunk_size`."""
    return max(1, min(chunk_size, n_images // LEAST_CHUNKS))


def checked_half_width(half_width: float, metric: Variable) -> float:
    """The half-width asked for: in points of a share, in the unit of any other metric.

    Raises
    ------
    InputError
        No number from 0 (all images) to below all that the metric can be: 100 points.
    """
    number = isinstance(half_width, int | float) and not isinstance(half_width, bool)
    most = metric.factor * metric.difference_bounds[1]
    if not number or not 0 <= half_width < most:  # NaN is neither
        shown = f"{half_width:g}" if number else repr(half_width)
        unit = metric.difference_unit or f"the unit of {metric.called}"
        raise InputError(f"expected a half-width in {unit}, from 0 (all images) to below {most:g}, got {shown}")
    return float(half_width)


def width_text(half_width: float, unit: str) -> str:
    """A half-width with its unit.

    >>> width_text(5.123, "points"), width_text(0.05123, "")
    ('±5.12 points', '±0.0512')
    """
    shown = f"{half_width:.2f}" if unit == "points" else f"{half_width:.3g}"
    return f"±{shown} {unit}".rstrip()


def half_width_of_others(metric: Variable, values: Iterable[NDArray[Any]]) -> float:
    """How far means may miss those over other images of the same kind: 95 %, all shifts together; as a half-width is.

    Wilson's intervals of a share, Student's of a number, Bonferroni over the shifts where at least two images have a
    value.

    Parameters
    ----------
    metric
        Of which the means are.
    values
        Of some images each, [image, dy, dx].
    """
    sums = [np.zeros(()), np.zeros(()), np.zeros(())]
    for each in values:
        there = ~np.isnan(each)
        numbers = np.where(there, each, 0).astype(np.float64)
        parts = (there, numbers, numbers**2)
        sums = [total + part.sum(axis=0, dtype=np.float64) for total, part in zip(sums, parts, strict=True)]
    n, total, squares = sums
    counted = n >= (1 if metric.is_share else 2)
    if not counted.any():
        return metric.factor * metric.difference_bounds[1]
    n, total, squares = n[counted], total[counted], squares[counted]
    mean = total / n
    if metric.is_share:
        lo, hi = wilson(total, n, z_value(n_comparisons=n.size))
    else:
        _, lo, hi, _ = mean_interval(total, squares, n, 1 - (1 - CONFIDENCE) / n.size)
        lo, hi = np.maximum(lo, metric.bounds[0]), np.minimum(hi, metric.bounds[1])
    return metric.factor * float(np.maximum(mean - lo, hi - mean).max())


def images_for_others(half_width: float, metric: Variable, n_shifts: int) -> int | None:
    """About how many images make that as small as `half_width` where values vary most; None without bounds.

    That is half of them at one bound and half at the other: an accuracy of 50 %.
    """
    most = metric.factor * metric.difference_bounds[1] / 2
    return math.ceil((most * z_value(n_comparisons=n_shifts) / half_width) ** 2) if math.isfinite(most) else None


def in_fixed_order(images: ImageSet) -> ImageSet:
    """The same images, so that every beginning of them is a fair sample (`stratified_order`, seed 0)."""
    return images.subset(stratified_order(images.labels, images.index), named=True)
