"""Padding by the table of index rules, and by the two published rules that are no index rule; for any width per side.

PyTorch lacks symmetric padding (pytorch#46240), and refuses mirror and circular padding wider than the picture. Here
every index rule is one look into `shiftlens.indexing`, so any width works and `symmetric` means what it means for a
fill. Where PyTorch has a kernel of the same meaning, that one is used; symmetric and circular have one of their own
below, since the look into a table is several times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from shiftlens.errors import InputError
from shiftlens.indexing import FILL_RULES, RULES, source_index
from shiftlens.naming import unknown_name

Sides = tuple[int, int, int, int]
"""(left, right, top, bottom), pixels: the order of `torch.nn.functional.pad`."""

INDEX_MODES: tuple[str, ...] = tuple(RULES)
"""Modes that are index rules: zeros, replicate, reflect, symmetric, circular. They have any width and any dtype."""

CONSTANT_KEEPING: tuple[str, ...] = tuple(mode for mode in RULES if mode != "zeros")
"""Index rules under which a constant picture stays that constant: what an empty input must look like everywhere."""

PAD_MODES: tuple[str, ...] = (*INDEX_MODES, "distribution", "random")
"""Modes of `pad`."""

PADDING_MODES: tuple[str, ...] = (*PAD_MODES, "partial", "full")
"""Modes of a convolution (`conv2d`): those of `pad`, and two that are defined for a convolution only."""

_WITH_KERNEL = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_mode(mode: str, known: Sequence[str] = PADDING_MODES) -> str:
    """Give back a known padding mode; raise `InputError` with the nearest name for any other (also numpy's names)."""
    if mode not in known:
        if mode in PADDING_MODES:
            raise InputError(f"padding mode {mode!r} is defined for a convolution only; here: {', '.join(known)}")
        raise unknown_name("padding mode", mode, known, hint={**FILL_RULES, "mirror": "symmetric"}.get(str(mode)))
    return mode


def pad_mode(mode: str) -> str:
    """Give back a mode of `pad`; raise `InputError` for any other."""
    return check_mode(mode, PAD_MODES)


def sides_of(padding: int | Sequence[int]) -> Sides:
    """One number for every side, or (left, right, top, bottom), as four numbers of at least 0."""
    sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    if len(sides) != 4 or any(side < 0 for side in sides):
        raise InputError(f"padding must be a number or (left, right, top, bottom), each at least 0, got {padding!r}")
    return sides


class _Folded(torch.autograd.Function):
    """`_joined` with a gradient of its own, in half the time: each copy is added to its source in place."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, left: int, right: int, top: int, bottom: int, circular: bool) -> Tensor:
        return _joined(x, (left, right, top, bottom), circular)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.how = inputs
        ctx.size = x.shape[-2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        left, right, top, bottom, circular = ctx.how
        for axis, n, before, after in zip((-2, -1), ctx.size, (top, left), (bottom, right), strict=True):
            inner = gradient.narrow(axis, before, n).clone()
            # Each margin, and where what it shows begins.
            for start, width, onto in ((0, before, n - before), (before + n, after, 0)):
                if width:
                    margin = gradient.narrow(axis, start, width)
                    inner.narrow(axis, onto if circular else n - width - onto, width).add_(
                        margin if circular else margin.flip(axis)
                    )
            gradient = inner
        return gradient, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        left, right, top, bottom, circular = ctx.how
        return _joined(tangent, (left, right, top, bottom), circular)


def _joined(x: Tensor, sides: Sides, circular: bool) -> Tensor:
    """Symmetric or circular padding of at most the picture's size, without a table."""
    for axis, (before, after) in ((-1, sides[:2]), (-2, sides[2:])):
        n = x.shape[axis]
        if circular:
            first, last = x.narrow(axis, n - before, before), x.narrow(axis, 0, after)
        else:
            first, last = x.narrow(axis, 0, before).flip(axis), x.narrow(axis, n - after, after).flip(axis)
        parts = ([first] if before else []) + [x] + ([last] if after else [])
        x = torch.cat(parts, axis) if len(parts) > 1 else x
    return x


def _native(x: Tensor, sides: Sides, mode: str) -> Tensor:
    """PyTorch's kernel, which wants three or four axes."""
    if x.ndim in (3, 4):
        return F.pad(x, sides, mode=mode)
    if x.ndim == 2:
        return F.pad(x[None], sides, mode=mode)[0]
    padded = F.pad(x.flatten(0, -4), sides, mode=mode)
    return padded.reshape(*x.shape[:-3], *padded.shape[1:])


def _gathered(x: Tensor, sides: Sides, mode: str) -> Tensor:
    """Any width and dtype, by the table."""
    for axis, (before, after) in ((x.ndim - 1, sides[:2]), (x.ndim - 2, sides[2:])):
        if before or after:
            n = x.shape[axis]
            source = source_index(np.arange(-before, n + after), n, mode)
            x = x.index_select(axis, torch.as_tensor(source, device=x.device))
    return x


def _index_rule(x: Tensor, sides: Sides, mode: str) -> Tensor:
    widest_w, widest_h = max(sides[:2]), max(sides[2:])
    if widest_w == 0 and widest_h == 0:
        return x
    h, w = x.shape[-2:]
    least = 1 if mode == "reflect" else 0  # reflect does not repeat the edge pixel, so it has one less to show
    short = widest_h > h - least or widest_w > w - least
    if x.dtype not in _WITH_KERNEL or x.numel() == 0 or (short and mode != "replicate"):
        return _gathered(x, sides, mode)
    if mode == "symmetric" and max(widest_w, widest_h) == 1:
        mode = "replicate"  # one and the same for one pixel
    if mode in ("replicate", "reflect"):
        return _native(x, sides, mode)
    if mode not in ("symmetric", "circular"):
        return _gathered(x, sides, mode)
    circular = mode == "circular"
    if torch.compiler.is_compiling():
        return _joined(x, sides, circular)
    padded: Tensor = _Folded.apply(x, *sides, circular)
    return padded


def _distribution(x: Tensor, sides: Sides) -> Tensor:
    left, right, top, bottom = sides
    if not x.is_floating_point():
        raise InputError(f"distribution padding interpolates: it needs floating-point pictures, got {x.dtype}")
    h, w = x.shape[-2:]
    window = (min(top + bottom + 1, h), min(left + right + 1, w))
    means = F.avg_pool2d(x.detach().reshape(-1, 1, h, w), window, stride=1)
    around = F.interpolate(means, size=(top + h + bottom, left + w + right), mode="bilinear", align_corners=False)
    around = around.reshape(*x.shape[:-2], *around.shape[-2:])
    middle = around[..., top : top + h, :]
    row = torch.cat([middle[..., :left], x, middle[..., left + w :]], -1)
    return torch.cat([around[..., :top, :], row, around[..., top + h :, :]], -2)


def _random(x: Tensor, sides: Sides) -> Tensor:
    """All zeros of an axis on one of its two sides, drawn for each call; traceable, as it is chosen by an index."""
    for axis, extra in ((x.ndim - 1, sum(sides[:2])), (x.ndim - 2, sum(sides[2:]))):
        if extra:
            n = x.shape[axis]
            margins = (extra, extra, 0, 0) if axis == x.ndim - 1 else (0, 0, extra, extra)
            begin = torch.randint(0, 2, (1,), device=x.device) * extra
            x = F.pad(x, margins).index_select(axis, torch.arange(n + extra, device=x.device) + begin)
    return x


def pad(
    x: Shaped[Tensor, "*axes"],
    padding: Sequence[int],
    mode: str = "zeros",
    value: float = 0.0,
    *,
    training: bool = False,
) -> Shaped[Tensor, "... h_out w_out"]:
    """Pad the last two axes, by any width; gradients flow back to the source pixels.

    Parameters
    ----------
    x
        Any number of leading axes, shape [..., h, w]; any dtype (`distribution`: floating point).
    padding
        (left, right, top, bottom), pixels, each at least 0; may exceed the picture.
    mode
        `zeros`, `replicate`, `reflect`, `symmetric` or `circular` (`numpy.pad` calls them constant, edge, reflect,
        symmetric, wrap).

        `distribution` (A. D. Nguyen et al., ICIP 2019): the picture's local means, over as many pixels as are added
        and one more, stretched to the new size; the picture stands in its middle. No gradient through the means. A
        picture smaller than that window gives its own mean (this project's extension).

        `random` (after arXiv 2302.08682, of which the abstract alone was at hand: the reading is this project's):
        while training, all zeros of an axis go to one of its two sides, drawn for each call from torch's global
        generator; otherwise the same as `zeros`.
    value
        The constant of mode `zeros`; ignored by the others.
    training
        Whether `random` draws.

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
    if has_torch_function_unary(x):  # whoever follows a net's functions sees the padding, not what it is made of
        return handle_torch_function(pad, (x,), x, padding, mode, value, training=training)
    check_mode(mode, PAD_MODES)
    given = tuple(padding)
    if len(given) != 4 or any(side < 0 for side in given):
        raise InputError(f"padding must be (left, right, top, bottom), each at least 0, got {given}")
    if x.ndim < 2:
        raise InputError(f"pad expects [..., h, w], got {x.ndim} axis")
    sides: Sides = given
    if mode in CONSTANT_KEEPING:
        return _index_rule(x, sides, mode)
    if mode == "distribution":
        return _distribution(x, sides)
    if mode == "random" and training:
        return _random(x, sides)
    return F.pad(x, sides, value=value if mode == "zeros" else 0.0)


class Pad2d(nn.Module):
    """A layer that pads by any mode of `pad`; attributes `padding` (left, right, top, bottom) and `mode`.

    Parameters
    ----------
    padding
        Pixels on every side, or (left, right, top, bottom), each at least 0.
    mode
        A name of `PAD_MODES`; `random` draws in training mode.

    Raises
    ------
    InputError
        An unknown mode, or padding that is neither a number nor four numbers, or below 0.

    Examples
    --------
    >>> Pad2d((1, 0, 1, 0), "circular")
    Pad2d((1, 0, 1, 0), mode=circular)
    """

    def __init__(self, padding: int | Sequence[int], mode: str = "zeros") -> None:
        super().__init__()
        self.padding = sides_of(padding)
        self.mode = check_mode(mode, PAD_MODES)

    def forward(self, x: Shaped[Tensor, "... h w"]) -> Shaped[Tensor, "... h_out w_out"]:
        """Pad `x`, shape [..., h, w]."""
        return pad(x, self.padding, self.mode, training=self.training)

    def extra_repr(self) -> str:
        """The padding, as PyTorch's own padding layers print it, and the mode."""
        return f"{self.padding}, mode={self.mode}"


class SymmetricPad2d(Pad2d):
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
        super().__init__(padding, "symmetric")

    def extra_repr(self) -> str:
        """The padding; the mode is in the name."""
        return f"{self.padding}"
