"""The nets that everyone talks about: small VGGs whose padding, down-sampling and head can be swapped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.nn.convolution import conv2d
from shiftlens.nn.downsample import reduced
from shiftlens.nn.padding import PAD_MODES, check_mode
from shiftlens.nn.pooling import max_pool2d

ARCHITECTURES: dict[str, int] = {"vgg8": 4, "vgg6": 3}
"""Number of levels of each net; channels double from level to level."""

GROWTH: dict[str, int] = {"full": 2}
"""Pixels that a 3x3 convolution adds to an axis beyond what its padding of 1 keeps, for the modes that add any."""

POOL_MODES: tuple[str, ...] = tuple(mode for mode in PAD_MODES if mode != "zeros")
"""Modes by which a pool pads too; under the others it keeps its own, which no output can tell from the picture."""


@dataclass(frozen=True)
class Downsampling:
    """One way to halve a feature map: how to build the layer, and the size that it leaves."""

    build: Callable[[int, str], nn.Module]
    """Of the number of channels and the padding mode."""
    out_size: Callable[[int, str], int]
    """Of the size along an axis and the padding mode."""


def _blur_mode(padding: str) -> str:
    """How a blur or an extension pads in a net of this padding mode: a constant stays a constant, at any size."""
    return "circular" if padding == "circular" else "symmetric"


def _strided(channels: int, padding: str) -> nn.Conv2d:
    return conv2d(channels, channels, 3, stride=2, padding=1, padding_mode=padding)


def _halved(n: int, padding: str) -> int:
    return n // 2


def _halved_up(n: int, padding: str) -> int:
    return (n + 1 + GROWTH.get(padding, 0)) // 2


DOWNSAMPLINGS: dict[str, Downsampling] = {
    "max": Downsampling(lambda channels, padding: nn.MaxPool2d(2), _halved),
    "avg": Downsampling(lambda channels, padding: nn.AvgPool2d(2), _halved),
    # Uneven at 32 pixels (the right and bottom padding is never used), even at 33.
    "stride": Downsampling(_strided, _halved_up),
    "max3": Downsampling(
        lambda channels, padding: max_pool2d(3, 2, 1, padding_mode=padding if padding in POOL_MODES else None),
        lambda n, padding: (n + 1) // 2,
    ),
    "blur": Downsampling(lambda channels, padding: reduced(nn.MaxPool2d(2), "blur", _blur_mode(padding)), _halved),
    "polyphase": Downsampling(
        lambda channels, padding: reduced(nn.MaxPool2d(2), "polyphase", _blur_mode(padding)), _halved
    ),
    "stride-blur": Downsampling(
        lambda channels, padding: reduced(_strided(channels, padding), "blur", _blur_mode(padding)), _halved_up
    ),
    "stride-polyphase": Downsampling(
        lambda channels, padding: reduced(_strided(channels, padding), "polyphase", _blur_mode(padding)), _halved_up
    ),
}
"""Ways to halve a map, by name. To add one, add a line."""

HEADS: dict[str, Callable[[], nn.Module]] = {
    "gap": lambda: nn.AdaptiveAvgPool2d(1),
    "max": lambda: nn.AdaptiveMaxPool2d(1),
    "flatten": nn.Identity,
}


def check_names(arch: str, downsample: str, head: str, padding: str) -> None:
    """Refuse a name that no VGG knows; `InputError` suggests the nearest."""
    kinds: dict[str, tuple[str, Iterable[str]]] = {
        "architecture": (arch, ARCHITECTURES),
        "down-sampling": (downsample, DOWNSAMPLINGS),
        "head": (head, HEADS),
    }
    for kind, (name, known) in kinds.items():
        if name not in known:
            raise unknown_name(kind, name, tuple(known))
    check_mode(padding)


def _level(in_channels: int, channels: int, padding: str, downsample: str) -> nn.Sequential:
    return nn.Sequential(
        conv2d(in_channels, channels, 3, padding=1, padding_mode=padding),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        conv2d(channels, channels, 3, padding=1, padding_mode=padding),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        DOWNSAMPLINGS[downsample].build(channels, padding),
    )


def _sizes(size: tuple[int, int], n_levels: int, padding: str, downsample: str) -> list[tuple[int, int]]:
    """Size at the entry of each level and, last, after the levels; refuses pictures that vanish on the way."""
    least = 2 if padding == "reflect" else 1
    sizes = [size]
    for level in range(n_levels):
        h, w = sizes[-1]
        if min(h, w) < least:
            raise InputError(
                f"size {size[0]}x{size[1]} is too small: level {level} would get {h}x{w},"
                f" needs at least {least}x{least} with {padding} padding"
            )
        halve, wider = DOWNSAMPLINGS[downsample].out_size, 2 * GROWTH.get(padding, 0)
        sizes.append((halve(h + wider, padding), halve(w + wider, padding)))
    if min(sizes[-1]) < 1:
        raise InputError(f"size {size[0]}x{size[1]} is too small: nothing would be left after {n_levels} levels")
    return sizes


class VGG(nn.Sequential):
    """A VGG as a chain of levels and a head: `model[i]` is level i, `model[i][j]` a layer, `model[-1]` the head.

    A level is conv 3x3, batch norm, ReLU, conv 3x3, batch norm, ReLU, down-sampling (layers 0 to 6); the head is
    pooling (or nothing), flattening, one linear layer. The padding mode lives inside the convolutions, so indices and
    state-dict keys are the same for every mode. `vgg8` costs 209 million multiply-adds at 32 x 32, `vgg6` 153 million.
    Called with normalised pictures [n, in_channels, h, w], it gives scores [n, n_classes].

    Parameters
    ----------
    arch
        `vgg8` (levels of 64, 128, 256, 512 channels) or `vgg6` (the same without the last).
    n_classes, in_channels
        At least 1.
    padding
        Mode of every convolution: a name of `shiftlens.nn.PADDING_MODES`. At this width (1 pixel) symmetric IS
        replicate, and PyTorch's own is used for both. With `full` the maps grow.
    downsample
        `max` or `avg`: 2x2 pooling. `max3`: 3x3 max pooling with stride 2 and padding 1, by the net's padding mode
        (PyTorch's own for zeros, partial and full). `stride`: a 3x3 convolution with stride 2 and padding 1 in its
        place. `blur`, `polyphase`: 2x2 max pooling with stride 1, then `BlurPool2d` or `Polyphase2d`; `stride-blur`,
        `stride-polyphase`: the convolution with stride 1, then these. They wrap in a circular net and mirror in all
        others. Keys are the same for all without a convolution.
    head
        `gap` (global average), `max` (global maximum) or `flatten` (position stays; fixes the input size).
    size
        (h, w) or one number, pixels: the input the net is made for. Only `flatten` depends on it.
    width
        Channels of the first level, at least 1; for nets smaller or larger than the named ones.

    Raises
    ------
    InputError
        An unknown name, a number below its least, or a size too small for the levels.

    Examples
    --------
    >>> model = VGG("vgg8", padding="reflect")
    >>> model[0][0].padding_mode, model.config["padding"]
    ('reflect', 'reflect')
    """

    def __init__(
        self,
        arch: str = "vgg8",
        n_classes: int = 10,
        in_channels: int = 3,
        padding: str = "zeros",
        downsample: str = "max",
        head: str = "gap",
        size: int | Sequence[int] = (32, 32),
        width: int = 64,
    ) -> None:
        check_names(arch, downsample, head, padding)
        for what, number in (("n_classes", n_classes), ("in_channels", in_channels), ("width", width)):
            if number < 1:
                raise InputError(f"{what} must be at least 1, got {number}")
        h, w = (size, size) if isinstance(size, int) else size
        n_levels = ARCHITECTURES[arch]
        *_, (h_last, w_last) = _sizes((h, w), n_levels, padding, downsample)

        channels = [width * 2**level for level in range(n_levels)]
        levels = [
            _level(n_in, n_out, padding, downsample)
            for n_in, n_out in zip([in_channels, *channels[:-1]], channels, strict=True)
        ]
        n_features = channels[-1] * (h_last * w_last if head == "flatten" else 1)
        super().__init__(*levels, nn.Sequential(HEADS[head](), nn.Flatten(), nn.Linear(n_features, n_classes)))
        self.n_levels = n_levels
        """Number of levels; `model[n_levels]` is the head."""
        self.config: dict[str, Any] = {
            "arch": arch,
            "n_classes": n_classes,
            "in_channels": in_channels,
            "padding": padding,
            "downsample": downsample,
            "head": head,
            "size": [h, w],
            "width": width,
        }
        """Keyword arguments that build this net again; plain JSON."""

    def __getitem__(self, index: slice | int) -> Any:
        # A slice of a VGG is a plain chain: the parent would call this class with the layers as arguments.
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)
