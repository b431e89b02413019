"""A small U-Net: images in, a map of class scores of the same size out."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shiftlens.errors import InputError
from shiftlens.nn.convolution import conv2d

LEVELS = (1, 2, 4, 4)
"""Channels of each level, in units of the width."""


@fx.wrap  # a net that branches on a size cannot be traced: the check is one node of the graph
def require_multiples(x: Tensor, of: int, net: str) -> None:
    """Refuse images [n, c, h, w] whose sides are not multiples of a number."""
    h, w = x.shape[-2:]
    if h % of or w % of:
        raise InputError(f"{net} takes sides that are multiples of {of}, got {h}x{w}")


def double_convolution(n_in: int, n_out: int, padding: str) -> nn.Sequential:
    """Convolution 3x3, batch norm and ReLU, twice."""
    layers: list[nn.Module] = []
    for channels in (n_in, n_out):
        layers += [conv2d(channels, n_out, 3, padding=1, padding_mode=padding, bias=False)]
        layers += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A U-Net of four levels with bilinear upsampling: [n, in_channels, h, w] to [n, n_classes, h, w].

    Parameters
    ----------
    n_classes, in_channels, width
        At least 1; `width` is the number of channels of the first level.
    padding
        Mode of every convolution: a name of `shiftlens.nn.PADDING_MODES`, but `full`.

    Raises
    ------
    InputError
        A number below 1, an unknown mode, or an image whose sides are not multiples of 8.

    Source
    ------
    arXiv 1505.04597, with padding, batch norm and bilinear upsampling.

    Examples
    --------
    >>> UNet(n_classes=3, width=4).eval()(torch.zeros(1, 1, 24, 16)).shape
    torch.Size([1, 3, 24, 16])
    """

    def __init__(self, n_classes: int = 11, in_channels: int = 1, width: int = 16, padding: str = "zeros") -> None:
        super().__init__()
        if min(n_classes, in_channels, width) < 1:
            raise InputError(
                f"n_classes, in_channels and width must be at least 1, got {n_classes}, {in_channels}, {width}"
            )
        if padding == "full":
            raise InputError("full padding makes larger maps, which a U-Net cannot join")
        channels = [width * factor for factor in LEVELS]
        self.down = nn.ModuleList(
            double_convolution(n_in, n_out, padding)
            for n_in, n_out in zip([in_channels, *channels[:-1]], channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.Sequential(
                conv2d(channels[k + 1] + channels[k], channels[k], 3, padding=1, padding_mode=padding, bias=False),
                nn.BatchNorm2d(channels[k]),
                nn.ReLU(inplace=True),
            )
            for k in reversed(range(len(channels) - 1))
        )
        # The level below gives as many channels as it was given by its own step up.
        self.head = nn.Conv2d(width, n_classes, 1)
        self.config: dict[str, Any] = {
            "n_classes": n_classes,
            "in_channels": in_channels,
            "width": width,
            "padding": padding,
        }
        """Keyword arguments that build this net again; plain JSON."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Scores of every pixel."""
        require_multiples(x, 8, "a U-Net of four levels")
        kept = []
        for level in self.down[:-1]:
            x = level(x)
            kept.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for step, skipped in zip(self.up, reversed(kept), strict=True):
            x = step(torch.cat([F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False), skipped], 1))
        scores: Tensor = self.head(x)
        return scores
