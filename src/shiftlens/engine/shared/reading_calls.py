"""A function or method call of a net as an operation on every cell alike, or the reason why it is none."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from shiftlens.engine.shared.operations import Combine, Concatenate, GlobalPool, Operation, Pad, Pointwise, Pool
from shiftlens.engine.shared.refusing import IN_PLACE, RefusedError, pair, same, sides_of, single, unshared

_ELEMENTWISE_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    F.relu,
    F.relu6,
    F.leaky_relu,
    F.elu,
    F.gelu,
    F.silu,
    F.mish,
    F.sigmoid,
    F.tanh,
    F.hardswish,
    F.hardsigmoid,
    F.hardtanh,
    F.softplus,
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    torch.abs,
    torch.exp,
    torch.clamp,
    operator.neg,
)
_ELEMENTWISE_METHODS = ("relu", "sigmoid", "tanh", "abs", "clamp", "contiguous", "clone", "relu_", "float")
_SUMS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    operator.add: torch.add,
    operator.iadd: torch.add,
    torch.add: torch.add,
    operator.sub: torch.sub,
    operator.isub: torch.sub,
    torch.sub: torch.sub,
    operator.mul: torch.mul,
    operator.imul: torch.mul,
    torch.mul: torch.mul,
    torch.maximum: torch.maximum,
    torch.minimum: torch.minimum,
    operator.truediv: torch.div,
    torch.div: torch.div,
}
_PAD_MODES = {"reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def read_function(node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    """The operation of a node that calls a function, and the maps it reads; refuses what does something else."""
    target = node.target
    if node.kwargs.get("inplace") or target in IN_PLACE:
        unshared(node)
    if node.kwargs.get("out") is not None:
        raise RefusedError("it writes into another tensor")
    if target in _SUMS:
        return _sum(node, _SUMS[target])
    if target in _ELEMENTWISE_FUNCTIONS:
        inputs = single(node)
        rest = node.args[1:]
        kwargs = {name: value for name, value in node.kwargs.items() if name not in ("inplace", "input")}
        function: Any = target
        return Pointwise(lambda x: function(x, *rest, **kwargs)), inputs
    if target is F.dropout or target is F.dropout2d:
        training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
        if training:
            raise RefusedError("dropout in training mode")
        return Pointwise(same), single(node)
    if target in (F.max_pool2d, torch.max_pool2d):
        return _pool_function(node, maximum=True)
    if target is F.avg_pool2d:
        return _pool_function(node, maximum=False)
    if target in (torch.cat, torch.concat):
        maps, axis = _arguments(node, ("tensors", "dim"), {"dim": 0})
        if axis not in (1, -3) or not all(isinstance(part, fx.Node) for part in maps):
            raise RefusedError("concatenation along another axis than channels")
        return Concatenate(), tuple(part.name for part in maps)
    if target is F.pad:
        return _pad_function(node)
    if target in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
        _, size = _arguments(node, ("input", "output_size"), {})
        if size not in (1, (1, 1), [1, 1]):
            raise RefusedError("adaptive pooling to more than one cell")
        return GlobalPool(target is F.adaptive_max_pool2d, keep=True), single(node)
    if target is torch.mean:
        return _mean(node)
    raise RefusedError(f"{getattr(target, '__name__', target)} is not a function that acts on every cell alike")


def read_method(node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    """The operation of a node that calls a method, and the maps it reads; refuses what does something else."""
    name = str(node.target)
    if name == "mean":
        return _mean(node)
    if name not in _ELEMENTWISE_METHODS:
        raise RefusedError(f".{name}() is not a function that acts on every cell alike")
    if name.endswith("_"):
        unshared(node)
    inputs = single(node)
    if name in ("contiguous", "clone", "float"):
        return Pointwise(same), inputs
    arguments, kwargs = node.args[1:], dict(node.kwargs)
    method = name.removesuffix("_")
    return Pointwise(lambda x: getattr(x, method)(*arguments, **kwargs)), inputs


def _arguments(node: fx.Node, names: tuple[str, ...], defaults: dict[str, Any]) -> list[Any]:
    """Arguments of a call by name, however they were given."""
    found = dict(defaults)
    found |= dict(zip(names, node.args, strict=False))
    found |= {name: value for name, value in node.kwargs.items() if name in names}
    missing = [name for name in names if name not in found]
    if missing:
        raise RefusedError(f"it lacks {missing[0]}")
    return [found[name] for name in names]


def _pool_function(node: fx.Node, *, maximum: bool) -> tuple[Operation, tuple[str, ...]]:
    inputs = single(node)
    common = {"stride": None, "padding": 0, "ceil_mode": False}
    if maximum:
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        _, kernel, stride, padding, dilation, _, indices = _arguments(
            node, names, common | {"dilation": 1, "return_indices": False}
        )
        if indices:
            raise RefusedError("it returns indices")
        return Pool(True, pair(kernel), pair(stride or kernel), pair(dilation), pair(padding)), inputs
    names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    _, kernel, stride, padding, _, include, divisor = _arguments(
        node, names, common | {"count_include_pad": True, "divisor_override": None}
    )
    return Pool(False, pair(kernel), pair(stride or kernel), (1, 1), pair(padding), include, divisor), inputs


def _pad_function(node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    inputs = single(node)
    _, sides, mode, value = _arguments(node, ("input", "pad", "mode", "value"), {"mode": "constant", "value": None})
    if not all(isinstance(width, int) for width in sides) or len(sides) not in (2, 4):
        raise RefusedError("padding of other axes, or of computed width")
    whole = (*sides, 0, 0)[:4]
    if mode == "constant":
        return Pad(sides_of(whole), None, float(value or 0.0)), inputs
    if mode not in _PAD_MODES:
        raise RefusedError(f"padding mode {mode!r}")
    return Pad(sides_of(whole), _PAD_MODES[mode]), inputs


def _mean(node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    inputs = single(node)
    _, axes, keep = _arguments(node, ("input", "dim", "keepdim"), {"keepdim": False})
    if not isinstance(axes, (tuple, list)) or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise RefusedError("a mean over other axes than both of space")
    return GlobalPool(False, keep=bool(keep)), inputs


def _sum(node: fx.Node, function: Callable[..., Tensor]) -> tuple[Operation, tuple[str, ...]]:
    if node.kwargs or len(node.args) != 2:
        raise RefusedError("arithmetic with options")
    a, b = node.args
    maps = [x for x in (a, b) if isinstance(x, fx.Node) and x.op != "get_attr"]
    if len(maps) == 2:
        shapes = [x.meta["tensor_meta"].shape for x in maps]
        if shapes[0] != shapes[1]:
            raise RefusedError("it spreads one map over another")
        return Combine(function), (maps[0].name, maps[1].name)
    other = b if maps and a is maps[0] else a
    if not isinstance(other, (int, float)):
        raise RefusedError("arithmetic with a stored tensor")
    if a is maps[0]:
        return Pointwise(lambda x: function(x, other)), (maps[0].name,)
    return Pointwise(lambda x: function(torch.as_tensor(other, dtype=x.dtype, device=x.device), x)), (maps[0].name,)
