"""Path counts against published profiles, gradients of nets whose weights are all one, and windows put down by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.lens.foveation import foveation
from shiftlens.nn import conv2d

PROFILES = [
    (3, "none", [1, 2, 3]),
    (3, "zeros", [2, 3, 3]),
    (3, "full", [3, 3, 3]),
    (3, "circular", [3, 3, 3]),
    (3, "symmetric", [3, 3, 3]),
    (3, "reflect", [2, 4, 3]),
    (3, "replicate", [3, 3, 3]),
    (3, "partial", [2.5, 3.5, 3]),
    (5, "zeros", [3, 4, 5]),
    (5, "symmetric", [5, 5, 5]),
    (5, "replicate", [6, 4, 5]),
]


@pytest.mark.parametrize(("taps", "mode", "profile"), PROFILES)
def test_one_layers_profile(taps: int, mode: str, profile: list[float]) -> None:
    layer = nn.Conv2d(1, 1, (taps, 1), padding=(taps // 2, 0))
    found = foveation(layer, (12, 5), mode)
    assert found.dtype == np.float64
    assert found[:3, 2].tolist() == profile
    assert found[::-1][:3, 2].tolist() == profile
    assert (found[5:7] == taps).all()
    assert (found == found[:, :1]).all()
    square = foveation(nn.Conv2d(1, 1, taps, padding=taps // 2), (12, 12), mode)
    np.testing.assert_allclose(square[:3, :3], np.outer(profile, profile))


def vgg19() -> nn.Module:
    import torchvision.models as zoo

    with torch.device("meta"):
        return zoo.vgg19().eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", ["symmetric", "circular"])
def test_vgg19_is_uniform_under_mirror_and_circular_padding(mode: str) -> None:
    found = foveation(vgg19(), (512, 512), mode)
    expected = 3 * 9.0**16 / 4**4
    assert expected == pytest.approx(2.1715e13, rel=1e-4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # conv1_1 to conv5_4 by name are the default: the last pool is left out.
    assert np.array_equal(found, foveation(vgg19(), (512, 512), mode, layers="features.0:features.34"))


def test_vgg19_with_zeros_fades_towards_the_corners() -> None:
    found = foveation(vgg19(), (512, 512))
    assert found[256, 256] == pytest.approx(3 * 9.0**16 / 4**4)
    assert found[0, 0] == found.min() == pytest.approx(found[256, 256] / 265, rel=0.01)
    assert np.allclose(found, found[::-1, ::-1])
    assert np.allclose(found, found.T)


def resnet18_main_path() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 1, 7, 2, 3), nn.MaxPool2d(3, 2, 1)]
    for stride in (1, 1, 2, 1, 2, 1, 2, 1):
        layers += [nn.Conv2d(1, 1, 3, stride, 1), nn.ReLU(), nn.Conv2d(1, 1, 3, 1, 1)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("size", "mode", "pools", "ratio"),
    [
        (224, None, True, 4.90),
        (224, "zeros", True, 4.90),
        (224, "symmetric", True, 9.57),
        (224, "symmetric", False, 7.14),
        (225, None, True, 1.000),
        (225, "symmetric", True, 1.000),
        (225, "symmetric", False, 1.000),
    ],
)
def test_first_against_last_column_on_resnet18s_main_path(
    size: int, mode: str | None, pools: bool, ratio: float
) -> None:
    found = foveation(resnet18_main_path(), size, mode, pools=pools)
    assert found[:, 0].sum() / found[:, -1].sum() == pytest.approx(ratio, abs=0.005)


# ---- whole nets against gradients


class Branches(nn.Module):
    """A residual block with a strided shortcut, then a concatenation of unequal parts, gated by one cell."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.first = conv2d(4, 4, 3, padding=1, stride=2, padding_mode=mode)
        self.second = conv2d(4, 4, 3, padding=1, padding_mode=mode)
        self.short = nn.Conv2d(4, 4, 1, 2)
        self.wide = conv2d(4, 2, 5, padding=2, padding_mode=mode)
        self.narrow = conv2d(4, 6, 3, padding=1, padding_mode=mode)
        self.last = conv2d(8, 2, 3, padding=1, padding_mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(x))) + self.short(x))
        x = x * (x.mean((2, 3), keepdim=True) * 0 + 1)
        return self.last(torch.cat([self.wide(x), self.narrow(x)], 1))  # type: ignore[no-any-return]


def chain(mode: str) -> nn.Module:
    return nn.Sequential(
        conv2d(3, 4, 5, padding=2, padding_mode=mode),
        nn.AvgPool2d(2),
        conv2d(4, 4, 3, padding=2, dilation=2, padding_mode=mode),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, 1),
        conv2d(4, 2, 3, padding=1, stride=2, padding_mode=mode),
    )


NETS: dict[str, Callable[[str], nn.Module]] = {
    "chain": chain,
    "branches": lambda mode: nn.Sequential(conv2d(3, 4, 3, padding=1, padding_mode=mode), Branches(mode)),
    "pools": lambda mode: nn.Sequential(
        conv2d(3, 4, 3, padding=1, padding_mode=mode),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True),
        nn.Conv2d(4, 2, 1),
    ),
    "pads": lambda mode: nn.Sequential(
        nn.ReflectionPad2d((2, 1, 0, 3)),
        nn.Conv2d(3, 4, 3),
        nn.ZeroPad2d((1, 0, 2, 0)),
        nn.ReLU(),
        conv2d(4, 4, 3, padding=1, padding_mode=mode),
    ),
    "up": lambda mode: nn.Sequential(
        conv2d(3, 4, 3, padding=1, stride=2, padding_mode=mode),
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.AdaptiveAvgPool2d(7),
        nn.Conv2d(4, 2, 3),
    ),
    "shuffle": lambda mode: nn.Sequential(
        nn.PixelUnshuffle(2),
        conv2d(12, 8, 3, padding=1, padding_mode=mode),
        nn.PixelShuffle(2),
        nn.Conv2d(2, 2, 1),
    ),
}


def gradient_of_ones(net: nn.Module, size: tuple[int, int]) -> np.ndarray:
    """C_in times the gradient of the last map's mean over channels, all weights 1 / (channels read)."""
    net = copy.deepcopy(net).double().eval()
    for part in net.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(part.weight, 1 / part.in_channels)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    x = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    net(x).mean(1).sum().backward()
    assert x.grad is not None
    return 3 * x.grad[0].sum(0).numpy()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("mode", ["zeros", "reflect", "symmetric", "circular", "replicate", "partial"])
@pytest.mark.parametrize("size", [(24, 28), (26, 22)])
def test_counts_are_the_gradient_of_a_net_of_ones(name: str, mode: str, size: tuple[int, int]) -> None:
    net = NETS[name](mode)
    np.testing.assert_allclose(foveation(net, size), gradient_of_ones(net, size), rtol=1e-10)


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "circular", "replicate", "partial", "full"])
def test_an_override_is_the_net_built_that_way(mode: str) -> None:
    asked = foveation(chain("zeros"), (24, 28), mode, pools=False)
    np.testing.assert_allclose(asked, gradient_of_ones(chain(mode), (24, 28)), rtol=1e-10)


def test_max_pools_count_like_means_and_can_keep_their_padding() -> None:
    def net(pool: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), pool, nn.Conv2d(4, 4, 1))

    ours = foveation(net(nn.MaxPool2d(3, 2, 1)), (17, 17))
    np.testing.assert_allclose(ours, gradient_of_ones(net(nn.AvgPool2d(3, 2, 1)), (17, 17)), rtol=1e-10)
    kept = foveation(net(nn.MaxPool2d(3, 2, 1)), (17, 17), "circular", pools=False)
    changed = foveation(net(nn.MaxPool2d(3, 2, 1)), (17, 17), "circular")
    assert not np.allclose(kept, changed)
    assert np.ptp(foveation(net(nn.MaxPool2d(3, 1, 1)), (17, 17), "circular")) < 1e-9


def test_a_part_of_a_net_starts_at_the_map_it_reads() -> None:
    net = chain("zeros")
    part = foveation(net, (24, 28), layers="2:5")
    assert part.shape == (12, 14)
    tail = gradient_of_tail(net, (12, 14))
    np.testing.assert_allclose(part, tail, rtol=1e-10)
    assert np.array_equal(foveation(net, (24, 28), layers=":5"), foveation(net, (24, 28)))
    first = foveation(net, (24, 28), layers=":0")
    np.testing.assert_allclose(first, foveation(nn.Conv2d(3, 4, 5, padding=2), (24, 28)))


def gradient_of_tail(net: nn.Module, size: tuple[int, int]) -> np.ndarray:
    tail = copy.deepcopy(nn.Sequential(*list(net.children())[2:])).double()
    for part in tail.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.constant_(part.weight, 1 / part.in_channels)
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]
    x = torch.ones(1, 4, *size, dtype=torch.float64, requires_grad=True)
    tail(x).mean(1).sum().backward()
    assert x.grad is not None
    return 4 * x.grad[0].sum(0).numpy()


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v3_small", "convnext_tiny"])
def test_real_nets_are_uniform_in_the_middle_and_even_where_inspect_says_so(name: str) -> None:
    import torchvision.models as zoo

    from shiftlens.arithmetic import inspect

    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        net = zoo.get_model(name, weights=None, **options).eval()
    size = inspect(net, 96).even_sizes["w"][0]
    found = foveation(net, (size, 64))
    assert (found > 0).all()
    np.testing.assert_allclose(found, found[::-1], rtol=1e-9)
    if not inspect(net, 64).is_even:
        assert not np.allclose(found, found[:, ::-1], rtol=1e-6)


# ---- bad input


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"padding": "mirror"}, "unknown padding mode 'mirror'"),
        ({"padding": "circluar"}, "did you mean 'circular'"),
        ({"layers": "0"}, "layers must be A:B"),
        ({"layers": "9:5"}, "has no spatial layer '9'"),
        ({"layers": "5:0"}, "layers must be in call order: 5 comes after 0"),
    ],
)
def test_bad_use(options: dict[str, str], text: str) -> None:
    with pytest.raises(InputError, match=text):
        foveation(chain("zeros"), (24, 28), **options)  # type: ignore[arg-type]


def test_what_has_no_number_of_paths_is_said() -> None:
    with pytest.raises(InputError, match="0 pads by 'distribution', which is no index rule"):
        foveation(nn.Sequential(conv2d(1, 1, 3, padding=1, padding_mode="distribution")), (8, 8))
    block = nn.Sequential(nn.Conv2d(3, 4, 1), Branches("zeros"))
    with pytest.raises(InputError, match=r"branches of .* cells would meet at 1"):
        foveation(block, (16, 16), "none")

    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            return x.flatten(2).softmax(-1).view(n, c, h, w)

    with pytest.raises(InputError, match="paths cannot be counted through 2: rows and columns cannot be followed"):
        foveation(nn.Sequential(nn.Conv2d(3, 4, 3), Tokens(), nn.Conv2d(4, 4, 3)), (16, 16))
    with pytest.raises(InputError, match="no spatial layers"):
        foveation(nn.Flatten(), (8, 8))


def test_what_hangs_over_the_end_is_not_mirrored() -> None:
    class Padded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="circular"), 3, 2, ceil_mode=True)

    asked = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(4, 2, 1))
    built = nn.Sequential(nn.Conv2d(3, 4, 1), Padded(), nn.Conv2d(4, 2, 1))
    np.testing.assert_allclose(foveation(asked, 8, "circular"), gradient_of_ones(built, (8, 8)), rtol=1e-10)


def test_paths_that_end_before_attention_are_said_to() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 4, 4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x).flatten(2).transpose(1, 2)
            return self.attention(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]

    with pytest.warns(UserWarning, match="up to embed of Attending only; not looked at: attention in attention"):
        found = foveation(Attending(), 16)
    assert (found == 3).all()
    # Nothing is said where the user names the layers.
    assert np.array_equal(foveation(Attending(), 16, layers=":embed"), found)
