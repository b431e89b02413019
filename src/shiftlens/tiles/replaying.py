"""What layers that look at the whole map computed on a whole image, put in the place of what they make of a tile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shiftlens.graph.operators import OPERATORS
from shiftlens.graph.sites import OpKey, Pair
from shiftlens.graph.watching import Watch, is_layer
from shiftlens.tiles.tile_windows import Window

Cause = Literal["resize", "norm", "pooling", "attention"]
GLOBAL: tuple[Cause, ...] = ("norm", "pooling", "attention")

_ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward")


@dataclass(frozen=True)
class Call:
    """One function call of a forward pass whose result depends on how large the map is that it gets.

    Attributes
    ----------
    key
        Which call, the same in every pass.
    cause
        What kind of dependence.
    path
        The layer's module path; for a plain function, the module that calls it and the function with "()".
    kept
        What a tile needs to get what the whole image got: statistics, outputs, keys and values, sizes.
    """

    key: OpKey
    cause: Cause
    path: str
    kept: Any


def arguments(args: tuple[Any, ...], kwargs: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name."""
    return {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}


_SIGNATURES: dict[str, dict[str, Any]] = {
    "instance_norm": {
        "input": None,
        "running_mean": None,
        "running_var": None,
        "weight": None,
        "bias": None,
        "use_input_stats": True,
        "momentum": 0.1,
        "eps": 1e-5,
    },
    "group_norm": {"input": None, "num_groups": 1, "weight": None, "bias": None, "eps": 1e-5},
    "layer_norm": {"input": None, "normalized_shape": (), "weight": None, "bias": None, "eps": 1e-5},
    "batch_norm": {
        "input": None,
        "running_mean": None,
        "running_var": None,
        "weight": None,
        "bias": None,
        "training": False,
        "momentum": 0.1,
        "eps": 1e-5,
    },
}


def _norm_axes(name: str, given: dict[str, Any]) -> tuple[tuple[int, ...], Tensor] | None:
    """Which axes of which view of the input a norm takes its statistics over; None where that is not over space."""
    x: Tensor = given["input"]
    if x.ndim != 4:
        return None
    if name == "instance_norm":
        return ((2, 3), x) if given["use_input_stats"] else None
    if name == "batch_norm":
        return ((0, 2, 3), x) if given["training"] or given["running_mean"] is None else None
    if name == "group_norm":
        n, c, h, w = x.shape
        return (2, 3, 4), x.reshape(n, given["num_groups"], c // given["num_groups"], h, w)
    shape = given["normalized_shape"]
    n_axes = 1 if isinstance(shape, int) else len(shape)
    return (tuple(range(4 - n_axes, 4)), x) if n_axes > 1 else None


def _statistics(name: str, given: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    found = _norm_axes(name, given)
    if found is None:
        return None
    axes, view = found
    return view.mean(axes, keepdim=True), view.var(axes, keepdim=True, unbiased=False)


def _normalised(name: str, given: dict[str, Any], kept: tuple[Tensor, Tensor]) -> Tensor:
    """What the norm makes of its input with statistics that it was given."""
    found = _norm_axes(name, given)
    assert found is not None
    _, view = found
    x: Tensor = given["input"]
    made = ((view - kept[0]) / torch.sqrt(kept[1] + given["eps"])).reshape(x.shape)
    weight, bias = given["weight"], given["bias"]
    shape = (1, -1, 1, 1) if name != "layer_norm" else None
    if weight is not None:
        made = made * (weight if shape is None else weight.view(shape))
    if bias is not None:
        made = made + (bias if shape is None else bias.view(shape))
    return made


class Recording(Watch):
    """Watches the pass over a whole image; `calls` are those whose result depends on the map's size, in call order.

    Parameters
    ----------
    module
        The net.
    wanted
        The calls whose output depends on the whole map, with their cause; resizes are found by themselves.
    """

    def __init__(self, module: nn.Module, wanted: Mapping[OpKey, str]) -> None:
        super().__init__(module)
        self._wanted = wanted
        self.calls: dict[OpKey, Call] = {}

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call, and keep what a tile would need."""
        cause = self._wanted.get(key)
        if cause == "norm" and key.name in _SIGNATURES:
            statistics = _statistics(key.name, arguments(args, kwargs, _SIGNATURES[key.name]))
            made = func(*args, **kwargs)
            if statistics is not None:
                self._keep(key, "norm", statistics)
            return made
        made = func(*args, **kwargs)
        if cause == "attention":
            kept = args[1:3] if key.name in _ATTENTION else args[1:2]
            if all(isinstance(each, Tensor) for each in kept):
                self._keep(key, "attention", kept)
        elif cause == "pooling":
            self._keep(key, "pooling", made)
        elif key.name == "interpolate" and isinstance(made, Tensor) and made.ndim == 4:
            given = OPERATORS["interpolate"].bind(args, kwargs)
            before, after = _size(given["input"]), _size(made)
            if before != after and max(before) > 1 and _depends_on_size(given, before, after):
                self._keep(key, "resize", (before, after))
        return made

    def _keep(self, key: OpKey, cause: Cause, kept: Any) -> None:
        part = self.stack[-1][1] if self.stack else self._module
        path = key.path if is_layer(part) and key.path else f"{key.path}.{key.name}()".lstrip(".")
        self.calls[key] = Call(key, cause, path, kept)


class Replay(Watch):
    """Inside a `with`, some calls get what they got on the whole image.

    Parameters
    ----------
    module
        The net.
    calls
        What was recorded.
    size
        (h, w) of the whole image.
    """

    def __init__(self, module: nn.Module, calls: dict[OpKey, Call], size: Pair) -> None:
        super().__init__(module)
        self._calls = calls
        self._size = size
        self.frozen: Collection[OpKey] = ()
        self.window: Window | None = None

    def run(self, key: OpKey, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the call, or give what the whole image got."""
        call = self._calls.get(key) if key in self.frozen else None
        if call is None:
            return func(*args, **kwargs)
        if call.cause == "norm":
            return _normalised(key.name, arguments(args, kwargs, _SIGNATURES[key.name]), call.kept)
        if call.cause == "attention":
            return _attended(call, func, args, kwargs)
        if call.cause == "resize":
            made = self._resized(call, func, args, kwargs)
            return func(*args, **kwargs) if made is None else made
        return call.kept

    def _resized(
        self, call: Call, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """The rows and columns that resizing the whole map gives there; None where it would give the same."""
        given = OPERATORS["interpolate"].bind(args, kwargs)
        x, aligned = given["input"], bool(given["align_corners"])
        if self.window is None or given["mode"] not in ("nearest", "bilinear"):
            return None
        n_out = _size(func(*args, **kwargs))
        made: Tensor = x
        for axis in (0, 1):
            n, whole_in, whole_out = self._size[axis], call.kept[0][axis], call.kept[1][axis]
            if whole_in == 1:
                continue
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
        if made.shape[2] == 1 or made.shape[3] == 1:
            made = made.expand(-1, -1, *n_out)
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
