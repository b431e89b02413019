"""Building blocks that a user may import alone: padding by every index rule, and the VGG nets everyone talks about."""

from __future__ import annotations

from shiftlens.nn.padding import PADDING_MODES, SymmetricConv2d, SymmetricPad2d, conv2d, pad
from shiftlens.nn.vgg import VGG

__all__ = ["PADDING_MODES", "VGG", "SymmetricConv2d", "SymmetricPad2d", "conv2d", "pad"]
