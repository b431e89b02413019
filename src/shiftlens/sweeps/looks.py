"""What an adaptive sweep declares before its first image: the order of the images, and when it is looked at."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.data.imageset import ImageSet
from shiftlens.data.selection import stratified_order
from shiftlens.errors import InputError
from shiftlens.sequential import N_MULTIPLIERS, look_schedule
from shiftlens.stats import CONFIDENCE, wilson, z_value

MOST_IMAGES = 64
"""A chunk has at most so many: an interrupted sweep serves the images of finished chunks."""
LEAST_CHUNKS = 20
"""Of a sweep that looks between chunks or stores sums of chunks, at least, if it has as many images."""


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
    """

    looks: tuple[int, ...]
    level: float = CONFIDENCE
    draws: int = N_MULTIPLIERS
    seed: int = 0

    @staticmethod
    def declared(n_images: int, chunk_size: int) -> Schedule:
        """The schedule of a new sweep of `n_images` in chunks of `chunk_size`."""
        return Schedule(look_schedule(n_images, chunk_size))

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

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
        ):
            raise InputError(f"expected a schedule of looks, got {str(table)[:80]}")
        return Schedule(tuple(looks), level, table["draws"], table["seed"])


def short_chunk(chunk_size: int, n_images: int) -> int:
    """Images in a chunk where there must be many chunks; `chunk_size` is what the computation would take."""
    return max(1, min(chunk_size, n_images // LEAST_CHUNKS))


def checked_half_width(half_width: float) -> float:
    """The half-width asked for, in points.

    Raises
    ------
    InputError
        No number from 0 (all images) to below 100.
    """
    number = isinstance(half_width, int | float) and not isinstance(half_width, bool)
    if not number or not 0 <= half_width < 100:  # NaN is neither
        shown = f"{half_width:g}" if number else repr(half_width)
        raise InputError(f"expected a half-width in points, from 0 (all images) to below 100, got {shown}")
    return float(half_width)


def half_width_of_others(share: NDArray[np.float64], n_images: int) -> float:
    """Points by which accuracies may miss those over other images of the same kind: 95 %, all shifts together.

    Wilson's intervals, Bonferroni over the shifts (dy, dx), around shares of `n_images`.
    """
    lo, hi = wilson(np.rint(share * n_images), n_images, z_value(n_comparisons=share.size))
    return 100 * float(np.maximum(share - lo, hi - share).max())


def images_for_others(half_width: float, n_shifts: int) -> int:
    """About how many images make that as small as `half_width` points at an accuracy of 50 %, the hardest."""
    return math.ceil((50 * z_value(n_comparisons=n_shifts) / half_width) ** 2)


def in_fixed_order(images: ImageSet) -> ImageSet:
    """The same images, so that every beginning of them is a fair sample (`stratified_order`, seed 0)."""
    return images.subset(stratified_order(images.labels, images.index), named=True)
