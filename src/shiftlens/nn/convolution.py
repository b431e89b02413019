"""Convolutions whose padding mode lives inside them, so that parameters and state-dict keys never depend on the mode.

Whoever reads a layer's geometry from its attributes finds PyTorch's names where PyTorch has them: `padding_mode`,
`padding` (vertical, horizontal). Layers of this file add `sides`, (left, right, top, bottom), which is always right;
`sides_of_layer` reads it from any of them, PyTorch's own included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.nn.padding import PAD_MODES, Pad2d, Sides, check_mode, pad


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """One number for both axes, or (vertical, horizontal); `InputError` for anything else."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2:
        raise InputError(f"expected a number or a pair (vertical, horizontal), got {value!r}")
    return both[0], both[1]


def sides_of_layer(layer: nn.Module) -> Sides:
    """Pixels that a convolution or pooling layer adds: (left, right, top, bottom); also of PyTorch's 'same'."""
    sides = getattr(layer, "sides", None)
    if sides is not None:
        return sides  # type: ignore[no-any-return]
    padding = getattr(layer, "padding", 0)
    if padding == "same":
        return tuple(layer._reversed_padding_repeated_twice)  # type: ignore[arg-type]
    vertical, horizontal = (0, 0) if padding == "valid" else pair(padding)
    return horizontal, horizontal, vertical, vertical


def _padding_of(sides: Sides) -> tuple[int, ...]:
    """What the attribute `padding` reads: PyTorch's pair where there is one; else all four, which no kernel accepts."""
    left, right, top, bottom = sides
    return (top, left) if left == right and top == bottom else sides


class PaddedConv2d(nn.Conv2d):
    """A `torch.nn.Conv2d` that pads by any mode of `pad` and by any width on each side; parameters and keys are its.

    Parameters are those of `torch.nn.Conv2d`, but for `padding`: a number, a pair, or (left, right, top, bottom), and
    `padding_mode`: a name of `PAD_MODES`. Use `conv2d` to get one: it gives PyTorch's own class where that does the
    same.

    Attributes
    ----------
    padding_mode
        A name of `PAD_MODES`.
    sides
        (left, right, top, bottom), pixels.
    padding
        (vertical, horizontal) where both sides of each axis are alike; else the same as `sides`.

    Examples
    --------
    >>> layer = PaddedConv2d(1, 4, 3, padding=(0, 2, 0, 2), padding_mode="reflect")
    >>> layer.sides, layer(torch.rand(1, 1, 8, 8)).shape
    ((0, 2, 0, 2), torch.Size([1, 4, 8, 8]))
    """

    sides: Sides

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        padding: int | Sequence[int] = 0,
        padding_mode: str = "zeros",
        **options: Any,
    ) -> None:
        given = padding if isinstance(padding, int) else tuple(padding)
        four = isinstance(given, tuple) and len(given) == 4
        options |= {name: pair(options[name]) for name in ("stride", "dilation") if name in options}
        super().__init__(in_channels, out_channels, pair(kernel_size), padding=0 if four else pair(given), **options)
        sides = given if four else sides_of_layer(self)
        if min(sides) < 0:  # type: ignore[arg-type]
            raise InputError(f"padding must be at least 0 on every side, got {padding!r}")
        self._pad_by(check_mode(padding_mode, self._modes()), sides)  # type: ignore[arg-type]

    @staticmethod
    def _modes() -> tuple[str, ...]:
        return PAD_MODES

    def _pad_by(self, mode: str, sides: Sides) -> None:
        # Named afterwards, because PyTorch's constructor refuses a mode that it does not know.
        self.padding_mode = mode  # type: ignore[assignment]
        self.sides = sides
        self.padding = _padding_of(sides)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        # PyTorch's own place for padding modes: fusing and functional calls come through here as well as `forward`.
        padded = pad(input, self.sides, self.padding_mode, training=self.training)
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)


class SymmetricConv2d(PaddedConv2d):
    """A `torch.nn.Conv2d` whose padding is symmetric, of any width; parameters and state-dict keys are the same.

    Parameters are those of `torch.nn.Conv2d` without `padding_mode`; `padding` is a number, a pair, or (left, right,
    top, bottom). The attribute `padding_mode` reads "symmetric", `sides` the width on each side. Use `conv2d` to get
    one: for width 1 that returns PyTorch's own class.

    Examples
    --------
    >>> layer = SymmetricConv2d(1, 1, 5, padding=2, bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> layer(torch.ones(1, 1, 8, 8)).round().unique().tolist()  # a constant image gives a constant map
    [25.0]
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int], **options: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options, padding_mode="symmetric")


def _coverage(n: int, kernel: int, stride: int, dilation: int, before: int, after: int, like: Tensor) -> Tensor:
    """How many taps of each window lie inside an axis of `n` pixels."""
    n_windows = (n + before + after - dilation * (kernel - 1) - 1) // stride + 1
    starts = torch.arange(n_windows, device=like.device) * stride - before
    taps = starts[:, None] + torch.arange(kernel, device=like.device) * dilation
    return ((taps >= 0) & (taps < n)).sum(1).to(like.dtype)


class PartialConv2d(PaddedConv2d):
    """A convolution that scales each window by what it misses of the picture (arXiv 1811.11718).

    Zeros are padded, and the sum of each window is multiplied by k^2 / (taps inside the picture) before the bias is
    added: 9/4 in the corner of a 3 x 3 kernel with padding 1, 9/6 along an edge. Parameters as `PaddedConv2d` without
    `padding_mode`, which reads "partial".

    Examples
    --------
    >>> layer = PartialConv2d(1, 1, 3, padding=1, bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> layer(torch.ones(1, 1, 4, 4)).round().unique().tolist()  # 9 everywhere: zeros alone would give 4 in the corners
    [9.0]
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int], **options: Any) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options, padding_mode="partial")

    @staticmethod
    def _modes() -> tuple[str, ...]:
        return ("partial",)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        left, right, top, bottom = self.sides
        sums = F.conv2d(F.pad(input, self.sides), weight, None, self.stride, 0, self.dilation, self.groups)
        h, w = input.shape[-2:]
        (ky, kx), (sy, sx), (dy, dx) = self.kernel_size, self.stride, self.dilation
        rows = _coverage(h, ky, sy, dy, top, bottom, sums)
        columns = _coverage(w, kx, sx, dx, left, right, sums)
        # A window that sees nothing of the picture sums to 0 whatever it is multiplied by.
        scaled = sums * (ky * kx / (rows[:, None] * columns[None, :]).clamp_min(1))
        return scaled if bias is None else scaled + bias.to(scaled.dtype)[:, None, None]


class Outer(nn.Module):
    """A layer around another one, `layer`, whose attributes (`weight`, `in_channels`, ...) can be read through it."""

    layer: nn.Module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.__dict__.get("_modules", {}).get("layer")
            if inner is None or name.startswith("__"):
                raise
            return getattr(inner, name)


class PaddedLayer2d(Outer):
    """Any layer, taken over as it is, behind a `Pad2d`: for layers whose own code decides about their own padding."""

    def __init__(self, layer: nn.Module, padding: int | Sequence[int], mode: str) -> None:
        super().__init__()
        self.pad = Pad2d(padding, mode)
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        """The layer's output for the padded `x`."""
        return self.layer(self.pad(x))


OWN_CONVOLUTIONS: tuple[type[nn.Conv2d], ...] = (nn.Conv2d, PaddedConv2d, SymmetricConv2d, PartialConv2d)
"""Classes whose mode can be changed in place: PyTorch's, and those of this file."""


def set_padding_mode(layer: nn.Conv2d, mode: str) -> None:
    """Give a convolution another padding mode, in place: the object, its parameters, hooks and flags stay.

    Its class changes where PyTorch's own does not do the mode, or does it slower. Widths stay, but for `full`, which
    sets them to the extent of the kernel minus 1.

    Parameters
    ----------
    layer
        Exactly of a class of `OWN_CONVOLUTIONS`: what the code of a user's subclass does with a mode is not known.
    mode
        A name of `PADDING_MODES`.

    Raises
    ------
    InputError
        An unknown mode, or another class.

    Examples
    --------
    >>> layer = nn.Conv2d(3, 8, 5, padding=2)
    >>> set_padding_mode(layer, "symmetric")
    >>> type(layer).__name__, layer.padding_mode, layer.padding
    ('SymmetricConv2d', 'symmetric', (2, 2))
    """
    check_mode(mode)
    if type(layer) not in OWN_CONVOLUTIONS:
        raise InputError(f"padding mode of a {type(layer).__name__} cannot be set: its own code decides")
    sides, word = sides_of_layer(layer), layer.padding == "same"
    if mode == "full":
        word = False
        sides, mode = full_sides(layer), "zeros"
    if mode == "symmetric" and max(sides) <= 1:
        mode = "replicate"
    # PyTorch's circular padding takes several times as long as ours, above all backwards; and it refuses, as its
    # reflect does, pictures smaller than the padding, which width 1 never is (but for the one pixel that has no mirror
    # image under any implementation).
    plain = mode in ("zeros", "replicate") or (mode == "reflect" and max(sides) <= 1)
    alike = sides[0] == sides[1] and sides[2] == sides[3]
    if plain and (alike or word):
        was_ours = isinstance(layer, PaddedConv2d)
        layer.__class__ = nn.Conv2d
        if was_ours:
            del layer.sides
        layer.padding_mode = mode  # type: ignore[assignment]
        if not word:
            layer.padding = _padding_of(sides)
            layer._reversed_padding_repeated_twice = list(sides)
        return
    layer.__class__ = {"partial": PartialConv2d, "symmetric": SymmetricConv2d}.get(mode, PaddedConv2d)
    assert isinstance(layer, PaddedConv2d)
    layer._pad_by(mode, sides)


def without_padding(layer: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, in place, whose attributes say that it pads nothing."""
    layer.padding, layer.padding_mode = (0, 0), "zeros"
    layer._reversed_padding_repeated_twice = [0] * 4
    return layer


def full_sides(layer: nn.Conv2d) -> Sides:
    """The extent of the kernel minus 1 on every side: what mode `full` pads."""
    (ky, kx), (dy, dx) = pair(layer.kernel_size), pair(layer.dilation)
    return dx * (kx - 1), dx * (kx - 1), dy * (ky - 1), dy * (ky - 1)


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    padding_mode: str = "zeros",
) -> nn.Conv2d:
    """Build a 2-D convolution whose padding mode lives inside it, so that state-dict keys never depend on the mode.

    PyTorch's own `Conv2d` is what you get for zeros, replicate, and reflect of width 1. Symmetric padding of width 1
    repeats the edge pixel once, which is exactly what `replicate` does with width 1, so for every 3x3 net the two modes
    are one and PyTorch's `replicate` is what you get. From width 2 on they differ (BA|AB against AA|AB).

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, dilation, groups, bias
        As in `torch.nn.Conv2d`; pairs are (vertical, horizontal).
    padding
        A number, a pair (vertical, horizontal), or (left, right, top, bottom). Mode `full` sets its own.
    padding_mode
        A name of `PADDING_MODES`: those of `pad`; `partial`, which scales each window by what it misses of the picture
        (arXiv 1811.11718); `full`, zeros as wide as the kernel's extent minus 1, so that every pixel is seen by every
        tap and the map grows (for tests of position, arXiv 2003.07064).

    Returns
    -------
    nn.Conv2d
        Or a subclass of it, with the same parameters.

    Raises
    ------
    InputError
        An unknown padding mode.

    Examples
    --------
    >>> conv2d(3, 8, 3, padding=1, padding_mode="symmetric").padding_mode
    'replicate'
    """
    check_mode(padding_mode)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": bias}
    layer = PaddedConv2d(in_channels, out_channels, kernel_size, **options)  # type: ignore[arg-type]
    set_padding_mode(layer, padding_mode)
    return layer
