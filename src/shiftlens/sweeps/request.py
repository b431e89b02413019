"""What a sweep is asked to do, made definite and checked before anything is computed or written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from shiftlens.engine.plan import Plan
from shiftlens.errors import InputError, StoreError
from shiftlens.shifts import Fill, ShiftGrid

logger = logging.getLogger(__name__)

CHUNK_EVALUATIONS = 16 * 65 * 65
"""Evaluations (images x shifts) in a chunk, at most: what a killed process loses. 16 images of the reference case, so
that they divide among cores."""

CHUNK_MACS = CHUNK_EVALUATIONS * 209_000_000
"""Multiply-adds in a chunk, about: nets that cost more than `vgg8` get smaller chunks, or a kill would cost hours."""

CHUNK_PICTURE_BYTES = 32 * 2**20
"""Bytes of pictures in a chunk: few shifts of large pictures must not fill the memory."""

MOST_CANVAS = 2**28
"""Most numbers in a picture with all that can enter around it, as an index rule needs it: 1 GB in float32, thrice in
memory while windows are cut."""


def refuse_wide_canvas(grid: ShiftGrid, size: tuple[int, int], n_channels: int, fill: Fill) -> None:
    """Refuse shifts so large that what an index rule brings in would not fit the memory.

    With a constant fill nothing is kept beyond the picture's own size.

    Raises
    ------
    InputError
        Names the picture's size, beyond which an index rule only repeats itself.
    """
    h, w = size[0] + 2 * grid.max_y, size[1] + 2 * grid.max_x
    if not fill.is_constant and n_channels * h * w > max(MOST_CANVAS, 9 * n_channels * size[0] * size[1]):
        raise InputError(
            f"max-shift {grid.max_y}x{grid.max_x} with fill {fill.name} needs {h:,} x {w:,} pixels around each picture "
            f"({4e-9 * n_channels * h * w:.0f} GB); a max-shift of the picture's size, {size[0]}x{size[1]}, shows "
            "all that the fill brings in"
        )


def refuse_other_plan(
    plan: Plan, path: Path, *, engine: str, dtype: str, device: str, batch_size: int | None = None
) -> None:
    """Refuse to go on with a stored sweep in another way than it was begun, when one was asked for by name.

    Raises
    ------
    StoreError
        Says which of engine, dtype, device and batch size differs.
    """
    for what, asked, stored in (
        ("engine", engine, plan.engine),
        ("dtype", dtype, plan.dtype),
        ("device", device, plan.device),
        ("batch-size", "auto" if batch_size is None else batch_size, plan.batch_size),
    ):
        if asked not in ("auto", stored):
            raise StoreError(
                f"{path} holds a sweep with another {what}: expected {asked}, got {stored}; leave {what} out to go on "
                "with it, or choose another path"
            )


def device_on_cluster(device: str) -> str:
    """What `device` means on a cluster, whose workers are cores.

    Raises
    ------
    InputError
        A GPU was asked for.
    """
    if device not in ("auto", "cpu"):
        raise InputError(f"a cluster computes on the cores of its machines: expected device auto or cpu, got {device}")
    return "cpu"


def default_grid(
    size: tuple[int, int], announce: Callable[[str], None] = logger.warning, *, step: int = 1
) -> ShiftGrid:
    """The shifts for pictures of `size` `(h, w)` pixels when no max-shift is asked for; a cut-down one is announced."""
    grid = ShiftGrid(ShiftGrid.default_for(size).max_shift, step)
    if (grid.max_y, grid.max_x) != size:
        announce(
            f"pictures are {size[0]} x {size[1]} px: shifts up to {grid.max_y} px down and up, {grid.max_x} px right "
            f"and left are swept ({grid.n_shifts:,} of them); ask for another max-shift to see further"
        )
    return grid


def images_per_chunk(n_images: int, n_shifts: int, n_macs: int | None, picture_bytes: int) -> int:
    """Images in a chunk, at least 1: a matter of the sweep alone, never of the machine.

    Parameters
    ----------
    n_images, n_shifts
        Size of the sweep.
    n_macs
        Multiply-adds of one image, None when unknown.
    picture_bytes
        Bytes of one picture (uint8).
    """
    evaluations = min(CHUNK_EVALUATIONS, CHUNK_MACS // max(1, n_macs or 1))
    return max(1, min(n_images, evaluations // n_shifts, CHUNK_PICTURE_BYTES // picture_bytes))
