"""Cells: one array of (row states) x (column states) x channels for all shifts of an image at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.engine.shared.states import Axis, IntArray


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


def as_index(values: IntArray, like: Tensor) -> Tensor:
    """Places as a tensor beside another."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device)


def gathered(x: Tensor, axis: int, states: IntArray, outside: float = 0.0) -> Tensor:
    """Choose states along an axis; `outside` where there is none."""
    chosen = x.index_select(axis, as_index(np.maximum(states, 0), x))
    lacking = np.flatnonzero(states < 0)
    if len(lacking):
        chosen.index_fill_(axis, as_index(lacking, x), outside)
    return chosen


def windows(x: Tensor, cells: Cells, iy: NDArray[np.int64], ix: NDArray[np.int64]) -> Tensor:
    """Put windows together: maps [n, c, h, w] (channels last in memory) of some shifts, by their places in the grid."""
    rows, columns = cells.rows.table[iy], cells.columns.table[ix]
    places = rows[:, :, None] * cells.columns.n + columns[:, None, :]
    found = x.reshape(-1, x.shape[-1]).index_select(0, as_index(places.reshape(-1), x))
    return found.view(*places.shape, -1).permute(0, 3, 1, 2)
