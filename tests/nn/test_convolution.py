"""Convolutions with every padding mode: against padding by hand, known profiles, and in every place PyTorch has."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shiftlens.errors import InputError
from shiftlens.nn.convolution import (
    PaddedConv2d,
    PartialConv2d,
    SymmetricConv2d,
    conv2d,
    set_padding_mode,
    sides_of_layer,
)
from shiftlens.nn.padding import INDEX_MODES, PAD_MODES, PADDING_MODES, pad

NUMPY = {"zeros": "constant", "replicate": "edge", "reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}


@pytest.mark.parametrize("mode", INDEX_MODES)
@pytest.mark.parametrize("padding", [1, 2, (2, 1), (0, 1, 2, 3), 11])
def test_convolution_equals_padding_then_convolution(mode: str, padding: int | tuple[int, ...]) -> None:
    layer = conv2d(2, 3, 5, stride=2, padding=padding, padding_mode=mode)
    if isinstance(padding, int):
        padding = (padding, padding)
    left, right, top, bottom = padding if len(padding) == 4 else (padding[1], padding[1], padding[0], padding[0])
    assert sides_of_layer(layer) == (left, right, top, bottom)
    x = torch.randn(2, 2, 7, 9)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode=NUMPY[mode])
    expected = F.conv2d(torch.from_numpy(padded), layer.weight, layer.bias, stride=2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [2, 3, (4, 3)])
@pytest.mark.parametrize("mode", INDEX_MODES)
def test_the_words_same_and_valid_keep_their_widths(padding: str, kernel: int, mode: str) -> None:
    theirs = nn.Conv2d(2, 3, kernel, padding=padding, dilation=2)
    ours = copy.deepcopy(theirs)
    set_padding_mode(ours, mode)
    x = torch.randn(1, 2, 9, 8)
    sides = sides_of_layer(theirs)
    assert sides_of_layer(ours) == sides
    expected = F.conv2d(pad(x, sides, mode), theirs.weight, theirs.bias, dilation=2)
    torch.testing.assert_close(ours(x), expected)
    assert ours(x).shape == theirs(x).shape


@pytest.mark.parametrize(
    ("mode", "kernel", "expected"),
    [
        ("zeros", 3, [2, 3, 3]),
        ("full", 3, [3, 3, 3]),
        ("circular", 3, [3, 3, 3]),
        ("symmetric", 3, [3, 3, 3]),
        ("reflect", 3, [2, 4, 3]),
        ("replicate", 3, [3, 3, 3]),
        ("partial", 3, [2.5, 3.5, 3]),
        ("distribution", 3, [2, 3, 3]),
        ("random", 3, [2, 3, 3]),
        ("zeros", 5, [3, 4, 5]),
        ("symmetric", 5, [5, 5, 5]),
        ("replicate", 5, [6, 4, 5]),
    ],
)
def test_how_often_each_pixel_is_seen(mode: str, kernel: int, expected: list[float]) -> None:
    """The published profiles of one layer: windows that see a pixel or a copy of it, from the edge inwards."""
    layer = conv2d(1, 1, (1, kernel), padding=(0, kernel // 2), padding_mode=mode, bias=False).eval()
    nn.init.ones_(layer.weight)
    x = torch.zeros(1, 1, 1, 12, requires_grad=True)
    (seen,) = torch.autograd.grad(layer(x).sum(), x)
    assert seen[0, 0, 0, :3].tolist() == pytest.approx(expected)
    assert seen[0, 0, 0].flip(0)[:3].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [1, (2, 3), (0, 1, 2, 3), 6])
def test_partial_convolution_window_by_window(stride: int, dilation: int, padding: int | tuple[int, ...]) -> None:
    layer = conv2d(
        2, 3, (3, 2), stride=stride, dilation=dilation, padding=padding, padding_mode="partial", bias=True
    ).double()
    left, right, top, bottom = sides_of_layer(layer)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    w, b = layer.weight.detach(), layer.bias.detach()
    out = layer(x[None])[0].detach()
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            total, valid = torch.zeros(3, dtype=torch.float64), 0
            for a in range(3):
                for c in range(2):
                    y, z = i * stride - top + a * dilation, j * stride - left + c * dilation
                    if 0 <= y < 5 and 0 <= z < 6:
                        total += w[:, :, a, c] @ x[:, y, z]
                        valid += 1
            expected = total * 6 / valid + b if valid else b
            torch.testing.assert_close(out[:, i, j], expected)
    assert out.shape[1] == (5 + top + bottom - 2 * dilation - 1) // stride + 1
    assert out.shape[2] == (6 + left + right - dilation - 1) // stride + 1


def test_partial_scales_a_corner_by_nine_quarters_and_an_edge_by_nine_sixths() -> None:
    layer = conv2d(1, 1, 3, padding=1, padding_mode="partial")
    assert isinstance(layer, PartialConv2d)
    with torch.no_grad():
        layer.weight.zero_()[..., 1, 1] = 1.0
        layer.bias.fill_(10.0)
    out = layer(torch.ones(1, 1, 4, 4))[0, 0] - 10
    torch.testing.assert_close(out[0, :2], torch.tensor([9 / 4, 9 / 6]))
    assert out[1, 1] == 1


def test_full_padding_shows_every_pixel_to_every_tap() -> None:
    layer = conv2d(1, 2, (3, 5), dilation=(1, 2), padding=1, padding_mode="full")
    assert type(layer) is nn.Conv2d
    assert layer.padding == (2, 8)
    assert layer(torch.zeros(1, 1, 10, 10)).shape == (1, 2, 12, 18)


def test_symmetric_of_width_one_is_pytorchs_replicate() -> None:
    layer = conv2d(2, 3, 3, padding=1, padding_mode="symmetric")
    assert type(layer) is nn.Conv2d
    assert layer.padding_mode == "replicate"


def test_wider_symmetric_is_ours_and_loads_the_same_weights() -> None:
    ours = conv2d(2, 3, 5, padding=2, padding_mode="symmetric", dilation=1, groups=1)
    assert type(ours) is SymmetricConv2d
    assert ours.padding_mode == "symmetric"
    assert "padding_mode=symmetric" in repr(ours)
    theirs = conv2d(2, 3, 5, padding=2, padding_mode="zeros")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 2, 9, 9)
    # Away from the border no padding is seen, so the two must agree there, and only there.
    torch.testing.assert_close(ours(x)[..., 2:-2, 2:-2], theirs(x)[..., 2:-2, 2:-2])
    assert not torch.allclose(ours(x), theirs(x))


@pytest.mark.parametrize("padding", [1, 2, "same"])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_a_mode_set_in_place_keeps_the_object_and_can_be_taken_back(mode: str, padding: int | str) -> None:
    layer = nn.Conv2d(2, 4, 5, padding=padding, groups=2)
    before, weight, seen = repr(layer), layer.weight, []
    layer.register_forward_hook(lambda *_: seen.append(1))
    layer.eval()
    x = torch.randn(1, 2, 8, 8)
    expected = layer(x)
    set_padding_mode(layer, mode)
    assert layer.weight is weight
    assert not layer.training
    changed = layer(x)
    assert len(seen) == 2
    built = conv2d(2, 4, 5, padding=2 if padding == "same" else padding, groups=2, padding_mode=mode).eval()
    built.load_state_dict(layer.state_dict())
    assert torch.equal(changed, built(x))
    if mode != "full":
        set_padding_mode(layer, "zeros")
        assert repr(layer) == before.replace("padding=same", "padding=(2, 2)") or repr(layer) == before
        assert type(layer) is nn.Conv2d
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_copies_and_pickles_are_the_same_layer(mode: str) -> None:
    layer = conv2d(2, 3, 5, padding=(1, 2), padding_mode=mode).eval()
    x = torch.randn(1, 2, 7, 7)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(again) == repr(layer)
        assert torch.equal(again(x), layer(x))


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_mixed_precision_and_layout(mode: str) -> None:
    layer = conv2d(8, 8, 5, padding=2, padding_mode=mode).eval()
    x = torch.randn(2, 8, 9, 9)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
        mixed.float().sum().backward()
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), expected, atol=0.05, rtol=0.05)
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert layer.to(memory_format=torch.channels_last) is layer
    last = layer(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-5)
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half(x.to(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_gradients_of_picture_weight_and_bias(mode: str) -> None:
    layer = conv2d(1, 2, 3, padding=2, stride=2, padding_mode=mode).double().eval()
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=mode != "distribution")

    def call(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, (x, layer.weight, layer.bias))


FAST = ("partial",)


@pytest.mark.parametrize(
    "mode", [*FAST, *(pytest.param(m, marks=pytest.mark.slow) for m in PADDING_MODES if m not in FAST)]
)
def test_convolutions_can_be_traced_and_exported(mode: str) -> None:
    layer = conv2d(1, 1, 5, padding=2, padding_mode=mode).eval()
    x = torch.randn(1, 1, 6, 7)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), layer(x))
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), layer(x))


@pytest.mark.slow
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_convolutions_compiled_to_machine_code(mode: str) -> None:
    layer = conv2d(3, 4, 5, padding=2, padding_mode=mode).eval()
    x = torch.randn(2, 3, 8, 7)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv2d(1, 1, 3, padding=1, padding_mode="mirror"), "unknown padding mode 'mirror'"),
        (lambda: conv2d(1, 1, 3, padding=(1, 2, 3), padding_mode="symmetric"), "a pair"),
        (lambda: conv2d(1, 1, 3, padding=(1, -2, 3, 0), padding_mode="symmetric"), "at least 0"),
        (lambda: PaddedConv2d(1, 1, 3, padding_mode="partial"), "for a convolution only"),
        (lambda: set_padding_mode(type("Own", (nn.Conv2d,), {})(1, 1, 3), "zeros"), "its own code decides"),
        (lambda: conv2d(1, 1, 5, padding=2, padding_mode="reflect")(torch.zeros(1, 1, 4, 1)), "at least 2"),
    ],
)
def test_bad_use_is_one_line(call, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_every_mode_of_pad_is_a_mode_of_a_convolution() -> None:
    assert set(PAD_MODES) < set(PADDING_MODES)
