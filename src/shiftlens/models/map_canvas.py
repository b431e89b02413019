"""The canvas control of a model of maps: each image in the middle of a larger one of fill, so that no padding is near.

The net runs on the larger image as it would on any image, and the part of its map where the image lies is cut out. The
margin is the reach of the net's layers, a multiple of its strides, so what differs from the map of the image alone is
the doing of the padding.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shiftlens.errors import InputError
from shiftlens.models.adapting import RowOutputs, TaskModel, map_geometry
from shiftlens.models.wrapping import Model


class _OnCanvas(nn.Module):
    """Rows of maps of images [n, c, h, w] that lie among fill."""

    def __init__(
        self, rows: RowOutputs, size: tuple[int, int], margin: tuple[int, int], values: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.rows, (down, across) = rows, margin
        self.wide = size[0] + 2 * down, size[1] + 2 * across
        self.sides = (across, across, down, down)
        self.middle = (slice(down, down + size[0]), slice(across, across + size[1]))
        surround = torch.tensor(values)[:, None, None].expand(-1, *self.wide).clone()
        surround[:, *self.middle] = 0
        self.surround: Tensor
        self.register_buffer("surround", surround)

    def maps(self, x: Tensor) -> Tensor:
        """The maps of images [n, c, h, w] with their surround."""
        canvas = F.pad(x, self.sides) + self.surround.to(x)
        return self.rows.sized(canvas, None if self.rows.size is None else self.wide)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, k]."""
        return self.maps(x)[..., *self.middle].flatten(1)


def is_of_maps(model: Model) -> bool:
    """Whether the model gives a map over the image, as a row of numbers."""
    return isinstance(model, TaskModel) and isinstance(model.module, RowOutputs) and len(model.module.form.shape) > 1


def on_canvas(model: Model, size: tuple[int, int], values: tuple[float, ...]) -> Model:
    """The model of maps, for images of (h, w) pixels that lie in the middle of a canvas of fill.

    Raises
    ------
    InputError
        A net of which it is not known how far a place of its map sees, or that sees everything, or images whose sides
        are no multiples of its strides.
    """
    assert isinstance(model, TaskModel)
    rows = model.module
    assert isinstance(rows, RowOutputs)
    assert model.original is not None
    found = map_geometry(model.original, rows.form, size)
    if not found.is_local:
        why = found.obstacles or [f"{found.global_layers[0].path} reads the whole map"]
        raise InputError(f"the canvas control needs a net whose layers see a part of the image; {model.name}: {why[0]}")
    if size[0] % found.grid[0] or size[1] % found.grid[1]:
        raise InputError(
            f"the canvas control needs images whose sides are multiples of the strides of {model.name}, "
            f"{found.grid[0]}x{found.grid[1]}, got {size[0]}x{size[1]}"
        )
    made = _OnCanvas(rows, size, found.overlap, values).to(model.device)
    with model.evaluating(), torch.no_grad():
        got = tuple(made.maps(torch.zeros(1, model.n_channels, *size, device=model.device)).shape[-2:])
    if got != made.wide:
        raise InputError(
            f"the canvas control needs a map as large as its image: for one of {made.wide[0]}x{made.wide[1]}, "
            f"{model.name} gives {got[0]}x{got[1]}"
        )
    return replace(model, module=made)
