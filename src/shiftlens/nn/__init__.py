"""Building blocks that a user may import alone: padding by every mode, down-sampling, VGGs, a U-Net and a detector."""

from __future__ import annotations

from shiftlens.nn.batch_renorm import BatchRenorm2d
from shiftlens.nn.center_points import CenterPoints
from shiftlens.nn.convolution import PaddedConv2d, PartialConv2d, SymmetricConv2d, conv2d, set_padding_mode
from shiftlens.nn.downsample import BlurPool2d, ConvBlurPool2d, MaxBlurPool2d, Polyphase2d, ReducedLayer2d
from shiftlens.nn.inference import ContentAligned2d, CropChoice2d, ShiftAverage2d
from shiftlens.nn.padding import INDEX_MODES, PAD_MODES, PADDING_MODES, Pad2d, SymmetricPad2d, pad
from shiftlens.nn.pooling import PaddedPool2d, max_pool2d
from shiftlens.nn.unet import UNet
from shiftlens.nn.vgg import VGG

__all__ = [
    "INDEX_MODES",
    "PADDING_MODES",
    "PAD_MODES",
    "VGG",
    "BatchRenorm2d",
    "BlurPool2d",
    "CenterPoints",
    "ContentAligned2d",
    "ConvBlurPool2d",
    "CropChoice2d",
    "MaxBlurPool2d",
    "Pad2d",
    "PaddedConv2d",
    "PaddedPool2d",
    "PartialConv2d",
    "Polyphase2d",
    "ReducedLayer2d",
    "ShiftAverage2d",
    "SymmetricConv2d",
    "SymmetricPad2d",
    "UNet",
    "conv2d",
    "max_pool2d",
    "pad",
    "set_padding_mode",
]
