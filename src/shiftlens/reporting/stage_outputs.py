"""Kept masks and boxes as the stage draws them: packed image by image, in whole numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shiftlens.reporting.encoding import Data, deflated
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.kept_outputs import BOX_PARTS, NO_BOX

BOXES = ("kept_left", "kept_top", "kept_right", "kept_bottom", "kept_score", "kept_class")
WRAP = 2**16
"""Sides of boxes are whole numbers modulo this, as a `Uint16Array` holds them."""


def kind_of(kept: Sweep) -> str:
    """What was kept: "masks" or "boxes"."""
    return "masks" if "class_map" in kept.dataset else "boxes"


def packed_output(kept: Sweep, row: int) -> Data:
    """What was kept of one image, for the page."""
    grid = kept.grid
    if kind_of(kept) == "boxes":
        table = np.stack([np.asarray(kept.dataset[name].variable[row].values) for name in BOXES])
        return _boxes(table, grid.dys, grid.dxs)
    settings = kept.header.task.settings
    maps = np.moveaxis(np.asarray(kept.dataset["class_map"].variable[row].values), 0, -1)
    shape = (*maps.shape[:2], settings["rows"], settings["columns"])
    return _masks(maps.reshape(shape), grid.dys, grid.dxs, settings["every"])


def _masks(maps: NDArray[np.unsignedinteger], dys: NDArray[np.int64], dxs: NDArray[np.int64], every: int) -> Data:
    """Class maps (dy, dx, row, column): the unshifted one, and at each shift where it differs from that moved along.

    Cells that nothing moves into are taken to be of class 0; a difference is an exclusive or.
    """
    still = maps[int(np.searchsorted(dys, 0)), int(np.searchsorted(dxs, 0))]
    rows, columns = still.shape
    framed = np.zeros((rows + 1, columns + 1), still.dtype)
    framed[:rows, :columns] = still
    change = np.empty_like(maps)
    for iy, dy in enumerate(dys):
        # As JavaScript rounds.
        down = np.arange(rows) - int(np.floor(dy / every + 0.5))
        down[(down < 0) | (down >= rows)] = rows
        for ix, dx in enumerate(dxs):
            across = np.arange(columns) - int(np.floor(dx / every + 0.5))
            across[(across < 0) | (across >= columns)] = columns
            change[iy, ix] = maps[iy, ix] ^ framed[np.ix_(down, across)]
    flat = deflated(change.reshape(*maps.shape[:2], -1))
    return {"still": deflated(still), "change": flat, "every": every}


def _boxes(table: NDArray[np.uint16], dys: NDArray[np.int64], dxs: NDArray[np.int64]) -> Data:
    """Boxes (part, rank, dy, dx): how many there are at each shift, and their parts relative to the shift.

    A box keeps its place in the table from shift to shift as far as an order by class and side can tell.
    """
    windows = np.moveaxis(table.astype(np.int64), (0, 1), (-1, -2)).reshape(-1, *table.shape[1::-1])
    shift = np.stack(np.meshgrid(dxs, dys), axis=-1).reshape(-1, 2)
    windows[:, :, :4] -= BOX_PARTS * np.tile(shift, 2)[:, None]
    there = windows[:, :, 5] < NO_BOX
    counts = there.sum(axis=1)
    most = max(1, int(counts.max()))
    out = np.zeros((most, len(BOXES), len(windows)), np.int64)
    for k, (rows, n) in enumerate(zip(windows, counts, strict=True)):
        mine = rows[:n]
        out[:n, :, k] = mine[np.lexsort((mine[:, 1], mine[:, 0], mine[:, 5]))]
        if k:
            out[n:, :, k] = out[n:, :, k - 1]
    return {"counts": deflated(counts.reshape(len(dys), len(dxs))), "boxes": deflated(out % WRAP), "parts": BOX_PARTS}
