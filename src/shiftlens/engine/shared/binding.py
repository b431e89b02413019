"""The operations of a trace on cells: which states each reads and makes on a grid, and how it is run for an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shiftlens.engine.shared.cells import Bound, Cells, Choice, as_index
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

    def __init__(self, before: Cells, rows: Taps, columns: Taps, n_channels: int, device: torch.device) -> None:
        self.cells = Cells(rows.axis, columns.axis)
        self.macs = 0
        self.scratch = 2 * rows.axis.n * before.columns.n * n_channels
        self._taps = [_nearest_taps(tuples, device) for tuples in (rows.tuples, columns.tuples)]

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        for axis, (first, *others) in enumerate(self._taps):
            best = first(x, axis, -math.inf)
            for tap in others:
                torch.maximum(best, tap(x, axis, -math.inf), out=best)
            x = best
        return x


def _nearest_taps(tuples: IntArray, device: torch.device) -> list[Choice]:
    """The taps of a maximum [n, taps]: for one outside, which adds nothing, any tap of the same state stands in.

    A dilated window may have nothing but outside under its taps.
    """
    nearest = tuples.max(axis=1)
    return [Choice(np.where(tap < 0, nearest, tap), device) for tap in tuples.T]


class _AveragePool:
    """A sum over rows, then over columns, over the product of the counts: both are separable."""

    def __init__(
        self, operation: Pool, before: Cells, rows: Taps, columns: Taps, n_channels: int, device: torch.device
    ) -> None:
        self.cells = Cells(rows.axis, columns.axis)
        self.macs = 0
        both = rows.tuples, columns.tuples
        self._taps = [[Choice(tap, device) for tap in tuples.T] for tuples in both]
        self._divisor = operation.divisor
        least = PAD if operation.count_include_pad else 0
        self._counts = [as_index(np.maximum((tuples >= least).sum(axis=1), 1), device) for tuples in both]
        # In float32 at least, which is twice the room of bfloat16.
        self.scratch = 2 * (before.rows.n + 2 * rows.axis.n) * before.columns.n * n_channels

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        total = x if x.dtype == torch.float64 else x.float()
        for axis, (first, *others) in enumerate(self._taps):
            summed = first(total, axis)
            for tap in others:
                summed += tap(total, axis)
            total = summed
        if self._divisor is not None:
            return (total / self._divisor).to(x.dtype)
        rows, columns = (counts.to(total.dtype) for counts in self._counts)
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

    def __init__(
        self, function: Callable[..., Tensor], before: Sequence[Cells], n_channels: int, device: torch.device
    ) -> None:
        self.macs = 0
        self._function = function
        rows, row_choices = _together([c.rows for c in before], device)
        columns, column_choices = _together([c.columns for c in before], device)
        self.cells = Cells(rows, columns)
        self._choices = list(zip(row_choices, column_choices, strict=True))
        n_chosen = sum(a is not None or b is not None for a, b in self._choices)
        self.scratch = n_chosen * n_channels * rows.n * columns.n

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        maps = []
        for x, (rows, columns) in zip(inputs, self._choices, strict=True):
            x = x if columns is None else columns(x, 1)
            maps.append(x if rows is None else rows(x, 0))
        return self._function(*maps)


def _together(axes: Sequence[Axis], device: torch.device) -> tuple[Axis, list[Choice | None]]:
    """The common axis, and which states of each map it takes (None: all, as they are)."""
    if all(axis.same_as(axes[0]) for axis in axes[1:]):
        return axes[0], [None] * len(axes)
    taps = joined(axes)
    return taps.axis, [
        None if np.array_equal(which, np.arange(axis.n)) else Choice(which, device)
        for axis, which in zip(axes, taps.tuples.T, strict=True)
    ]


def _concatenated(*maps: Tensor) -> Tensor:
    return torch.cat(maps, dim=-1)


class _GlobalAverage:
    """Linear, so that no window is put together: how often each state occurs, times the cells."""

    def __init__(self, before: Cells, n_channels: int, device: torch.device) -> None:
        self.cells = Cells(_every_shift(before.rows), _every_shift(before.columns))
        rows, columns = shares(before.rows), shares(before.columns)
        self.macs = n_channels * rows.shape[0] * before.columns.n * (before.rows.n + columns.shape[0])
        self.scratch = len(rows) * before.columns.n * n_channels + before.rows.n * before.columns.n * n_channels
        self._shares = [torch.from_numpy(each).to(device) for each in (rows, columns)]

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        wide = x if x.dtype == torch.float64 else x.float()
        rows, columns = (each.to(wide.dtype) for each in self._shares)
        summed = (rows @ wide.reshape(len(wide), -1)).view(len(rows), *wide.shape[1:])
        return (columns @ summed).to(x.dtype)


class _GlobalMaximum:
    """A maximum over the rows of each window, then over its columns."""

    def __init__(self, before: Cells, n_channels: int, device: torch.device) -> None:
        self.cells = Cells(_every_shift(before.rows), _every_shift(before.columns))
        self._tables = [as_index(axis.table.T, device) for axis in (before.rows, before.columns)]
        self.macs = 0
        self.scratch = len(before.rows.table) * before.columns.n * n_channels * 2

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        for axis, (first, *others) in enumerate(self._tables):
            best = x.index_select(axis, first)
            for states in others:
                torch.maximum(best, x.index_select(axis, states), out=best)
            x = best
        return x


def _every_shift(axis: Axis) -> Axis:
    """One position, of which every shift has its own state."""
    n = len(axis.table)
    return Axis(np.arange(n)[:, None], n)


def bind(step: Step, before: Sequence[Cells], n_channels: int, device: torch.device) -> Bound:
    """Prepare an operation for the states of its inputs; `n_channels` of its first input, on the net's device."""
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
        return _Combination(operation.function, before, n_channels, device)
    if isinstance(operation, Concatenate):
        return _Combination(_concatenated, before, n_channels, device)
    if isinstance(operation, GlobalPool):
        return (_GlobalMaximum if operation.maximum else _GlobalAverage)(first, n_channels, device)
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
            return _MaxPool(first, rows, columns, n_channels, device)
        return _AveragePool(operation, first, rows, columns, n_channels, device)
    dense = operation.groups == 1
    return (DenseConvolution if dense else GroupedConvolution)(operation, first, rows, columns)
