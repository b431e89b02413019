"""Nets of local layers, drawn at random: everything whose tiles can be exact."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from shiftlens.nn import conv2d, max_pool2d

MODES = ("zeros", "reflect", "replicate", "symmetric", "partial", "circular")
C = 2


class Skip(nn.Module):
    """A branch added to, or put behind, the map that it starts from."""

    def __init__(self, branch: nn.Module, how: str) -> None:
        super().__init__()
        self.branch, self.how = branch, how
        self.after = nn.Conv2d(2 * C, C, 1) if how == "cat" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        joined = torch.cat([x, y], 1) if self.how == "cat" else x + y if self.how == "add" else x * y
        made: Tensor = self.after(joined)
        return made


def _pair(draw: st.DrawFn, low: int, high: int) -> tuple[int, int]:
    return draw(st.integers(low, high)), draw(st.integers(low, high))


@st.composite
def convolutions(draw: st.DrawFn, mode: str, *, keeps: bool) -> dict[str, Any]:
    """`keeps`: the map keeps its size."""
    kernel, dilation = _pair(draw, 1, 4), _pair(draw, 1, 2)
    extents = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    before = [draw(st.integers(0, extent)) for extent in extents]
    after = [extent - b for extent, b in zip(extents, before, strict=True)]
    stride = (1, 1)
    if not keeps:
        stride = _pair(draw, 1, 2)
        after = [draw(st.integers(0, side)) for side in after]
    sides = (before[1], after[1], before[0], after[0])
    return {"what": "conv", "kernel": kernel, "dilation": dilation, "stride": stride, "sides": sides, "mode": mode}


@st.composite
def pools(draw: st.DrawFn, mode: str) -> dict[str, Any]:
    kernel = draw(st.integers(2, 3))
    padded = mode != "circular"
    stride = draw(st.integers(1, 3)) if padded else kernel
    padding = draw(st.integers(0, kernel // 2)) if padded else 0
    kind = draw(st.sampled_from(("max", "average")))
    ceil, counts = padded and draw(st.booleans()), draw(st.booleans())
    return {"what": kind, "k": kernel, "stride": stride, "padding": padding, "ceil": ceil, "counts": counts}


@st.composite
def ups(draw: st.DrawFn, mode: str, factor: int | None = None) -> dict[str, Any]:
    factor = factor or draw(st.integers(2, 3))
    how = draw(st.sampled_from(("nearest", "bilinear", "transposed") if mode != "circular" else ("nearest", "plain")))
    more = draw(st.integers(0, 2)) if how == "transposed" else 0
    # What is cut off on both sides, so that the map grows by the factor and nothing else.
    cut, extra = more // 2 + more % 2, more % 2
    return {"what": how, "factor": factor, "k": factor + more, "cut": cut, "extra": extra}


@st.composite
def layers(draw: st.DrawFn, mode: str, depth: int = 1) -> dict[str, Any]:
    kind = draw(st.sampled_from(("conv", "conv", "keep", "pool", "up", "skip", "u") if depth else ("keep",)))
    if kind == "pool":
        return draw(pools(mode))
    if kind == "up":
        return draw(ups(mode))
    if kind in ("skip", "u"):
        inner = [draw(layers(mode, 0)) for _ in range(draw(st.integers(1, 2)))]
        if kind == "u":
            factor = draw(st.integers(2, 3))
            down = {"what": "average", "k": factor, "stride": factor, "padding": 0, "ceil": False, "counts": True}
            inner = [down, *inner, draw(ups(mode, factor))]
        return {"what": "skip", "inner": inner, "how": draw(st.sampled_from(("add", "cat", "mul")))}
    return draw(convolutions(mode, keeps=kind == "keep" or mode == "circular"))


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """A net as plain data: both the net itself and its linear twin are built from it."""
    mode = draw(st.sampled_from(MODES))
    return {"layers": [draw(layers(mode)) for _ in range(draw(st.integers(1, 5)))], "seed": draw(st.integers(0, 999))}


def build(plan: dict[str, Any], *, linear: bool) -> nn.Sequential:
    """The net in float64. `linear`: without activations, means in place of maxima, sums in place of products, and all
    weights positive."""
    torch.manual_seed(plan["seed"])
    net = nn.Sequential(nn.Conv2d(1, C, 1), *(_built(layer, linear) for layer in plan["layers"])).double().eval()
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d) and linear:
            part.weight.data.abs_().add_(0.2)
            part.weight.data /= part.weight.data.sum()
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return net


def _built(layer: dict[str, Any], linear: bool) -> nn.Module:
    what = layer["what"]
    if what == "conv":
        made = conv2d(
            C,
            C,
            layer["kernel"],
            stride=layer["stride"],
            dilation=layer["dilation"],
            padding=layer["sides"],
            padding_mode=layer["mode"],
        )
        return made if linear else nn.Sequential(made, nn.BatchNorm2d(C), nn.Tanh())
    if what == "max" and not linear:
        return max_pool2d(layer["k"], layer["stride"], layer["padding"]) if not layer["ceil"] else _ceil(layer)
    if what in ("max", "average"):
        return nn.AvgPool2d(layer["k"], layer["stride"], layer["padding"], layer["ceil"], layer["counts"])
    if what in ("nearest", "bilinear"):
        return nn.Upsample(scale_factor=layer["factor"], mode=what)
    if what in ("transposed", "plain"):
        options = {"padding": layer["cut"], "output_padding": layer["extra"]}
        return nn.ConvTranspose2d(C, C, layer["k"], layer["factor"], **options)
    branch = nn.Sequential(*(_built(inner, linear) for inner in layer["inner"]))
    return Skip(branch, "add" if linear and layer["how"] == "mul" else layer["how"])


def _ceil(layer: dict[str, Any]) -> nn.Module:
    return nn.MaxPool2d(layer["k"], layer["stride"], layer["padding"], ceil_mode=True)
