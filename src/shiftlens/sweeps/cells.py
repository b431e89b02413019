"""The operations of a trace on cells: one array of (row states) x (column states) x channels for all shifts at once.

Each operation is prepared once for a grid: which states it reads, which it makes. Then it is run for every image. A
convolution is a matrix product over gathered taps, block by block, so that a block stays in a core's cache; states that
lie next to each other mostly read states that lie next to each other, so most of the gathering is copying of long runs.
Taps that see padding are left out of the product instead of being multiplied by zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.sweeps.states import PAD, Axis, IntArray, Taps, extended, joined, shares, slide
from shiftlens.sweeps.tracing import (
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

BLOCK_CELLS = 512
"""Cells in one matrix product, at most: enough for the machine's rate, few enough for its cache."""
BLOCK_COLUMNS = 64
"""Of them along a row, at most."""
COLUMN_BYTES = 2**24
"""Most bytes of taps that a grouped convolution gathers at once."""


@dataclass(frozen=True)
class Cells:
    """States of both axes of a feature map."""

    rows: Axis
    columns: Axis


class Bound(Protocol):
    """An operation prepared for a grid.

    `cells` are the states of its result, `macs` the multiply-adds it takes for one image, `scratch` the numbers that it
    holds for a while beside its inputs and its result.
    """

    cells: Cells
    macs: int
    scratch: int

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps [row states, column states, c] in, a map of the same kind out."""
        ...


@dataclass(frozen=True)
class _Group:
    """States that lack the same taps: a run of them, the taps they have, and the states these see [n, taps]."""

    states: slice
    taps: tuple[int, ...]
    seen: IntArray


def _groups(tuples: IntArray) -> list[_Group]:
    found = []
    for outside, members in groupby(range(len(tuples)), lambda state: tuple(tuples[state] < 0)):
        which = list(members)
        taps = tuple(int(tap) for tap in np.flatnonzero(~np.array(outside)))
        run = slice(which[0], which[-1] + 1)
        found.append(_Group(run, taps, tuples[run][:, taps]))
    return found


def _long(values: IntArray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device)


def _is_everything(tuples: IntArray, axis: Axis) -> bool:
    return tuples.shape == (axis.n, 1) and np.array_equal(tuples[:, 0], np.arange(axis.n))


@dataclass(frozen=True)
class _RowBlock:
    """Row states that are computed together: the rows they read, and where each tap's rows go.

    Attributes
    ----------
    states
        A run of row states.
    needed
        Rows that they read: a run, or state by state.
    copies
        For each tap (place in the block, end, first of the needed rows): stretches in which neighbours read
        neighbours.
    """

    states: slice
    needed: slice | IntArray
    copies: tuple[tuple[tuple[int, int, int], ...], ...]


def _row_blocks(group: _Group, at_once: int) -> list[_RowBlock]:
    found = []
    for part in _parts(len(group.seen), at_once):
        seen = group.seen[part]
        rows = np.unique(seen)
        place = np.searchsorted(rows, seen)
        run = slice(int(rows[0]), int(rows[-1]) + 1)
        needed = run if run.stop - run.start == len(rows) else rows
        states = slice(group.states.start + part.start, group.states.start + part.stop)
        found.append(_RowBlock(states, needed, tuple(tuple(_runs(column)) for column in place.T)))
    return found


def _parts(n: int, at_once: int) -> list[slice]:
    """Split a run of `n` into stretches of nearly the same length, at most `at_once`."""
    edges = np.linspace(0, n, -(-n // at_once) + 1).astype(int).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


def _runs(column: IntArray) -> list[tuple[int, int, int]]:
    """Stretches (first place, end, what the first holds) in which every number is one more than the last."""
    breaks = [0, *(np.flatnonzero(np.diff(column) != 1) + 1).tolist(), len(column)]
    return [(a, b, int(column[a])) for a, b in pairwise(breaks)]


class _DenseConvolution:
    """groups = 1: a matrix product for every block of cells, over the taps that its group has.

    Of the rows that a block reads, the columns are gathered first, all taps of a column side by side: the innermost
    stretch of memory is then long, and what remains is copying rows. All of it stays in a core's cache. Partial
    convolution is the same with weights scaled by the taps that a group lacks.
    """

    def __init__(self, operation: Convolution, before: Cells, rows: Taps, columns: Taps) -> None:
        self.cells = Cells(rows.axis, columns.axis)
        weight = operation.weight
        n_out, n_in = weight.shape[:2]
        self._n_out, self._n_in, self._bias = n_out, n_in, operation.bias
        row_groups, self._columns = _groups(rows.tuples), _groups(columns.tuples)
        self._rows = row_groups
        self.macs = n_out * n_in * _n_taps(rows.tuples) * _n_taps(columns.tuples)
        self._plain = _is_everything(rows.tuples, before.rows) and _is_everything(columns.tuples, before.columns)
        # [out, row taps, column taps, in] of every pair of groups, as one matrix.
        self._weights = {
            (i, j): _weights(operation, a.taps, b.taps)
            for i, a in enumerate(row_groups)
            for j, b in enumerate(self._columns)
        }
        self._parts = [_parts(len(group.seen), BLOCK_COLUMNS) for group in self._columns]
        # Narrow groups take more rows at once, so that a product is never small.
        heights = {max(1, BLOCK_CELLS // (part.stop - part.start)) for parts in self._parts for part in parts}
        self._blocks = {
            (i, height): _row_blocks(group, height)
            for i, group in enumerate(row_groups)
            if group.taps
            for height in heights
        }
        kernel = weight.shape[2] * weight.shape[3]
        self.scratch = 3 * BLOCK_CELLS * kernel * n_in

    def __call__(self, inputs: Sequence[Tensor], epilogue: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        (x,) = inputs
        finish = epilogue or _same
        if self._plain:
            return finish(F.linear(x, self._weights[0, 0], self._bias))
        out = x.new_empty(self.cells.rows.n, self.cells.columns.n, self._n_out)
        for j, columns in enumerate(self._columns):
            for part in self._parts[j]:
                target = out[:, columns.states.start + part.start : columns.states.start + part.stop]
                if not columns.taps:
                    target.copy_(self._constant(x, finish))
                    continue
                seen = _long(columns.seen[part].reshape(-1), x)
                width = part.stop - part.start
                for i, rows in enumerate(self._rows):
                    if not rows.taps:
                        target[rows.states] = self._constant(x, finish)
                        continue
                    for block in self._blocks[i, max(1, BLOCK_CELLS // width)]:
                        filled = self._filled(x, block, seen, width)
                        made = finish(F.linear(filled, self._weights[i, j], self._bias))
                        target[block.states] = made.view(-1, width, self._n_out)
        return out

    def _constant(self, x: Tensor, finish: Callable[[Tensor], Tensor]) -> Tensor:
        return finish(x.new_zeros(self._n_out) if self._bias is None else self._bias.clone())

    @staticmethod
    def _filled(x: Tensor, block: _RowBlock, seen: Tensor, width: int) -> Tensor:
        """The taps of a block's cells, one cell a row [cells, row taps * column taps * in]."""
        if isinstance(block.needed, slice):
            gathered = x[block.needed].index_select(1, seen).view(-1, width, len(seen) // width * x.shape[2])
        else:
            places = (_long(block.needed, x)[:, None] * x.shape[1] + seen).view(-1)
            gathered = x.view(-1, x.shape[2]).index_select(0, places)
            gathered = gathered.view(-1, width, len(seen) // width * x.shape[2])
        if len(block.copies) == 1 and len(block.copies[0]) == 1:
            return gathered.view(-1, gathered.shape[-1])
        height = block.states.stop - block.states.start
        filled = gathered.new_empty(height, width, len(block.copies), gathered.shape[-1])
        for tap, copies in enumerate(block.copies):
            for first, last, source in copies:
                filled[first:last, :, tap] = gathered[source : source + last - first]
        return filled.view(height * width, -1)


def _weights(operation: Convolution, rows: tuple[int, ...], columns: tuple[int, ...]) -> Tensor:
    """[out, row taps * column taps * in] for cells that have these taps."""
    weight = operation.weight
    chosen = weight[:, :, rows][:, :, :, columns].permute(0, 2, 3, 1).reshape(len(weight), -1)
    if operation.partial and rows and columns:
        kh, kw = weight.shape[2:]
        chosen = chosen * (kh * kw / (len(rows) * len(columns)))
    return chosen.contiguous()


def _n_taps(tuples: IntArray) -> int:
    return int((tuples >= 0).sum())


def _same(x: Tensor) -> Tensor:
    return x


class _GroupedConvolution:
    """Any number of groups: the taps of every state lie side by side, and the window steps from state to state."""

    def __init__(self, operation: Convolution, before: Cells, rows: Taps, columns: Taps) -> None:
        self.cells = Cells(rows.axis, columns.axis)
        self._operation = operation
        self._rows, self._columns = rows.tuples, columns.tuples
        n_out, n_in, kh, _ = operation.weight.shape
        self.macs = n_out * n_in * self._rows.size * self._columns.size
        self._valid = [np.maximum((tuples >= 0).sum(axis=1), 1) for tuples in (self._rows, self._columns)]
        # All channels of a row of states with its taps.
        per_row = kh * self._columns.size * n_in * operation.groups
        self._at_once = max(1, COLUMN_BYTES // (per_row * operation.weight.element_size()))
        self.scratch = before.rows.n * self._columns.size * n_in * operation.groups + self._at_once * per_row

    def __call__(self, inputs: Sequence[Tensor], epilogue: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        (x,) = inputs
        op = self._operation
        finish = epilogue or _same
        wide = _gathered(x, 1, self._columns.reshape(-1))
        out = x.new_empty(self.cells.rows.n, self.cells.columns.n, len(op.weight))
        for first in range(0, len(out), self._at_once):
            rows = self._rows[first : first + self._at_once]
            taps = _gathered(wide, 0, rows.reshape(-1)).permute(2, 0, 1)[None]
            kernel = (self._rows.shape[1], self._columns.shape[1])
            bias = None if op.partial else op.bias
            made = F.conv2d(taps, op.weight, bias, stride=kernel, groups=op.groups)[0].permute(1, 2, 0)
            if op.partial:
                made = self._whole(made, first, op.bias)
            out[first : first + len(rows)] = finish(made)
        return out

    def _whole(self, sums: Tensor, first: int, bias: Tensor | None) -> Tensor:
        """Sums of the taps inside, scaled to all taps."""
        rows, columns = self._valid
        inside = _long(rows[first : first + len(sums)], sums)[:, None, None] * _long(columns, sums)[None, :, None]
        kh, kw = self._operation.weight.shape[2:]
        scaled = sums * (kh * kw / inside.to(sums.dtype))
        return scaled if bias is None else scaled + bias


def _gathered(x: Tensor, axis: int, states: IntArray, outside: float = 0.0) -> Tensor:
    """Choose states along an axis; `outside` where there is none."""
    chosen = x.index_select(axis, _long(np.maximum(states, 0), x))
    lacking = np.flatnonzero(states < 0)
    if len(lacking):
        chosen.index_fill_(axis, _long(lacking, x), outside)
    return chosen


class _MaxPool:
    """A maximum over rows, then over columns."""

    def __init__(self, before: Cells, rows: Taps, columns: Taps, n_channels: int) -> None:
        self.cells = Cells(rows.axis, columns.axis)
        self.macs = 0
        # A tap outside adds nothing to a maximum: any tap of the same state stands in for it.
        self._rows, self._columns = (_inside(taps.tuples) for taps in (rows, columns))
        self.scratch = 2 * rows.axis.n * before.columns.n * n_channels

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        for axis, tuples in ((0, self._rows), (1, self._columns)):
            taps = [_long(column, x) for column in tuples.T]
            best = x.index_select(axis, taps[0])
            for tap in taps[1:]:
                torch.maximum(best, x.index_select(axis, tap), out=best)
            x = best
        return x


def _inside(tuples: IntArray) -> IntArray:
    return np.where(tuples < 0, tuples.max(axis=1, keepdims=True), tuples)


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
            parts = (_gathered(total, axis, column) for column in tuples.T)
            summed = next(parts)
            for part in parts:
                summed += part
            total = summed
        if self._divisor is not None:
            return (total / self._divisor).to(x.dtype)
        rows, columns = (_long(counts, x).to(total.dtype) for counts in self._counts)
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
            x = x if columns is None else x.index_select(1, _long(columns, x))
            maps.append(x if rows is None else x.index_select(0, _long(rows, x)))
        return self._function(*maps)


def _together(axes: Sequence[Axis]) -> tuple[Axis, list[IntArray | None]]:
    """The common axis, and which states of each map it takes (None: all, as they are)."""
    if all(axis.same_as(axes[0]) for axis in axes[1:]):
        return axes[0], [None] * len(axes)
    taps = joined(axes)
    return taps.axis, list(taps.tuples.T)


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
            best = x.index_select(axis, _long(table[:, 0], x))
            for column in table.T[1:]:
                torch.maximum(best, x.index_select(axis, _long(column, x)), out=best)
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
    return (_DenseConvolution if dense else _GroupedConvolution)(operation, first, rows, columns)


def windows(x: Tensor, cells: Cells, iy: NDArray[np.int64], ix: NDArray[np.int64]) -> Tensor:
    """Put windows together: maps [n, c, h, w] (channels last in memory) of some shifts, by their places in the grid."""
    rows, columns = cells.rows.table[iy], cells.columns.table[ix]
    places = rows[:, :, None] * cells.columns.n + columns[:, None, :]
    found = x.reshape(-1, x.shape[-1]).index_select(0, _long(places.reshape(-1), x))
    return found.view(*places.shape, -1).permute(0, 3, 1, 2)
