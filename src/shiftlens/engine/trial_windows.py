"""Windows to check and to measure a plan with: which shifts, which images, how many at once, and changed how little."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.models.wrapping import Model
from shiftlens.shifts import ShiftGrid

ROUNDING = 1e-6
"""Relative change of the input that shows how much rounding moves the logits of this net."""
IMAGES = 4
"""Of the images at hand, beside noise and a gradient."""
MAX_PIXELS = 2**18
"""Most pixels in one batch: bounds the memory of the widest layer (64 channels: 64 MB in float32, for each worker)."""
MAX_LOGITS = 2**22
"""Most logits in one batch: a net with a million classes must not fill the memory with them."""


def nudged(window: Tensor, noise: torch.Generator, size: float) -> Tensor:
    """A window whose pixels are changed at random by a share of themselves."""
    change = torch.randn(window.shape, generator=noise, dtype=window.dtype).to(window.device)
    return window * (1 + size * change)


def nudges(window: Tensor) -> list[Tensor]:
    """A window with some changes of ten times what rounding does."""
    noise = torch.Generator().manual_seed(0)
    return [nudged(window, noise, 10 * ROUNDING) for _ in range(3)]


def most_windows(model: Model, h: int, w: int) -> int:
    """Windows of (h, w) pixels in one batch, at most: bounds the memory of the widest layer and of the logits."""
    model = model if model.input_size == (h, w) else model.at((h, w))
    return max(1, min(MAX_PIXELS // (h * w), MAX_LOGITS // model.n_classes))


def spread_shifts(grid: ShiftGrid, size: tuple[int, int], n: int) -> NDArray[np.int64]:
    """Places in the grid of about `n` shifts, spread over those that leave something of the picture in view."""
    inside = (np.abs(grid.dys) < size[0])[:, None] & (np.abs(grid.dxs) < size[1])[None, :]
    places = np.flatnonzero(inside)
    return places[np.unique(np.linspace(0, len(places) - 1, n).astype(np.int64))]


def varied_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Noise, a gradient, and some of the images: uint8 [n, c, h, w]."""
    _, c, h, w = images.shape
    noise = np.random.default_rng(0).integers(0, 256, (c, h, w), dtype=np.uint8)
    ramp = np.linspace(0, 255, h)[:, None] * 0.7 + np.linspace(0, 76, w)[None, :]
    gradient = np.stack([np.roll(ramp, k, axis=1) for k in range(c)]).astype(np.uint8)
    chosen = images[np.unique(np.linspace(0, len(images) - 1, IMAGES).astype(np.int64))]
    return np.concatenate([noise[None], gradient[None], chosen])
