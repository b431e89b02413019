"""Cells: one array of (row states) x (column states) x channels for all shifts of an image at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
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


def as_index(values: IntArray, device: torch.device) -> Tensor:
    """Places as a tensor where they are needed."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


class Choice:
    """States to be taken along an axis, in order; a negative one is outside the map."""

    def __init__(self, states: IntArray, device: torch.device) -> None:
        lacking = np.flatnonzero(states < 0)
        self._states = as_index(np.maximum(states, 0), device)
        self._lacking = as_index(lacking, device) if len(lacking) else None

    def __call__(self, x: Tensor, axis: int, outside: float = 0.0) -> Tensor:
        """Those of a map, `outside` where there is none."""
        chosen = x.index_select(axis, self._states)
        return chosen if self._lacking is None else chosen.index_fill_(axis, self._lacking, outside)


def taken(x: Tensor, places: Tensor) -> Tensor:
    """Cells [n, c] of maps [..., c], by their places counted through all maps."""
    flat = x.reshape(-1, x.shape[-1])
    if x.is_cuda and flat.shape[1] * flat.element_size() % 8 == 0:
        return flat.view(torch.float64).index_select(0, places).view(x.dtype)  # a GPU copies number by number
    return flat.index_select(0, places)


def windows(x: Tensor, tables: tuple[Tensor, Tensor], iy: Tensor, ix: Tensor, image: Tensor | None = None) -> Tensor:
    """Put windows together: maps [n, c, h, w] (channels last in memory) of some shifts.

    Parameters
    ----------
    x
        Maps [row states, column states, c] of one image, or [image, row states, column states, c].
    tables
        The states of rows and of columns: `Axis.table`.
    iy, ix, image
        [n]: the places of the shifts in the tables, and the images they are wanted of.
    """
    rows, columns = tables[0][iy], tables[1][ix]
    if image is not None:
        rows = rows + image[:, None] * x.shape[-3]
    places = rows[:, :, None] * x.shape[-2] + columns[:, None, :]
    return taken(x, places.view(-1)).view(*places.shape, -1).permute(0, 3, 1, 2)
