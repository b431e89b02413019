"""Balanced striding: the odd row on the side that is told, and a grid in the middle of the picture."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shiftlens.arithmetic import graph_of, plan
from shiftlens.errors import InputError, NoEffectWarning
from shiftlens.nn import VGG
from shiftlens.nn.balance import BalancedStride2d, leans
from shiftlens.nn.convolution import conv2d
from shiftlens.nn.edits import carry_out
from shiftlens.nn.padding import PAD_MODES
from shiftlens.surgery import repair

LAYERS = [
    *(conv2d(2, 3, 3, stride=2, padding=1, padding_mode=mode) for mode in PAD_MODES),
    conv2d(2, 3, 7, stride=2, padding=3),
    conv2d(2, 3, 1, stride=2),
    conv2d(2, 3, 3, stride=3, padding=2, dilation=2),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2),
    nn.AvgPool2d(3, 2, 1),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("size", [(8, 9), (9, 10), (11, 8)])
def test_a_mirrored_picture_gives_the_mirrored_map_of_the_other_side(layer: nn.Module, size: tuple) -> None:
    layer = copy.deepcopy(layer).eval()
    x = torch.randn(2, 2, *size)
    ends = BalancedStride2d(copy.deepcopy(layer), "end").eval()
    mirrored = copy.deepcopy(layer)
    if isinstance(mirrored, nn.Conv2d):
        mirrored.weight.data = layer.weight.data.flip(2, 3)
    begins = BalancedStride2d(mirrored, "begin").eval()
    torch.testing.assert_close(begins(x.flip(2, 3)).flip(2, 3), ends(x), atol=1e-5, rtol=1e-5)
    assert ends(x).shape == layer(x).shape
    if max(layer.stride if isinstance(layer.stride, tuple) else (layer.stride,)) == 2:
        torch.testing.assert_close(ends(x), layer(x))  # an odd row alone cannot be shared: the end is PyTorch's


def test_what_is_left_over_goes_to_the_side_that_is_told() -> None:
    layer = nn.Conv2d(1, 1, 3, 2, 1)
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(
        BalancedStride2d(copy.deepcopy(layer), "begin")(x),
        F.conv2d(F.pad(x, (0, 1, 0, 1)), layer.weight, layer.bias, stride=2),
    )
    three = BalancedStride2d(nn.MaxPool2d(4), "end")
    assert three.first_cells(11, 10) == (1, 1)
    assert BalancedStride2d(nn.MaxPool2d(4), "begin").first_cells(11, 10) == (2, 1)
    assert leans(0) == []
    assert leans(1) == ["begin"]


def middle(net: nn.Module, size: int) -> float:
    """Where the middle of the last map lies, in pixels from the middle of the picture; negative is left."""
    steps = plan(graph_of(net, (size, size)), 1, size)
    last = [step for step in steps if step is not None and step.n_out > 1][-1]
    return float((last.lo + last.hi) / 2 + last.jump * (last.n_out - 1) / 2 - (size - 1) / 2)


@pytest.mark.slow
def test_the_grid_of_the_whole_net_comes_to_the_middle() -> None:
    import torchvision.models as zoo

    net = zoo.resnet18().eval()
    assert middle(net, 224) == -15.5
    fixed, edits = repair(net, downsample="balanced", size=224)
    assert middle(fixed, 224) == 0.5
    assert [edit.options["lean"] for edit in edits] == ["end"] * 6 + ["begin"] * 2  # the last block and its shortcut
    again = carry_out(zoo.resnet18().eval(), json.loads(json.dumps([edit.to_dict() for edit in edits])))
    again.load_state_dict(fixed.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), fixed(x))
        at_even = torch.randn(1, 3, 65, 65)
        torch.testing.assert_close(fixed(at_even), net(at_even), atol=1e-4, rtol=1e-4)


def test_a_strided_vgg_and_what_has_nothing_to_balance() -> None:
    net = VGG("vgg6", width=2, downsample="stride", padding="reflect").eval()
    fixed, _ = repair(net, downsample="balanced", size=32)
    assert middle(net, 32) == -3.5
    assert middle(fixed, 32) == 0.5
    with pytest.warns(NoEffectWarning, match="changed nothing"):
        assert repair(net, downsample="balanced", size=33)[1] == []
    partial = VGG("vgg6", width=2, downsample="stride", padding="partial").eval()
    with pytest.warns(NoEffectWarning, match="changed nothing.*for a convolution only"):
        repair(partial, downsample="balanced", size=32)
    assert partial[0][6].padding_mode == "partial"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BalancedStride2d(nn.Conv2d(1, 1, 3, 2), "left"), "unknown side 'left'"),
        (lambda: BalancedStride2d(nn.ReLU()), "a ReLU cannot be balanced"),
        (lambda: BalancedStride2d(nn.MaxPool2d(2, ceil_mode=True)), "ceil_mode"),
        (lambda: BalancedStride2d(type("Own", (nn.Conv2d,), {})(1, 1, 3, 2)), "its own code pads"),
        (lambda: BalancedStride2d(nn.AvgPool2d(3, 2, 1, count_include_pad=False)), "does not count its padding"),
    ],
)
def test_bad_use(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
