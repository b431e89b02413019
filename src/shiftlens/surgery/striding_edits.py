"""Which layers of a net stride, and what takes the place of the stride."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from shiftlens.errors import InputError
from shiftlens.graph import Graph, Site
from shiftlens.graph.operators import kind_of, operator_of_layer
from shiftlens.nn.balance import leans
from shiftlens.nn.convolution import OWN_CONVOLUTIONS, sides_of_layer
from shiftlens.nn.downsample import stride_of
from shiftlens.nn.edits import Edit
from shiftlens.nn.pooling import PaddedPool2d
from shiftlens.surgery.branches import leaders
from shiftlens.surgery.repair_plan import Plan, where, within
from shiftlens.surgery.subclasses import strides_as_it_says

MOST_STRIDE = 4
"""Larger strides are not made dense: a patch layer of stride 16 would cost 256 times as much."""

_POOLS = ("max pool", "average pool")


@dataclass(frozen=True)
class _Strided:
    """A layer to be made dense; `origin` is its path in the net as it was."""

    path: str
    origin: str
    layer: nn.Module


def edit_strides(plan: Plan, kind: str, graph: Graph | None, filter_size: int) -> None:
    """Make every chosen layer that strides dense, on the plan's copy, and let `kind` (of `REDUCERS`) reduce its map.

    `polyphase` reads from the graph, the net as it was, which branches meet.
    """
    if kind == "balanced":
        _balance(plan, graph)
        return
    todo = _strided(plan)
    if not todo:
        return
    follows: dict[str, str] = {}
    if kind == "polyphase":
        if graph is None:
            raise InputError("polyphase needs to know which branches meet: say at which input size to look (size=)")
        follows = leaders(graph, [each.origin for each in todo])
    called = {} if graph is None else {site.path: k for k, site in reversed([*enumerate(graph)])}
    order = {each.origin: min((k for p, k in called.items() if within(p, each.origin)), default=0) for each in todo}
    now = {each.origin: each.path for each in todo}
    mode = _extension_mode(plan.module)
    for each in sorted(todo, key=lambda each: order[each.origin]):
        options: dict[str, Any] = {"padding_mode": mode}
        if kind == "blur":
            options["filter_size"] = filter_size
            activation = _activation_after(plan.module, each.path, each.layer)
            if activation is not None:
                options["activation"] = activation
        elif each.origin in follows:
            options["leader"] = now[follows[each.origin]]
        sy, sx = stride_of(each.layer)
        plan.do(Edit(each.path, "downsample", f"stride {sy}" if sy == sx else f"stride {sy}x{sx}", kind, options))


def _balance(plan: Plan, graph: Graph | None) -> None:
    """Let layers that leave rows over lean to the sides that bring the grid of the last one to the middle."""
    if graph is None:
        raise InputError("balanced striding is computed at one input size: say which (size=)")
    uneven = {
        site.path: site
        for site in graph
        if site.kind in ("conv", *_POOLS) and max(site.stride) > 1 and any(_over(site))
    }
    layers = {path: layer for path, layer in plan.module.named_modules() if path in plan.chosen and path in uneven}
    followers = leaders(graph, layers)
    first = [path for path in uneven if path in layers and path not in followers]
    side = dict(zip(first, leans(len(first)), strict=True))
    for path, layer in layers.items():
        lean = side[followers.get(path, path)]
        try:
            plan.do(Edit(path, "downsample", "leaning to the end", "balanced", {"lean": lean}))
        except InputError as error:
            plan.unreached.append(f"{where(path, layer)}: {error}")


def _over(site: Site) -> tuple[int, int]:
    """Rows and columns that no window reaches."""
    rows, columns = (
        (site.in_size[axis] + sum(site.padding.along(axis)) - site.extent[axis]) % site.stride[axis] for axis in (0, 1)
    )
    return rows, columns


def _strided(plan: Plan) -> list[_Strided]:
    found: list[_Strided] = []
    wrapped = {
        f"{edit.path}.layer".lstrip("."): edit.path for edit in plan.edits if edit.options.get("way") == "wrapped"
    }
    for path, layer in [*plan.module.named_modules()]:
        # A padded pool stands for the pool in it.
        inside = any(within(path, each.path) for each in found)
        if path in plan.chosen and not inside and _can_be_dense(plan, path, layer):
            found.append(_Strided(path, wrapped.get(path, path), layer))
    return found


def _can_be_dense(plan: Plan, path: str, layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d | PaddedPool2d) and kind_of(layer) not in _POOLS:
        return False
    stride, named = stride_of(layer), where(path, layer)
    if max(stride) == 1:
        return False
    if max(stride) > MOST_STRIDE:
        plan.unreached.append(f"{named}: stride {max(stride)}, only up to {MOST_STRIDE} is made dense")
        return False
    if isinstance(layer, nn.Conv2d):
        own_code = type(layer) not in OWN_CONVOLUTIONS and not strides_as_it_says(layer)
    else:
        own_code = not (isinstance(layer, PaddedPool2d) or operator_of_layer(layer, exact=True) is not None)
        own_code = own_code or bool(getattr(layer, "return_indices", False))
    if own_code:
        plan.unreached.append(f"{named}: its own code strides, or it returns indices")
    return not own_code


def _extension_mode(module: nn.Module) -> str:
    """How blurs and extensions pad: a net whose every padding wraps stays periodic; else what keeps a constant."""
    modes = {
        part.padding_mode for part in module.modules() if isinstance(part, nn.Conv2d) and max(sides_of_layer(part))
    }
    return "circular" if modes == {"circular"} else "symmetric"


def _activation_after(module: nn.Module, path: str, layer: nn.Module) -> str | None:
    """The activation of a convolution, where a plain chain shows it and nothing else uses it or what is between."""
    if not path or not isinstance(layer, nn.Conv2d):
        return None
    parent_path, _, name = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    if not isinstance(parent, nn.Sequential) or type(parent).forward is not nn.Sequential.forward:
        return None
    uses = Counter(id(child) for part in module.modules() for child in part._modules.values())
    chain = [*parent._modules.items()]
    position = [key for key, _ in chain].index(name)
    for key, child in chain[position + 1 :]:
        if child is None or uses[id(child)] != 1 or uses[id(layer)] != 1:
            return None
        if not isinstance(child, nn.BatchNorm2d | nn.Identity):
            return f"{parent_path}.{key}".lstrip(".") if _is_activation(child) else None
    return None


def _is_activation(layer: nn.Module) -> bool:
    entry = operator_of_layer(layer, exact=True)
    return entry is not None and entry.kind == "activation"
