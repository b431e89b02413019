"""How each operator is computed on cells that many shifts share, or the reason why it is not.

Each function takes one use of an operator by a traced net and gives one of the few operations of `operations`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from shiftlens.graph.arguments import pair
from shiftlens.graph.operations import (
    Affine,
    Combine,
    Concatenate,
    Convolution,
    GlobalPool,
    Operation,
    Pad,
    Pointwise,
    Pool,
    Sides,
)
from shiftlens.indexing import RULES
from shiftlens.nn.convolution import PartialConv2d, sides_of_layer
from shiftlens.nn.padding import Pad2d

Shared = tuple[Operation, tuple[str, ...]]
"""An operation, and the names of the nodes whose maps it reads."""


class RefusedError(Exception):
    """A node that acts on a map in a way that is not served; the text says which and why."""


@dataclass(frozen=True)
class Use:
    """One use of an operator in a traced net.

    `layer` is None for a call; `settings` are the operator's arguments by name; `function` is the operator as a
    function of one map that leaves its input as it is.
    """

    node: fx.Node
    layer: nn.Module | None
    settings: dict[str, Any]
    function: Callable[[Tensor], Tensor]

    @property
    def map(self) -> tuple[str]:
        """The one map that is read; further ones would be settings that are computed."""
        if len(self.node.all_input_nodes) != 1:
            raise RefusedError("its settings are computed")
        return (self.node.all_input_nodes[0].name,)


def pointwise(use: Use) -> Shared:
    """A function of each number alone."""
    if use.layer is not None and use.layer.training:
        raise RefusedError("it is in training mode")
    return Pointwise(use.function), use.map


def nothing(use: Use) -> Shared:
    """What does nothing to numbers, in evaluation mode."""
    training = use.settings.get("training", False) if use.layer is None else use.layer.training
    if training:
        raise RefusedError("it is in training mode")
    return Pointwise(_same), use.map


def convolution(use: Use) -> Shared:
    """A convolution whose weights are the layer's own."""
    layer = use.layer
    if not isinstance(layer, nn.Conv2d):
        raise RefusedError("a convolution whose weights belong to no layer")
    partial, named = type(layer) is PartialConv2d, str(layer.padding_mode)
    # In eval mode random padding is zeros.
    mode = "zeros" if partial or named == "random" else named
    if mode not in RULES or (layer.training and named == "random"):
        raise RefusedError(f"padding mode {named!r} is no index rule")
    stride, dilation = pair(layer.stride), pair(layer.dilation)
    sides = sides_of_layer(layer)
    return Convolution(layer.weight, layer.bias, stride, dilation, sides, mode, layer.groups, partial), use.map


def blur(use: Use) -> Shared:
    """A `BlurPool2d`: a convolution of each channel alone."""
    layer: Any = use.layer
    meta = use.node.all_input_nodes[0].meta["tensor_meta"]
    kernel, n_channels = layer.kernel.to(meta.dtype), meta.shape[1]
    weight = kernel.expand(n_channels, 1, *kernel.shape).contiguous()
    made = Convolution(weight, None, layer.stride, (1, 1), layer.sides, layer.padding_mode, n_channels)
    return made, use.map


def max_pool(use: Use) -> Shared:
    """A maximum over windows."""
    s = use.settings
    if s["return_indices"]:
        raise RefusedError("it returns indices")
    kernel = pair(s["kernel_size"])
    return Pool(True, kernel, pair(s["stride"] or kernel), pair(s["dilation"]), pair(s["padding"])), use.map


def average_pool(use: Use) -> Shared:
    """An average over windows."""
    s = use.settings
    kernel = pair(s["kernel_size"])
    counts = (s["count_include_pad"], s["divisor_override"])
    return Pool(False, kernel, pair(s["stride"] or kernel), (1, 1), pair(s["padding"]), *counts), use.map


def global_pool(maximum: bool, use: Use) -> Shared:
    """Adaptive pooling to a single cell."""
    if use.settings["output_size"] not in (1, (1, 1), [1, 1]) or use.settings.get("return_indices"):
        raise RefusedError("adaptive pooling to more than one cell")
    return GlobalPool(maximum, keep=True), use.map


def mean(use: Use) -> Shared:
    """A mean over both axes of space."""
    axes = use.settings["dim"]
    if not isinstance(axes, (tuple, list)) or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise RefusedError("a mean over other axes than both of space")
    return GlobalPool(False, keep=bool(use.settings["keepdim"])), use.map


def pad(use: Use) -> Shared:
    """Explicit padding."""
    if use.layer is not None:
        rule, value = padding_of(use.layer)
        sides = _sides(use.layer.padding)
    else:
        rule, value, sides = *_named_rule(use.settings), _sides(use.settings["pad"])
    if rule is not None and rule not in RULES:
        raise RefusedError(f"padding mode {rule!r} is no index rule")
    return Pad(sides, rule, value), use.map


def affine(use: Use) -> Shared:
    """Batch norm in eval mode: one factor and one summand for each channel."""
    norm = use.layer
    if not isinstance(norm, nn.BatchNorm2d):
        raise RefusedError("batch norm whose statistics belong to no layer")
    if norm.training or norm.running_mean is None or norm.running_var is None:
        raise RefusedError("batch norm that uses the batch's own statistics")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    dtype = norm.running_mean.dtype
    return Affine(scale.to(dtype), shift.to(dtype)), use.map


def concatenate(use: Use) -> Shared:
    """Channels of several maps one after another."""
    maps = use.settings["tensors"]
    if use.settings["dim"] not in (1, -3) or not all(isinstance(part, fx.Node) for part in maps):
        raise RefusedError("concatenation along another axis than channels")
    return Concatenate(), tuple(part.name for part in maps)


def combine(function: Callable[..., Tensor], use: Use) -> Shared:
    """A function of the same cell of two maps, or of a map and a number."""
    node = use.node
    if node.kwargs or len(node.args) != 2:
        raise RefusedError("arithmetic with options")
    a, b = node.args
    maps = [x for x in (a, b) if isinstance(x, fx.Node) and x.op != "get_attr"]
    if len(maps) == 2:
        if maps[0].meta["tensor_meta"].shape != maps[1].meta["tensor_meta"].shape:
            raise RefusedError("it spreads one map over another")
        return Combine(function), (maps[0].name, maps[1].name)
    other = b if maps and a is maps[0] else a
    if not isinstance(other, (int, float)):
        raise RefusedError("arithmetic with a stored tensor")
    if a is maps[0]:
        return Pointwise(lambda x: function(x, other)), (maps[0].name,)
    return Pointwise(lambda x: function(x.new_full((), other), x)), (maps[0].name,)


_LAYER_RULES: dict[type[nn.Module], str] = {
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.CircularPad2d: "circular",
}


def padding_of(layer: nn.Module) -> tuple[str | None, float]:
    """The padding mode of a layer that does nothing but pad, or None and the number that it pads with."""
    if isinstance(layer, Pad2d):
        return (None if layer.mode == "zeros" else layer.mode), 0.0
    rule = next((rule for kind, rule in _LAYER_RULES.items() if isinstance(layer, kind)), None)
    return rule, float(getattr(layer, "value", 0.0))


def _named_rule(settings: dict[str, Any]) -> tuple[str | None, float]:
    mode = settings["mode"]
    return (None if mode == "constant" else str(mode)), float(settings["value"] or 0.0)


def _sides(padding: Any) -> Sides:
    widths = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    if not all(isinstance(width, int) for width in widths) or len(widths) not in (2, 4):
        raise RefusedError("padding of other axes, or of computed width")
    left, right, top, bottom = (*widths, 0, 0)[:4]
    return left, right, top, bottom


def _same(x: Tensor) -> Tensor:
    return x
