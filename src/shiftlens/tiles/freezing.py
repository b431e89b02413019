"""Layers that read the whole map, made to use what the whole image gives them: statistics summed, then used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shiftlens.errors import InputError
from shiftlens.graph.operators import OPERATORS
from shiftlens.graph.sites import GlobalLayer, OpKey, Pair
from shiftlens.graph.watching import Watch
from shiftlens.tiles.placing import WholeSizes, resized_in_place
from shiftlens.tiles.tile_windows import Window

Place = tuple[Pair, Pair]
"""(y, x) of a part's first cell in the whole map, and (h, w) of the whole map."""

Cut = Callable[[GlobalLayer, Tensor, Window], tuple[Tensor, Place]]
"""From a global layer and its map [1, c, h, w] of a window to the part of it that counts, and where that is."""


@dataclass(frozen=True)
class MapStatistics:
    """What a layer may want to know of a map, for each channel and each cell that it pools: [c, h, w], in float64.

    A norm and a global pool have one cell. `n` [h, w] is how many numbers each is made of. `spread` is the sum of
    squared differences from the mean, which parts of a map add up to without losing digits.
    """

    n: Tensor
    mean: Tensor
    spread: Tensor
    smallest: Tensor
    largest: Tensor

    @staticmethod
    def of(x: Tensor, cells: Pair = (1, 1), place: Place | None = None) -> MapStatistics:
        """Of one map [1, c, h, w], or of a part of it at a place; `cells` as adaptive pooling makes them."""
        start, whole = place or ((0, 0), (x.shape[2], x.shape[3]))
        parts = [
            _of_cell(x.detach()[0, :, rows, columns].double())
            for rows in _bins(cells[0], whole[0], start[0])
            for columns in _bins(cells[1], whole[1], start[1])
        ]
        return MapStatistics(
            *(torch.stack(each, -1).reshape(*each[0].shape, *cells) for each in zip(*parts, strict=True))
        )

    def __add__(self, other: MapStatistics) -> MapStatistics:
        """Of both parts together (Chan, Golub and LeVeque 1979)."""
        n, off = self.n + other.n, other.mean - self.mean
        share = other.n / n.clamp_min(1)
        return MapStatistics(
            n,
            self.mean + off * share,
            self.spread + other.spread + off.square() * self.n * share,
            torch.minimum(self.smallest, other.smallest),
            torch.maximum(self.largest, other.largest),
        )

    def in_groups(self, n_groups: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of each group of channels, for each of its channels: [c] both."""
        means = self.mean.view(n_groups, -1)
        mean = means.mean(1, keepdim=True)
        n = self.n.item()
        spread = self.spread.view(n_groups, -1) + n * (means - mean).square()
        variance = spread.mean(1, keepdim=True) / n
        return mean.expand_as(means).flatten(), variance.expand_as(means).flatten()


def _bins(n_cells: int, n: int, start: int) -> list[slice]:
    """What adaptive pooling reads for each of its cells along an axis of `n`, in a part that begins at `start`."""
    ends = ((k * n // n_cells - start, -(-(k + 1) * n // n_cells) - start) for k in range(n_cells))
    return [slice(max(lo, 0), max(hi, 0)) for lo, hi in ends]


def _of_cell(x: Tensor) -> tuple[Tensor, ...]:
    """Number, mean, spread, smallest and largest of [c, h, w], which may be empty."""
    flat = x.flatten(1)
    n = torch.tensor(float(flat.shape[1]), dtype=torch.float64, device=x.device)
    if not flat.shape[1]:
        none = flat.new_zeros(flat.shape[0])
        return n, none, none, none + torch.inf, none - torch.inf
    mean = flat.mean(1)
    return (n, mean, (flat - mean[:, None]).square().sum(1), *torch.aminmax(flat, dim=1))


class _EnoughError(BaseException):
    """Nothing after this call is wanted; no `except Exception` of a net may keep it."""


class Freezing(Watch):
    """Inside a `with`, a net computes of a window what it computes there for the whole image, as far as that is known.

    Global layers use statistics that are known, resizes give what they give at the window's place, and the statistics
    of other layers are collected.

    Parameters
    ----------
    module
        The net, which takes one image at a time.
    known
        Statistics by function call; those calls use them in place of their own map's.
    wanted
        Layers whose maps are to be added to `found`. A forward pass by `look` ends at the last of them.
    cut
        Which part of a window's map counts; all of it by default.
    resizes
        Sizes for the whole image of the resizes that depend on the place, by function call.
    image
        (h, w) of the whole image; needed for resizes.

    Attributes
    ----------
    window
        What the net is given; None before it is told.

    Examples
    --------
    >>> from shiftlens.arithmetic import tile_geometry
    >>> net = nn.InstanceNorm2d(1)
    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> known = statistics_of(net, tile_geometry(net, 4).global_layers, x)
    >>> with Freezing(net, known):
    ...     bool(torch.allclose(net(x[:, :, :2]), torch.nn.functional.instance_norm(x)[:, :, :2]))
    True
    """

    def __init__(
        self,
        module: nn.Module,
        known: Mapping[OpKey, MapStatistics] | None = None,
        wanted: Sequence[GlobalLayer] = (),
        cut: Cut | None = None,
        resizes: Mapping[OpKey, WholeSizes] | None = None,
        image: Pair = (0, 0),
    ) -> None:
        super().__init__(module)
        self._resizes, self._image = dict(resizes or {}), image
        self.window: Window | None = None
        self.known = dict(known or {})
        self.found: dict[OpKey, MapStatistics] = {}
        self._wanted = {layer.op: layer for layer in wanted}
        self._cut = cut
        self._left: set[OpKey] = set()
        self._looks = False

    def look(self, x: Tensor) -> None:
        """Collect from one image [1, c, h, w]; `InputError` where the net did not come by a wanted layer."""
        self._left, self._looks = set(self._wanted), True
        try:
            self._module(x)
        except _EnoughError:
            pass
        finally:
            self._looks = False
        if self._left:
            names = ", ".join(self._wanted[key].path for key in self._left)
            raise InputError(f"the net did not come by {names} in this forward pass: it decides its way by its numbers")

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call, with known statistics where there are any."""
        if key in self.known:
            return _with_statistics(self.known[key], key.name, func, args, kwargs)
        if self._looks and key in self._left:
            self._collect(self._wanted[key], args[0] if args else kwargs["input"])
        if key in self._resizes and self.window is not None:
            return self._resized(self._resizes[key], self.window, func, args, kwargs)
        return func(*args, **kwargs)

    def _resized(
        self, sizes: WholeSizes, window: Window, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        own = func(*args, **kwargs)
        given = OPERATORS["interpolate"].bind(args, kwargs)
        made = resized_in_place(given, sizes, window, self._image, (int(own.shape[-2]), int(own.shape[-1])))
        return own if made is None else made

    def _collect(self, layer: GlobalLayer, x: Tensor) -> None:
        part, place = (x, None) if self._cut is None or self.window is None else self._cut(layer, x, self.window)
        if part.numel():
            seen = MapStatistics.of(part) if layer.cells == (1, 1) else MapStatistics.of(part, layer.cells, place)
            self.found[layer.op] = self.found[layer.op] + seen if layer.op in self.found else seen
        self._left.discard(layer.op)
        if not self._left:
            raise _EnoughError


def statistics_of(module: nn.Module, layers: Sequence[GlobalLayer], x: Tensor) -> dict[OpKey, MapStatistics]:
    """What the global layers that can be frozen compute on one whole image [1, c, h, w], by function call."""
    wanted = [layer for layer in layers if layer.freezable]
    if not wanted:
        return {}
    with Freezing(module, wanted=wanted) as watched, torch.no_grad():
        watched.look(x)
    return watched.found


def _with_statistics(
    known: MapStatistics, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    if OPERATORS[name].kind == "normalisation":
        b = OPERATORS[name].bind(args, kwargs)
        x: Tensor = b["input"]
        n_channels = x.shape[1]
        groups = {"group_norm": b.get("num_groups"), "layer_norm": 1}.get(name, n_channels)
        mean, variance = known.in_groups(int(groups or 1))
        # With given moments all of them are one and the same.
        return F.batch_norm(x, mean.to(x), variance.to(x), b["weight"], b["bias"], False, 0.0, b["eps"])
    made: Tensor = func(*args, **kwargs)
    number = {"adaptive_max_pool2d": known.largest, "amax": known.largest, "amin": known.smallest}.get(name, known.mean)
    return number.to(made).reshape(made.shape)
