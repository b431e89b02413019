"""Convolution, bias and ReLU in one go, as cuDNN offers it: the map is written once instead of three times."""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

_RELU = (F.relu, torch.relu, torch.relu_)


class ConvolutionRelu(nn.Module):
    """A convolution, perhaps another branch added to it, and the ReLU behind; off a GPU, one after the other.

    cuDNN does not have every shape (three channels in, for one): a layer that it refuses stays as it is.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.refused = False

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Maps [n, c, h, w], and perhaps maps [n, k, h', w'] to be added, to maps [n, k, h', w']."""
        if x.is_cuda and not self.refused:
            try:
                return self._fused(x, other)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                self.refused = True
        out: Tensor = self.convolution(x)
        return F.relu(out if other is None else out + other)

    def _fused(self, x: Tensor, other: Tensor | None) -> Tensor:
        layer = self.convolution
        how: tuple[Any, ...] = (layer.stride, layer.padding, layer.dilation, layer.groups)
        if other is None:
            return torch.cudnn_convolution_relu(x, layer.weight, layer.bias, *how)
        return torch.cudnn_convolution_add_relu(x, layer.weight, other, 1.0, layer.bias, *how)


def fuse_relu(net: nn.Module) -> tuple[nn.Module, int]:
    """Put convolutions and the ReLUs right behind them together; returns the net and how many were.

    Only in a net that has been traced (folding batch norm does that); it is changed in place.
    """
    if not isinstance(net, fx.GraphModule):
        return net, 0
    modules = dict(net.named_modules())
    n_fused = 0
    for node in list(net.graph.nodes):
        if not _is_relu(node, modules):
            continue
        before = node.args[0]
        pair = (before,) if _is_plain(before, modules) else _summands(before, modules)
        if pair is None:
            continue
        first = pair[0]
        layer = modules[str(first.target)]
        name = f"fused_{n_fused}"
        net.add_submodule(name, ConvolutionRelu(layer))
        with net.graph.inserting_before(node):
            joined = net.graph.call_module(name, (first.args[0], *pair[1:]))
        node.replace_all_uses_with(joined)
        net.graph.erase_node(node)
        if before is not first:
            net.graph.erase_node(before)
        net.graph.erase_node(first)
        n_fused += 1
    if n_fused:
        net.graph.lint()
        net.recompile()
    return net, n_fused


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELU


def _is_plain(node: object, modules: dict[str, nn.Module]) -> bool:
    """Whether this is a convolution with zeros for padding and a bias, and nobody else sees what it gives."""
    if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) != 1 or len(node.args) != 1:
        return False
    layer = modules[str(node.target)]
    return (
        type(layer) is nn.Conv2d
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and layer.bias is not None
        and not layer._forward_hooks
    )


def _summands(node: object, modules: dict[str, nn.Module]) -> tuple[fx.Node, fx.Node] | None:
    """Of a sum that nobody else sees: a convolution that comes last of the two, and the other summand."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or len(node.users) != 1 or node.kwargs:
        return None
    if node.target not in (operator.add, operator.iadd, torch.add) or len(node.args) != 2:
        return None
    a, b = node.args
    if not isinstance(a, fx.Node) or not isinstance(b, fx.Node) or a is b:
        return None
    for first, other in ((a, b), (b, a)):
        if _is_plain(first, modules):
            return first, other
    return None


@cache
def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the device's libraries do this, and do it right, for one small layer."""
    if device.type != "cuda":
        return False
    layer = nn.Conv2d(8, 16, 3, padding=1).to(device, dtype).to(memory_format=torch.channels_last)
    x = torch.randn(4, 8, 8, 8, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            plain, other = layer(x), torch.randn(4, 16, 8, 8, device=device, dtype=dtype)
            other = other.contiguous(memory_format=torch.channels_last)
            differences = [
                (ConvolutionRelu(layer)._fused(x, None).double() - F.relu(plain.double())).abs().max(),
                (ConvolutionRelu(layer)._fused(x, other).double() - F.relu(plain.double() + other)).abs().max(),
            ]
            return max(float(d) for d in differences) < 0.05
    except Exception:  # an older library, or a number format that it does not have
        return False
