"""The operations of a trace on cells: which states each reads and makes on a grid, and how it is run for an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shiftlens.engine.shared.cells import Bound, Cells, as_index, gathered
from shiftlens.engine.shared.convolving import DenseConvolution, GroupedConvolution
from shiftlens.engine.shared.states import PAD, Axis, IntArray, Taps, extended, joined, shares, slide
from shiftlens.graph.operations import (
    Affine,
    Combine,
    Concatenate,
    Convolution,
    GlobalPool,
    Pad,
    Pointwise,
    Pool,
    Step,
)


class _MaxPool:
    """A maximum over rows, then over columns."""

    def __init__(self, before: Cells, rows: Taps, columns: Taps, n_channels: int) -> None:
        self.cells = Cells(rows.axis, columns.axis)
        self.macs = 0
        self._rows, self._columns = rows.tuples, columns.tuples
        self.scratch = 2 * rows.axis.n * before.columns.n * n_channels

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        for axis, tuples in ((0, self._rows), (1, self._columns)):
            # A tap outside adds nothing to a maximum: any tap of the same state stands in for it.
            nearest = tuples.max(axis=1)
            taps = [as_index(np.maximum(np.where(tap < 0, nearest, tap), 0), x) for tap in tuples.T]
            best = x.index_select(axis, taps[0])
            for tap in taps[1:]:
                torch.maximum(best, x.index_select(axis, tap), out=best)
            # A dilated window may have nothing but outside under its taps.
            if nearest.min() < 0:
                best.index_fill_(axis, as_index(np.flatnonzero(nearest < 0), x), -math.inf)
            x = best
        return x


class _AveragePool:
    """A sum over rows, then over columns, over the product of the counts: both are separable."""

    def __init__(self, operation: Pool, before: Cells, rows: Taps, columns: Taps, n_channels: int) -> None:
        self.cells = Cells(rows.axis, columns.axis)
        self.macs = 0
        self._tuples = rows.tuples, columns.tuples
        self._divisor = operation.divisor
        least = PAD if operation.count_include_pad else 0
        self._counts = [np.maximum((tuples >= least).sum(axis=1), 1) for tuples in self._tuples]
        # In float32 at least, which is twice the room of bfloat16.
        self.scratch = 2 * (before.rows.n + 2 * rows.axis.n) * before.columns.n * n_channels

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        total = x if x.dtype == torch.float64 else x.float()
        for axis, tuples in enumerate(self._tuples):
            parts = (gathered(total, axis, column) for column in tuples.T)
            summed = next(parts)
            for part in parts:
                summed += part
            total = summed
        if self._divisor is not None:
            return (total / self._divisor).to(x.dtype)
        rows, columns = (as_index(counts, x).to(total.dtype) for counts in self._counts)
        return (total / (rows[:, None, None] * columns[None, :, None])).to(x.dtype)


class _Padding:
    """An explicit padding layer: another table, and one more state where it is a constant."""

    def __init__(self, operation: Pad, before: Cells, n_channels: int) -> None:
        left, right, top, bottom = operation.sides
        self.cells = Cells(
            extended(before.rows, top, bottom, operation.rule), extended(before.columns, left, right, operation.rule)
        )
        self.macs = self.scratch = 0
        self._value = None if operation.rule else operation.value

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        return x if self._value is None else F.pad(x, (0, 0, 0, 1, 0, 1), value=self._value)


class _Pointwise:
    """The same states, other numbers."""

    def __init__(self, function: Callable[[Tensor], Tensor], before: Cells) -> None:
        self.cells = before
        self.macs = self.scratch = 0
        self.function = function

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        return self.function(x)


class _Combination:
    """Several maps cell by cell: their states are looked at together."""

    def __init__(self, function: Callable[..., Tensor], before: Sequence[Cells], n_channels: int) -> None:
        rows, columns = [c.rows for c in before], [c.columns for c in before]
        self.macs = 0
        self._function = function
        self._choices: list[tuple[IntArray | None, IntArray | None]] = []
        chosen_rows, chosen_columns = _together(rows), _together(columns)
        self.cells = Cells(chosen_rows[0], chosen_columns[0])
        self._choices = list(zip(chosen_rows[1], chosen_columns[1], strict=True))
        self.scratch = (
            sum(a is not None or b is not None for a, b in self._choices)
            * n_channels
            * (self.cells.rows.n * self.cells.columns.n)
        )

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        maps = []
        for x, (rows, columns) in zip(inputs, self._choices, strict=True):
            x = x if columns is None else x.index_select(1, as_index(columns, x))
            maps.append(x if rows is None else x.index_select(0, as_index(rows, x)))
        return self._function(*maps)


def _together(axes: Sequence[Axis]) -> tuple[Axis, list[IntArray | None]]:
    """The common axis, and which states of each map it takes (None: all, as they are)."""
    if all(axis.same_as(axes[0]) for axis in axes[1:]):
        return axes[0], [None] * len(axes)
    taps = joined(axes)
    return taps.axis, [
        None if np.array_equal(which, np.arange(axis.n)) else which
        for axis, which in zip(axes, taps.tuples.T, strict=True)
    ]


def _concatenated(*maps: Tensor) -> Tensor:
    return torch.cat(maps, dim=-1)


class _GlobalAverage:
    """Linear, so that no window is put together: how often each state occurs, times the cells."""

    def __init__(self, before: Cells, n_channels: int) -> None:
        self.cells = Cells(_every_shift(before.rows), _every_shift(before.columns))
        self._rows, self._columns = shares(before.rows), shares(before.columns)
        self.macs = n_channels * self._rows.shape[0] * before.columns.n * (before.rows.n + self._columns.shape[0])
        self.scratch = len(self._rows) * before.columns.n * n_channels + before.rows.n * before.columns.n * n_channels

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        wide = x if x.dtype == torch.float64 else x.float()
        rows, columns = (torch.from_numpy(m).to(wide) for m in (self._rows, self._columns))
        summed = (rows @ wide.reshape(len(wide), -1)).view(len(rows), *wide.shape[1:])
        return (columns @ summed).to(x.dtype)


class _GlobalMaximum:
    """A maximum over the rows of each window, then over its columns."""

    def __init__(self, before: Cells, n_channels: int) -> None:
        self.cells = Cells(_every_shift(before.rows), _every_shift(before.columns))
        self._tables = before.rows.table, before.columns.table
        self.macs = 0
        self.scratch = len(before.rows.table) * before.columns.n * n_channels * 2

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        for axis, table in enumerate(self._tables):
            best = x.index_select(axis, as_index(table[:, 0], x))
            for column in table.T[1:]:
                torch.maximum(best, x.index_select(axis, as_index(column, x)), out=best)
            x = best
        return x


def _every_shift(axis: Axis) -> Axis:
    """One position, of which every shift has its own state."""
    n = len(axis.table)
    return Axis(np.arange(n)[:, None], n)


def bind(step: Step, before: Sequence[Cells], n_channels: int) -> Bound:
    """Prepare an operation for the states of its inputs; `n_channels` of its first input."""
    operation = step.operation
    first = before[0]
    if isinstance(operation, Pad):
        return _Padding(operation, first, n_channels)
    if isinstance(operation, Pointwise):
        return _Pointwise(operation.function, first)
    if isinstance(operation, Affine):
        scale, shift = operation.scale, operation.shift
        return _Pointwise(lambda x: torch.addcmul(shift, x, scale), first)
    if isinstance(operation, Combine):
        return _Combination(operation.function, before, n_channels)
    if isinstance(operation, Concatenate):
        return _Combination(_concatenated, before, n_channels)
    if isinstance(operation, GlobalPool):
        return (_GlobalMaximum if operation.maximum else _GlobalAverage)(first, n_channels)
    h, w = step.shape[1:]
    if isinstance(operation, Convolution):
        left, right, top, bottom = operation.sides
        kernel: tuple[int, int] = (operation.weight.shape[2], operation.weight.shape[3])
        widths = ((top, bottom), (left, right))
        rule = operation.rule
    else:
        kernel, rule = operation.kernel, "zeros"
        widths = ((operation.padding[0],) * 2, (operation.padding[1],) * 2)
    rows, columns = (
        slide(
            axis,
            kernel=kernel[k],
            stride=operation.stride[k],
            dilation=operation.dilation[k],
            before=widths[k][0],
            after=widths[k][1],
            rule=rule,
            length=length,
        )
        for k, (axis, length) in enumerate(((first.rows, h), (first.columns, w)))
    )
    if isinstance(operation, Pool):
        if operation.maximum:
            return _MaxPool(first, rows, columns, n_channels)
        return _AveragePool(operation, first, rows, columns, n_channels)
    dense = operation.groups == 1
    return (DenseConvolution if dense else GroupedConvolution)(operation, first, rows, columns)
