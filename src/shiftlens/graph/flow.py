"""Where a tensor's rows and columns come from, carried along from function to function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from shiftlens.graph.sites import PICTURE, Pair, Sides, Source

_ATTRIBUTE = "_shiftlens_flow"
_LEVEL = "_shiftlens_level"


@dataclass(frozen=True)
class Pending:
    """Explicit padding that no window has used yet: its sides and mode, and what was there before it.

    `site` is the place among the sites of the layer or function that pads; None where only the layer pads for itself,
    and `own` is that part.
    """

    sides: Sides
    mode: str
    sources: tuple[Source, ...]
    size: Pair
    site: int | None
    own: Sides = Sides()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class Flow:
    """What is known of a tensor that was made from the picture.

    Attributes
    ----------
    size
        (h, w) of the map.
    axes
        Which axes of the tensor are vertical and horizontal.
    sources
        The sites it comes from without anything in between that matters for space.
    pending
        See `Pending`.
    fresh
        The site whose output this is, up to normalisation: the next activation is that site's own.
    lost
        Where rows and columns can no longer be told apart ("flatten at head"); empty while they can.
    """

    size: Pair
    axes: Pair
    sources: tuple[Source, ...] = (Source(PICTURE),)
    pending: Pending | None = None
    fresh: int | None = None
    lost: str = ""


def flow_of(value: Any) -> Flow | None:
    """What is known of a tensor; None for weights and constants."""
    return getattr(value, _ATTRIBUTE, None) if isinstance(value, Tensor) else None


def set_flow(tensor: Tensor, flow: Flow) -> None:
    """Remember what is known of a tensor."""
    setattr(tensor, _ATTRIBUTE, flow)


def level_of(tensors: Iterable[Tensor]) -> int:
    """How many calls in a row that depend on the whole map some tensors come from, at most."""
    return max((getattr(tensor, _LEVEL, 0) for tensor in tensors), default=0)


def set_level(tensor: Tensor, level: int) -> None:
    """Remember that number."""
    setattr(tensor, _LEVEL, level)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Tensors among arguments or outputs, also inside tuples, lists and dictionaries."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


def size_along(tensor: Tensor, axes: Pair) -> Pair:
    """(h, w) of a tensor whose spatial axes are known."""
    return int(tensor.shape[axes[0]]), int(tensor.shape[axes[1]])


def channel_axis(axes: Pair, n_axes: int) -> int | None:
    """The axis of the channels: the one of axes 1, 2, ... that is not spatial; None where that is not one axis."""
    rest = [axis for axis in range(1, n_axes) if axis not in axes]
    return rest[0] if len(rest) == 1 else None


def added(flows: Iterable[Flow]) -> tuple[Source, ...]:
    """Sources of a sum: shares of the same source add up."""
    shares: dict[int, float] = {}
    for flow in flows:
        for source in flow.sources:
            shares[source.index] = shares.get(source.index, 0.0) + source.share
    return tuple(Source(index, share) for index, share in sorted(shares.items()))


def scaled(flow: Flow, factor: float) -> Flow:
    """The same with every share multiplied."""
    return replace(flow, sources=tuple(Source(s.index, s.share * factor) for s in flow.sources))
