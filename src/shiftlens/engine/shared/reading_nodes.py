"""A node of a traced net as an operation on cells that many shifts share, or the reason why it is none."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shiftlens.graph.operators import Operator, operator_of_call, operator_of_layer
from shiftlens.graph.sharing import RefusedError, Shared, Use

_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
_NEW = ("conv", "max pool", "average pool", "linear", "normalisation", "activation", "sum", "product")
"""Kinds of operators whose result shares no memory with what they read, unless they work in place."""


def read(graph: fx.GraphModule, node: fx.Node) -> Shared:
    """The operation of a node, and the names of the maps that it reads.

    Raises
    ------
    RefusedError
        It does something else to maps, or changes what others read as well.
    """
    first = node.args[0] if node.args else None
    if changes_its_input(graph, node) and isinstance(first, fx.Node) and len(first.users) > 1:
        raise RefusedError("it changes in place what other parts read as well")
    if node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        if has_hooks(layer):
            raise RefusedError("it has hooks")
        entry = operator_of_layer(layer, exact=True)
        if entry is None or entry.share is None:
            raise RefusedError(f"{type(layer).__name__} is not a layer that acts on every cell alike")
        settings = entry.bind((), {name: getattr(layer, name) for name in entry.arguments if hasattr(layer, name)})
        return entry.share(Use(node, layer, settings, _out_of_place(layer)))
    entry = operator_of_call(node.target)
    if entry is None or entry.share is None:
        name = f".{node.target}()" if node.op == "call_method" else getattr(node.target, "__name__", node.target)
        raise RefusedError(f"{name} is not a function that acts on every cell alike")
    if node.kwargs.get("out") is not None:
        raise RefusedError("it writes into another tensor")
    settings = entry.bind(node.args, node.kwargs)
    missing = [name for name in entry.arguments if name not in settings]
    if missing:
        raise RefusedError(f"it lacks {missing[0]}")
    return entry.share(Use(node, None, settings, _function(node, entry)))


def has_hooks(module: nn.Module) -> bool:
    """Whether something runs before or after a layer."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def refuse_replaced(module: nn.Module, where: str) -> None:
    """Refuse a layer that does not do what its class does, by a method that was replaced on it or on torch's class."""
    kind = type(module)
    for name in vars(module):
        if callable(getattr(kind, name, None)):
            raise RefusedError(f"{name} of {where} was replaced")
    if kind.__module__.startswith("torch.") and not isinstance(module, fx.GraphModule):
        for name in ("forward", "_conv_forward"):
            home = getattr(getattr(kind, name, None), "__module__", "torch")
            if not str(home).startswith("torch"):
                raise RefusedError(f"{name} of {kind.__name__} was replaced")


def changes_its_input(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node works in place."""
    if node.op == "call_module":
        return bool(getattr(graph.get_submodule(str(node.target)), "inplace", False))
    name = str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", ""))
    if name.endswith("_") and not name.endswith("__"):
        return True
    return node.op == "call_function" and (node.target in _IN_PLACE or bool(_arguments(node).get("inplace")))


def refuse_aliased(graph: fx.GraphModule, node: fx.Node) -> None:
    """Refuse work in place on what another part reads under another name: a dropout in eval mode hands its input on."""
    name, direct = node.name, True
    while node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
        # The nodes that read its input directly are the business of `read`.
        if len(node.users) > 1 and not direct:
            raise RefusedError(f"{name} changes in place what other parts read as well")
        if _makes_its_own(graph, node):
            return
        direct = False


def _makes_its_own(graph: fx.GraphModule, node: fx.Node) -> bool:
    if changes_its_input(graph, node) or node.kwargs.get("out") is not None:
        return False
    if node.op == "call_module":
        entry = operator_of_layer(graph.get_submodule(str(node.target)))
    elif node.op in ("call_function", "call_method"):
        entry = operator_of_call(node.target)
    else:
        return False
    return entry is not None and (entry.kind in _NEW or entry.name in ("cat", "clone", "mean", "abs"))


def _out_of_place(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    if not getattr(layer, "inplace", False):
        return layer
    copied = type(layer).__new__(type(layer))
    copied.__dict__ = dict(layer.__dict__)
    copied.inplace = False  # type: ignore[assignment]
    return copied


def _function(node: fx.Node, entry: Operator) -> Callable[[Tensor], Tensor]:
    """A call as a function of its first argument that leaves it as it is."""
    rest, given = node.args[1:], {key: value for key, value in node.kwargs.items() if key not in ("input", "inplace")}
    if node.op == "call_method":
        return lambda x: getattr(x, entry.name)(*rest, **given)
    named = _arguments(node)
    raw = str(getattr(node.target, "__name__", ""))
    name, function = raw.removesuffix("_"), node.target
    if raw.endswith("_") or "inplace" in named:
        function = getattr(F, name, None) or getattr(torch, name)
    if "inplace" in named:
        rest, given = (), {key: value for key, value in named.items() if key not in ("input", "inplace")}
    call: Any = function
    return lambda x: call(x, *rest, **given)


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments that a call was given by name; of a Python function also those that were given by place."""
    if not inspect.isfunction(node.target):
        return dict(node.kwargs)
    return dict(inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments)
