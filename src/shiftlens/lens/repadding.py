"""A forward pass in which padding is done by another rule, while the net stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from shiftlens.graph import OpKey, Sides
from shiftlens.graph.arguments import pair, pool_sides, same_sides
from shiftlens.graph.operators import OPERATORS
from shiftlens.graph.watching import Watch
from shiftlens.nn.convolution import PartialConv2d
from shiftlens.nn.padding import check_mode, pad

_CONSTANT = ("constant", "zeros")


def convolved(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], mode: str) -> Any:
    """What a call of `conv2d` gives with another padding mode; None where it pads nothing."""
    b = OPERATORS["conv2d"].bind(args, kwargs)
    sides = same_sides(b["padding"], pair(b["weight"].shape[2:]), pair(b["dilation"]))
    if not sides:
        return None
    x = pad(b["input"], (sides.left, sides.right, sides.top, sides.bottom), mode)
    return func(x, b["weight"], b["bias"], b["stride"], 0, b["dilation"], b["groups"])


class Repadded(Watch):
    """Inside a `with`, convolutions, pools and explicit pads of a net pad by `mode` where they would pad a constant.

    No weight, layer or attribute changes: only the calls do. With `circular`, an empty picture looks the same
    everywhere at every layer, which is what a picture without borders would give. A partial convolution then has
    nothing to make up for, and does not.
    """

    def __init__(self, module: nn.Module, mode: str) -> None:
        super().__init__(module)
        self._mode = check_mode(mode)

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call with another padding, where it pads a constant."""
        if self.stack and isinstance(self.stack[-1][1], PartialConv2d) and key.name == "mul" and args[0].ndim == 4:
            return args[0]  # the factor for taps outside the picture: now there are none
        if key.name == "conv2d":
            other = convolved(func, args, kwargs, self._mode)
            if other is not None:
                return other
        elif key.name in ("max_pool2d", "avg_pool2d"):
            b = OPERATORS[key.name].given(args, kwargs)
            sides = pool_sides(b.get("padding", 0))
            if sides:
                b["padding"] = 0
                b["input"] = self._padded(b["input"], sides)
                return func(**b)
        elif func is F.pad:
            b = OPERATORS["pad"].bind(args, kwargs)
            widths = [int(width) for width in b["pad"]] + [0] * 8
            if b["mode"] in _CONSTANT and not any(widths[4:]) and any(widths) and min(widths) >= 0:
                return self._padded(b["input"], Sides(*widths[:4]))
        elif func is pad:
            bound = signature(pad).bind(*args, **kwargs)
            bound.apply_defaults()
            if bound.arguments["mode"] in _CONSTANT:
                return self._padded(bound.arguments["x"], Sides(*bound.arguments["padding"]))
        return func(*args, **kwargs)

    def _padded(self, x: Tensor, sides: Sides) -> Tensor:
        return pad(x, (sides.left, sides.right, sides.top, sides.bottom), self._mode)
