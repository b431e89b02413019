"""What a net computed on a whole image, put in the place of what it makes of a tile: statistics, keys, coordinates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shiftlens.graph.operators import OPERATORS
from shiftlens.graph.sites import GlobalLayer, OpKey, Pair
from shiftlens.graph.watching import Watch, is_layer
from shiftlens.tiles.freezing import Freezing, MapStatistics
from shiftlens.tiles.tile_windows import Window

GLOBAL = ("norm", "pooling", "attention")
"""Causes that are layers whose output depends on the whole map."""

_ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")


@dataclass(frozen=True)
class Call:
    """One function call of a forward pass whose result depends on how large the map is that it gets.

    Attributes
    ----------
    key
        Which call, the same in every pass.
    cause
        "resize", or one of `GLOBAL`.
    path
        The layer's module path; for a plain function, the module that calls it and the function with "()".
    kept
        What a tile needs to get what the whole image got: statistics, the output, keys and values, or sizes.
    """

    key: OpKey
    cause: str
    path: str
    kept: Any


class Recording(Watch):
    """Watches the pass over a whole image; `calls` are those whose result depends on the map's size, in call order.

    Parameters
    ----------
    module
        The net.
    layers
        Its global layers, by function call. Resizes are found here.
    """

    def __init__(self, module: nn.Module, layers: Mapping[OpKey, GlobalLayer]) -> None:
        super().__init__(module)
        self._layers = layers
        self.calls: dict[OpKey, Call] = {}

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call, and keep what a tile would need."""
        layer = self._layers.get(key)
        if layer is not None and layer.freezable:
            given = OPERATORS[key.name].bind(args, kwargs)
            self.calls[key] = Call(key, layer.kind, layer.path, MapStatistics.of(given["input"]))
            return func(*args, **kwargs)
        made = func(*args, **kwargs)
        if layer is not None and layer.kind == "attention":
            kept = args[1:3] if key.name in _ATTENTION else args[1:2]
            if kept and all(isinstance(each, Tensor) for each in kept):
                self.calls[key] = Call(key, "attention", layer.path, kept)
        elif layer is not None and layer.kind == "pooling":
            self.calls[key] = Call(key, "pooling", layer.path, made)
        elif key.name == "interpolate" and isinstance(made, Tensor) and made.ndim == 4:
            given = OPERATORS["interpolate"].bind(args, kwargs)
            before, after = _size(given["input"]), _size(made)
            if before != after and max(before) > 1 and _depends_on_size(given, before, after):
                self.calls[key] = Call(key, "resize", self._path(key), (before, after))
        return made

    def _path(self, key: OpKey) -> str:
        part = self.stack[-1][1] if self.stack else self._module
        return key.path if is_layer(part) and key.path else f"{key.path}.{key.name}()".lstrip(".")


class Replay(Freezing):
    """Inside a `with`, some calls get what they got on the whole image.

    Parameters
    ----------
    module
        The net.
    calls
        What was recorded.
    size
        (h, w) of the whole image.
    frozen
        Which of the calls.
    """

    def __init__(self, module: nn.Module, calls: Mapping[OpKey, Call], size: Pair, frozen: Collection[OpKey]) -> None:
        self._calls = {key: call for key, call in calls.items() if key in frozen}
        known = {key: call.kept for key, call in self._calls.items() if isinstance(call.kept, MapStatistics)}
        super().__init__(module, known)
        self._size = size
        self.window: Window | None = None

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call, or give what the whole image got."""
        call = self._calls.get(key)
        if call is None or key in self.known:
            return super().run(key, func, args, kwargs)
        if call.cause == "attention":
            return _attended(call, func, args, kwargs)
        if call.cause == "resize":
            made = self._resized(call, func, args, kwargs)
            return func(*args, **kwargs) if made is None else made
        return call.kept

    def _resized(
        self, call: Call, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """The rows and columns that resizing the whole map gives there; None where they are not known."""
        given = OPERATORS["interpolate"].bind(args, kwargs)
        x, aligned = given["input"], bool(given["align_corners"])
        if self.window is None or given["mode"] not in ("nearest", "bilinear"):
            return None
        n_out = _size(func(*args, **kwargs))
        made: Tensor = x
        for axis in (0, 1):
            n, whole_in, whole_out = self._size[axis], call.kept[0][axis], call.kept[1][axis]
            start_in = self.window.origin[axis] * whole_in / n
            start_out = self.window.origin[axis] * whole_out / n
            if x.shape[2 + axis] == whole_in and self.window.size[axis] < n:
                start_in = 0.0  # a pool that was frozen: its map is the whole image's
            if start_in % 1 or start_out % 1:
                return None
            places = torch.arange(n_out[axis], device=x.device, dtype=torch.float64) + start_out
            if given["mode"] == "nearest":
                source = torch.floor(places * whole_in / whole_out)
            elif aligned:
                source = places * (whole_in - 1) / max(whole_out - 1, 1)
            else:
                source = ((places + 0.5) * whole_in / whole_out - 0.5).clamp(min=0)
            made = _sampled(made, 2 + axis, source - start_in)
        return made


def _attended(call: Call, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Queries of the tile on keys and values of the whole image; as it is where they do not fit, as between windows."""
    kept, query = call.kept, args[0]
    if call.key.name == "multi_head_attention_forward":
        fits = query.shape[1:] == kept[0].shape[1:]
    elif call.key.name in _ATTENTION:
        fits = query.shape[:-2] == kept[0].shape[:-2]
    else:
        fits = query.shape[:-2] == kept[0].shape[:-2] and query.shape[-1] == kept[0].shape[-2]
    return func(query, *kept, *args[1 + len(kept) :], **kwargs) if fits else func(*args, **kwargs)


def _depends_on_size(given: dict[str, Any], before: Pair, after: Pair) -> bool:
    """Whether a cell's place in the map that is read depends on how large the maps are."""
    if given["align_corners"] and given["mode"] != "nearest":
        return True
    return given["scale_factor"] is None and any(b % a for a, b in zip(before, after, strict=True))


def _sampled(x: Tensor, axis: int, places: Tensor) -> Tensor:
    """Linear interpolation of a map along one axis at places in cells; beyond the ends, the last cell."""
    n = x.shape[axis]
    places = places.clamp(0, n - 1)
    before = places.floor().long()
    share = (places - before).to(x.dtype)
    shape = [1] * x.ndim
    shape[axis] = -1
    share = share.view(shape)
    first, second = x.index_select(axis, before), x.index_select(axis, (before + 1).clamp(max=n - 1))
    return first * (1 - share) + second * share


def _size(x: Tensor) -> Pair:
    return int(x.shape[-2]), int(x.shape[-1])
