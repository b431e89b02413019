"""Pictures of features, path counts and kernels: what is drawn is what the run holds."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shiftlens.data.images import load_images
from shiftlens.errors import InputError
from shiftlens.figures.drawing import png_bytes
from shiftlens.figures.feature_figures import MOST_COLUMNS, depth, filters, overview, plot_features
from shiftlens.figures.notebook import features_html
from shiftlens.figures.path_figures import foveation_map, kernel_tiles
from shiftlens.lens.feature_maps import features
from shiftlens.lens.feature_run import FeatureRun
from shiftlens.lens.foveation import foveation
from shiftlens.lens.kernels import kernels
from shiftlens.models.loading import wrap
from shiftlens.narrative.artefacts import artefacts
from shiftlens.nn.vgg import VGG
from shiftlens.reporting.feature_part import _layer


@pytest.fixture(scope="module")
def run() -> FeatureRun:
    torch.manual_seed(0)
    model = wrap(VGG("vgg6", width=3), mean=0.2, std=0.5, size=32, name="a $x$ <net>")
    return features(model, average=load_images("digits", limit=8), layers=["0.0", "0.3", "1.0", "2.6"])


def test_a_notebook_shows_a_run_and_hostile_names_stay_text(run: FeatureRun) -> None:
    page = features_html(run)
    assert "a $x$ &lt;net&gt;" in page
    assert "<net>" not in page
    assert page.count("<img") == 2
    assert "8 images of digits" in page


def maps_in(figure: object) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]  # type: ignore[attr-defined]


def test_all_pictures_are_written_and_named(run: FeatureRun, tmp_path: Path) -> None:
    made = plot_features(run, tmp_path / "p")
    names = [path.name for path in made.files]
    assert names[:3] == ["overview.png", "depth.png", "layer-000-0.0.png"]
    assert len(names) == 2 + len(run)
    assert all(path.stat().st_size > 5000 for path in made.files)
    again = plot_features(run, tmp_path / "q")
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(made.files, again.files, strict=True))
    assert set(plot_features(run)) >= {"overview", "depth", "layer-002-1.0"}
    with pytest.raises(InputError, match="unknown picture format"):
        plot_features(run, tmp_path, format="gif")


def test_a_layers_filters_share_one_scale(run: FeatureRun) -> None:
    layer = run["1.0"]
    assert layer.average is not None
    figure = filters(run, layer)
    tiles, mean = (axes.images[0] for axes in figure.axes[:2])
    n, h, w = layer.maps.shape
    assert tiles.get_clim() == (0.0, float(layer.average.mean.max()))
    drawn = np.asarray(tiles.get_array().filled(np.nan))
    columns = int(np.ceil(np.sqrt(n)))
    for k in range(n):
        top, left = (k // columns) * (h + 1), (k % columns) * (w + 1)
        np.testing.assert_array_equal(drawn[top : top + h, left : left + w], layer.average.mean[k])
    assert np.isnan(drawn[h]).all()
    assert np.isfinite(drawn).sum() == n * h * w
    np.testing.assert_allclose(mean.get_array(), layer.average.mean.mean(0))
    assert [text.get_text() for text in figure.axes[0].texts] == [str(k) for k in range(n)]
    assert layer.label in figure.get_suptitle()
    assert layer.label.startswith("1.0 conv ")
    assert "->" in layer.label


def test_the_overview_shows_empty_and_average_side_by_side(run: FeatureRun) -> None:
    figure = overview(run)
    found = maps_in(figure)
    assert len(found) == 3 * len(run)
    for k, layer in enumerate(run):
        assert layer.average is not None
        np.testing.assert_allclose(found[k], layer.maps.astype(np.float64).mean(0))
        np.testing.assert_allclose(found[len(run) + k], layer.average.mean.mean(0))
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels[0].endswith("\nconstant")  # the first convolution of an empty picture
    # A constant map has one grey; the others have colours, the ends of their range, and one bar together.
    colours = [{tuple(axes.images[0].cmap(share)) for share in (0.0, 0.5, 1.0)} for axes in figure.axes[:2]]
    assert [len(each) for each in colours] == [1, 3]
    low, high = (float(each) for each in labels[1].splitlines()[0].split(" to "))
    assert low == pytest.approx(run.layers[1].maps.mean(0).min(), rel=0.06)
    assert high == pytest.approx(run.layers[1].maps.mean(0).max(), rel=0.06)
    assert labels[1].splitlines()[1].startswith("range ")
    assert [text.get_text() for text in figure.axes[-1].get_yticklabels()] == ["lowest", "highest"]
    title = figure.get_suptitle()
    assert title.startswith("a $x$ <net> on ")
    assert f"{run.n_images} images of" in title


def test_depth_draws_scores_and_chance(run: FeatureRun) -> None:
    figure = depth(run)
    top, middle, bottom = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in top.lines}
    assert len(lines) == 3
    reach = [layer.scores.reach_pixels for layer in run]
    np.testing.assert_allclose(middle.lines[0].get_ydata(), reach)
    assert np.isnan(bottom.lines[0].get_ydata()[0])  # a constant map has no sides
    assert len(png_bytes(figure)) > 5000


def test_a_run_without_average_and_a_deep_one() -> None:
    layers: list[nn.Module] = [nn.Conv2d(3, 2, 3, padding=1)]
    for _ in range(20):
        layers += [nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1)]
    run = features(nn.Sequential(*layers), size=(16, 16))
    figure = overview(run)
    assert len(maps_in(figure)) == MOST_COLUMNS
    assert f"({MOST_COLUMNS} of 21 layers)" in figure.get_suptitle()
    assert figure.axes[0].get_title() == "0 conv 3->2\n16x16"
    assert figure.axes[MOST_COLUMNS - 1].get_title() == "40 conv 2\n16x16"
    assert len(depth(run).axes[0].lines) == 1
    signed = features(nn.Conv2d(3, 4, 3, padding=1), "noise", size=(8, 8))
    low, high = filters(signed, signed.layers[0]).axes[0].images[0].get_clim()
    assert low == -high  # nothing is cut off on either side of 0


def test_path_counts_are_relative_to_the_middle() -> None:
    counts = foveation(nn.Conv2d(1, 1, 3, padding=1), (9, 11))
    figure = foveation_map(counts, "one layer")
    (image,) = figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), counts / 9)
    across, down = figure.axes[1].lines
    np.testing.assert_allclose(across.get_ydata(), (counts / 9).mean(0))
    np.testing.assert_allclose(down.get_ydata(), (counts / 9).mean(1))


def test_kernel_tiles_are_signed_and_marked() -> None:
    layer = nn.Conv2d(3, 32, 3)
    layer.weight.data[:] = torch.tensor([-1.0, 0, 2])
    figure = kernel_tiles(kernels(nn.Sequential(layer, nn.Conv2d(32, 4, 5))))
    tiles = [axes for axes in figure.axes if axes.images]
    assert len(tiles) == 2
    low, high = tiles[0].images[0].get_clim()
    assert (low, high) == (-2.0, 2.0)
    assert "lr 1.00*" in tiles[0].get_xlabel()
    assert "ud 0.00\n" in tiles[0].get_xlabel()


def test_every_number_has_one_name_in_table_findings_and_titles(run: FeatureRun) -> None:
    blank, rolled = "blank input (zeros)", "average of 8 rolled images"
    assert (run.shown, run.averaged) == (blank, rolled)
    layer = run["2.6"]
    assert layer.average is not None
    title = filters(run, layer).get_suptitle()
    assert f"{blank}: artefact energy {layer.scores.artefact_energy:.2g}" in title
    assert f"{rolled}: artefact energy {layer.average.scores.artefact_energy:.2g}" in title
    row = next(line.split() for line in run.lines() if line.startswith("2.6 "))
    assert f"{layer.scores.artefact_energy:.2e}" in row
    assert f"{layer.average.scores.artefact_energy:.2e}" in row
    assert f"energy, reach, odd: of the {blank}" in run.lines()
    assert any(line.startswith(f"avg energy, avg u/d: of the {rolled}; avg l/r: of the ") for line in run.lines())
    found = artefacts(run)
    assert found.named("artefact-energy").quantity.of == blank
    assert found.named("average-energy").quantity.of == rolled
    assert blank in found.named("artefact-energy").statement
    assert rolled in found.named("average-energy").statement
    assert {blank, rolled} <= set(depth(run).axes[0].get_legend_handles_labels()[1])
    # Without that control nothing is called rolled.
    bare = features(VGG("vgg6", width=3), size=(32, 32), average=load_images("digits", limit=8), controls=())
    assert bare.averaged == "average of 8 images"
    names = [label for axes in depth(bare).axes for label in axes.get_legend_handles_labels()[1]]
    assert not any("rolled" in text for text in [*names, *bare.lines(), filters(bare, bare.layers[0]).get_suptitle()])


def test_the_name_of_an_image_is_no_formula(run: FeatureRun) -> None:
    hostile = replace(run, input=r"$\nofunction{$")
    for figure in (overview(hostile), depth(hostile), filters(hostile, hostile.layers[0])):
        assert len(png_bytes(figure)) > 5000


def test_a_map_that_is_zero_everywhere_is_not_judged_and_has_no_colour() -> None:
    silent = features(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU()).eval(), size=(8, 8))
    figure = depth(silent)
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [["not judged for this input"]] * 3
    assert not np.isfinite(figure.axes[1].lines[0].get_ydata()).any()
    assert (
        filters(silent, silent.layers[0])
        .get_suptitle()
        .endswith("blank input (zeros): not judged, since the map is zero everywhere")
    )
    shown = _layer(silent.layers[0], 10_000)["empty"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["filters"].partition(",")[2]))).convert("RGB"))
    assert (np.ptp(pixels.reshape(-1, 3), axis=1) == 0).all()
    assert shown["scores"] == "not judged, since the map is zero everywhere"
