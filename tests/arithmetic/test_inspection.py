"""Layer arithmetic against windows counted one by one, gradients, and mirrored nets."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from shiftlens.arithmetic import inspect
from shiftlens.errors import InputError
from shiftlens.graph import Sides
from shiftlens.graph.axis import same_padding
from shiftlens.models.loading import wrap
from shiftlens.nn.pooling import out_cells
from shiftlens.stats import Skipped
from shiftlens.surgery import repair


def torchvision_net(name: str) -> nn.Module:
    import torchvision.models as zoo

    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        return zoo.get_model(name, weights=None, **options).eval()


def covered(n: int, kernel: int, stride: int, padding: int, dilation: int, n_out: int) -> tuple[int, int]:
    """Used padding (before, after), each window put down by hand; negative where pixels of the picture are dropped."""
    seen = {i * stride + d for i in range(n_out) for d in range(dilation * (kernel - 1) + 1)}
    before, after = padding - min(seen), max(seen) + 1 - (padding + n)
    return before, after


@pytest.mark.parametrize("seed", range(40))
def test_used_padding_is_what_windows_cover(seed: int) -> None:
    rng = random.Random(seed)
    n, kernel, stride, dilation = rng.randint(12, 30), rng.randint(1, 5), rng.randint(1, 4), rng.randint(1, 2)
    padding = rng.randint(0, kernel // 2)
    layer: nn.Module = nn.Conv2d(1, 1, kernel, stride, padding, dilation)
    if seed % 2:
        layer, dilation = nn.AvgPool2d(kernel, stride, padding, ceil_mode=rng.random() < 0.5), 1
    n_out = layer(torch.zeros(1, 1, n, n)).shape[-1]
    row = inspect(nn.Sequential(nn.Conv2d(1, 1, 1), layer), (n, n)).layers[1]
    assert isinstance(row.used, Sides)
    assert (row.used.top, row.used.bottom) == (row.used.left, row.used.right)
    assert (row.used.left, row.used.right) == covered(n, kernel, stride, padding, dilation, n_out)
    assert row.unused[1] == padding - row.used.right


def test_resnet18_at_224_and_225() -> None:
    net = torchvision_net("resnet18")
    at_224, at_225 = inspect(net, (224, 224)), inspect(net, (225, 225))
    strided = {layer.name for layer in at_224.layers if layer.stride == (2, 2)}
    assert len(strided) == 8  # the stem, its pool, three 3x3 and three 1x1 shortcuts
    for layer in at_224.layers:
        assert layer.unused == ((1, 1) if layer.name in strided else (0, 0)), layer.name
        if "downsample" in layer.name:
            assert layer.used == Sides(0, -1, 0, -1)
    assert {layer.name for layer in at_224.uneven} == strided
    assert at_225.is_even
    assert all(layer.unused == (0, 0) for layer in at_225.layers)
    sizes = [at_225.layers[0].out_size[0], *(x.out_size[0] for x in at_225.layers if x.stride == (2, 2))]
    assert list(dict.fromkeys(sizes)) == [113, 57, 29, 15, 8]
    assert at_224.even_sizes["h"] == (161, 193, 225, 257)
    assert at_225.even_sizes == {"h": (161, 193, 225, 257, 289), "w": (161, 193, 225, 257, 289)}


def test_axes_are_apart() -> None:
    found = inspect(torchvision_net("resnet18"), (225, 224))
    assert found.even_sizes == {"h": (161, 193, 225, 257, 289), "w": (161, 193, 225, 257)}
    assert all(layer.unused in ((0, 1), (0, 0)) for layer in found.layers)
    assert all(layer.used.top == layer.used.bottom for layer in found.uneven if isinstance(layer.used, Sides))


def test_pools_without_padding_want_even_sizes() -> None:
    net = torchvision_net("vgg16_bn")
    assert inspect(net, (224, 224)).is_even
    found = inspect(net, (225, 225))
    assert [layer.used for layer in found.uneven] == [Sides(0, -1, 0, -1)]
    assert found.even_sizes["h"] == (192, 224, 256, 288)[-4:] or 224 in found.even_sizes["h"]
    assert 225 not in found.even_sizes["h"]


REAL = [
    ("resnet18", (64, 70)),
    ("vgg16_bn", (64, 32)),
    ("mobilenet_v3_small", (65, 64)),
    ("densenet121", (64, 96)),
    ("googlenet", (75, 64)),
    ("efficientnet_b0", (64, 65)),
    ("convnext_tiny", (64, 72)),
]


@pytest.mark.parametrize(("name", "size"), REAL)
def test_shapes_are_those_of_a_real_pass(name: str, size: tuple[int, int]) -> None:
    import torchvision.models as zoo

    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.no_grad():
        net = zoo.get_model(name, weights=None, **options).eval()
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for path, part in net.named_modules():
        if isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            part.register_forward_hook(
                lambda _, given, out, path=path: seen.__setitem__(path, (given[0].shape[2:], out.shape[2:]))
            )
    with torch.no_grad():
        net(torch.zeros(1, 3, *size))
    real = dict(seen)  # the hooks see the look at the net too
    rows = {layer.name: layer for layer in inspect(net, size).layers}
    for path, (given, made) in real.items():
        assert (rows[path].in_size, rows[path].out_size) == (tuple(given), tuple(made)), path
    assert not any(isinstance(layer.receptive_field, Skipped) for layer in rows.values())


def test_timm_nets_also_those_that_pad_by_size() -> None:
    import timm

    with torch.device("meta"):
        dynamic, blurred = timm.create_model("tf_mobilenetv3_small_minimal_100"), timm.create_model("resnetblur18")
    found = inspect(dynamic.eval(), (64, 64))
    assert any("computed from the picture's size" in note for note in found.notes)
    stem = found.layers[0]
    assert stem.used == Sides(0, 1, 0, 1)  # TensorFlow's way: the odd pixel at the end
    assert stem.tensorflow_same == stem.used
    assert 65 in found.even_sizes["h"]
    assert inspect(dynamic, (65, 65)).is_even
    rows = inspect(blurred.eval(), (65, 65)).layers
    assert any(layer.mode == "reflect" and layer.kind == "conv" for layer in rows)  # the blur pads by itself


def mirrored(net: nn.Module) -> nn.Module:
    import copy

    other = copy.deepcopy(net)
    for part in other.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.flip(-1)
    return other


class Residual(nn.Module):
    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1, padding_mode="reflect"))
        self.short = nn.Conv2d(3, 4, 1, 2)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(torch.relu(self.body(x) + self.short(x)))


POOLS: list[Callable[[], nn.Module]] = [
    lambda: nn.MaxPool2d(3, 2, 1),
    lambda: nn.AvgPool2d(2),
    lambda: nn.MaxPool2d(2, ceil_mode=True),
    lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.MaxPool2d(2, 1)),
    lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 0, 0)), nn.ReLU()),
    lambda: nn.AdaptiveAvgPool2d(3),
]


@pytest.mark.parametrize("make", POOLS, ids=range(len(POOLS)))
@pytest.mark.parametrize("size", range(17, 25))
def test_even_means_that_a_mirrored_net_mirrors_its_output(make: Callable[[], nn.Module], size: int) -> None:
    torch.manual_seed(size)
    net = Residual(make()).double().eval()
    x = torch.randn(1, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        same = torch.allclose(mirrored(net)(x.flip(-1)), net(x).flip(-1))
    assert inspect(net, (size, size)).is_even == same
    assert (size in inspect(net, (20, 20)).even_sizes["w"]) <= same


def test_even_sizes_are_exactly_those_that_mirror() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 5, 3, 2), nn.MaxPool2d(2)).double()
    even = []
    for n in range(20, 60):
        x = torch.randn(1, 3, n, n, dtype=torch.float64)
        with torch.no_grad():
            if torch.allclose(mirrored(net)(x.flip(-1)), net(x).flip(-1)):
                even.append(n)
    found = inspect(net, (40, 40)).even_sizes["w"]
    assert [n for n in found if 20 <= n < 60] == even
    assert len(even) >= 2


def _ones(net: nn.Module) -> nn.Module:
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.constant_(part.weight, 0.01)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return net.double().eval()


class Two(nn.Module):
    """Branches of different depth."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Sequential(nn.Conv2d(2, 2, 5, padding=2), nn.Conv2d(2, 2, 3, padding=2, dilation=2))
        self.short = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.long(x), self.short(x)], 1)


CHAINS: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.AvgPool2d(2)),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 7, 2, 3), nn.AvgPool2d(3, 2, 1), nn.Conv2d(2, 2, 3, 2, 1)),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 5, 3, 1), nn.Conv2d(2, 2, 3, padding=1)),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 1), Two(), nn.Conv2d(4, 1, 3, 2)),
    lambda: nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False), nn.Conv2d(1, 1, 1)),
]


@pytest.mark.parametrize("make", CHAINS, ids=range(len(CHAINS)))
@pytest.mark.parametrize("size", [(64, 67), (65, 72)])
def test_receptive_field_and_reach_against_gradients_and_a_border(
    make: Callable[[], nn.Module], size: tuple[int, int]
) -> None:
    net = _ones(make())
    for part in net.modules():
        if isinstance(part, nn.ConvTranspose2d):
            nn.init.constant_(part.weight, 0.01)
    row = inspect(net, size).layers[-1]
    h, w = row.out_size
    x = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    y = net(x)
    assert isinstance(row.receptive_field, tuple)
    y[0, 0, h // 2, w // 2].backward()
    assert x.grad is not None
    rows, columns = torch.nonzero(x.grad[0, 0].sum(1)), torch.nonzero(x.grad[0, 0].sum(0))
    seen = (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1)
    if any(isinstance(part, nn.ConvTranspose2d) for part in net.modules()):
        # Which inputs a cell sees depends on its place: the arithmetic gives the widest.
        assert all(0 <= field - real <= 2 for field, real in zip(row.receptive_field, seen, strict=True))
        return
    assert row.receptive_field == seen
    # Cells that differ from what an endless picture of ones gives depend on the border.
    with torch.no_grad():
        big = net(torch.ones(1, 1, 160, 160, dtype=torch.float64))
        centre = big[0, :, big.shape[2] // 2, big.shape[3] // 2]
        hit = ((y[0] - centre[:, None, None]).abs() > 1e-12 * centre.abs().max()).any(0)
    assert isinstance(row.border_reach, Sides)
    across, down = hit[h // 2], hit[:, w // 2]
    found = (first_clean(across), first_clean(across.flip(0)), first_clean(down), first_clean(down.flip(0)))
    reach = row.border_reach
    assert found == (reach.left, reach.right, reach.top, reach.bottom)
    share = float((~hit).double().mean())
    assert row.clean_share == pytest.approx(share)


def first_clean(hit: Tensor) -> int:
    return int(torch.nonzero(~hit).min())


@pytest.mark.parametrize("n", range(5, 30))
def test_same_padding_gives_tensorflows_size(n: int) -> None:
    for kernel in range(1, 6):
        for stride in range(1, 4):
            before, after = same_padding(n, kernel, stride)
            assert after - before in (0, 1)
            assert out_cells(n, kernel, stride, before, after, False) == -(-n // stride)
            assert not before or out_cells(n, kernel, stride, before - 1, after, False) < -(-n // stride)


def test_unknown_and_unseen_layers_are_skipped_with_a_reason() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            return x.flatten(2).softmax(-1).view(n, c, h, w)

    found = inspect(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Attention(), nn.Conv2d(4, 4, 3, 2, 1)), (32, 32))
    first, second = found.layers
    assert first.receptive_field == (3, 3)
    assert second.unused == (1, 1)  # its own arithmetic needs no origin
    assert isinstance(second.receptive_field, Skipped)
    assert second.to_dict()["receptive_field"] is None
    assert "cannot be followed" in second.to_dict()["skipped"]
    assert any("even sizes do not account" in note for note in found.notes)
    assert "?" in str(found)


class OneSize(nn.Module):
    """As vision transformers do: patches, and an error for pictures of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.shape[2] == 32, "Wrong image height!")
        return self.patches(x).mean((2, 3))


@pytest.mark.parametrize(
    ("net", "own"),
    [
        (OneSize(), (32,)),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 32 * 32, 10)), (32,)),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Flatten(), nn.Linear(4 * 16 * 16, 10)), (31,)),
    ],
)
def test_only_sizes_that_the_net_takes_are_suggested(net: nn.Module, own: tuple[int, ...]) -> None:
    found = inspect(net, 32)
    # A width of 24 alone is a size that the first net takes.
    wide = isinstance(net, OneSize)
    assert found.even_sizes["h"] == own
    assert found.takes_one_size == (not wide and own == (32,))
    assert ("even sizes nearby" in str(found)) is not found.takes_one_size
    assert ("the net takes this input size only" in str(found)) is found.takes_one_size
    assert bool(set(found.even_sizes["w"]) - {32, 31}) is wide


def test_a_net_that_takes_its_input_apart_says_why_not() -> None:
    with pytest.raises(InputError, match="33x32 pixels: OneSize: Wrong image height!"):
        inspect(OneSize(), (33, 32))


def test_it_is_even_about_its_words() -> None:
    found = inspect(torchvision_net("resnet18"), 224)
    text = str(found)
    assert "8 of 22 layers are uneven: conv1, maxpool" in text
    assert "even sizes nearby: height 161, 193, 225, 257" in text
    assert "TensorFlow's SAME leans to the other side: at conv1 it uses 2 left and 3 right, here it is 3 and 2" in text
    assert "padding can reach every cell from layer4.0.conv1 (7x7) on" in text
    assert text.count("<- uneven") == 8
    values = found.to_dict()
    assert set(values) >= {"model", "size", "even_sizes", "layers"}
    assert set(values["layers"][0]) >= {
        "path", "call", "kind", "kernel", "stride", "dilation", "padding", "in_size", "out_size", "unused", "used",
        "receptive_field",
    }  # fmt: skip


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


@pytest.mark.parametrize(
    ("net", "uneven", "behind"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU()), "1.1", ""),
        (Functional(), "conv.reduce", "conv.reduce: the blur is right behind the convolution"),
    ],
)
def test_what_a_blur_does_not_change_is_said(net: nn.Module, uneven: str, behind: str) -> None:
    fixed, _ = repair(net, downsample="blur", size=32)
    even, other = inspect(fixed, 33).notes, inspect(fixed, 32).notes
    assert other[0].startswith(f"{uneven}: a blur with a stride keeps the same cells as the stride alone")
    assert even == other[1:]
    assert len(even) == bool(behind)
    assert all(note.startswith(behind) for note in even)
    assert not inspect(net, 32).notes


def test_a_model_of_ours_and_a_net_in_training_mode() -> None:
    from shiftlens.nn.vgg import VGG

    module = VGG("vgg6", width=4, downsample="stride").train()
    at_32, at_33 = inspect(module, 32), inspect(wrap(module, mean=0, std=1), (33, 33))
    assert module.training
    assert len(at_32.uneven) == 3
    assert at_33.is_even
    assert at_32.even_sizes["h"] == (9, 17, 25, 33, 41, 49)


@pytest.mark.parametrize(
    ("module", "size", "text"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), (8, 8), "no spatial layers"),
        (nn.Conv2d(3, 4, 5), (4, 8), r"4x8 pixels: Conv2d got \[1, 3, 4, 8\]"),
        (nn.Conv2d(3, 4, 3), (0, 8), "at least 1"),
        (nn.Conv2d(3, 4, 3), (8,), "whole pixels"),
        (nn.Conv2d(3, 4, 3), (8.0, 8), "whole pixels"),
        (torch.relu, (8, 8), "expected an nn.Module"),
        (b"resnet18", (8, 8), "expected an nn.Module or a Model of one, got bytes"),
        ("resnet18", (8, 8), "no run directory and no spec"),
        (nn.Conv2d(3, 4, 3), None, "declares no input size: give one"),
    ],
)
def test_bad_input(module: nn.Module, size: tuple[int, int] | None, text: str) -> None:
    with pytest.raises(InputError, match=text):
        inspect(module, size)
