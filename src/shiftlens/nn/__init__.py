"""Building blocks that a user may import alone: padding by every mode, down-sampling, the well-known VGG nets."""

from __future__ import annotations

from shiftlens.nn.convolution import PaddedConv2d, PartialConv2d, SymmetricConv2d, conv2d, set_padding_mode
from shiftlens.nn.padding import INDEX_MODES, PAD_MODES, PADDING_MODES, Pad2d, SymmetricPad2d, pad
from shiftlens.nn.vgg import VGG

__all__ = [
    "INDEX_MODES",
    "PADDING_MODES",
    "PAD_MODES",
    "VGG",
    "Pad2d",
    "PaddedConv2d",
    "PartialConv2d",
    "SymmetricConv2d",
    "SymmetricPad2d",
    "conv2d",
    "pad",
    "set_padding_mode",
]
