"""Down-sampling: against loops, constants that stay, exact invariance, and every place where sizes are odd."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shiftlens.errors import InputError
from shiftlens.nn import VGG, BlurPool2d, ConvBlurPool2d, MaxBlurPool2d, PaddedPool2d, Polyphase2d, max_pool2d
from shiftlens.nn.downsample import REDUCERS, ReducedLayer2d, reduced
from shiftlens.nn.padding import CONSTANT_KEEPING, INDEX_MODES, PAD_MODES
from shiftlens.nn.vgg import DOWNSAMPLINGS

NUMPY = {"zeros": "constant", "replicate": "edge", "reflect": "reflect", "symmetric": "symmetric", "circular": "wrap"}
TAPS = {1: [1], 2: [1, 1], 3: [1, 2, 1], 4: [1, 3, 3, 1], 5: [1, 4, 6, 4, 1], 7: [1, 6, 15, 20, 15, 6, 1]}


@pytest.mark.parametrize("mode", INDEX_MODES)
@pytest.mark.parametrize("filter_size", TAPS)
@pytest.mark.parametrize(("h", "w", "stride"), [(8, 9, 2), (7, 5, 3), (6, 6, 1)])
def test_blur_is_the_weighted_sum_of_the_padded_picture(
    mode: str, filter_size: int, h: int, w: int, stride: int
) -> None:
    x = torch.randn(2, 3, h, w, dtype=torch.float64)
    taps = np.array(TAPS[filter_size]) / sum(TAPS[filter_size])
    before, after = (filter_size - 1) // 2, -(-(filter_size - 1) // 2)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (before, after), (before, after)), mode=NUMPY[mode])
    expected = np.zeros((2, 3, -(-h // stride), -(-w // stride)))
    for i in range(expected.shape[2]):
        for j in range(expected.shape[3]):
            window = padded[:, :, i * stride : i * stride + filter_size, j * stride : j * stride + filter_size]
            expected[:, :, i, j] = (window * taps[:, None] * taps).sum((2, 3))
    blur = BlurPool2d(3, filter_size, stride, mode)
    np.testing.assert_allclose(blur(x).numpy(), expected, atol=1e-12)
    assert list(blur.state_dict()) == []


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 4)])
@pytest.mark.parametrize("mode", CONSTANT_KEEPING)
@pytest.mark.parametrize("make", ["blur", "max blur", "conv blur", "mean", "max", "polyphase"])
def test_a_constant_stays_that_constant_in_the_corners_too(make: str, mode: str, size: tuple[int, int]) -> None:
    conv = ConvBlurPool2d(2, 2, 3, padding_mode=mode, blur_mode=mode, bias=False)
    nn.init.constant_(conv.layer.weight, 1 / 18)  # type: ignore[arg-type, union-attr]
    layer = {
        "blur": BlurPool2d(2, 4, 2, mode),
        "max blur": MaxBlurPool2d(2, 3, 2, 1, padding_mode=mode),
        "conv blur": conv,
        "mean": PaddedPool2d(nn.AvgPool2d(3, 2, 1), mode),
        "max": max_pool2d(3, 2, 1, padding_mode=mode),
        "polyphase": reduced(nn.MaxPool2d(3, 2, 1), "polyphase", mode),
    }[make]
    out = layer(torch.full((1, 2, *size), 0.7))
    assert out.shape[2:] == tuple(-(-n // 2) for n in size)
    torch.testing.assert_close(out, torch.full_like(out, 0.7), atol=1e-6, rtol=0)


def test_zero_padded_mean_loses_five_ninths_in_the_corner() -> None:
    """What a padded average pool does by itself, and why a repair must treat it too."""
    theirs = nn.AvgPool2d(3, 2, 1)(torch.ones(1, 1, 8, 8))
    assert theirs[0, 0, 0, 0] == pytest.approx(4 / 9)
    ours = PaddedPool2d(nn.AvgPool2d(3, 2, 1), "zeros")(torch.ones(1, 1, 8, 8))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("mode", PAD_MODES)
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 5)])
def test_padded_maximum_window_by_window(mode: str, size: tuple[int, int]) -> None:
    from shiftlens.nn.padding import pad

    x = torch.randn(2, 3, *size)
    layer = max_pool2d(3, 2, 1, padding_mode=mode).eval()
    padded = pad(x, (1, 1, 1, 1), mode)
    out = layer(x)
    assert out.shape == F.max_pool2d(x, 3, 2, 1).shape
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            assert torch.equal(out[:, :, i, j], window.amax((2, 3)))


def test_without_a_mode_the_maximum_is_pytorchs() -> None:
    assert type(max_pool2d(3, 2, 1)) is nn.MaxPool2d
    assert type(max_pool2d(2, padding_mode="reflect")) is nn.MaxPool2d
    x = -torch.rand(1, 1, 6, 6)
    assert torch.equal(max_pool2d((3, 2), (2, 1), (1, 0))(x), F.max_pool2d(x, (3, 2), (2, 1), (1, 0)))


POOLS = [(2, 2, 0), (3, 2, 1), (3, 2, 0), (2, 2, 1), (3, 3, 1), (4, 3, 2), ((3, 2), (2, 1), (1, 1)), (2, 1, 0)]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
def test_every_size_stays_what_the_pool_gives(kernel, stride, padding, ceil_mode: bool) -> None:
    for h in range(4, 12):
        x = torch.rand(1, 2, h, 15 - h)
        for kind in (nn.MaxPool2d, nn.AvgPool2d):
            pool = kind(kernel, stride, padding, ceil_mode=ceil_mode)
            expected = pool(x).shape
            assert PaddedPool2d(copy.deepcopy(pool), "symmetric")(x).shape == expected
            for reducer in REDUCERS:
                for mode in ("symmetric", "circular"):
                    layer = reduced(copy.deepcopy(pool), reducer, mode)
                    assert layer(x).shape == expected, (kind, h, reducer, mode)
                    assert layer.layer.stride == 1


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 2, 1, 1), (1, 2, 0, 1), (7, 2, 3, 1), (3, 2, 2, 2), (2, 2, 0, 1), (4, 4, 0, 1)],
)
def test_every_size_stays_what_the_convolution_gives(
    reducer: str, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    conv = nn.Conv2d(2, 3, kernel, stride, padding, dilation)
    for h in range(8, 14):
        x = torch.rand(2, 2, h, 21 - h)
        expected = conv(x)
        layer = reduced(copy.deepcopy(conv), reducer)
        assert layer(x).shape == expected.shape
        if reducer == "polyphase":
            dense = F.conv2d(x, conv.weight, conv.bias, 1, padding, dilation)
            small = dense[..., ::stride, ::stride]
            assert small.shape == expected.shape


def test_the_blur_follows_the_dense_maximum() -> None:
    x = torch.randn(2, 4, 9, 8)
    dense = F.max_pool2d(x, 2, 1)
    torch.testing.assert_close(MaxBlurPool2d(4)(x), BlurPool2d(4)(dense))
    layer = ConvBlurPool2d(4, 6, 3, activation=nn.ReLU())
    assert isinstance(layer.layer, nn.Conv2d)
    torch.testing.assert_close(layer(x), BlurPool2d()(F.relu(F.conv2d(x, layer.layer.weight, layer.layer.bias, 1, 1))))
    assert list(layer.state_dict()) == ["layer.weight", "layer.bias"]


def test_an_incomplete_last_window_is_kept() -> None:
    x = torch.rand(1, 1, 6, 6)
    layer = reduced(nn.MaxPool2d(3, 2, ceil_mode=True), "blur", "replicate", filter_size=1)
    assert torch.equal(layer(x), nn.MaxPool2d(3, 2, ceil_mode=True)(x))


def test_an_axis_that_is_not_strided_is_not_blurred() -> None:
    blur = BlurPool2d(1, 3, (2, 1))
    assert blur.kernel.shape == (3, 1)
    assert blur(torch.rand(1, 1, 8, 7)).shape == (1, 1, 4, 7)
    assert BlurPool2d(1, 3, 1).kernel.shape == (3, 3)


@pytest.mark.parametrize("stride", [2, 3, (2, 1)])
def test_polyphase_takes_the_grid_with_the_largest_norm(stride) -> None:
    sy, sx = (stride, stride) if isinstance(stride, int) else stride
    x = torch.randn(5, 3, 6 * sy, 2 * sx, dtype=torch.float64)
    out = Polyphase2d(stride)(x)
    for picture, kept in zip(x, out, strict=True):
        grids = [picture[:, a::sy, b::sx] for a in range(sy) for b in range(sx)]
        assert torch.equal(kept, max(grids, key=lambda grid: float(grid.norm())))


def test_polyphase_extends_a_size_that_its_stride_does_not_divide() -> None:
    x = torch.zeros(1, 1, 3, 5)
    x[0, 0, :, 4] = 5.0
    out = Polyphase2d(2, "symmetric")(x)
    # Mirrored at the end, the last column counts once in the even grid and once, as its own image, in the odd one.
    assert out.shape == (1, 1, 2, 3)
    assert out[0, 0, :, 2].tolist() == [5.0, 5.0]


def test_gradients_flow_to_the_kept_grid() -> None:
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Polyphase2d(2), (x,))
    (gradient,) = torch.autograd.grad(Polyphase2d(2)(x).sum(), x)
    assert gradient.sum() == 3 * 2 * 2 * 3


def test_branches_keep_the_grid_that_the_first_one_chose() -> None:
    torch.manual_seed(0)
    leader = Polyphase2d(2)
    follower = Polyphase2d(2, leader=leader)
    x, y = torch.randn(8, 2, 6, 6), torch.randn(8, 2, 6, 6)
    kept = leader(x)
    phase = [
        next((a, b) for a in (0, 1) for b in (0, 1) if torch.equal(k, p[:, a::2, b::2]))
        for k, p in zip(kept, x, strict=True)
    ]
    assert len(set(phase)) > 1
    for out, picture, (a, b) in zip(follower(y), y, phase, strict=True):
        assert torch.equal(out, picture[:, a::2, b::2])
    with pytest.raises(InputError, match="has not seen these pictures"):
        follower(y[:3])
    with pytest.raises(InputError, match="cannot choose for stride"):
        Polyphase2d(3, leader=leader)
    pair = copy.deepcopy(nn.ModuleList([leader, follower]))
    assert pair[1]._leader[0] is pair[0]
    assert [name for name, _ in pair.named_modules()] == ["", "0", "1"]


class Residual(nn.Module):
    """A block of two branches that are added, each with stride 2."""

    def __init__(self, share: bool) -> None:
        super().__init__()
        self.main = reduced(nn.Conv2d(4, 4, 3, 2, 1, padding_mode="circular"), "polyphase", "circular")
        self.short = reduced(nn.Conv2d(4, 4, 1, 2), "polyphase", "circular")
        if share:
            self.short.reduce = Polyphase2d(2, "circular", leader=self.main.reduce)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.main(x) + self.short(x))


def largest_change(net: nn.Module, x: torch.Tensor) -> float:
    """Under every circular shift of the pictures."""
    h, w = x.shape[-2:]
    shifted = torch.cat([x.roll((dy, dx), (2, 3)) for dy in range(h) for dx in range(w)])
    with torch.no_grad():
        out, rest = net(shifted), net(x)
    return float((out - rest.repeat(h * w, 1)).abs().max() / rest.abs().max())


@pytest.mark.parametrize("downsample", ["polyphase", "stride-polyphase"])
def test_a_circular_net_is_exactly_invariant_untrained(downsample: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    net = VGG("vgg6", padding="circular", downsample=downsample, width=4).double().eval()
    assert largest_change(net, x) < 1e-10
    for other in ("max", "blur", "stride-blur"):
        net = VGG("vgg6", padding="circular", downsample=other, width=4).double().eval()
        assert largest_change(net, x) > 1e-6, other
    net = VGG("vgg6", padding="zeros", downsample=downsample, width=4).double().eval()
    assert largest_change(net, x) > 1e-6


def test_blur_makes_a_net_less_sensitive_to_the_grid() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    nets = {
        d: VGG("vgg6", padding="circular", downsample=d, width=8).double().eval() for d in ("stride", "stride-blur")
    }
    for index in (0, 1, 2):  # the same filters
        nets["stride-blur"][index][6].layer.load_state_dict(nets["stride"][index][6].state_dict())
        for layer in (0, 1, 3, 4):
            nets["stride-blur"][index][layer].load_state_dict(nets["stride"][index][layer].state_dict())
    assert largest_change(nets["stride-blur"], x) < 0.6 * largest_change(nets["stride"], x)


@pytest.mark.parametrize("share", [True, False])
def test_parallel_branches_need_one_phase(share: bool) -> None:
    torch.manual_seed(2)
    block = Residual(share)
    net = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    change = max(largest_change(net, torch.randn(1, 4, 8, 8, dtype=torch.float64)) for _ in range(8))
    assert (change < 1e-10) == share
    assert (change > 1e-3) != share


@pytest.mark.parametrize("downsample", DOWNSAMPLINGS)
def test_down_samplings_can_be_traced_and_mixed(downsample: str) -> None:
    layer = DOWNSAMPLINGS[downsample].build(4, "reflect").eval()
    x = torch.randn(2, 4, 9, 8)
    expected = layer(x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).shape == expected.shape
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert layer(x.contiguous(memory_format=torch.channels_last)).shape == expected.shape


@pytest.mark.parametrize("downsample", [d for d in DOWNSAMPLINGS if "stride" not in d])
def test_old_weights_fit_every_pooling(downsample: str) -> None:
    old = VGG("vgg6", width=2)
    VGG("vgg6", width=2, downsample=downsample).load_state_dict(old.state_dict())


@pytest.mark.parametrize("downsample", DOWNSAMPLINGS)
def test_a_level_keeps_its_seven_layers(downsample: str) -> None:
    net = VGG("vgg6", width=2, downsample=downsample, padding="symmetric")
    assert [len(net[i]) for i in range(3)] == [7, 7, 7]
    assert VGG(**net.config).config == net.config


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BlurPool2d(3, 0), "filter_size must be at least 1"),
        (lambda: BlurPool2d(3, 3, 0), "stride must be at least 1"),
        (lambda: BlurPool2d(0), "channels must be at least 1"),
        (lambda: BlurPool2d(3)(torch.zeros(1, 4, 8, 8)), "made for 3 channels, got 4"),
        (lambda: BlurPool2d(3, padding_mode="mirror"), "unknown padding mode"),
        (lambda: BlurPool2d(3, padding_mode="distribution"), "for a convolution only|distribution"),
        (lambda: BlurPool2d(1)(torch.zeros(1, 1, 1, 8)), "at least 2"),
        (lambda: Polyphase2d(0), "at least 1"),
        (lambda: Polyphase2d(2)(torch.zeros(3, 8, 8)), "3 axes"),
        (lambda: PaddedPool2d(nn.MaxPool2d(3, 2, 1, return_indices=True), "reflect"), "indices"),
        (lambda: reduced(nn.MaxPool2d(3, 2, 1, return_indices=True), "blur"), "indices"),
        (lambda: ReducedLayer2d(nn.MaxPool2d(2), BlurPool2d(stride=3)), "cannot be reduced"),
        (lambda: max_pool2d(3, 2, 1, padding_mode="partial"), "for a convolution only"),
    ],
)
def test_bad_use_is_one_line(call, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
