"""Padding against numpy.pad, for every mode, shape and width."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shiftlens.errors import InputError
from shiftlens.nn.padding import PADDING_MODES, SymmetricConv2d, SymmetricPad2d, conv2d, pad

NUMPY = {"zeros": "constant", "replicate": "edge", "reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}
width = st.integers(0, 23)


def numpy_pad(x: np.ndarray, sides: tuple[int, int, int, int], mode: str) -> np.ndarray:
    left, right, top, bottom = sides
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)], mode=NUMPY[mode])


def test_modes_are_those_of_the_contract() -> None:
    assert PADDING_MODES == ("zeros", "replicate", "reflect", "symmetric", "circular")


@settings(max_examples=150)
@given(
    mode=st.sampled_from(PADDING_MODES),
    h=st.integers(2, 7),
    w=st.integers(2, 7),
    sides=st.tuples(width, width, width, width),
    dtype=st.sampled_from([torch.float32, torch.int64, torch.uint8]),
)
def test_pad_equals_numpy(mode: str, h: int, w: int, sides: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    x = torch.arange(1, 2 * h * w + 1).reshape(2, h, w).to(dtype)
    padded = pad(x, sides, mode)
    assert padded.dtype == dtype
    np.testing.assert_array_equal(padded.numpy(), numpy_pad(x.numpy(), sides, mode))


@pytest.mark.parametrize("n_axes", [2, 3, 4, 5])
def test_pad_takes_any_number_of_leading_axes(n_axes: int) -> None:
    x = torch.randn(*[2] * (n_axes - 2), 3, 4)
    np.testing.assert_array_equal(
        pad(x, (1, 2, 3, 4), "symmetric").numpy(), numpy_pad(x.numpy(), (1, 2, 3, 4), "symmetric")
    )


def test_zeros_takes_another_constant() -> None:
    assert pad(torch.zeros(1, 1), (1, 0, 0, 0), value=7.0).tolist() == [[7.0, 0.0]]


def test_written_example_of_symmetric() -> None:
    x = torch.tensor([[ord(letter) for letter in "ABCDEF"]])
    assert "".join(map(chr, pad(x, (3, 3, 0, 0), "symmetric")[0].tolist())) == "CBAABCDEFFED"


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_gradients_flow_to_the_source_pixels(mode: str) -> None:
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: pad(t, (5, 4, 3, 7), mode), (x,))


def test_a_gradient_counts_the_copies_of_each_pixel() -> None:
    x = torch.zeros(1, 3, requires_grad=True)
    pad(x, (1, 0, 0, 0), "symmetric").sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[2.0, 1.0, 1.0]]


def test_symmetric_pad_layer() -> None:
    layer = SymmetricPad2d((1, 2, 3, 4))
    x = torch.randn(1, 2, 5, 6)
    assert torch.equal(layer(x), pad(x, (1, 2, 3, 4), "symmetric"))
    assert repr(layer) == "SymmetricPad2d((1, 2, 3, 4))"
    assert torch.equal(SymmetricPad2d(2)(x), pad(x, (2, 2, 2, 2), "symmetric"))


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("padding", [1, 2, (2, 1)])
def test_convolution_equals_padding_then_convolution(mode: str, padding: int | tuple[int, int]) -> None:
    layer = conv2d(2, 3, 5, stride=2, padding=padding, padding_mode=mode)
    vertical, horizontal = (padding, padding) if isinstance(padding, int) else padding
    x = torch.randn(2, 2, 7, 9)
    padded = torch.from_numpy(numpy_pad(x.numpy(), (horizontal, horizontal, vertical, vertical), mode))
    expected = nn.functional.conv2d(padded, layer.weight, layer.bias, stride=2)
    torch.testing.assert_close(layer(x), expected)


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


def test_wide_symmetric_convolution_can_be_traced() -> None:
    layer = conv2d(1, 1, 5, padding=2, padding_mode="symmetric")
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    x = torch.randn(1, 1, 6, 7)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pad(torch.zeros(2, 2), (1, 1, 1, 1), "symetric"), "did you mean 'symmetric'"),
        (lambda: pad(torch.zeros(2, 2), (1, 1, 1, 1), "edge"), "did you mean 'replicate'"),
        (lambda: pad(torch.zeros(2, 2), (1, 1, 1, 1), "wrap"), "did you mean 'circular'"),
        (lambda: pad(torch.zeros(2, 2), (1, 1), "zeros"), r"\(left, right, top, bottom\)"),
        (lambda: pad(torch.zeros(2, 2), (1, 1, -1, 1), "zeros"), "at least 0"),
        (lambda: pad(torch.zeros(2), (1, 1, 1, 1), "zeros"), "1 axis"),
        (lambda: pad(torch.zeros(1, 4), (1, 1, 1, 1), "reflect"), "at least 2"),
        (lambda: SymmetricPad2d((1, 2)), "four|left, right"),
        (lambda: SymmetricPad2d(-1), "at least 0"),
        (lambda: conv2d(1, 1, 3, padding=1, padding_mode="mirror"), "unknown padding mode 'mirror'"),
        (lambda: conv2d(1, 1, 3, padding=(1, 2, 3), padding_mode="symmetric"), "a pair"),
    ],
)
def test_bad_use_is_one_line(call, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
