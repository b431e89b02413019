"""Balanced striding: which side of the picture loses what a stride leaves over, chosen layer by layer.

A strided layer whose windows do not fit leaves `u` rows over, and PyTorch always leaves them at the end: every layer
moves the sampled grid further to the top left, by u/2 cells, and the moves add up (15.5 pixels in a ResNet at 224). A
layer here can leave them at the beginning instead; with the right choice the moves cancel. The definition is this
project's own.
"""

from __future__ import annotations

from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.nn.convolution import OWN_CONVOLUTIONS, Outer, pair, sides_of_layer, without_padding
from shiftlens.nn.downsample import stride_of
from shiftlens.nn.padding import PAD_MODES, check_mode, pad

LEANS = ("begin", "end")
LOWEST = float("-inf")


class BalancedStride2d(Outer):
    """A strided layer that leaves half of what its stride leaves over at each side, and an odd row where it is told.

    The picture is padded as the layer would, cut at its beginning, and shown to the layer without padding. Where
    nothing is left over it is the layer itself. `layer`, a `Conv2d` (of a mode of `pad`), `MaxPool2d` or `AvgPool2d`,
    not with `ceil_mode`, is taken over, and its padding set to 0; `lean` is the side that loses the odd row: `begin` or
    `end` (as PyTorch's own layers do). `InputError`: another kind of layer, or an unknown side.
    """

    def __init__(self, layer: nn.Module, lean: str = "end") -> None:
        super().__init__()
        if lean not in LEANS:
            raise unknown_name("side", lean, LEANS)
        if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            raise InputError(f"a {type(layer).__name__} cannot be balanced")
        if getattr(layer, "ceil_mode", False) or getattr(layer, "return_indices", False):
            raise InputError("a pool with ceil_mode or indices cannot be balanced")
        if isinstance(layer, nn.Conv2d) and type(layer) not in OWN_CONVOLUTIONS:
            raise InputError(f"a {type(layer).__name__} cannot be balanced: its own code pads")
        if isinstance(layer, nn.AvgPool2d) and not layer.count_include_pad and layer.padding != 0:
            raise InputError("a mean that does not count its padding cannot be balanced")
        self.lean = lean
        self.sides = sides_of_layer(layer)
        self.mode = "zeros"
        if isinstance(layer, nn.Conv2d):
            self.mode = check_mode(layer.padding_mode, PAD_MODES)
            layer.__class__ = nn.Conv2d
            without_padding(layer).__dict__.pop("sides", None)
        else:
            layer.padding = 0
        self._fill = LOWEST if isinstance(layer, nn.MaxPool2d) else 0.0
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, with the grid where it is told."""
        if any(self.sides):
            x = pad(x, self.sides, self.mode, self._fill, training=self.training)
        top, left = self.first_cells(x.shape[-2], x.shape[-1])
        out: Tensor = self.layer(x[..., top:, left:] if top or left else x)
        return out

    def first_cells(self, h: int, w: int) -> tuple[int, int]:
        """Where the first window begins in a padded map of that size: (rows, columns)."""
        core: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d = self.layer  # type: ignore[assignment]
        (ky, kx), (dy, dx), (sy, sx) = pair(core.kernel_size), pair(getattr(core, "dilation", 1)), stride_of(core)
        over = [(n - d * (k - 1) - 1) % s for n, k, d, s in ((h, ky, dy, sy), (w, kx, dx, sx))]
        rows, columns = ((u + 1) // 2 if self.lean == "begin" else u // 2 for u in over)
        return rows, columns

    def extra_repr(self) -> str:
        """The settings."""
        return f"lean={self.lean}, padding={self.sides}, mode={self.mode}"


def leans(n_strides: int) -> list[str]:
    """Sides for a chain of layers of stride 2, first to last: the last against all others.

    Their moves are 1, 2, 4, ... pixels by half the stride so far, and the last is one more than all others together.

    Examples
    --------
    >>> leans(3)
    ['end', 'end', 'begin']
    """
    return ["end"] * max(0, n_strides - 1) + ["begin"] * min(1, n_strides)
