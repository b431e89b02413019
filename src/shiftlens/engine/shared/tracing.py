"""A net as a list of operations, and which of them act on every cell of a feature map alike.

The tracer is torch's own. What it sees is turned into the few operations of `operations`; a node that is none of them,
and all that depends on it, is left to the dense rest and named.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from shiftlens.engine.shared.reading_nodes import changes_its_input, has_hooks, read, refuse_aliased, refuse_replaced
from shiftlens.graph.operations import GlobalPool, Step
from shiftlens.graph.operators import operator_of_layer
from shiftlens.graph.sharing import RefusedError, Shared
from shiftlens.nn.downsample import ReducedLayer2d


@dataclass(frozen=True)
class Trace:
    """A traced net.

    Attributes
    ----------
    module
        The traced net, to be run or cut.
    source
        Name of the input.
    steps
        What is served, in the order of the net.
    refused
        The first thing that gives a map, is not served, and why, for a person to read; empty if all up to the head is.
    """

    module: fx.GraphModule
    source: str
    source_shape: tuple[int, ...]
    steps: tuple[Step, ...]
    refused: str


class _Proxy(fx.Proxy):
    """A stand-in for a tensor that records `x += y` as work in place; torch's own records `x + y`."""

    def _in_place(self, function: Callable[..., Any], other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)


class Tracer(fx.Tracer):
    """torch's tracer, for which the layers of `shiftlens.nn` are whole."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A node as what stands for a tensor."""
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        # It computes with sizes, which a stand-in for a tensor has not.
        sized = isinstance(m, ReducedLayer2d) and (m._ceil or m._whole)
        ours = type(m).__module__.startswith("shiftlens.nn.") and operator_of_layer(m, exact=True) is not None
        return sized or ours or super().is_leaf_module(m, module_qualified_name)


def trace_module(module: nn.Module) -> fx.GraphModule:
    """Trace a net.

    Raises
    ------
    RefusedError
        Something runs that the classes do not tell of: a method replaced on one layer, hooks on a part of the net.
    Exception
        Whatever the tracer, or the net's own code under it, raises.
    """
    tracer = Tracer()
    for path, part in module.named_modules():
        refuse_replaced(part, path or "the net itself")
        if has_hooks(part) and (not path or not tracer.is_leaf_module(part, path)):
            raise RefusedError(f"{path or 'the net itself'} has hooks")
    return fx.GraphModule(module, tracer.trace(module))


def trace(module: nn.Module, shape: tuple[int, int, int]) -> Trace:
    """Trace a net in eval mode and find what of it is served.

    Parameters
    ----------
    module
        The net as it will compute: folded, cast.
    shape
        [c, h, w] of its input.

    Raises
    ------
    Exception
        Whatever the tracer raises for a net that branches on its input, and the net on a picture of this shape.
    """
    graph = trace_module(module)
    tensors = chain(module.parameters(), module.buffers())
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    example = torch.zeros(1, *shape, dtype=like.dtype, device=like.device)
    with torch.no_grad():
        ShapeProp(graph).propagate(example)
    sources = [node for node in graph.graph.nodes if node.op == "placeholder"]
    steps: dict[str, Step] = {}
    for node in graph.graph.nodes:
        if changes_its_input(graph, node):
            refuse_aliased(graph, node)
    served = {sources[0].name}
    refused = ""
    # A node after which nothing is a map any more ends the served part on its own branch.
    ended: set[str] = set()
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "get_attr", "output"):
            continue
        inputs = [inner for inner in node.all_input_nodes if inner.op != "get_attr"]
        unknown = [inner.name for inner in inputs if inner.name not in served or inner.name in ended]
        if unknown or not inputs:
            if len(unknown) < len(inputs):
                refused = refused or f"{node.name}: it also reads {unknown[0]}, which is no map of single cells"
            continue
        if not _is_map(node) and not _is_global(node):
            continue  # the head begins here: a matter of the rest
        try:
            operation, names = _operation(graph, node, example)
        except RefusedError as error:
            refused = refused or f"{node.name}: {error}"
            if changes_its_input(graph, node):
                # Whoever reads that map afterwards reads what this node left.
                ended.update(inner.name for inner in inputs)
            continue
        steps[node.name] = Step(node.name, operation, names, tuple(node.meta["tensor_meta"].shape[1:]))
        served.add(node.name)
        if isinstance(operation, GlobalPool):
            ended.add(node.name)
    return Trace(graph, sources[0].name, shape, tuple(steps.values()), refused)


def _is_map(node: fx.Node) -> bool:
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return shape is not None and len(shape) == 4


def _operation(graph: fx.GraphModule, node: fx.Node, example: Tensor) -> Shared:
    if node.meta["tensor_meta"].dtype != example.dtype:
        raise RefusedError("it changes the number format")
    return read(graph, node)


def _is_global(node: fx.Node) -> bool:
    return node.op in ("call_method", "call_function") and node.target in ("mean", torch.mean)
