"""Small nets, images and targets of every task, for tests that sweep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shiftlens.models.loading import Model, wrap
from shiftlens.nn.center_points import CenterPoints
from shiftlens.nn.unet import UNet
from shiftlens.shifts import ShiftGrid
from shiftlens.tasks.dense import Dense
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.embedding import Embedding
from shiftlens.tasks.outputs import detection_table
from shiftlens.tasks.segmentation import Segmentation
from shiftlens.tasks.task import Task

H, W, N = 24, 32, 3
GRID = ShiftGrid((4, 6), 2)
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 1, H, W), dtype=np.uint8)
MASKS = np.random.default_rng(1).integers(0, 3, (N, H, W), dtype=np.uint8)
BOXES = [
    {"boxes": [[2, 3, 12, 11], [15, 10, 30, 22]], "labels": [0, 1]},
    {"boxes": [], "labels": []},
    {"boxes": [[0, 0, 20, 20]], "labels": [1]},
]


def lively(net: nn.Module) -> nn.Module:
    """The net with batch norms as if trained: without, maps would be all but constant."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.3)
            nn.init.normal_(part.bias, 0.0, 0.5)
            part.running_var.fill_(0.05)  # type: ignore[union-attr]
    return net.eval()


def unet() -> nn.Module:
    torch.manual_seed(0)
    return lively(UNet(n_classes=3, width=4))


class SmallMap(nn.Module):
    """A dictionary with a map at half the image's size, as a library's segmenter without its resize gives it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(1, 3, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"aux": torch.zeros(len(x), 2), "out": self.conv(x)}


class Seeing(CenterPoints):
    """An untrained detector that sees something."""

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heat, sides = super().maps(x)
        return heat + 3.5, sides


def detector() -> nn.Module:
    torch.manual_seed(3)
    return lively(Seeing(n_classes=2, width=6))


def vectors() -> nn.Module:
    return nn.Sequential(unet(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Task]] = {
    "segmentation": (unet, MASKS, Segmentation()),
    "segmentation without masks": (unet, None, Segmentation()),
    "segmentation of a small map": (SmallMap, MASKS, Segmentation()),
    "dense": (unet, None, Dense()),
    "detection": (detector, BOXES, Detection()),
    "detection without boxes": (detector, None, Detection()),
    "embedding": (vectors, None, Embedding()),
}


def wrapped(net: nn.Module) -> Model:
    return wrap(net, mean=0.5, std=0.25, size=(H, W))


def raw(net: nn.Module, x: Tensor) -> Tensor:
    found = net(x)
    if isinstance(found, list):
        return detection_table(found)
    if isinstance(found, dict):
        return nn.functional.interpolate(found["out"], (H, W), mode="bilinear", align_corners=False)
    return found  # type: ignore[no-any-return]
