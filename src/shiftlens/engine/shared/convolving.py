"""Convolutions on cells, prepared once for a grid, run for every image.

A convolution is a matrix product over gathered taps, block by block, so that a block stays in a core's cache; states
that lie next to each other mostly read states that lie next to each other, so most of the gathering is copying of long
runs. Taps that see padding are left out of the product instead of being multiplied by zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from shiftlens.engine.shared.cells import Cells, as_index, gathered
from shiftlens.engine.shared.states import Axis, IntArray, Taps
from shiftlens.graph.operations import Convolution

BLOCK_CELLS = 512
"""Cells in one matrix product, at most: enough for the machine's rate, few enough for its cache."""
BLOCK_COLUMNS = 64
"""Of them along a row, at most."""
COLUMN_BYTES = 2**24
"""Most bytes of taps that a grouped convolution gathers at once."""


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


class DenseConvolution:
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
        """Cells in, cells out; `epilogue` is applied to each block while it is in the cache."""
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
                seen = as_index(columns.seen[part].reshape(-1), x)
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
            places = (as_index(block.needed, x)[:, None] * x.shape[1] + seen).view(-1)
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


class GroupedConvolution:
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
        """Cells in, cells out; `epilogue` is applied to each block while it is in the cache."""
        (x,) = inputs
        op = self._operation
        finish = epilogue or _same
        wide = gathered(x, 1, self._columns.reshape(-1))
        out = x.new_empty(self.cells.rows.n, self.cells.columns.n, len(op.weight))
        for first in range(0, len(out), self._at_once):
            rows = self._rows[first : first + self._at_once]
            taps = gathered(wide, 0, rows.reshape(-1)).permute(2, 0, 1)[None]
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
        inside = as_index(rows[first : first + len(sums)], sums)[:, None, None] * as_index(columns, sums)[None, :, None]
        kh, kw = self._operation.weight.shape[2:]
        scaled = sums * (kh * kw / inside.to(sums.dtype))
        return scaled if bias is None else scaled + bias
