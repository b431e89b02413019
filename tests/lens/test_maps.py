"""Maps of nothing and of averages: the known laws, an independent two-pass mean, and what is on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from shiftlens.data.decode import SizeRule, fit
from shiftlens.data.images import ImageSet, load_images
from shiftlens.errors import InputError, StoreError
from shiftlens.lens import inputs as pictures
from shiftlens.lens.feature_maps import features
from shiftlens.lens.feature_store import open_features
from shiftlens.lens.moments import Moments
from shiftlens.lens.repadding import Repadded
from shiftlens.models.loading import wrap
from shiftlens.nn import conv2d
from shiftlens.nn.vgg import VGG
from shiftlens.stats import Skipped


def stack(mode: str, n_layers: int = 5, kernel: int = 3) -> nn.Sequential:
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for k in range(n_layers):
        layers += [conv2d(3 if k == 0 else 6, 6, kernel, padding=kernel // 2, padding_mode=mode), nn.ReLU()]
    return nn.Sequential(*layers).double().eval()


@pytest.mark.parametrize("kernel", [3, 5])
def test_zeros_reach_a_half_kernel_further_with_every_layer(kernel: int) -> None:
    run = features(stack("zeros", kernel=kernel), size=(27, 31))
    assert [layer.scores.reach_cells for layer in run] == [k * (kernel - 1) // 2 for k in range(5)]
    for number, layer in enumerate(run):
        # Undisturbed from there on: exactly the value in the middle of a large empty picture.
        reach = number * (kernel - 1) // 2
        inner = layer.maps[:, reach : 27 - reach, reach : 31 - reach]
        assert np.ptp(inner, axis=(1, 2)).max() < 1e-12
    assert run.start is run.layers[1]


@pytest.mark.parametrize("mode", ["symmetric", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_an_empty_picture_stays_constant_where_padding_is_of_the_picture(mode: str, kernel: int) -> None:
    run = features(stack(mode, kernel=kernel), size=(16, 17))
    for layer in run:
        assert np.ptp(layer.maps, axis=(1, 2)).max() < 1e-12
        assert layer.scores.reach_cells == 0
        assert isinstance(layer.scores.contrast_lr, Skipped)
    assert run.start is None


def test_the_reference_is_the_middle_of_a_very_large_empty_picture() -> None:
    torch.manual_seed(0)
    net = VGG("vgg6", width=4).double().eval()
    sites = features(net, size=(32, 32)).layers
    large = {}
    for layer in features(net, size=(512, 512)):
        h, w = layer.maps.shape[1:]
        large[layer.name] = layer.maps[:, h // 2, w // 2]
    kept: dict[str, Tensor] = {}
    with Repadded(net, "circular"), torch.no_grad():
        x = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
        y = x
        for name, layer in net[0].named_children():
            y = layer(y)
            kept[f"0.{name}"] = y.clone()
    np.testing.assert_allclose(large["0.3"], kept["0.5"][0, :, 3, 3].numpy(), atol=1e-12)
    assert float(kept["0.5"].var((2, 3)).max()) < 1e-20
    # The middle of the small picture is not that value any more.
    middle = sites[-1].maps[:, 2, 2]
    assert np.abs(middle - large[sites[-1].name]).max() > 1e-3 * np.abs(middle).max()


def test_partial_convolutions_leave_marks_and_their_reference_has_none() -> None:
    net = stack("partial")
    run = features(net, size=(16, 17))
    assert [layer.scores.reach_cells for layer in run] == [0, 1, 2, 3, 4]
    circular = stack("circular")
    circular.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    with torch.no_grad(), Repadded(net, "circular"):
        assert torch.allclose(net(x), circular(x), atol=1e-12)


def test_a_padded_average_pool_breaks_a_constant_and_repadding_mends_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AvgPool2d(3, 1, 1)).eval()
    nn.init.zeros_(net[0].weight)  # type: ignore[arg-type]
    nn.init.ones_(net[0].bias)  # type: ignore[arg-type]
    pool = features(net, size=(8, 8)).layers[1]
    assert pool.maps[0, 0, 0] == pytest.approx(4 / 9)
    assert pool.maps[0, 0, 4] == pytest.approx(6 / 9)
    assert pool.scores.reach_cells == 1
    with Repadded(net, "symmetric"), torch.no_grad():
        assert torch.allclose(net(torch.zeros(1, 3, 8, 8)), torch.ones(1, 2, 8, 8))


def test_repadding_is_the_same_as_building_the_net_that_way() -> None:
    zeros, circular = stack("zeros"), stack("circular")
    circular.load_state_dict(zeros.state_dict())
    x = torch.randn(2, 3, 11, 12, dtype=torch.float64)
    with torch.no_grad():
        expected, plain = circular(x), zeros(x)
        with Repadded(zeros, "circular"):
            assert torch.allclose(zeros(x), expected, atol=1e-12)
        assert torch.equal(zeros(x), plain)
        first = features(zeros, size=(11, 12)).layers[0]
        assert first.maps.shape == (6, 11, 12)


def test_uneven_strides_show_on_one_side() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()).double().eval()
    # The second convolution's padding is used left and top only; the first map is constant, so only that shows.
    at_32 = features(net, size=(32, 32)).layers[1]
    inner = at_32.maps[:, 8, 8]
    assert np.abs(at_32.maps[:, 8, 0] - inner).max() > 1e-3
    assert np.abs(at_32.maps[:, 8, -1] - inner).max() < 1e-12
    assert abs(at_32.scores.borders.left) > 2 * abs(at_32.scores.borders.right)  # which has but the corner above
    assert at_32.scores.contrast_lr > 0.2
    at_33 = features(net, size=(33, 33)).layers[1]
    assert np.abs(at_33.maps[:, 8, -1] - inner).max() > 1e-3


def test_inputs_by_name_and_file(tmp_path: Path) -> None:
    from PIL import Image

    model = wrap(VGG("vgg6", width=2), mean=(0.5, 0.4, 0.3), std=0.25, size=32)
    first = [features(model, name).layers[0].maps for name in ("zeros", "mean", "black", "noise")]
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    assert np.array_equal(first[3], features(model, "noise").layers[0].maps)
    assert not np.array_equal(first[3], features(model, "noise", seed=1).layers[0].maps)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    run = features(model, tmp_path / "a.png")
    assert run.input.endswith("a.png")
    assert not run.is_empty
    for k in (1, 3):  # as many rows as a picture may have channels
        Image.fromarray(pixels[:k]).save(tmp_path / "low.png")
        shown = pictures.shown(model, str(tmp_path / "low.png"), 0)[0]
        expected = fit(pixels[:k], SizeRule((32, 32), None, "bilinear"), lambda: "here").transpose(2, 0, 1)
        back = shown * 0.25 + torch.tensor([0.5, 0.4, 0.3])[:, None, None]
        assert np.array_equal((255 * back).round().byte().numpy(), expected)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"b\.png is no picture"):
        features(model, tmp_path / "b.png")
    with pytest.raises(InputError, match=r"input 'zero' is no file; .*did you mean 'zeros'"):
        features(model, "zero")
    with pytest.raises(InputError, match="is a folder"):
        features(model, tmp_path)
    images: dict[str, Any] = {"picture": load_images("digits", limit=2)}
    with pytest.raises(InputError, match="got 2 images; pass them as average="):
        features(model, **images)


# ---- averages


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_moments_equal_two_passes_for_any_split(batch: int, offset: float) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(41, 3, 4, 5)) + offset).astype(np.float32)
    moments = Moments()
    for start in range(0, 41, batch):
        moments.update(torch.from_numpy(values[start : start + batch]))
    exact = values.astype(np.float64)
    mean = exact.mean(0)
    # Within a millionth of the value, or of the spread where the mean is next to 0.
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.variance, np.square(exact - mean).mean(0), rtol=1e-6)
    assert moments.n == 41


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        _ = Moments().mean
    moments = Moments()
    moments.update(torch.zeros(0, 2))
    assert moments.n == 0


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images("digits", limit=37)


@pytest.fixture(scope="module")
def net() -> VGG:
    torch.manual_seed(0)
    return VGG("vgg6", width=4).eval()


def test_averages_equal_two_passes_over_all_pictures(net: VGG, images: ImageSet) -> None:
    model = wrap(net, mean=0.2, std=0.5, size=32)
    run = features(model, average=images, batch=5)
    x = model.preprocessing.normalise(torch.from_numpy(images.batch(np.arange(37))))
    with torch.no_grad():
        plain = net[0][:3](x).double().numpy()
        mirrored = net[0][:3](x.flip(3)).double().numpy()
    first = run["0.0"].average
    assert first is not None
    assert first.n == 37
    np.testing.assert_allclose(first.mean, plain.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first.variance, plain.var(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(first.flipped, (plain.mean(0) + mirrored.mean(0)) / 2, rtol=1e-5, atol=1e-6)
    again = features(model, average=images, batch=37)["2.3"].average
    assert again is not None
    assert run["2.3"].average is not None
    np.testing.assert_allclose(again.mean, run["2.3"].average.mean, rtol=1e-4, atol=1e-6)


def test_rolling_makes_content_even_and_keeps_the_nets_own_borders(images: ImageSet) -> None:
    model = wrap(stack("circular").float(), mean=0.2, std=0.5)
    many = ImageSet(np.concatenate([images.batch(np.arange(37))] * 12), np.zeros(444, dtype=np.int64))
    found = features(model, average=many)["6"].average
    assert found is not None
    plain = np.square(found.mean - found.mean.mean((1, 2), keepdims=True)).sum()
    rolled = np.square(found.rolled - found.rolled.mean((1, 2), keepdims=True)).sum()
    assert rolled < plain / 20  # what is left is chance
    assert found.scores.artefact_energy < 3 * found.scores.noise
    bordered = features(wrap(stack("zeros").float(), mean=0.2, std=0.5), average=many)["6"].average
    assert bordered is not None
    assert bordered.scores.artefact_energy > 10 * bordered.scores.noise


def test_a_symmetric_net_has_a_symmetric_flipped_average(images: ImageSet) -> None:
    net = stack("zeros").float()
    for part in net:
        if isinstance(part, nn.Conv2d):
            part.weight.data = (part.weight.data + part.weight.data.flip(3)) / 2
    found = features(wrap(net, mean=0, std=1), average=images)["4"].average
    assert found is not None
    assert found.scores.contrast_lr < 1e-9
    odd = found.mean - np.flip(found.mean, 2)
    assert np.abs(odd).max() > 1e-3  # the digits themselves are not symmetric


def test_controls_can_be_left_out_and_layers_chosen(net: VGG, images: ImageSet) -> None:
    model = wrap(net, mean=0, std=1)
    calls: list[tuple[int, int]] = []
    run = features(
        model,
        average=images.limit(10),
        controls=(),
        layers=["1.3", "0.6"],
        batch=4,
        progress=lambda *a: calls.append(a),
    )
    assert [layer.name for layer in run] == ["0.6", "1.3"]
    average = run["1.3"].average
    assert average is not None
    assert average.rolled is None
    assert average.flipped is None
    assert calls == [(4, 10), (8, 10), (10, 10)]


# ---- on disk


def test_a_run_survives_the_disk(tmp_path: Path, net: VGG, images: ImageSet) -> None:
    model = wrap(net, mean=0, std=1, name="small")
    run = features(model, "black", average=images.limit(9), out=tmp_path / "f.zarr")
    again = open_features(tmp_path / "f.zarr")
    assert again.to_dict() == run.to_dict()
    assert repr(again) == repr(run)
    assert again.data_digest == images.limit(9).digest
    for a, b in zip(again, run, strict=True):
        assert a.average is not None
        assert b.average is not None
        np.testing.assert_array_equal(a.maps, b.maps)
        for name in ("mean", "variance", "rolled", "flipped"):
            np.testing.assert_array_equal(getattr(a.average, name), getattr(b.average, name))
    opened = xr.open_zarr(tmp_path / "f.zarr", group="layer_001", consolidated=False)
    assert opened["maps"].dims == ("channel", "y", "x")
    assert opened["maps"].shape == run.layers[1].maps.shape
    meta = json.loads((tmp_path / "f.zarr" / "zarr.json").read_text())["attributes"]
    assert (meta["kind"], meta["schema_version"]) == ("features", 2)


def files_in(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_the_same_run_gives_the_same_bytes_and_replaces_itself(tmp_path: Path, net: VGG) -> None:
    model = wrap(net, mean=0, std=1, size=32)
    for name in ("a.zarr", "b.zarr", "a.zarr"):
        features(model, out=tmp_path / name)
    assert files_in(tmp_path / "a.zarr") == files_in(tmp_path / "b.zarr")
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["a.zarr", "b.zarr"]


def test_what_is_something_else_is_left_alone(tmp_path: Path, net: VGG) -> None:
    model = wrap(net, mean=0, std=1, size=32)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "sweep.zarr").mkdir()
    (tmp_path / "sweep.zarr" / "zarr.json").write_text('{"node_type": "group", "attributes": {"kind": "sweep"}}')
    for name, text in (("file", "is a file"), ("folder", "a directory with 1 entries"), ("sweep.zarr", "kind 'sweep'")):
        with pytest.raises(StoreError, match=text):
            features(model, out=tmp_path / name)
        with pytest.raises(StoreError, match=text):
            open_features(tmp_path / name)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"
    with pytest.raises(StoreError, match="nothing is there"):
        open_features(tmp_path / "nowhere")
    features(model, out=tmp_path / "f.zarr")
    next((tmp_path / "f.zarr" / "layer_002").rglob("c/*/*/*")).write_bytes(b"torn")
    with pytest.raises(StoreError, match="damaged"):
        open_features(tmp_path / "f.zarr")


# ---- bad input


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no spatial layers"):
        features(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), size=(8, 8))
    with pytest.raises(InputError, match="declares no input size"):
        features(nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match=r"has no spatial layer '0\.9'; did you mean '0"):
        features(VGG("vgg6", width=2), size=(32, 32), layers=["0.9"])
    with pytest.raises(InputError, match=r"VGG does not take .* 4x4 pixels: layer 2\.6"):
        features(VGG("vgg6", width=2, size=32), size=(4, 4))
    with pytest.raises(InputError, match="unknown control 'flip'"):
        features(VGG("vgg6", width=2), size=(32, 32), controls=("flip",))
    with pytest.raises(InputError, match="'resnet18' does not exist and is no spec"):
        features("resnet18", size=(8, 8))
    with pytest.raises(InputError, match="expected a Model"):
        features(3, size=(8, 8))  # type: ignore[arg-type]
    run = features(VGG("vgg6", width=2), size=(32, 32))
    with pytest.raises(InputError, match="did you mean"):
        run["0.1"]


def test_training_mode_half_precision_and_shared_weights() -> None:
    net = VGG("vgg6", width=2).train()
    features(net, size=(32, 32))
    assert all(part.training for part in net.modules())
    half = features(VGG("vgg6", width=2).half(), size=(32, 32))
    assert any("float16" in note for note in half.notes)
    assert half.layers[0].scores.reach_cells == 0
    assert half.layers[1].maps.dtype == np.float32
    a, b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    b.weight = a.weight
    assert [layer.name for layer in features(nn.Sequential(a, nn.ReLU(), b), size=(8, 8))] == ["0", "2"]


def test_moments_do_not_mind_how_a_batch_lies_in_memory() -> None:
    values = torch.randn(9, 3, 4, 5)
    plain, turned = Moments(), Moments()
    for start in (0, 4):
        plain.update(values[start : start + 4])
        turned.update(values[start : start + 4].contiguous(memory_format=torch.channels_last))
    np.testing.assert_allclose(turned.mean, plain.mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(turned.variance, plain.variance, rtol=1e-6)
    with pytest.raises(InputError, match="changed their shape"):
        plain.update(torch.zeros(2, 3, 4, 6))


def test_what_a_run_prints_cannot_steer_a_terminal() -> None:
    run = features(stack("zeros"), size=(20, 20))
    layers = (replace(run.layers[0], path="a\x1b[2J"), *run.layers[1:])
    hostile = replace(run, model="\x1b]0;m\x07", input="\x1bi", notes=("\x1b[1m",), layers=layers)
    assert all(line.isprintable() for line in (*hostile.lines(), repr(hostile)))
    assert "a\\x1b[2J" in str(hostile)


def test_a_detector_that_looks_for_peaks_image_by_image_has_maps() -> None:
    run = features("pretrained:detector-digits", "zeros", average=load_images("digits-scenes", limit=2))
    assert "heat" in [layer.name for layer in run.layers]
    assert all(layer.maps.ndim == 3 for layer in run.layers)
