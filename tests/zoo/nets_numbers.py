"""Number formats and code that is not Python: double, half, complex, fft, quantised, scripted, own autograd."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from harness import N_CLASSES, H, Small, W, equal, one_by_one, refused, told
from torch import Tensor, fx, nn


class ClippedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad.clamp(-1, 1) * (x > 0)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x * 4).round() / 4

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@equal()
class OwnAutograd(Small):
    def middle(self, x: Tensor) -> Tensor:
        return ClippedGradient.apply(x).mean((2, 3))


@equal()
class RoundedWeights(Small):
    """Quantisation-aware training: kernels are rounded on the way."""

    def forward(self, x: Tensor) -> Tensor:
        maps = F.conv2d(x, StraightThrough.apply(self.conv.weight), self.conv.bias, padding=1)
        return self.head(maps.relu().mean((2, 3)))


@equal()
class SpectrumHead(Small):
    def __init__(self) -> None:
        super().__init__(6 * H * (W // 2 + 1))

    def middle(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x, norm="ortho").abs().flatten(1)


@equal(fast=True)
class GlobalFilter(Small):
    """A learned filter in the frequency domain, complex parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(6, H, W // 2 + 1, dtype=torch.complex64))

    def middle(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=(H, W)).relu().mean((2, 3))


@equal()
class ComplexBuffer(Small):
    """Phases that are kept in a complex buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("phase", torch.polar(torch.ones(W), torch.linspace(0, 6, W)))

    def middle(self, x: Tensor) -> Tensor:
        return (x * self.phase).sum(-1).abs().mean(2)


@equal()
class ComplexConv(Small):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(3, 3, 3, padding=1, dtype=torch.complex64)

    def middle(self, x: Tensor) -> Tensor:
        z = self.second(torch.complex(x[:, :3], x[:, 3:]))
        return torch.cat([z.abs(), z.real], 1).mean((2, 3))


@equal()
class ComplexWithBatchNorm(ComplexConv):
    """Both a complex layer and something to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = told(nn.BatchNorm2d(6))

    def middle(self, x: Tensor) -> Tensor:
        return super().middle(self.bn(x))


@equal(fast=True)
class DoubleInside(Small):
    """A sum that is taken in double."""

    def middle(self, x: Tensor) -> Tensor:
        return x.double().exp().cumsum(3).log().mean((2, 3)).float()


@equal()
class DoubleHead(Small):
    """The head's weights are double: the net casts what it gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.head.double()

    def middle(self, x: Tensor) -> Tensor:
        return x.relu().mean((2, 3)).double()


@equal()
class DoubleStem(Small):
    """The stem computes in double and says so itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x.double()).float().relu().mean((2, 3)))


@equal()
class DoubleConstant(Small):
    """A NumPy number turns half of the head into double."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.linspace(0.5, 2, N_CLASSES, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double() * self.scale


@refused("call .float() first")
def double_net() -> nn.Module:
    return Small().double()


@equal()
class HalfInside(Small):
    """A layer in half precision, as checkpoints of large nets have it."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(6, 6, 1).half()

    def middle(self, x: Tensor) -> Tensor:
        weight, bias = self.second.weight.float(), self.second.bias.float()
        return F.conv2d(x, weight, bias).relu().mean((2, 3))


@equal()
class Bfloat16Table(Small):
    """A table of positions that is kept in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(6, H, W).bfloat16())

    def middle(self, x: Tensor) -> Tensor:
        return (x * self.table).relu().mean((2, 3))


@equal()
class IntegerInside(Small):
    def middle(self, x: Tensor) -> Tensor:
        counts = (x.tanh() * 1000).to(torch.int32) // 250
        return counts.float().mean((2, 3)) / 4


@equal()
class FixedFakeQuant(Small):
    def middle(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x.relu().mean((2, 3)), 0.01, 0, 0, 255)


@one_by_one()
class RangeOfTheBatch(Small):
    """Dynamic quantisation by hand: the range of the whole batch."""

    def middle(self, x: Tensor) -> Tensor:
        x = x.relu()
        step = x.max() / 15
        return ((x / step).round() * step).mean((2, 3))


@one_by_one()
def dynamic_int8() -> nn.Module:
    """torch's dynamic quantisation takes one range for the whole batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised: nn.Module = torch.ao.quantization.quantize_dynamic(_Wide().eval(), {nn.Linear}, dtype=torch.qint8)
    return quantised


class _Wide(Small):
    def __init__(self) -> None:
        super().__init__(6 * H * W)

    def middle(self, x: Tensor) -> Tensor:
        return x.relu().flatten(1)


@equal()
class QuantisedPerImage(Small):
    """A range for each image."""

    def middle(self, x: Tensor) -> Tensor:
        step = x.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-6) / 63
        return ((x / step).round() * step).relu().mean((2, 3))


@equal(views=("ordinary",))
class SharedOffset(Small):
    """All logits carry the same offset."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 200


@equal()
class DoubleWithHugeOffset(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double() - 1e7


@equal()
class TinyLogits(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1e-3


@refused("TorchScript")
def scripted() -> nn.Module:
    return torch.jit.script(_Wide().eval())


@refused("TorchScript")
def traced() -> nn.Module:
    return torch.jit.trace(_Wide().eval(), torch.zeros(2, 3, H, W))


@refused("TorchScript")
def scripted_part() -> nn.Module:
    net = Small()
    net.conv = torch.jit.script(net.conv)
    return net


class _Straight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 6, 3), told(nn.BatchNorm2d(6)), nn.Linear(6, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.bn(self.conv(x))).mean((2, 3)))


@equal()
def graph_module() -> nn.Module:
    return fx.symbolic_trace(_Straight())


@equal()
def rewritten_graph() -> nn.Module:
    """A graph whose activation was replaced by hand."""
    net = fx.symbolic_trace(_Straight())
    for node in net.graph.nodes:
        if node.target is F.relu:
            node.target = torch.tanh
            node.kwargs = {}
    net.recompile()
    return net


@equal()
class ErfGelu(Small):
    def middle(self, x: Tensor) -> Tensor:
        return (0.5 * x * (1 + torch.erf(x / math.sqrt(2)))).mean((2, 3))


@equal()
class VmapInside(Small):
    def middle(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda image: (image * image.softmax(0)).sum((1, 2)) / 10)(x)


@equal()
class GradientInside(Small):
    """Features are the gradient of an energy, taken in forward."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.func.grad(lambda y: (y**3).tanh().sum())(x).mean((2, 3))


@equal()
class EnableGradInside(Small):
    def middle(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(y.sin().sum(), y)
        return found.mean((2, 3))


@equal()
class AutocastInside(Small):
    """Asks for reduced precision itself, where it does not matter."""

    def middle(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return x.float().relu().mean((2, 3))
