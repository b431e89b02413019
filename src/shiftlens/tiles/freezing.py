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
from shiftlens.graph.sites import GlobalLayer, OpKey
from shiftlens.graph.watching import Watch

Cut = Callable[[GlobalLayer, Tensor], Tensor]
"""From a global layer and the map [1, c, h, w] that it reads to the part of it that counts."""


@dataclass(frozen=True)
class MapStatistics:
    """What a layer may want to know of a map, a number a channel: shape [c], in float64.

    `spread` is the sum of squared differences from the mean, which parts of a map add up to without losing digits.
    """

    n: int
    mean: Tensor
    spread: Tensor
    smallest: Tensor
    largest: Tensor

    @staticmethod
    def of(x: Tensor) -> MapStatistics:
        """Of one map [1, c, h, w]."""
        flat = x.detach()[0].flatten(1).double()
        mean = flat.mean(1)
        return MapStatistics(flat.shape[1], mean, (flat - mean[:, None]).square().sum(1), *torch.aminmax(flat, dim=1))

    def __add__(self, other: MapStatistics) -> MapStatistics:
        """Of both parts together (Chan, Golub and LeVeque 1979)."""
        n, off = self.n + other.n, other.mean - self.mean
        return MapStatistics(
            n,
            self.mean + off * (other.n / n),
            self.spread + other.spread + off.square() * (self.n * other.n / n),
            torch.minimum(self.smallest, other.smallest),
            torch.maximum(self.largest, other.largest),
        )

    def in_groups(self, n_groups: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of each group of channels, for each of its channels: [c] both."""
        means = self.mean.view(n_groups, -1)
        mean = means.mean(1, keepdim=True)
        spread = self.spread.view(n_groups, -1) + self.n * (means - mean).square()
        variance = spread.mean(1, keepdim=True) / self.n
        return mean.expand_as(means).flatten(), variance.expand_as(means).flatten()


class _EnoughError(BaseException):
    """Nothing after this call is wanted; no `except Exception` of a net may keep it."""


class Freezing(Watch):
    """Inside a `with`, global layers use statistics that are known, and the statistics of others are collected.

    Parameters
    ----------
    module
        The net, which takes one image at a time.
    known
        Statistics by function call; those calls use them in place of their own map's.
    wanted
        Layers whose maps are to be added to `found`. A forward pass by `look` ends at the last of them.
    cut
        Which part of a map counts; all of it by default.

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
    ) -> None:
        super().__init__(module)
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
        return func(*args, **kwargs)

    def _collect(self, layer: GlobalLayer, x: Tensor) -> None:
        part = x if self._cut is None else self._cut(layer, x)
        if part.numel():
            seen = MapStatistics.of(part)
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
