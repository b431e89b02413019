"""Something runs that the classes do not tell of: patches and hooks."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from harness import N_CLASSES, Small, equal, told
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class Three(nn.Module):
    """A plain net with batch norm, to be patched."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = told(nn.BatchNorm2d(6))
        self.act = nn.ReLU()
        self.second = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.act(self.bn(self.conv(x)))).relu().mean((2, 3)))


@equal(shares=True)
def unpatched() -> nn.Module:
    return Three()


@equal(fast=True)
def instance_forward() -> nn.Module:
    net = Three()
    net.conv.forward = types.MethodType(
        lambda self, x: F.conv2d(x, self.weight.flip(3), self.bias, padding=1), net.conv
    )
    return net


@equal(fast=True)
def instance_conv_forward() -> nn.Module:
    net = Three()

    def standardised(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight - weight.mean((1, 2, 3), keepdim=True), bias, self.stride, self.padding)

    net.second._conv_forward = types.MethodType(standardised, net.second)
    return net


@equal()
def partial_forward() -> nn.Module:
    net = Three()
    net.act.forward = partial(F.leaky_relu, negative_slope=0.5)
    return net


@equal()
def patched_batch_norm() -> nn.Module:
    net = Three()
    net.bn.forward = lambda x: x * 0.5 + 0.1
    return net


class FlippedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(2)).flip(2)


class StandardisedConv(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return super()._conv_forward(x, weight, bias)


@equal()
class SubclassForward(Three):
    def __init__(self) -> None:
        super().__init__()
        self.conv = FlippedConv(3, 6, 3, padding=1)


@equal()
class SubclassConvForward(Three):
    def __init__(self) -> None:
        super().__init__()
        self.conv = StandardisedConv(3, 6, 3, padding=1)


@equal()
def class_swapped() -> nn.Module:
    net = Three()
    net.second.__class__ = StandardisedConv
    return net


@equal()
def patched_root_forward() -> nn.Module:
    net = Three().eval()  # the closure keeps this very net, whatever is copied
    plain = net.forward
    net.forward = lambda x: plain(x.flip(3)) + plain(x)
    return net


class Called(Three):
    def __call__(self, x: Tensor) -> Any:
        return super().__call__(x.roll(1, 3))


@equal()
def own_call() -> nn.Module:
    return Called()


@equal(fast=True)
def root_pre_hook() -> nn.Module:
    net = Three()
    net.register_forward_pre_hook(lambda module, args: (args[0] ** 2,))
    return net


@equal()
def root_hook() -> nn.Module:
    net = Three()
    net.register_forward_hook(lambda module, args, scores: scores * args[0].amax((1, 2, 3))[:, None])
    return net


@equal()
def inner_pre_hook() -> nn.Module:
    net = Three()
    net.second.register_forward_pre_hook(lambda module, args: (args[0].roll(1, 2),))
    return net


@equal()
def inner_hook() -> nn.Module:
    net = Three()
    net.conv.register_forward_hook(lambda module, args, maps: maps * torch.linspace(0, 1, maps.shape[3]))
    return net


@equal()
def hook_with_kwargs() -> nn.Module:
    net = Three()
    net.bn.register_forward_hook(lambda module, args, kwargs, maps: maps + args[0].mean(1, True), with_kwargs=True)
    return net


@equal()
def hook_that_always_runs() -> nn.Module:
    net = Three()
    net.act.register_forward_hook(lambda module, args, maps: maps.square(), always_call=True)
    return net


@equal()
def backward_hook() -> nn.Module:
    net = Three()
    net.conv.register_full_backward_hook(lambda module, before, after: None)
    return net


@equal()
def feature_hook() -> nn.Module:
    """Keeps maps for a plot, as explanation tools do."""
    net = Three()
    kept: dict[str, Tensor] = {}
    net.second.register_forward_hook(lambda module, args, maps: kept.update(maps=maps.detach()))
    return net


@contextmanager
def _hook_on_every_convolution() -> Iterator[None]:
    def double(module: nn.Module, args: Any, found: Any) -> Any:
        return found * 1.5 if isinstance(module, nn.Conv2d) else None

    handle = register_module_forward_hook(double)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _pre_hook_on_every_convolution() -> Iterator[None]:
    def mirrored(module: nn.Module, args: Any) -> Any:
        return (args[0].flip(3),) if isinstance(module, nn.Conv2d) else None

    handle = register_module_forward_pre_hook(mirrored)
    try:
        yield
    finally:
        handle.remove()


@equal(around=_hook_on_every_convolution)
def global_hook() -> nn.Module:
    return Three()


@equal(around=_pre_hook_on_every_convolution)
def global_pre_hook() -> nn.Module:
    return Three()


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@equal(around=lambda: _patched(nn.Conv2d, "forward", lambda self, x: self._conv_forward(x * 2, self.weight, self.bias)))
def patched_class_forward() -> nn.Module:
    return Three()


@equal(around=lambda: _patched(nn.Conv2d, "_conv_forward", lambda self, x, w, b: F.conv2d(x, w.abs(), b, self.stride)))
def patched_class_conv_forward() -> nn.Module:
    return Three()


@equal(around=lambda: _patched(nn.ReLU, "forward", lambda self, x: F.relu(x + 0.5)))
def patched_class_activation() -> nn.Module:
    return Three()


@equal(around=lambda: _patched(F, "batch_norm", lambda x, *args, **kwargs: x * 0.3))
def patched_function() -> nn.Module:
    return Three()


@equal()
class LayersByGetattr(Three):
    """Finds its layers by a lookup of its own."""

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__("second" if name == "alias" else name)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.alias(self.conv(x)).relu().mean((2, 3)))


@equal()
class LambdaAttribute(Small):
    """Its activation is a function kept in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.act = torch.sin

    def middle(self, x: Tensor) -> Tensor:
        return self.act(x).mean((2, 3))
