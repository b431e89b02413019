"""Padding against numpy.pad for every mode, shape and width, and the two modes that numpy has not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftlens import indexing
from shiftlens.errors import InputError
from shiftlens.nn import padding
from shiftlens.nn.padding import CONSTANT_KEEPING, INDEX_MODES, PAD_MODES, PADDING_MODES, Pad2d, SymmetricPad2d, pad

NUMPY = {"zeros": "constant", "replicate": "edge", "reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}
width = st.integers(0, 23)


def numpy_pad(x: np.ndarray, sides: tuple[int, int, int, int], mode: str) -> np.ndarray:
    left, right, top, bottom = sides
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)], mode=NUMPY[mode])


def test_modes_are_those_of_the_contract() -> None:
    assert INDEX_MODES == ("zeros", "replicate", "reflect", "symmetric", "circular")
    assert (*INDEX_MODES, "distribution", "random") == PAD_MODES
    assert (*PAD_MODES, "partial", "full") == PADDING_MODES


@settings(max_examples=150)
@given(
    mode=st.sampled_from(INDEX_MODES),
    h=st.integers(2, 7),
    w=st.integers(2, 7),
    sides=st.tuples(width, width, width, width),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.complex64]),
)
def test_pad_equals_numpy(mode: str, h: int, w: int, sides: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    x = torch.arange(1, 2 * h * w + 1).reshape(2, h, w).to(dtype)
    padded = pad(x, sides, mode)
    assert padded.dtype == dtype
    if dtype == torch.bfloat16:
        x, padded = x.float(), padded.float()
    np.testing.assert_array_equal(padded.numpy(), numpy_pad(x.numpy(), sides, mode))


@settings(max_examples=100)
@given(
    mode=st.sampled_from(["symmetric", "circular", "reflect", "replicate"]),
    h=st.integers(4, 9),
    w=st.integers(4, 9),
    sides=st.tuples(*[st.integers(0, 3)] * 4),
    last=st.booleans(),
)
def test_the_fast_path_keeps_values_and_layout(mode: str, h: int, w: int, sides: tuple, last: bool) -> None:
    x = torch.randn(2, 3, h, w)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    padded = pad(x, sides, mode)
    np.testing.assert_array_equal(padded.numpy(), numpy_pad(x.numpy(), sides, mode))
    layout = torch.channels_last if last else torch.contiguous_format
    assert padded.is_contiguous(memory_format=layout)


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


@pytest.mark.parametrize("mode", INDEX_MODES)
@pytest.mark.parametrize("sides", [(5, 4, 3, 7), (2, 1, 3, 0), (1, 1, 1, 1), (0, 2, 0, 1)])
def test_gradients_flow_to_the_source_pixels(mode: str, sides: tuple[int, ...]) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def padded(t: torch.Tensor) -> torch.Tensor:
        return pad(t, sides, mode)

    assert torch.autograd.gradcheck(padded, (x,))
    assert torch.autograd.gradgradcheck(padded, (x,))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")  # torch.func itself, when it is first used
@pytest.mark.parametrize("mode", ["symmetric", "circular"])
def test_derivatives_forwards_and_many_pictures_at_once(mode: str) -> None:
    x, tangent = torch.randn(2, 1, 2, 5, 4).unbind()
    sides = (2, 1, 3, 2)
    _, moved = torch.func.jvp(lambda t: pad(t, sides, mode), (x,), (tangent,))
    assert torch.equal(moved, pad(tangent, sides, mode))
    stack = torch.randn(3, 1, 2, 5, 4)
    assert torch.equal(torch.vmap(lambda t: pad(t, sides, mode))(stack), pad(stack, sides, mode))
    one_by_one = torch.vmap(torch.func.grad(lambda t: pad(t, sides, mode).square().sum()))(stack)
    together = torch.func.grad(lambda t: pad(t, sides, mode).square().sum())(stack)
    torch.testing.assert_close(one_by_one, together)


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


@pytest.mark.parametrize("mode", CONSTANT_KEEPING)
def test_a_constant_stays_that_constant(mode: str) -> None:
    assert pad(torch.full((1, 1, 3, 4), 0.7), (7, 2, 1, 9), mode).unique().tolist() == [pytest.approx(0.7)]


SLOW = pytest.mark.slow


@pytest.mark.parametrize("mode", PAD_MODES)
@pytest.mark.parametrize(
    "sides", [(2, 0, 1, 3), pytest.param((1, 1, 1, 1), marks=SLOW), pytest.param((9, 8, 7, 6), marks=SLOW)]
)
def test_tracing_and_export_give_the_same(mode: str, sides: tuple[int, int, int, int]) -> None:
    layer = Pad2d(sides, mode).eval()
    x = torch.randn(2, 3, 5, 4)
    expected = layer(x)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(layer, backend="eager", fullgraph=True)(x), expected)
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("mode", INDEX_MODES)
def test_traced_once_for_every_size(mode: str) -> None:
    layer = Pad2d((2, 1, 3, 2), mode)
    torch._dynamo.reset()
    traced = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((5, 4), (6, 7), (9, 9)):
        x, y = (torch.randn(1, 2, *size, requires_grad=True) for _ in range(2))
        assert torch.equal(traced(x), layer(x))
        (gradient,) = torch.autograd.grad(traced(y).square().sum(), y)
        torch.testing.assert_close(gradient, torch.autograd.grad(layer(y).square().sum(), y)[0])


@pytest.mark.slow
@pytest.mark.parametrize("mode", PAD_MODES)
def test_compiled_to_machine_code(mode: str) -> None:
    layer = Pad2d((2, 1, 3, 2), mode).eval()
    torch._dynamo.reset()
    x = torch.randn(2, 2, 6, 5, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True)(x)
    torch.testing.assert_close(compiled, layer(x))
    (gradient,) = torch.autograd.grad(compiled.square().sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(layer(x).square().sum(), x)[0])


def resized(x: np.ndarray, size: int) -> np.ndarray:
    """Linear interpolation of one axis between cell centres, the ends held: one value at a time."""
    n = len(x)
    out = np.empty((size, *x.shape[1:]))
    for i in range(size):
        at = min(max((i + 0.5) * n / size - 0.5, 0), n - 1)
        low = int(at)
        high = min(low + 1, n - 1)
        out[i] = x[low] * (1 - (at - low)) + x[high] * (at - low)
    return out


@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (2, 2, 2, 2), (2, 1, 0, 1), (5, 5, 4, 4)])
def test_distribution_is_the_stretched_means_around_the_picture(sides: tuple[int, int, int, int]) -> None:
    left, right, top, bottom = sides
    x = np.random.default_rng(0).random((6, 7))
    ky, kx = min(top + bottom + 1, 6), min(left + right + 1, 7)
    means = np.array([[x[i : i + ky, j : j + kx].mean() for j in range(8 - kx)] for i in range(7 - ky)])
    expected = resized(resized(means, 6 + top + bottom).T, 7 + left + right).T
    expected[top : top + 6, left : left + 7] = x
    np.testing.assert_allclose(pad(torch.from_numpy(x), sides, "distribution").numpy(), expected, atol=1e-12)


def test_no_gradient_flows_through_the_means() -> None:
    x = torch.randn(2, 3, 5, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(pad(x, (2, 2, 2, 2), "distribution").sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


def test_random_puts_all_zeros_of_an_axis_on_one_side() -> None:
    x = torch.rand(1, 2, 4, 5) + 1
    layer = Pad2d((1, 1, 2, 0), "random")
    assert torch.equal(layer.eval()(x), pad(x, (1, 1, 2, 0), "zeros"))
    layer.train()
    torch.manual_seed(0)
    corners = [tuple(layer(x)[0, 0].nonzero()[0].tolist()) for _ in range(40)]
    assert set(corners) == {(0, 0), (0, 2), (2, 0), (2, 2)}
    for top, left in set(corners):
        same = next(p for p in (layer(x) for _ in range(100)) if tuple(p[0, 0].nonzero()[0].tolist()) == (top, left))
        assert torch.equal(same[..., top : top + 4, left : left + 5], x)
        assert int((same == 0).sum()) == 2 * (6 * 7 - 4 * 5)
    torch.manual_seed(0)
    assert corners == [tuple(layer(x)[0, 0].nonzero()[0].tolist()) for _ in range(40)]


def test_an_empty_batch_passes() -> None:
    for mode in INDEX_MODES:
        assert pad(torch.zeros(0, 3, 4, 5), (2, 1, 1, 1), mode).shape == (0, 3, 6, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pad(torch.zeros(2, 2), (1, 1, 1, 1), "symetric"), "did you mean 'symmetric'"),
        (lambda: pad(torch.zeros(2, 2), (1, 1, 1, 1), "edge"), "did you mean 'replicate'"),
        (lambda: pad(torch.zeros(2, 2), (1, 1, 1, 1), "wrap"), "did you mean 'circular'"),
        (lambda: pad(torch.zeros(2, 2), (1, 1, 1, 1), "partial"), "'partial' is defined for a convolution only"),
        (lambda: pad(torch.zeros(2, 2), (1, 1), "zeros"), r"\(left, right, top, bottom\)"),
        (lambda: pad(torch.zeros(2, 2), (1, 1, -1, 1), "zeros"), "at least 0"),
        (lambda: pad(torch.zeros(2), (1, 1, 1, 1), "zeros"), "1 axis"),
        (lambda: pad(torch.zeros(1, 4), (1, 1, 1, 1), "reflect"), "at least 2"),
        (lambda: pad(torch.zeros(2, 2, dtype=torch.int64), (1, 1, 1, 1), "distribution"), "floating-point"),
        (lambda: SymmetricPad2d((1, 2)), "four|left, right"),
        (lambda: SymmetricPad2d(-1), "at least 0"),
        (lambda: Pad2d(1, "mirror"), "unknown padding mode 'mirror'; did you mean 'symmetric'"),
    ],
)
def test_bad_use_is_one_line(call, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_new_index_rule_pads_by_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(indexing.RULES, "middle", lambda k, n: np.where((k < 0) | (k >= n), n // 2, k))
    for names in ("CONSTANT_KEEPING", "PAD_MODES"):
        monkeypatch.setattr(padding, names, (*getattr(padding, names), "middle"))
    padded = pad(torch.arange(5.0).expand(1, 1, 5, 5), (2, 1, 0, 0), "middle")
    assert padded[0, 0, 0].tolist() == [2, 2, 0, 1, 2, 3, 4, 2]
