"""Nets of all that the path by cells claims to serve, drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

import shiftlens as sl
from shiftlens.errors import InputError

CONV_MODES = ("zeros", "reflect", "replicate", "circular", "symmetric", "partial")
ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    nn.SiLU,
    nn.Tanh,
    lambda: nn.ReLU(inplace=True),
    lambda: nn.LeakyReLU(0.2),
    lambda: nn.Dropout(0.5),
)
N_CLASSES = 4


class Residual(nn.Module):
    """A branch of the same size added to what it starts from."""

    def __init__(self, branch: nn.Module, how: str) -> None:
        super().__init__()
        self.branch, self.how = branch, how

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.how == "+=":
            y += x
            return F.relu(y, inplace=True)
        return torch.add(x, y) if self.how == "add" else x - 0.5 * y


class Fork(nn.Module):
    """Two branches of the same size behind each other in channels."""

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], dim=1)


class Functional(nn.Module):
    """A pool, a pad or a sum by a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class MeanHead(nn.Module):
    """Scores from the mean over space, by a method call."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.last = nn.Linear(n, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.mean([2, 3]))


def _pair(draw: st.DrawFn, low: int, high: int) -> tuple[int, int]:
    return draw(st.integers(low, high)), draw(st.integers(low, high))


def _convolution(draw: st.DrawFn, c: int) -> nn.Module:
    out = draw(st.integers(1, 4))
    groups = 1
    if draw(st.integers(0, 3)) == 0:
        groups, out = c, c * draw(st.integers(1, 2))
    return sl.nn.conv2d(
        c,
        out,
        _pair(draw, 1, 4),
        stride=_pair(draw, 1, 3) if draw(st.booleans()) else 1,
        padding=_pair(draw, 0, 3),
        dilation=_pair(draw, 1, 2) if draw(st.integers(0, 3)) == 0 else 1,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(CONV_MODES)),
    )


def _pool(draw: st.DrawFn) -> nn.Module:
    kernel = _pair(draw, 1, 3)
    options: dict[str, Any] = {
        "stride": _pair(draw, 1, 3),
        "padding": (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))),
        "ceil_mode": draw(st.booleans()),
    }
    if draw(st.booleans()):
        if draw(st.booleans()):
            return Functional(lambda x: F.max_pool2d(x, kernel, **options))
        return nn.MaxPool2d(kernel, dilation=draw(st.integers(1, 2)), **options)
    options["count_include_pad"] = draw(st.booleans())
    options["divisor_override"] = draw(st.sampled_from([None, 3]))
    if draw(st.booleans()):
        return Functional(lambda x: F.avg_pool2d(x, kernel, **options))
    return nn.AvgPool2d(kernel, **options)


def _blur(draw: st.DrawFn, c: int) -> nn.Module:
    stride, mode = _pair(draw, 1, 3), draw(st.sampled_from(["reflect", "symmetric", "circular", "zeros"]))
    if draw(st.booleans()):
        return sl.nn.BlurPool2d(c, draw(st.integers(1, 5)), stride, mode)
    return sl.nn.MaxBlurPool2d(c, 2, 2, draw(st.integers(0, 1)))


def _pad(draw: st.DrawFn) -> nn.Module:
    sides = tuple(draw(st.integers(0, 2)) for _ in range(4))
    value = draw(st.sampled_from([0.0, 1.5]))
    makers: list[Callable[[], nn.Module]] = [
        lambda: nn.ZeroPad2d(sides),  # type: ignore[arg-type]
        lambda: nn.ConstantPad2d((1, -1, 0, 2), value),
        lambda: nn.ReflectionPad2d(sides),  # type: ignore[arg-type]
        lambda: nn.ReplicationPad2d(sides),  # type: ignore[arg-type]
        lambda: nn.CircularPad2d(sides),  # type: ignore[arg-type]
        lambda: sl.nn.SymmetricPad2d(sides),
        lambda: Functional(lambda x: F.pad(x, sides, value=value)),
    ]
    return draw(st.sampled_from(makers))()


def _norm(draw: st.DrawFn, c: int) -> nn.Module:
    norm = nn.BatchNorm2d(c, affine=draw(st.booleans()))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_(std=0.5)
    norm.running_var.uniform_(0.5, 2)
    return norm


def _block(draw: st.DrawFn, c: int, depth: int) -> nn.Module:
    kind = draw(st.integers(0, 9 if depth else 6))
    if kind <= 2:
        return _convolution(draw, c)
    if kind == 3:
        return _blur(draw, c) if draw(st.integers(0, 3)) == 0 else _pool(draw)
    if kind == 4:
        return _pad(draw)
    if kind == 5:
        return draw(st.sampled_from(ACTIVATIONS))()
    if kind == 6:
        return _norm(draw, c)
    kernel = draw(st.sampled_from([1, 3]))
    mode = draw(st.sampled_from(CONV_MODES))

    def same(out: int, k: int = kernel) -> nn.Module:
        return nn.Sequential(
            sl.nn.conv2d(c, out, k, padding=k // 2, padding_mode=mode), draw(st.sampled_from(ACTIVATIONS))()
        )

    if kind <= 8:
        return Residual(same(c), draw(st.sampled_from(["+=", "add", "mix"])))
    return Fork(same(2), same(1, 1))


@st.composite
def nets(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """A net in eval mode, and the shape [c, h, w] of its input."""
    torch.manual_seed(draw(st.integers(0, 2**20)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(4, 9)), draw(st.integers(4, 9)))
    x = torch.zeros(1, *shape)
    layers: list[nn.Module] = [_convolution(draw, shape[0])]
    try:
        x = layers[0](x)
    except RuntimeError:  # the kernel does not fit the picture: one that always does
        layers = [nn.Conv2d(shape[0], 3, 3, padding=1)]
        x = layers[0](torch.zeros(1, *shape))
    for _ in range(draw(st.integers(1, 5))):
        layer = _block(draw, x.shape[1], 1).eval()
        try:
            with torch.no_grad():
                y = layer(x.clone())
        except (RuntimeError, ValueError, InputError):
            continue
        if min(y.shape[2:]) >= 1 and y.shape[1] <= 16:
            layers.append(layer)
            x = y
    c, h, w = x.shape[1:]
    heads: list[Callable[[], nn.Module]] = [
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, N_CLASSES)),
        lambda: nn.Sequential(nn.AdaptiveMaxPool2d((1, 1)), nn.Flatten(), nn.Linear(c, N_CLASSES)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, N_CLASSES)),
        lambda: MeanHead(c),
    ]
    layers.append(draw(st.sampled_from(heads))())
    return nn.Sequential(*layers).eval(), shape
