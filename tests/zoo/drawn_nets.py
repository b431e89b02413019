"""Nets drawn at random from pieces, odd ones among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from harness import N_CLASSES, told
from torch import Tensor, nn


class Does(nn.Module):
    """A function of maps as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@dataclass(frozen=True)
class Piece:
    """A layer from 6 maps to 6 maps; `mixes`: images of a batch see each other."""

    make: Callable[[], nn.Module]
    mixes: bool = False


def _hooked() -> nn.Module:
    layer = nn.Conv2d(6, 6, 3, padding=1)
    layer.register_forward_pre_hook(lambda module, args: (args[0].flip(3),))
    return layer


def _patched() -> nn.Module:
    layer = nn.ReLU()
    layer.forward = torch.sin  # type: ignore[method-assign]  # that is the point
    return layer


PIECES: dict[str, Piece] = {
    "conv": Piece(lambda: nn.Conv2d(6, 6, 3, padding=1)),
    "strided": Piece(lambda: nn.Conv2d(6, 6, 2, stride=2, padding=1)),
    "circular": Piece(lambda: nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular")),
    "normed": Piece(lambda: nn.Sequential(nn.Conv2d(6, 6, 1), told(nn.BatchNorm2d(6)))),
    "norm": Piece(lambda: told(nn.BatchNorm2d(6))),
    "relu": Piece(lambda: nn.Sequential(nn.Dropout(), nn.ReLU(inplace=True))),
    "pool": Piece(lambda: nn.MaxPool2d(2, 1, ceil_mode=True)),
    "group": Piece(lambda: nn.GroupNorm(2, 6)),
    "hooked": Piece(_hooked),
    "patched": Piece(_patched),
    "order": Piece(lambda: Does(lambda x: x.as_strided(x.shape, torch.empty(x.shape).stride()))),
    "stride": Piece(lambda: Does(lambda x: x * (1 + 0.5 / x.stride(3)))),
    "view": Piece(lambda: Does(lambda x: x.view(len(x), 3, -1).tanh().view(x.shape))),
    "alias": Piece(lambda: Does(lambda x: x.view_as(x).clamp_(-0.5, 0.5) + x)),
    "double": Piece(lambda: Does(lambda x: x.double().cumsum(3).float() / x.shape[3])),
    "fourier": Piece(lambda: Does(lambda x: torch.fft.fft2(x, norm="ortho").abs())),
    "branch": Piece(lambda: Does(lambda x: torch.where(x.mean((1, 2, 3), True) > 0.1, x.flip(2), x))),
    "loop": Piece(lambda: Does(lambda x: torch.stack([image / (1 + image.abs().max()) for image in x]))),
    "up": Piece(lambda: Does(lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"))),
    "neighbour": Piece(lambda: Does(lambda x: x + 0.5 * x.roll(1, 0)), mixes=True),
    "loudest": Piece(lambda: Does(lambda x: x / x.abs().max()), mixes=True),
    "training": Piece(lambda: nn.BatchNorm2d(6, track_running_stats=False), mixes=True),
    "size": Piece(lambda: Does(lambda x: x / len(x)), mixes=True),
}


def drawn(names: list[str], seed: int) -> nn.Module:
    """The net of these pieces."""
    torch.manual_seed(seed)
    head = nn.Linear(6, N_CLASSES)
    nn.init.normal_(head.weight)
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), head]
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), *(PIECES[name].make() for name in names), *last)
