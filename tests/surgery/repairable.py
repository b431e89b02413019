"""Small nets with everything that a repair may meet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OwnName(nn.Conv2d):
    """A subclass that changes nothing: PyTorch's attribute is honoured."""


class OwnForward(nn.Conv2d):
    """A subclass whose forward pads with zeros whatever its mode says (as weight-standardising ones do)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class OwnPadding(nn.Conv2d):
    """A subclass that pads by code of its own, as TensorFlow's SAME does: its attribute says 1, it adds 0 and 2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 2, 0, 2)), self.weight, self.bias, self.stride)


class OwnStride(nn.Conv2d):
    """A subclass that strides by a number of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, 2, self.padding)


class Functional(nn.Module):
    """Pads and strides in plain function calls beside one layer that can be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(4, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(self.conv(x), self.weight, padding=1)
        return F.max_pool2d(F.relu(x), 2).mean((2, 3))


class Twice(nn.Module):
    """One convolution under two names, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.first(x)))


class MeanPools(nn.Module):
    """Padded average pools of both kinds, as in Inception."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(3, 2, 1),
            nn.Conv2d(8, 8, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            nn.MaxPool2d(3, 2, 1),
            nn.ReflectionPad2d(1),
            nn.Conv2d(8, 8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out
