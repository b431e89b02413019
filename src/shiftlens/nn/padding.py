"""Padding by the table of index rules: as a function, as a layer, and inside a convolution.

PyTorch lacks symmetric padding (pytorch#46240), and refuses mirror and circular padding wider than the picture. Here
every mode is one look into `shiftlens.indexing`, so any width works and `symmetric` means what it means for a fill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.indexing import FILL_RULES, RULES, source_index
from shiftlens.naming import unknown_name

PADDING_MODES: tuple[str, ...] = tuple(RULES)
"""Modes of `pad` and `conv2d`: zeros, replicate, reflect, symmetric, circular."""


def check_mode(mode: str) -> str:
    """Give back a known padding mode; raise `InputError` with the nearest name for any other (also numpy's names)."""
    if mode not in RULES:
        raise unknown_name("padding mode", mode, PADDING_MODES, hint=FILL_RULES.get(str(mode)))
    return mode


def _gather(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    if before == 0 and after == 0:
        return x
    n = x.shape[axis]
    source = source_index(np.arange(-before, n + after), n, mode)
    return x.index_select(axis, torch.as_tensor(source, device=x.device))


def pad(
    x: Shaped[Tensor, "*axes"], padding: Sequence[int], mode: str = "zeros", value: float = 0.0
) -> Shaped[Tensor, "... h_out w_out"]:
    """Pad the last two axes by an index rule, for any width; gradients flow back to the source pixels.

    Parameters
    ----------
    x
        Any dtype, any number of leading axes, shape [..., h, w].
    padding
        (left, right, top, bottom), pixels, each at least 0; may exceed the picture.
    mode
        `zeros`, `replicate`, `reflect`, `symmetric` or `circular` (`numpy.pad` calls them constant, edge, reflect,
        symmetric, wrap).
    value
        The constant of mode `zeros`; ignored by the others.

    Returns
    -------
    Tensor
        Shape [..., top + h + bottom, left + w + right], dtype and device of `x`.

    Raises
    ------
    InputError
        An unknown mode, padding that is not four numbers of at least 0, an empty axis, or `reflect` on a single pixel.

    Examples
    --------
    >>> pad(torch.arange(6).reshape(1, 6), (3, 3, 0, 0), "symmetric").tolist()
    [[2, 1, 0, 0, 1, 2, 3, 4, 5, 5, 4, 3]]
    """
    check_mode(mode)
    sides = tuple(padding)
    if len(sides) != 4 or any(side < 0 for side in sides):
        raise InputError(f"padding must be (left, right, top, bottom), each at least 0, got {sides}")
    if x.ndim < 2:
        raise InputError(f"pad expects [..., h, w], got {x.ndim} axis")
    left, right, top, bottom = sides
    if mode == "zeros":
        return F.pad(x, (left, right, top, bottom), value=value)
    return _gather(_gather(x, x.ndim - 1, left, right, mode), x.ndim - 2, top, bottom, mode)


class SymmetricPad2d(nn.Module):
    """Mirror the picture about its edge, the edge pixels repeated: ABC, width 2 -> BA|ABC|CB. Any width.

    Parameters
    ----------
    padding
        Pixels on every side, or (left, right, top, bottom), each at least 0.

    Raises
    ------
    InputError
        Padding that is neither a number nor four numbers, or below 0.

    Examples
    --------
    >>> SymmetricPad2d(2)(torch.rand(1, 3, 8, 8)).shape
    torch.Size([1, 3, 12, 12])
    """

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        if len(sides) != 4 or any(side < 0 for side in sides):
            raise InputError(
                f"padding must be a number or (left, right, top, bottom), each at least 0, got {padding!r}"
            )
        self.padding = sides

    def forward(self, x: Shaped[Tensor, "... h w"]) -> Shaped[Tensor, "... h_out w_out"]:
        """Pad `x`, shape [..., h, w]."""
        return pad(x, self.padding, "symmetric")

    def extra_repr(self) -> str:
        """The padding, as PyTorch's own padding layers print it."""
        return f"{self.padding}"


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2:
        raise InputError(f"expected a number or a pair (vertical, horizontal), got {value!r}")
    return pair[0], pair[1]


class SymmetricConv2d(nn.Conv2d):
    """A `torch.nn.Conv2d` whose padding is symmetric, of any width; parameters and state-dict keys are the same.

    Parameters are those of `torch.nn.Conv2d` without `padding_mode`; `padding` is a number or a pair. The attribute
    `padding_mode` reads "symmetric". Use `conv2d` to get one: for width 1 that returns PyTorch's own class.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        # The mode is named afterwards, because PyTorch's constructor refuses a name it does not know.
        super().__init__(
            in_channels,
            out_channels,
            _pair(kernel_size),
            stride=_pair(stride),
            padding=_pair(padding),
            dilation=_pair(dilation),
            groups=groups,
            bias=bias,
            padding_mode="replicate",
        )
        vertical, horizontal = _pair(padding)
        self._sides = (horizontal, horizontal, vertical, vertical)
        self.padding_mode = "symmetric"  # type: ignore[assignment]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        # PyTorch's own place for padding modes: fusing and functional calls come through here as well as `forward`.
        padded = pad(input, self._sides, "symmetric")
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)


def _own(padding_mode: str) -> Callable[..., nn.Conv2d]:
    def build(in_channels: int, out_channels: int, kernel_size: int | Sequence[int], **options: object) -> nn.Conv2d:
        return nn.Conv2d(in_channels, out_channels, kernel_size, padding_mode=padding_mode, **options)  # type: ignore[arg-type]

    return build


def _symmetric(in_channels: int, out_channels: int, kernel_size: int | Sequence[int], **options: object) -> nn.Conv2d:
    if max(_pair(options["padding"])) <= 1:  # type: ignore[arg-type]
        return _own("replicate")(in_channels, out_channels, kernel_size, **options)
    return SymmetricConv2d(in_channels, out_channels, kernel_size, **options)  # type: ignore[arg-type]


CONVOLUTIONS: dict[str, Callable[..., nn.Conv2d]] = {
    "zeros": _own("zeros"),
    "replicate": _own("replicate"),
    "reflect": _own("reflect"),
    "symmetric": _symmetric,
    "circular": _own("circular"),
}
"""How a convolution with each padding mode is built."""


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

    PyTorch's own `Conv2d` does zeros, replicate, reflect and circular. Symmetric padding of width 1 repeats the edge
    pixel once, which is exactly what `replicate` does with width 1, so for every 3x3 net the two modes are one and
    PyTorch's `replicate` is what you get. From width 2 on they differ (BA|AB against AA|AB), and `SymmetricConv2d` is
    built.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As in `torch.nn.Conv2d`; pairs are (vertical, horizontal).
    padding_mode
        A name of `PADDING_MODES`.

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
    build = CONVOLUTIONS[check_mode(padding_mode)]
    return build(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )
