"""What the path by states can do with feature maps: a handful of operations, and a step of a net as one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Sides = tuple[int, int, int, int]
"""Left, right, top, bottom."""


@dataclass(frozen=True)
class Convolution:
    """Cross-correlation; `rule` is how the padding is filled, `zeros` or an index rule.

    `partial`: sums are multiplied by the number of taps over the number of them inside the map, before the bias.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    dilation: tuple[int, int]
    sides: Sides
    rule: str
    groups: int
    partial: bool = False


@dataclass(frozen=True)
class Pool:
    """Maximum or average over a window. `divisor` overrides the number of cells that an average divides by."""

    maximum: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    count_include_pad: bool = True
    divisor: int | None = None


@dataclass(frozen=True)
class Pad:
    """An explicit padding layer; `value` where `rule` is None."""

    sides: Sides
    rule: str | None
    value: float = 0.0


@dataclass(frozen=True)
class Pointwise:
    """A function of each number alone."""

    function: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Affine:
    """One factor and one summand for each channel: batch norm in eval mode."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Combine:
    """A function of the same cell of several maps: a sum, a product."""

    function: Callable[..., Tensor]


@dataclass(frozen=True)
class Concatenate:
    """Channels of several maps behind each other."""


@dataclass(frozen=True)
class GlobalPool:
    """Average or maximum over all positions; `keep` as [n, c, 1, 1]."""

    maximum: bool
    keep: bool


Operation = Convolution | Pool | Pad | Pointwise | Affine | Combine | Concatenate | GlobalPool


@dataclass(frozen=True)
class Step:
    """A node that is served: what it does to which other nodes (by name), and the map [c, h, w] it gives."""

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
