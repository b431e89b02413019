"""A net as a list of operations, and which of them act on every cell of a feature map alike.

The tracer is torch's own. What it sees is turned into the few operations of `operations`; a node that is none of them,
and all that depends on it, is left to the dense rest and named.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from shiftlens.engine.shared.operations import GlobalPool, Operation, Step
from shiftlens.engine.shared.reading_calls import read_function, read_method
from shiftlens.engine.shared.reading_layers import ELEMENTWISE, OWN_PADS, read_layer
from shiftlens.engine.shared.refusing import IN_PLACE, RefusedError, has_hooks, refuse_replaced
from shiftlens.nn.convolution import OWN_CONVOLUTIONS
from shiftlens.nn.downsample import BlurPool2d, Polyphase2d, ReducedLayer2d


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


_OWN_LEAVES: tuple[type[nn.Module], ...] = (*OWN_CONVOLUTIONS, *OWN_PADS, BlurPool2d, Polyphase2d)


class Tracer(fx.Tracer):
    """torch's tracer, for which the layers of `shiftlens.nn` are whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        # It computes with sizes, which a stand-in for a tensor has not.
        sized = isinstance(m, ReducedLayer2d) and (m._ceil or m._whole)
        return sized or type(m) in _OWN_LEAVES or super().is_leaf_module(m, module_qualified_name)


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
        if _changes_its_input(graph, node):
            _refuse_aliased(graph, node)
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
            if _changes_its_input(graph, node):
                # Whoever reads that map afterwards reads what this node left.
                ended.update(inner.name for inner in inputs)
            continue
        steps[node.name] = Step(node.name, operation, names, tuple(node.meta["tensor_meta"].shape[1:]))
        served.add(node.name)
        if isinstance(operation, GlobalPool):
            ended.add(node.name)
    return Trace(graph, sources[0].name, shape, tuple(steps.values()), refused)


_MAKE_THEIR_OWN = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.Linear)
_MAKE_THEIR_OWN_FUNCTIONS = (operator.add, operator.sub, operator.mul, torch.add, torch.sub, torch.mul, torch.cat)
"""Layers and functions whose result shares no memory with what they read."""


def _refuse_aliased(graph: fx.GraphModule, node: fx.Node) -> None:
    """Refuse work in place on what another part reads under another name: a dropout in eval mode hands its input on."""
    name, direct = node.name, True
    while node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
        # Of what it reads itself, the step that reads it is told (`unshared`).
        if len(node.users) > 1 and not direct:
            raise RefusedError(f"{name} changes in place what other parts read as well")
        if _makes_its_own(graph, node):
            return
        direct = False


def _makes_its_own(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        works_apart = type(module) in ELEMENTWISE and not getattr(module, "inplace", False)
        return isinstance(module, _MAKE_THEIR_OWN) or (works_apart and type(module) is not nn.Identity)
    if node.op == "call_function":
        return node.target in _MAKE_THEIR_OWN_FUNCTIONS and node.kwargs.get("out") is None
    return node.op == "call_method" and node.target in ("clone", "relu", "sigmoid", "tanh", "abs", "mean")


def _is_map(node: fx.Node) -> bool:
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return shape is not None and len(shape) == 4


def _operation(graph: fx.GraphModule, node: fx.Node, example: Tensor) -> tuple[Operation, tuple[str, ...]]:
    if node.meta["tensor_meta"].dtype != example.dtype:
        raise RefusedError("it changes the number format")
    if node.op == "call_module":
        return read_layer(graph, node)
    if node.op == "call_function":
        return read_function(node)
    return read_method(node)


def _is_global(node: fx.Node) -> bool:
    return node.op in ("call_method", "call_function") and node.target in ("mean", torch.mean)


def _changes_its_input(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(graph.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return bool(node.kwargs.get("inplace")) or node.target in IN_PLACE
