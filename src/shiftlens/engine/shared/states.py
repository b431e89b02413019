"""What a position of a feature map depends on, per axis, and how many different answers there are.

A translation and every padding that is an index rule act on rows and columns apart. So what a cell of a feature map
shows depends on the shift through the state of its row and the state of its column: which source positions, fill and
padding the taps above it see. Equal states get equal numbers (hash-consing), and a layer's output for ALL shifts is one
array of (row states) x (column states) cells; each shift's feature map is a choice of rows and columns from it.

Only integers here: tables of state numbers, never pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.indexing import OUTSIDE, source_index

IntArray = NDArray[np.int64]

PAD = -1
"""In a tuple of taps: padding. Zero to a convolution, nothing to a maximum, counted by some averages."""
OVERHANG = -2
"""In a tuple of taps: beyond the padding, where `ceil_mode` reaches. Never counted."""


@dataclass(frozen=True)
class Axis:
    """The states of one axis of a feature map.

    Attributes
    ----------
    table
        int64 [n_shifts, n_positions]: the state, 0 to `n` - 1, that each position shows under each shift.
    n
        Number of states.
    """

    table: IntArray
    n: int

    @property
    def length(self) -> int:
        """Positions of a feature map along this axis."""
        return int(self.table.shape[1])

    @property
    def n_windows(self) -> int:
        """Cells along the axis if every shift is computed on its own."""
        return int(self.table.size)

    def same_as(self, other: Axis) -> bool:
        """Whether the two number their states alike."""
        return self is other or (self.n == other.n and np.array_equal(self.table, other.table))


@dataclass(frozen=True)
class Taps:
    """How the states after a sliding window come from those before it.

    Attributes
    ----------
    axis
        States after it.
    tuples
        int64 [axis.n, k]: the state before it that each tap sees, or `PAD` or `OVERHANG`.
    """

    axis: Axis
    tuples: IntArray


def shifted_axis(shifts: IntArray, n: int, rule: str | None) -> Axis:
    """States of the shifted picture's own positions.

    Parameters
    ----------
    shifts
        int64 [n_shifts], pixels.
    n
        Positions of the picture along the axis.
    rule
        Index rule of the fill, or None for a constant one: then state `n` is "fill".
    """
    source = source_index(np.arange(n)[None, :] - shifts[:, None], n, rule or "zeros")
    return Axis(np.where(source == OUTSIDE, n, source), n + (rule is None))


def occluded_axis(shifts: IntArray, n: int) -> Axis:
    """States of a picture that stays where it is and loses the positions that each shift would push out."""
    here = np.arange(n)[None, :]
    moved = here + shifts[:, None]
    return Axis(np.where((moved >= 0) & (moved < n), here, n), n + 1)


def consed(tuples: IntArray) -> Taps:
    """Number equal tuples [n_shifts, n_positions, k] alike.

    States with the same taps outside the map stand together, and within such a group they are in lexicographic order:
    neighbours then mostly come from neighbours, and a group needs no arithmetic for the taps that it lacks.
    """
    n_shifts, length, k = tuples.shape
    outside = np.minimum(tuples, 0)
    keys = np.concatenate([outside, tuples], axis=2).reshape(-1, 2 * k)
    distinct, number = np.unique(keys, axis=0, return_inverse=True)
    return Taps(Axis(number.reshape(n_shifts, length), len(distinct)), np.ascontiguousarray(distinct[:, k:]))


def slide(
    axis: Axis,
    *,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    before: int = 0,
    after: int = 0,
    rule: str = "zeros",
    length: int,
) -> Taps:
    """Slide a window of `kernel` taps over the positions of an axis.

    Parameters
    ----------
    axis
        States of the positions.
    kernel, stride, dilation
        Of the window, in positions.
    before, after
        Padding on both ends, at least 0.
    rule
        `zeros` (outside taps are `PAD`, beyond `after` they are `OVERHANG`) or an index rule.
    length
        Positions after it.
    """
    starts = np.arange(length) * stride - before
    positions = starts[:, None] + np.arange(kernel)[None, :] * dilation
    n = axis.length
    inside = positions.size == 0 or (positions.min() >= 0 and positions.max() < n)
    # Where nothing is outside no rule is asked: `reflect` has no answer for a single position.
    source = positions if inside else source_index(positions, n, rule)
    tuples = np.where(source == OUTSIDE, PAD, axis.table[:, np.where(source == OUTSIDE, 0, source)])
    tuples = np.where(positions >= n + after, OVERHANG, tuples)
    return consed(tuples)


def joined(axes: Sequence[Axis]) -> Taps:
    """States of several maps looked at together, position by position; tuples [n, number of maps]."""
    return consed(np.stack([axis.table for axis in axes], axis=2))


def extended(axis: Axis, before: int, after: int, rule: str | None) -> Axis:
    """States after an explicit padding layer; a negative width cuts positions off.

    `rule` is an index rule; None: a constant, which becomes state `axis.n`.
    """
    positions = np.arange(-before, axis.length + after)
    source = source_index(positions, axis.length, rule or "zeros")
    table = np.where(source == OUTSIDE, axis.n, axis.table[:, np.where(source == OUTSIDE, 0, source)])
    return Axis(table, axis.n + (rule is None))


def shares(axis: Axis) -> NDArray[np.float64]:
    """Share of each state [n_shifts, n] among the positions of each shift: an average is this times the cells."""
    found = np.zeros((len(axis.table), axis.n))
    rows = np.repeat(np.arange(len(axis.table)), axis.length)
    np.add.at(found, (rows, axis.table.reshape(-1)), 1 / axis.length)
    return found
