"""Tiles as the layers ask for them: known answers, and one reading of a net for `inspect` and for tiles."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftlens.arithmetic import inspect, tile_geometry
from shiftlens.errors import InputError
from shiftlens.graph import Sides
from shiftlens.graph.geometry import TileGeometry
from shiftlens.nn import conv2d
from shiftlens.nn.unet import UNet


class Of(nn.Module):
    """A function of a map, and layers that it may use."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **self.layers)


def conv(k: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(2, 2, k, **options)  # type: ignore[arg-type]


def read(*layers: nn.Module, size: int = 32) -> TileGeometry:
    return tile_geometry(nn.Sequential(conv(1), *layers), size)


@pytest.mark.parametrize(
    ("layers", "grid", "before", "after"),
    [
        ([conv(1)], 1, 0, 0),
        ([conv(3, padding=1)], 1, 1, 1),
        ([conv(3)], 1, 0, 2),  # cells are counted from the first window on
        ([conv(3, padding=1, stride=2)], 2, 2, 0),
        ([conv(3, padding=2, dilation=2), nn.MaxPool2d(2)], 2, 2, 2),
        ([conv(3, padding=1), nn.Upsample(scale_factor=2)], 1, 1, 1),
        # Halfway between two cells: a neighbour beyond the map is missed.
        ([nn.Upsample(scale_factor=2, mode="bilinear")], 1, 1, 1),
        ([nn.Upsample(scale_factor=3, mode="bilinear")], 1, 1, 1),
        ([nn.Upsample(scale_factor=8, mode="bilinear"), nn.AvgPool2d(8)], 1, 1, 1),
        ([nn.ConvTranspose2d(2, 2, 2, stride=2)], 1, 0, 0),
        ([nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)], 1, 1, 1),
        ([nn.AvgPool2d(4), conv(3, padding=1), nn.ConvTranspose2d(2, 2, 2, stride=2)], 4, 4, 4),
        ([nn.AvgPool2d(2), nn.PixelShuffle(1), nn.PixelUnshuffle(2), nn.PixelShuffle(2)], 4, 0, 0),
    ],
)
def test_grid_and_reach_by_hand(layers: list[nn.Module], grid: int, before: int, after: int) -> None:
    found = read(*layers)
    assert (found.grid, found.reach) == ((grid, grid), Sides(before, after, before, after))
    assert found.is_local


def test_a_skip_needs_what_its_longer_branch_needs_and_axes_may_differ() -> None:
    long = nn.Conv2d(2, 2, (1, 7), padding=(0, 3))
    found = tile_geometry(Of(lambda x, a, b: a(x) + b(x), a=conv(3, padding=1), b=long), 32)
    assert found.reach == Sides(3, 3, 1, 1)
    assert (found.overlap, found.smallest_tile) == ((1, 3), (3, 7))


def test_inspect_and_tiles_read_the_same() -> None:
    net = UNet(width=4)
    last = inspect(net, 256).layers[-1]
    found = tile_geometry(net, 256)
    assert found.reach == last.reach_pixels == Sides(46, 46, 46, 46)
    assert (found.grid, found.overlap, found.smallest_tile) == ((8, 8), (48, 48), (104, 104))


def test_a_size_off_the_grid_reads_the_same() -> None:
    net = nn.Sequential(conv(3, padding=1), nn.MaxPool2d(3, 2, 1), conv(3, stride=2))
    assert tile_geometry(net, (45, 31)).reach == tile_geometry(net, 64).reach


def attend(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    return (flat @ (flat.transpose(1, 2) @ flat).softmax(-1)).view_as(x)


def squeeze(x: Tensor, gate: nn.Module) -> Tensor:
    return x * gate(x.mean((2, 3), keepdim=True)).sigmoid()


@pytest.mark.parametrize(
    ("layer", "kind", "freezable"),
    [
        (nn.InstanceNorm2d(2), "norm", True),
        (nn.GroupNorm(1, 2), "norm", True),
        (nn.BatchNorm2d(2, track_running_stats=False), "norm", True),
        (Of(lambda x: F.layer_norm(x, x.shape[1:])), "norm", True),
        (nn.LayerNorm([2, 32, 32]), "norm", False),
        (Of(lambda x: x * F.adaptive_avg_pool2d(x, 1)), "pooling", True),
        (Of(lambda x: x + F.adaptive_max_pool2d(x, 1)), "pooling", True),
        (Of(squeeze, gate=conv(1)), "pooling", True),
        (Of(lambda x: x + F.interpolate(F.adaptive_avg_pool2d(x, 4), size=x.shape[2:])), "pooling", True),
        (Of(lambda x: x * F.adaptive_avg_pool2d(x, (None, 1))), "pooling", False),
        (Of(lambda x: x * x.mean(3, keepdim=True)), "pooling", False),
        (Of(lambda x: x * x.amax()), "pooling", False),
        (Of(lambda x: x + attend(x)), "attention", False),
        (Of(lambda x: x * x.softmax(3)), "attention", False),
        (Of(lambda x: x + x.roll(1, 3)), "other", False),
        (Of(lambda x: x + torch.arange(32.0, device=x.device)), "other", False),
    ],
)
def test_layers_that_read_the_whole_map_are_named(layer: nn.Module, kind: str, freezable: bool) -> None:
    found = read(layer)
    named = {(one.kind, one.freezable) for one in found.global_layers}
    assert (kind, freezable) in named
    assert {one.path.split(".")[0] for one in found.global_layers} == {"1"}
    assert not found.is_local
    assert bool(found.obstacles) == (not freezable)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(2),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.LocalResponseNorm(2),
        Of(lambda x, norm: norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(2)),
        Of(lambda x: x.softmax(1)),
        Of(lambda x: F.normalize(x, dim=1)),
        Of(lambda x: x + torch.ones(2, 1, 1, device=x.device)),
        conv2d(2, 2, 3, padding=1, padding_mode="partial"),
    ],
)
def test_layers_that_keep_to_their_place_are_local(layer: nn.Module) -> None:
    assert read(layer).is_local


def test_levels_count_what_stands_behind_what() -> None:
    net = nn.Sequential(nn.InstanceNorm2d(2), Of(lambda x, a, b: a(x) + b(x), a=nn.InstanceNorm2d(2), b=conv(1)))
    net.append(Of(squeeze, gate=nn.Sequential(conv(1), nn.ReLU())))
    found = tile_geometry(net, 16)
    assert [(layer.path, layer.level) for layer in found.global_layers] == [
        ("0", 1),
        ("1.layers.a", 2),
        ("2.mean()", 3),
    ]
    assert found.n_levels == 3


@pytest.mark.parametrize(
    ("layer", "why", "local", "placed"),
    [
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "align_corners=True", False, True),
        (nn.Upsample(scale_factor=2, mode="bicubic", align_corners=True), "align_corners=True", False, False),
        (Of(lambda x: F.interpolate(F.avg_pool2d(x, 4), size=x.shape[2:], mode="bilinear")), "size=", True, False),
        (Of(lambda x: F.interpolate(x, size=(48, 80))), "size=", False, False),
        (Of(lambda x: x + F.interpolate(F.adaptive_avg_pool2d(x, 3), size=x.shape[2:])), "pooled map", False, True),
    ],
)
def test_resizes_that_depend_on_the_size_are_named(layer: nn.Module, why: str, local: bool, placed: bool) -> None:
    found = read(layer)
    assert [(one.why, one.local, one.placed) for one in found.resizes] == [(why, local, placed)]
    assert found.is_local == local
    assert bool(found.obstacles) == (not local and not placed)


def test_circular_padding_reads_from_the_far_side_where_all_layers_join_it() -> None:
    wraps = conv2d(2, 2, 3, padding=1, padding_mode="circular")
    found = read(wraps, nn.MaxPool2d(2), conv(1, stride=2), nn.Upsample(scale_factor=2))
    assert (found.circular, found.is_local) == ((True, True), True)
    for other in (conv(3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear"), conv(3), nn.MaxPool2d(3, 2, 1)):
        mixed = read(wraps, other)
        assert mixed.circular == (True, True)
        assert "ends at the image's border" in mixed.obstacles[0]


def test_what_returns_no_map_has_nothing_to_tile() -> None:
    with pytest.raises(InputError, match="no map: there is nothing to tile"):
        tile_geometry(nn.Sequential(conv(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 16)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize(
    "layers",
    [
        [Of(lambda x: x[:, :, [0, 2, 1]])],
        [Of(tokens)],
        [Of(tokens), conv(3, padding=1)],  # a window slides over what could not be followed
        [Of(lambda x: torch.cat([x, tokens(x)], 1)[:, :2]), conv(1)],
        [Of(lambda x: x + tokens(x)), conv(1)],
    ],
)
def test_a_map_that_cannot_be_followed_is_not_promised(layers: list[nn.Module]) -> None:
    assert not read(*layers).is_local


def test_what_is_made_of_one_cell_is_no_obstacle() -> None:
    def branch(x: Tensor, last: nn.Module) -> Tensor:
        one = last(x.mean((2, 3)).view(x.shape[0], -1, 1, 1))
        return torch.cat([x, F.interpolate(one, size=x.shape[2:], mode="bilinear")], 1)[:, :2]

    found = read(conv(3, padding=1), Of(branch, last=conv(1)))
    assert [(layer.path, layer.freezable) for layer in found.global_layers] == [("2.mean()", True)]
    assert (found.reach, found.obstacles) == (Sides(1, 1, 1, 1), ())
