"""A net as a list of operations, and which of them act on every cell of a feature map alike.

The tracer is torch's own. What it sees is turned into the few operations below; a node that is none of them, and all
that depends on it, is left to the dense rest and named.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from shiftlens.indexing import RULES
from shiftlens.nn.convolution import OWN_CONVOLUTIONS, PartialConv2d, sides_of_layer
from shiftlens.nn.downsample import BlurPool2d, Polyphase2d, ReducedLayer2d
from shiftlens.nn.padding import Pad2d, SymmetricPad2d

Sides = tuple[int, int, int, int]
"""Left, right, top, bottom."""


@dataclass(frozen=True)
class Convolution:
    """Cross-correlation; `rule` is how the padding is filled, `zeros` or an index rule.

    `partial`: sums are multiplied by the number of taps over the number of them inside the map, before the bias.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    dilation: tuple[int, int]
    sides: Sides
    rule: str
    groups: int
    partial: bool = False


@dataclass(frozen=True)
class Pool:
    """Maximum or average over a window. `divisor` overrides the number of cells that an average divides by."""

    maximum: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    count_include_pad: bool = True
    divisor: int | None = None


@dataclass(frozen=True)
class Pad:
    """An explicit padding layer; `value` where `rule` is None."""

    sides: Sides
    rule: str | None
    value: float = 0.0


@dataclass(frozen=True)
class Pointwise:
    """A function of each number alone."""

    function: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Affine:
    """One factor and one summand for each channel: batch norm in eval mode."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Combine:
    """A function of the same cell of several maps: a sum, a product."""

    function: Callable[..., Tensor]


@dataclass(frozen=True)
class Concatenate:
    """Channels of several maps behind each other."""


@dataclass(frozen=True)
class GlobalPool:
    """Average or maximum over all positions; `keep` as [n, c, 1, 1]."""

    maximum: bool
    keep: bool


Operation = Convolution | Pool | Pad | Pointwise | Affine | Combine | Concatenate | GlobalPool


@dataclass(frozen=True)
class Step:
    """A node that is served: what it does to which other nodes (by name), and the map [c, h, w] it gives."""

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


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


class RefusedError(Exception):
    """A node that acts on a map in a way that is not served; the text says which and why."""


_OWN_PADS: tuple[type[nn.Module], ...] = (Pad2d, SymmetricPad2d)
_OWN_LEAVES: tuple[type[nn.Module], ...] = (*OWN_CONVOLUTIONS, *_OWN_PADS, BlurPool2d, Polyphase2d)


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
    Exception
        Whatever the tracer, or the net's own code under it, raises.
    """
    return fx.GraphModule(module, Tracer().trace(module))


_ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.LogSigmoid,
    nn.Identity,
)
_NOTHING_IN_EVAL: tuple[type[nn.Module], ...] = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
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
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, torch.relu_)
_PAD_LAYERS: dict[type[nn.Module], str] = {
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.CircularPad2d: "circular",
}
_PAD_MODES = {"reflect": "reflect", "replicate": "replicate", "circular": "circular"}


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
    parameter = next(module.parameters())
    example = torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad():
        ShapeProp(graph).propagate(example)
    sources = [node for node in graph.graph.nodes if node.op == "placeholder"]
    steps: dict[str, Step] = {}
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


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    a, b = value
    return int(a), int(b)


def _is_map(node: fx.Node) -> bool:
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return shape is not None and len(shape) == 4


def _operation(graph: fx.GraphModule, node: fx.Node, example: Tensor) -> tuple[Operation, tuple[str, ...]]:
    if node.meta["tensor_meta"].dtype != example.dtype:
        raise RefusedError("it changes the number format")
    if node.op == "call_module":
        return _module(graph, node)
    if node.op == "call_function":
        return _function(graph, node)
    return _method(node)


def _is_global(node: fx.Node) -> bool:
    return node.op in ("call_method", "call_function") and node.target in ("mean", torch.mean)


def _single(node: fx.Node) -> tuple[str]:
    """The one map that a node reads; further maps would be settings that are computed."""
    if len(node.all_input_nodes) != 1:
        raise RefusedError("its settings are computed")
    return (node.all_input_nodes[0].name,)


def _changes_its_input(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(graph.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return bool(node.kwargs.get("inplace")) or node.target in _IN_PLACE


def _unshared(node: fx.Node) -> None:
    """In-place work on a map that others read as well: they would see it before or after, by their order."""
    first = node.args[0]
    if isinstance(first, fx.Node) and len(first.users) > 1:
        raise RefusedError("it changes in place what other parts read as well")


def _module(graph: fx.GraphModule, node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    module = graph.get_submodule(str(node.target))
    kind = type(module)
    if getattr(module, "inplace", False):
        _unshared(node)
    if _has_hooks(module):
        raise RefusedError("it has hooks")
    inputs = _single(node)
    operation: Operation
    if isinstance(module, nn.Conv2d) and kind in OWN_CONVOLUTIONS:
        operation = _convolution(module)
    elif isinstance(module, nn.MaxPool2d) and kind is nn.MaxPool2d:
        if module.return_indices:
            raise RefusedError("it returns indices")
        stride = module.kernel_size if module.stride is None else module.stride
        operation = Pool(True, _pair(module.kernel_size), _pair(stride), _pair(module.dilation), _pair(module.padding))
    elif isinstance(module, nn.AvgPool2d) and kind is nn.AvgPool2d:
        stride = module.kernel_size if module.stride is None else module.stride
        operation = Pool(
            False,
            _pair(module.kernel_size),
            _pair(stride),
            (1, 1),
            _pair(module.padding),
            module.count_include_pad,
            module.divisor_override,
        )
    elif isinstance(module, BlurPool2d) and kind is BlurPool2d:
        operation = _blur(module, node)
    elif isinstance(module, nn.BatchNorm2d) and kind is nn.BatchNorm2d:
        operation = _affine(module)
    elif isinstance(module, (nn.ZeroPad2d, nn.ConstantPad2d)) and kind in (nn.ZeroPad2d, nn.ConstantPad2d):
        operation = Pad(_sides(module.padding), None, float(getattr(module, "value", 0.0)))
    elif isinstance(module, Pad2d) and kind in _OWN_PADS:
        if module.mode not in RULES:
            raise RefusedError(f"padding mode {module.mode!r} is no index rule")
        operation = Pad(module.padding, None if module.mode == "zeros" else module.mode)
    elif kind in _PAD_LAYERS:
        operation = Pad(_sides(module.padding), _PAD_LAYERS[kind])
    elif kind in _ELEMENTWISE or kind in _NOTHING_IN_EVAL:
        if module.training:
            raise RefusedError("it is in training mode")
        # Out of place whatever it says: the map may be a view of another.
        operation = Pointwise(_out_of_place(module))
    elif isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        if module.output_size not in (1, (1, 1)) or getattr(module, "return_indices", False):
            raise RefusedError("adaptive pooling to more than one cell")
        operation = GlobalPool(isinstance(module, nn.AdaptiveMaxPool2d), keep=True)
    else:
        raise RefusedError(f"{kind.__name__} is not a layer that acts on every cell alike")
    return operation, inputs


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _out_of_place(module: nn.Module) -> Callable[[Tensor], Tensor]:
    if isinstance(module, (nn.Identity, *_NOTHING_IN_EVAL)):
        return _same
    if not getattr(module, "inplace", False):
        return module
    copied = type(module).__new__(type(module))
    copied.__dict__ = dict(module.__dict__)
    copied.inplace = False  # type: ignore[assignment]
    return copied


def _same(x: Tensor) -> Tensor:
    return x


def _sides(padding: Any) -> Sides:
    if isinstance(padding, int):
        return padding, padding, padding, padding
    left, right, top, bottom = (int(width) for width in padding)
    return left, right, top, bottom


def _convolution(module: nn.Conv2d) -> Convolution:
    partial = type(module) is PartialConv2d
    # In eval mode random padding is zeros.
    named = str(module.padding_mode)
    mode = "zeros" if partial or named == "random" else named
    if mode not in RULES or (module.training and named == "random"):
        raise RefusedError(f"padding mode {named!r} is no index rule")
    return Convolution(
        module.weight,
        module.bias,
        _pair(module.stride),
        _pair(module.dilation),
        sides_of_layer(module),
        mode,
        module.groups,
        partial,
    )


def _blur(module: BlurPool2d, node: fx.Node) -> Convolution:
    (source,) = node.all_input_nodes
    meta = source.meta["tensor_meta"]
    kernel = module.kernel.to(meta.dtype)
    weight = kernel.expand(meta.shape[1], 1, *kernel.shape).contiguous()
    return Convolution(weight, None, module.stride, (1, 1), module.sides, module.padding_mode, meta.shape[1])


def _affine(module: nn.BatchNorm2d) -> Affine:
    if module.training or module.running_mean is None or module.running_var is None:
        raise RefusedError("batch norm that uses the batch's own statistics")
    scale = (module.running_var.double() + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.double()
    shift = -module.running_mean.double() * scale
    if module.bias is not None:
        shift = shift + module.bias.double()
    kind = module.running_mean.dtype
    return Affine(scale.to(kind), shift.to(kind))


def _function(graph: fx.GraphModule, node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    target = node.target
    if node.kwargs.get("inplace") or target in _IN_PLACE:
        _unshared(node)
    if node.kwargs.get("out") is not None:
        raise RefusedError("it writes into another tensor")
    if target in _SUMS:
        return _sum(graph, node, _SUMS[target])
    if target in _ELEMENTWISE_FUNCTIONS:
        inputs = _single(node)
        rest = node.args[1:]
        kwargs = {name: value for name, value in node.kwargs.items() if name not in ("inplace", "input")}
        function: Any = target
        return Pointwise(lambda x: function(x, *rest, **kwargs)), inputs
    if target is F.dropout or target is F.dropout2d:
        training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
        if training:
            raise RefusedError("dropout in training mode")
        return Pointwise(_same), _single(node)
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
        return GlobalPool(target is F.adaptive_max_pool2d, keep=True), _single(node)
    if target is torch.mean:
        return _mean(node)
    raise RefusedError(f"{getattr(target, '__name__', target)} is not a function that acts on every cell alike")


def _method(node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    name = str(node.target)
    if name == "mean":
        return _mean(node)
    if name not in _ELEMENTWISE_METHODS:
        raise RefusedError(f".{name}() is not a function that acts on every cell alike")
    if name.endswith("_"):
        _unshared(node)
    inputs = _single(node)
    if name in ("contiguous", "clone", "float"):
        return Pointwise(_same), inputs
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
    inputs = _single(node)
    common = {"stride": None, "padding": 0, "ceil_mode": False}
    if maximum:
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        _, kernel, stride, padding, dilation, _, indices = _arguments(
            node, names, common | {"dilation": 1, "return_indices": False}
        )
        if indices:
            raise RefusedError("it returns indices")
        return Pool(True, _pair(kernel), _pair(stride or kernel), _pair(dilation), _pair(padding)), inputs
    names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    _, kernel, stride, padding, _, include, divisor = _arguments(
        node, names, common | {"count_include_pad": True, "divisor_override": None}
    )
    return Pool(False, _pair(kernel), _pair(stride or kernel), (1, 1), _pair(padding), include, divisor), inputs


def _pad_function(node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    inputs = _single(node)
    _, sides, mode, value = _arguments(node, ("input", "pad", "mode", "value"), {"mode": "constant", "value": None})
    if not all(isinstance(width, int) for width in sides) or len(sides) not in (2, 4):
        raise RefusedError("padding of other axes, or of computed width")
    whole = (*sides, 0, 0)[:4]
    if mode == "constant":
        return Pad(_sides(whole), None, float(value or 0.0)), inputs
    if mode not in _PAD_MODES:
        raise RefusedError(f"padding mode {mode!r}")
    return Pad(_sides(whole), _PAD_MODES[mode]), inputs


def _mean(node: fx.Node) -> tuple[Operation, tuple[str, ...]]:
    inputs = _single(node)
    _, axes, keep = _arguments(node, ("input", "dim", "keepdim"), {"keepdim": False})
    if not isinstance(axes, (tuple, list)) or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise RefusedError("a mean over other axes than both of space")
    return GlobalPool(False, keep=bool(keep)), inputs


def _sum(graph: fx.GraphModule, node: fx.Node, function: Callable[..., Tensor]) -> tuple[Operation, tuple[str, ...]]:
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
