"""What reading a layer and reading a call have in common: refusals, and settings in one form."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from shiftlens.engine.shared.operations import Sides

IN_PLACE = (operator.iadd, operator.isub, operator.imul, torch.relu_)
"""Functions that change what they read."""


class RefusedError(Exception):
    """A node that acts on a map in a way that is not served; the text says which and why."""


def pair(value: Any) -> tuple[int, int]:
    """A setting for both axes, rows first."""
    if isinstance(value, int):
        return value, value
    a, b = value
    return int(a), int(b)


def sides_of(padding: Any) -> Sides:
    """A padding setting as PyTorch's pad layers give it."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    left, right, top, bottom = (int(width) for width in padding)
    return left, right, top, bottom


def single(node: fx.Node) -> tuple[str]:
    """The one map that a node reads; further maps would be settings that are computed."""
    if len(node.all_input_nodes) != 1:
        raise RefusedError("its settings are computed")
    return (node.all_input_nodes[0].name,)


def unshared(node: fx.Node) -> None:
    """In-place work on a map that others read as well: they would see it before or after, by their order."""
    first = node.args[0]
    if isinstance(first, fx.Node) and len(first.users) > 1:
        raise RefusedError("it changes in place what other parts read as well")


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


def same(x: Tensor) -> Tensor:
    """Nothing is done to it."""
    return x
