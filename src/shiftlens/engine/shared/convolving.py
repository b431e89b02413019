"""Convolutions on cells, prepared once for a grid, run for every image.

A convolution is a matrix product over gathered taps, block by block, so that a block stays in a core's cache; states
that lie next to each other mostly read states that lie next to each other, so most of the gathering is copying of long
runs. Taps that see padding are left out of the product instead of being multiplied by zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shiftlens.engine.shared.cells import Cells, Choice, as_index, taken
from shiftlens.engine.shared.states import Axis, IntArray, Taps
from shiftlens.graph.operations import Convolution

BLOCK_CELLS = 256, 512
"""Cells in one matrix product, at least and at most: enough for the machine's rate."""
BLOCK_BYTES = 5 * 2**18
"""Most bytes of taps that one product reads, where that leaves enough cells: they stay in its cache."""
BLOCK_COLUMNS = 64
"""Cells along a row, at most."""
GPU_BYTES = 2**28
"""Most bytes of taps and of their places that one product reads on a GPU: it wants large ones."""
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
class _Block:
    """Cells that are computed together.

    Attributes
    ----------
    rows, columns
        Runs of states.
    group
        The groups of rows and of columns that they belong to.
    row_places, column_places
        Where their taps lie in the map before, as a run of cells: the sum of [rows, 1, taps] and [columns, taps].
    """

    rows: slice
    columns: slice
    group: tuple[int, int]
    row_places: Tensor
    column_places: Tensor

    def gathered(self, x: Tensor) -> Tensor:
        """The taps of the cells, one cell a row [cells, row taps * column taps * in], of a map [rows, columns, in]."""
        places = self.row_places + self.column_places
        return taken(x, places.view(-1)).view(places.shape[0] * places.shape[1], -1)


def _blocks(
    rows: Sequence[_Group], columns: Sequence[_Group], n_cells: int, n_columns: int, device: torch.device
) -> Iterator[_Block]:
    """Blocks of up to `n_cells`; the map before has `n_columns` states of columns."""
    for j, across in enumerate(columns):
        for wide in _parts(len(across.seen), BLOCK_COLUMNS if device.type == "cpu" else n_cells):
            # Narrow groups take more rows at once, so that a product is never small.
            height = max(1, n_cells // (wide.stop - wide.start))
            for i, down in enumerate(rows):
                column_places = as_index(np.tile(across.seen[wide], (1, len(down.taps))), device)
                for high in _parts(len(down.seen), height):
                    row_places = np.repeat(down.seen[high] * n_columns, len(across.taps), axis=1)[:, None]
                    yield _Block(
                        slice(down.states.start + high.start, down.states.start + high.stop),
                        slice(across.states.start + wide.start, across.states.start + wide.stop),
                        (i, j),
                        as_index(row_places, device),
                        column_places,
                    )


def _parts(n: int, at_once: int) -> list[slice]:
    """Split a run of `n` into stretches of nearly the same length, at most `at_once`."""
    edges = np.linspace(0, n, -(-n // at_once) + 1).astype(int).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


class DenseConvolution:
    """groups = 1: a matrix product for every block of cells, over the taps that its group has.

    The taps of a cell are gathered side by side, so that a block is one copy and one product. Partial convolution is
    the same with weights scaled by the taps that a group lacks.
    """

    def __init__(self, operation: Convolution, before: Cells, rows: Taps, columns: Taps) -> None:
        self.cells = Cells(rows.axis, columns.axis)
        weight = operation.weight
        n_out, n_in = weight.shape[:2]
        self._n_out, self._bias = n_out, operation.bias
        row_groups, column_groups = _groups(rows.tuples), _groups(columns.tuples)
        self.macs = n_out * n_in * _n_taps(rows.tuples) * _n_taps(columns.tuples)
        self._plain = _is_everything(rows.tuples, before.rows) and _is_everything(columns.tuples, before.columns)
        # [out, row taps * column taps * in] of every pair of groups.
        self._weights = {
            (i, j): _weights(operation, a.taps, b.taps)
            for i, a in enumerate(row_groups)
            for j, b in enumerate(column_groups)
        }
        n_taps = n_in * weight.shape[2] * weight.shape[3]
        places = 0 if weight.device.type == "cpu" else 8 * weight.shape[2] * weight.shape[3]
        bytes_each = n_taps * weight.element_size() + places
        n_cells = min(_cells_in_block(bytes_each, weight.device), self.cells.rows.n * self.cells.columns.n)
        self._blocks = list(_blocks(row_groups, column_groups, n_cells, before.columns.n, weight.device))
        self.scratch = 2 * n_cells * n_taps

    def __call__(self, inputs: Sequence[Tensor], epilogue: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Cells in, cells out; `epilogue` is applied to each block while it is in the cache."""
        (x,) = inputs
        finish = epilogue or _same
        if self._plain:
            return finish(F.linear(x, self._weights[0, 0], self._bias))
        out = x.new_empty(self.cells.rows.n, self.cells.columns.n, self._n_out)
        for block in self._blocks:
            target = out[block.rows, block.columns]
            weight = self._weights[block.group]
            if weight.shape[1]:
                made = finish(F.linear(block.gathered(x), weight, self._bias))
                target.copy_(made.view(target.shape))
            else:
                target.copy_(finish(x.new_zeros(self._n_out) if self._bias is None else self._bias.clone()))
        return out


def _cells_in_block(bytes_each: int, device: torch.device) -> int:
    """Cells in one product, of whose taps each has so many bytes."""
    if device.type != "cpu":
        return max(GPU_BYTES // bytes_each, BLOCK_CELLS[0])
    return min(max(BLOCK_BYTES // bytes_each, BLOCK_CELLS[0]), BLOCK_CELLS[1])


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
        n_out, n_in, *self._kernel = operation.weight.shape
        device = operation.weight.device
        self.macs = n_out * n_in * rows.tuples.size * columns.tuples.size
        # All channels of a row of states with its taps.
        per_row = self._kernel[0] * columns.tuples.size * n_in * operation.groups
        at_once = max(1, COLUMN_BYTES // (per_row * operation.weight.element_size()))
        self.scratch = before.rows.n * columns.tuples.size * n_in * operation.groups + at_once * per_row
        self._columns = Choice(columns.tuples.reshape(-1), device)
        self._rows = [
            (first, Choice(rows.tuples[first : first + at_once].reshape(-1), device))
            for first in range(0, rows.axis.n, at_once)
        ]
        self._valid = [
            as_index(np.maximum((tuples >= 0).sum(axis=1), 1), device) for tuples in (rows.tuples, columns.tuples)
        ]

    def __call__(self, inputs: Sequence[Tensor], epilogue: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Cells in, cells out; `epilogue` is applied to each block while it is in the cache."""
        (x,) = inputs
        op = self._operation
        finish = epilogue or _same
        wide = self._columns(x, 1)
        out = x.new_empty(self.cells.rows.n, self.cells.columns.n, len(op.weight))
        for first, rows in self._rows:
            taps = rows(wide, 0).permute(2, 0, 1)[None]
            bias = None if op.partial else op.bias
            made = F.conv2d(taps, op.weight, bias, stride=self._kernel, groups=op.groups)[0].permute(1, 2, 0)
            if op.partial:
                made = self._whole(made, first, op.bias)
            out[first : first + len(made)] = finish(made)
        return out

    def _whole(self, sums: Tensor, first: int, bias: Tensor | None) -> Tensor:
        """Sums of the taps inside, scaled to all taps."""
        rows, columns = self._valid
        inside = rows[first : first + len(sums), None, None] * columns[None, :, None]
        kh, kw = self._kernel
        scaled = sums * (kh * kw / inside.to(sums.dtype))
        return scaled if bias is None else scaled + bias
