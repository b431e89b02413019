"""Convolutions of a user's own class: which way of padding their code takes, found by trying."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from shiftlens.nn.convolution import full_sides, pair, sides_of_layer, without_padding
from shiftlens.nn.padding import PAD_MODES, Sides, pad

THEIRS = ("zeros", "replicate", "reflect", "circular")
"""Modes that PyTorch's own attribute `padding_mode` knows."""


def way_of(layer: nn.Conv2d, mode: str) -> str | None:
    """How a convolution of a user's class takes a mode: `attribute`, `wrapped` (padded before it), or not at all.

    The layer is copied, and shown one small random picture in each way; what counts is that it gives what padding by
    hand gives.
    """
    sides = sides_of_layer(layer)
    theirs = "replicate" if mode == "symmetric" and max(sides) <= 1 else mode
    wanted, by = (full_sides(layer), "zeros") if mode == "full" else (sides, mode)
    if by not in PAD_MODES:
        return None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            bare = without_padding(copy.deepcopy(layer).eval())
            x = _picture(layer, sides)
            if not _same(bare(pad(x, sides, layer.padding_mode)), copy.deepcopy(layer).eval()(x)):
                return None  # it pads by code of its own, or not as its attributes say
            expected = bare(pad(x, wanted, by))
            if theirs in THEIRS and wanted == sides:
                set_ = copy.deepcopy(layer).eval()
                set_.padding_mode = theirs  # type: ignore[assignment]
                if _same(set_(x), expected):
                    return "attribute"
        except Exception:  # a stranger's forward may raise anything, or want more than a picture
            return None
    return "wrapped"


def strides_as_it_says(layer: nn.Conv2d) -> bool:
    """Whether stride 1 gives the dense map of which the layer's own stride keeps every s-th cell."""
    (sy, sx) = pair(layer.stride)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            x = _picture(layer, sides_of_layer(layer))
            dense = copy.deepcopy(layer).eval()
            dense.stride = (1, 1)
            return _same(dense(x)[..., ::sy, ::sx], copy.deepcopy(layer).eval()(x))
        except Exception:  # as above
            return False


def _picture(layer: nn.Conv2d, sides: Sides) -> Tensor:
    (ky, kx), (dy, dx) = pair(layer.kernel_size), pair(layer.dilation)
    least = max(sides) + 1
    size = (2 * dy * (ky - 1) + least + 2, 2 * dx * (kx - 1) + least + 3)
    return torch.randn(1, layer.in_channels, *size).to(layer.weight)


def _same(a: Tensor, b: Tensor) -> bool:
    # On the meta device there are no numbers; shapes are all there is to compare.
    if a.shape != b.shape or a.is_meta:
        return a.shape == b.shape
    return torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-3 * float(b.float().abs().max() + 1e-12))
