"""Small nets each with a known reason why tiles differ from the whole image, and images without structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import shiftlens as sl


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Conv2d(channels, channels, 1)
        nn.init.normal_(self.gate.weight, std=4.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.gate(self.pool(x)))


NORMS: dict[str, Any] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda n: nn.InstanceNorm2d(n, affine=True),
    "group": lambda n: nn.GroupNorm(2, n),
}


class TwoLevels(nn.Module):
    """A U-Net of two levels: total stride 2, [n, 1, h, w] to [n, 3, h, w]."""

    def __init__(self, norm: str = "batch", *, gated: bool = False, aligned: bool = False) -> None:
        super().__init__()
        n, made = 8, NORMS[norm]
        self.down = nn.Sequential(nn.Conv2d(1, n, 3, padding=1), made(n), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(n, n, 3, padding=1), made(n), nn.ReLU())
        self.gate = SqueezeExcitation(n) if gated else nn.Identity()
        self.up = nn.Sequential(nn.Conv2d(2 * n, n, 3, padding=1), made(n), nn.ReLU())
        self.head = nn.Conv2d(n, 3, 1)
        self.aligned = aligned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        below = self.gate(self.middle(F.max_pool2d(skip, 2)))
        below = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=self.aligned)
        return self.head(self.up(torch.cat([skip, below], 1)))


def model(**how: Any) -> sl.Model:
    torch.manual_seed(0)
    return sl.wrap(TwoLevels(**how), mean=0.5, std=0.25, name="planted")


def images(n: int = 3, size: int = 64) -> sl.ImageSet:
    """Noise whose brightness changes from place to place, so that statistics of a tile differ from the image's."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    smooth = [np.sin(5 * (a * x + b * y) + c) for a, b, c in rng.uniform(-2, 2, (n, 3))]
    pixels = 120 + 90 * np.array(smooth) + rng.uniform(-30, 30, (n, size, size))
    return sl.ImageSet(pixels.clip(0, 255).astype(np.uint8)[:, None], [0] * n, name="noise")


def shares(report: sl.TileReport) -> dict[str, float]:
    return {cause.cause: cause.share for cause in report.causes}
