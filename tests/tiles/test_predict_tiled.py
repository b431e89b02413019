"""`predict_tiled`: layers that read the whole map, sources and targets, what it costs, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import shiftlens as sl
from shiftlens.arithmetic import tile_geometry
from shiftlens.errors import InputError
from shiftlens.nn import conv2d
from shiftlens.nn.unet import UNet
from shiftlens.tiles.freezing import Freezing, statistics_of
from shiftlens.tiles.tile_fitting import fit_tiles
from shiftlens.tiles.tile_recipe import recipe_of


class Of(nn.Module):
    """A function of a map, and a layer that it may use."""

    def __init__(self, function: Callable[..., Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.layer is None else self.function(x, self.layer)


def net_of(*layers: nn.Module) -> nn.Sequential:
    """Layers between convolutions, and a pool that asks for a grid of 2."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2))
    for layer in layers:
        net.extend((layer, nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()))
    return net.append(nn.Upsample(scale_factor=2, mode="bilinear")).eval()


def image_of(h: int = 90, w: int = 70) -> Tensor:
    return torch.randint(0, 256, (1, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def whole_of(model: sl.Model, image: Tensor) -> Tensor:
    dtype = next(iter(model.module.parameters())).dtype  # type: ignore[union-attr]
    with torch.no_grad():
        made: Tensor = model.module(model.preprocessing.normalise(image[None]).to(dtype))[0]
    return made


def off(found: Tensor, whole: Tensor) -> float:
    return float((found - whole).abs().max() / (whole.max() - whole.min()))


def with_norm(make: Callable[[int], nn.Module]) -> UNet:
    """A U-Net of other norms."""
    torch.manual_seed(0)
    net = UNet(width=2, n_classes=2)
    for part in list(net.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, make(child.num_features))
    return net.eval()


def squeeze(x: Tensor, gate: nn.Module) -> Tensor:
    return x * gate(x.mean((2, 3), keepdim=True)).sigmoid()


def pyramid(x: Tensor, after: nn.Module) -> Tensor:
    cells = after(F.adaptive_avg_pool2d(x, (2, 6)))
    return x * F.interpolate(cells, size=x.shape[2:], mode="bilinear", align_corners=True)


GLOBAL = {
    "instance": nn.InstanceNorm2d(4, affine=True),
    "group": nn.GroupNorm(2, 4),
    "batch": nn.BatchNorm2d(4, track_running_stats=False),
    "layer": Of(lambda x: F.layer_norm(x, x.shape[1:])),
    "squeeze": Of(squeeze, nn.Conv2d(4, 4, 1)),
    "pooled branch": Of(lambda x: x + F.interpolate(F.adaptive_avg_pool2d(x, 1), size=x.shape[2:], mode="bilinear")),
    "max": Of(lambda x: x / F.adaptive_max_pool2d(x, 1)),
    "pyramid": Of(lambda x: x + F.interpolate(F.adaptive_avg_pool2d(x, 4), size=x.shape[2:], mode="bilinear")),
    "pyramid, aligned": Of(pyramid, nn.Conv2d(4, 4, 3, padding=1)),
    "pyramid of maxima": Of(lambda x: x + F.interpolate(F.adaptive_max_pool2d(x, (3, 2)), size=x.shape[2:])),
    "extremes": Of(lambda x: (x - x.amin((2, 3), keepdim=True)) / x.amax((-2, -1), keepdim=True)),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_layers_that_read_the_whole_map_are_exact_in_both_number_formats(name: str) -> None:
    net, image = net_of(GLOBAL[name], GLOBAL[name]), image_of()
    assert fit_tiles(net, (90, 70), 32).layout.n_passes == 3
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = sl.wrap(net.to(dtype), mean=0.5, std=0.25)
        found = sl.predict_tiled(model, image, tile=32, quiet=True)
        assert found.dtype == dtype
        assert off(found, whole_of(model, image)) <= bound


def test_rows_and_columns_of_other_strides_are_not_mixed_up() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.AvgPool2d((4, 1)), nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), GLOBAL["pyramid"])
    model, image = sl.wrap(net.double().eval(), mean=0.5, std=0.25), image_of(64, 40)
    assert off(sl.predict_tiled(model, image, tile=(24, 10), quiet=True), whole_of(model, image)) <= 1e-10


def aligned(factor: int) -> nn.Module:
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=True)


def test_aligned_corners_are_exact_with_the_overlap_that_they_ask_for() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), aligned(2), aligned(2)).double().eval()
    model, image = sl.wrap(net, mean=0.5, std=0.25), image_of(40, 30)
    assert tile_geometry(net, 40).overlap == (3, 3)
    assert off(sl.predict_tiled(model, image, tile=9, quiet=True), whole_of(model, image)) <= 1e-10


@pytest.mark.parametrize("factors", [(4,), (2, 2)])
def test_resizes_with_aligned_corners_get_the_cells_of_a_tiles_place(factors: tuple[int, ...]) -> None:
    net = net_of(nn.MaxPool2d(4), *map(aligned, factors))
    model, image = sl.wrap(net.double(), mean=0.5, std=0.25), image_of(208, 144)
    fitting = fit_tiles(net, (208, 144), 104)
    assert (fitting.layout.n_passes, fitting.obstacles, fitting.geometry.is_local) == (1, (), False)
    assert len(fitting.layout) > 1
    assert off(sl.predict_tiled(model, image, tile=104, quiet=True), whole_of(model, image)) <= 1e-10
    recipe = recipe_of(fitting, 104)
    assert (recipe.exact, recipe.served) == (False, True)
    assert "depends on the map's size (align_corners=True); shiftlens.predict_tiled is" in recipe.loop()
    with pytest.raises(InputError, match="207 px high is no multiple of the grid of 8 px"):
        sl.predict_tiled(model, image_of(207, 144), tile=104, quiet=True)


@pytest.mark.slow
def test_a_unet_of_eleven_norms_takes_twelve_passes_and_is_exact() -> None:
    net, image = with_norm(nn.InstanceNorm2d), image_of(136, 104)
    assert fit_tiles(net, (136, 104), 104).layout.n_passes == 12
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = sl.wrap(net.to(dtype), mean=0.5, std=0.25)
        assert off(sl.predict_tiled(model, image, tile=104, quiet=True), whole_of(model, image)) <= bound


def test_two_passes_would_not_be_enough() -> None:
    net = net_of(nn.InstanceNorm2d(4), nn.InstanceNorm2d(4)).double()
    image, geometry = image_of(), tile_geometry(net, 64)
    x = image[None].double()
    known = statistics_of(net, geometry.global_layers[:1], x)
    with torch.no_grad(), Freezing(net, known):
        assert off(net(x[:, :, :40])[0, :, :20], net(x)[0, :, :20]) > 1e-3


def test_statistics_of_the_whole_image_make_a_tile_what_it_is_there() -> None:
    net = net_of(nn.InstanceNorm2d(4), Of(squeeze, nn.Conv2d(4, 4, 1))).double()
    x, layers = image_of()[None].double(), tile_geometry(net, 64).global_layers
    known = statistics_of(net, layers, x)
    assert [key.path for key in known] == [layer.op.path for layer in layers]
    with torch.no_grad():
        whole, alone = net(x), net(x[:, :, :40])
        with Freezing(net, known):
            tile = net(x[:, :, :40])
    rows = slice(0, 40 - tile_geometry(net, 64).overlap[0])
    assert off(alone[:, :, rows], whole[:, :, rows]) > 1e-3
    assert off(tile[:, :, rows], whole[:, :, rows]) < 1e-12


def test_circular_padding_reads_its_context_from_the_far_side() -> None:
    net = nn.Sequential(conv2d(1, 2, 5, padding=2, padding_mode="circular"), nn.Conv2d(2, 2, 2, stride=2)).double()
    model, image = sl.wrap(net.eval(), mean=0, std=1), image_of(60, 44)
    assert off(sl.predict_tiled(model, image, tile=16, quiet=True), whole_of(model, image)) < 1e-12
    pooled = sl.wrap(nn.Sequential(GLOBAL["pyramid of maxima"], net).eval(), mean=0, std=1)
    assert off(sl.predict_tiled(pooled, image, tile=16, quiet=True), whole_of(pooled, image)) < 1e-12
    with pytest.raises(InputError, match="61 px high is no multiple of the grid of 2 px"):
        sl.predict_tiled(model, image_of(61, 44), tile=16, quiet=True)


def test_what_is_mirrored_at_a_border_does_not_come_from_what_the_cut_spoils() -> None:
    torch.manual_seed(0)
    before, after = conv2d(1, 2, 7, padding=(6, 0, 6, 0)), conv2d(2, 2, 7, padding=(0, 6, 0, 6), padding_mode="reflect")
    net = nn.Sequential(before, after).double().eval()
    assert (tile_geometry(net, 40).overlap, tile_geometry(net, 40).border) == ((6, 6), (13, 13))
    model, image = sl.wrap(net, mean=0.5, std=0.25), image_of(40, 30)
    assert off(sl.predict_tiled(model, image, tile=19, quiet=True), whole_of(model, image)) <= 1e-10


# ---- where images come from and outputs go to


class Watched:
    """An array that remembers the largest part that was asked of it, or written to it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.most, self.written = 0, 0

    def __getitem__(self, index: Any) -> np.ndarray:
        part = self.array[index]
        self.most = max(self.most, part.size)
        return part

    def __setitem__(self, index: Any, value: np.ndarray) -> None:
        self.most, self.written = max(self.most, value.size), self.written + value.size
        self.array[index] = value


@pytest.fixture
def local() -> sl.Model:
    return sl.wrap(net_of(nn.BatchNorm2d(4)), mean=0.5, std=0.25)


def test_no_more_than_a_tile_is_read_or_written_at_once(local: sl.Model) -> None:
    image = image_of(301, 199)  # off the grid: the last tiles are shorter, and keep to it
    whole = whole_of(local, image)
    source, target = Watched(image.numpy()), Watched(np.full(whole.shape, np.nan, np.float32))
    assert sl.predict_tiled(local, source, tile=32, out=target, quiet=True) is target  # type: ignore[arg-type]
    assert off(torch.from_numpy(target.array), whole) <= 1e-5
    assert source.most <= 32 * 32
    assert target.most <= 4 * 32 * 32
    assert target.written == whole.numel()  # each cell once


def test_zarr_in_and_zarr_out(local: sl.Model, tmp_path: Path) -> None:
    image = image_of()
    zarr.create_array(tmp_path / "in.zarr", data=image.permute(1, 2, 0).numpy().copy(), chunks=(32, 32, 1))
    found = sl.predict_tiled(local, tmp_path / "in.zarr", tile=32, out=tmp_path / "out.zarr", quiet=True)
    whole = whole_of(local, image)
    assert isinstance(found, zarr.Array)
    stored = zarr.open_array(tmp_path / "out.zarr", mode="r")
    assert off(torch.from_numpy(np.asarray(stored[:])), whole) <= 1e-5
    with pytest.raises(InputError, match="there is something at"):
        sl.predict_tiled(local, image, tile=32, out=tmp_path / "out.zarr", quiet=True)


def test_a_memory_map_and_a_grey_array(local: sl.Model, tmp_path: Path) -> None:
    image = image_of()
    sl.predict_tiled(local, image[0].numpy(), tile=32, out=tmp_path / "out.npy", quiet=True)
    assert off(torch.from_numpy(np.load(tmp_path / "out.npy")), whole_of(local, image)) <= 1e-5
    with pytest.raises(InputError, match=r"out has shape \[4, 9, 9\]; the output's is \[4, 90, 70\]"):
        sl.predict_tiled(local, image, tile=32, out=np.zeros((4, 9, 9), np.float32), quiet=True)


def test_a_tiff_is_read_by_windows_where_tifffile_is_there(local: sl.Model, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(b"no TIFF")
    try:
        import tifffile
    except ImportError:
        with pytest.raises(InputError, match=r"needs tifffile: pip install tifffile"):
            sl.predict_tiled(local, path, tile=32, quiet=True)
        return
    with pytest.raises(InputError, match="cannot be read as a TIFF"):
        sl.predict_tiled(local, path, tile=32, quiet=True)
    image = image_of()
    tifffile.imwrite(path, image[0].numpy(), tile=(32, 32))
    assert off(sl.predict_tiled(local, path, tile=32, quiet=True), whole_of(local, image)) <= 1e-5


# ---- what it costs


def flops(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("make", [lambda: UNet(width=2, n_classes=2), lambda: net_of(nn.BatchNorm2d(4))])
def test_multiply_adds_are_those_that_the_overlap_implies(make: Callable[[], nn.Module]) -> None:
    model, image = sl.wrap(make().eval(), mean=0.5, std=0.25), image_of(200, 168)
    layout = fit_tiles(model, (200, 168), 128).layout
    spent = flops(lambda: sl.predict_tiled(model, image, tile=128, quiet=True))
    spent -= flops(lambda: fit_tiles(model, (200, 168), 128))  # shapes without numbers
    whole = flops(lambda: whole_of(model, image))
    assert spent / whole <= 1.15 * layout.implied_overhead
    assert spent / whole == pytest.approx(layout.overhead, rel=0.05)  # what is said before it starts


def test_each_pass_costs_no_more_than_the_overlap_implies() -> None:
    model, image = sl.wrap(net_of(nn.InstanceNorm2d(4), nn.InstanceNorm2d(4)), mean=0.5, std=0.25), image_of(200, 200)
    layout, whole = fit_tiles(model, (200, 200), 64).layout, flops(lambda: whole_of(model, image))
    spent: dict[int, int] = {0: flops(lambda: fit_tiles(model, (200, 200), 64))}  # shapes without numbers
    with FlopCounterMode(display=False) as counter:

        def after_tile(done: int, total: int) -> None:
            assert total == 3 * len(layout)
            spent[done] = int(counter.get_total_flops())

        sl.predict_tiled(model, image, tile=64, quiet=True, progress=after_tile)
    ends = [spent[k * len(layout)] for k in range(4)]
    for before, after in itertools.pairwise(ends):
        assert 0 < (after - before) / whole <= 1.15 * layout.implied_overhead
    assert ends[1] - ends[0] < ends[2] - ends[1] < ends[3] - ends[2]  # a pass ends at the layer that wants statistics


def test_the_cost_is_said_before_anything_is_computed(local: sl.Model, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    sl.predict_tiled(local, image_of(), tile=32, progress=lambda done, total: seen.append((done, total)))
    said = capsys.readouterr().err
    assert "Sequential: 90x70 px in 20 tiles of at most 32x32 px with 6 px of context: 1 pass, " in said
    assert "times the multiply-adds of the whole image" in said
    assert seen == [(k, 20) for k in range(1, 21)]


# ---- what it refuses


def test_a_tile_that_is_too_small_names_the_smallest_that_works(local: sl.Model) -> None:
    with pytest.raises(InputError, match=r"a tile of 9 px is too small: .* the smallest tile that works is 14"):
        sl.predict_tiled(local, image_of(), tile=9, quiet=True)
    sl.predict_tiled(local, image_of(40, 30), tile=14, quiet=True)


def test_a_size_that_the_net_does_not_take_names_those_it_does() -> None:
    with pytest.raises(InputError, match=r"multiples of 8, such as 96x200 or 104x200"):
        sl.predict_tiled(sl.wrap(UNet(width=2), mean=0, std=1), image_of(100, 200), tile=104, quiet=True)


@pytest.mark.filterwarnings("ignore:.*declares no preprocessing")
@pytest.mark.parametrize(
    ("net", "why"),
    [
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "nothing to tile"),
        (net_of(nn.Upsample(scale_factor=2, mode="bicubic", align_corners=True)), "2 depends on the map's size"),
        (net_of(Of(lambda x: x * F.adaptive_avg_pool2d(x, (1, None)))), "AdaptiveAvgPool|adaptive_avg_pool2d"),
        (net_of(Of(lambda x: x + x.flip(3))), r"2.flip\(\) \(flip\) joins or marks places"),
        (net_of(Of(lambda x: F.dropout(x, 0.5, training=True))), "gives two outputs for one input"),
    ],
)
def test_what_cannot_be_exact_is_refused_and_named(net: nn.Module, why: str) -> None:
    with pytest.raises(InputError, match=why):
        sl.predict_tiled(net, image_of(), tile=32, quiet=True)


def test_what_is_not_exact_is_predicted_where_that_is_asked_for() -> None:
    model = sl.wrap(net_of(Of(lambda x: x + x.flip(3))), mean=0.5, std=0.25)
    found = sl.predict_tiled(model, image_of(), tile=32, exact=False, quiet=True)
    assert found.shape == (4, 90, 70)
    # One tile is the whole image: nothing stands against it.
    assert torch.equal(sl.predict_tiled(model, image_of(), quiet=True), whole_of(model, image_of()))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (torch.zeros(1, 64, 64), r"expected a uint8 image \[c, h, w\], got float32"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), "has 3 channels"),
        ("nowhere.png", "nowhere"),
    ],
)
def test_what_is_no_image_is_refused(local: sl.Model, image: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        sl.predict_tiled(local, image, quiet=True)


# ---- the recipe


def test_a_recipe_is_for_all_images_and_says_why_where_it_is_not_exact() -> None:
    exact = recipe_of(fit_tiles(UNet(width=2), 512, 256), 250)
    assert (exact.tile, exact.overlap, exact.grid, exact.exact) == ((248, 248), 48, 8, True)
    net = with_norm(nn.InstanceNorm2d)
    frozen = recipe_of(fit_tiles(net, 512, 256), 256)
    assert (frozen.exact, frozen.n_passes) == (False, 12)
    assert frozen.loop().startswith("# tiles of this net are not exact: down.0.1 (InstanceNorm2d) reads the whole map")


@pytest.mark.parametrize(("tile", "overlap"), [*itertools.product((64, 100, 256, 333), (0, 4, 17, 30))])
def test_other_tools_make_steps_of_whole_cores_of_the_printed_shares(tile: int, overlap: int) -> None:
    kernel = 2 * overlap + 1
    recipe = recipe_of(fit_tiles(nn.Conv2d(1, 1, kernel, padding=overlap), 512, tile), tile)
    share = float(recipe.monai().split("overlap=")[1].split(",")[0])
    assert int(tile * (1 - share)) == tile - 2 * overlap  # MONAI's scan interval
    ratio = float(recipe.sahi().split("overlap_width_ratio=")[1].rstrip(")"))
    assert int(tile * ratio) == 2 * overlap  # SAHI's overlap
    assert recipe.to_dict().keys() == {"tile", "overlap", "grid", "monai", "sahi"}
