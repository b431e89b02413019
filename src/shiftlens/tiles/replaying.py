"""What a net computed on a whole image, put in the place of what it makes of a tile: statistics, keys, coordinates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from shiftlens.graph.operators import OPERATORS
from shiftlens.graph.sites import GlobalLayer, OpKey, Pair
from shiftlens.graph.watching import Watch, is_layer
from shiftlens.tiles.freezing import Freezing, MapStatistics
from shiftlens.tiles.placing import WholeSizes

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
    pooled
        The resizes of maps that have the same cells for every size of the image.
    """

    def __init__(self, module: nn.Module, layers: Mapping[OpKey, GlobalLayer], pooled: Collection[OpKey] = ()) -> None:
        super().__init__(module)
        self._layers, self._pooled = layers, pooled
        self.calls: dict[OpKey, Call] = {}

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call, and keep what a tile would need."""
        layer = self._layers.get(key)
        if layer is not None and layer.freezable:
            given = OPERATORS[key.name].bind(args, kwargs)
            self.calls[key] = Call(key, layer.kind, layer.path, MapStatistics.of(given["input"], layer.cells))
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
            sizes, changes = WholeSizes(before, after), before != after and max(before) > 1
            if key in self._pooled and changes:
                self.calls[key] = Call(key, "pooling", self._path(key), sizes)
            elif changes and _depends_on_size(given, before, after):
                self.calls[key] = Call(key, "resize", self._path(key), sizes)
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
        chosen = {key: call for key, call in calls.items() if key in frozen}
        known = {key: call.kept for key, call in chosen.items() if isinstance(call.kept, MapStatistics)}
        resizes = {key: call.kept for key, call in chosen.items() if isinstance(call.kept, WholeSizes)}
        super().__init__(module, known, resizes=resizes, image=size)
        self._calls = {key: call for key, call in chosen.items() if key not in known and key not in resizes}

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call, or give what the whole image got."""
        call = self._calls.get(key)
        if call is None:
            return super().run(key, func, args, kwargs)
        return _attended(call, func, args, kwargs) if call.cause == "attention" else call.kept


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


def _size(x: Tensor) -> Pair:
    return int(x.shape[-2]), int(x.shape[-1])
