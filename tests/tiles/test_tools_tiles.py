"""The printed arguments place windows as MONAI and SAHI place them, and what their averaging leaves is what is said."""

from __future__ import annotations

import re

import pytest
import torch

import shiftlens as sl
from shiftlens.reporting.tile_part import tile_view
from tiles.planted_causes import images, model

SIZE = 64


@pytest.fixture(scope="module")
def reports() -> dict[str, sl.TileReport]:
    return {norm: sl.tile_report(model(norm=norm), images(2), tile=26) for norm in ("batch", "instance")}


def monai_origins(call: str) -> tuple[int, list[int]]:
    """As `monai.data.utils.dense_patch_slices` of MONAI 1.6 has them, with `SlidingWindowInferer`'s interval."""
    tile, overlap = (float(found) for found in re.findall(r"roi_size=\((\d+).*overlap=([\d.]+)", call)[0])
    interval = int(tile * (1 - overlap))
    starts = [min(k * interval, SIZE - int(tile)) for k in range(SIZE)]
    return int(tile), list(dict.fromkeys(starts))


def sahi_origins(call: str) -> tuple[int, list[int]]:
    """As `sahi.slicing.get_slice_bboxes` of SAHI 0.12 has them."""
    tile, ratio = (float(found) for found in re.findall(r"slice_height=(\d+).*overlap_height_ratio=([\d.]+)", call)[0])
    side, overlap, origins, at = int(tile), int(ratio * int(tile)), [], 0
    while True:
        origins.append(min(at, SIZE - side))
        if at + side >= SIZE:
            return side, origins
        at += side - overlap


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("tool", "origins_of"), [("monai", monai_origins), ("sahi", sahi_origins)])
def test_what_a_tools_averaging_leaves_is_what_is_said(tool, origins_of, norm, reports) -> None:
    report = reports[norm]
    side, origins = origins_of(report.recipe[tool])
    assert side == report.recipe["tile"] == 26
    assert origins[1] == side - 2 * report.recipe["overlap"]
    wanted, left = model(norm=norm), []
    for position in range(2):
        x = wanted.preprocessing.normalise(torch.from_numpy(images(2).batch([position])))
        with torch.no_grad(), wanted.evaluating():
            whole = wanted.module(x)
            total, n = torch.zeros_like(whole), torch.zeros_like(whole)
            for y in origins:
                for x0 in origins:
                    total[:, :, y : y + side, x0 : x0 + side] += wanted.module(x[:, :, y : y + side, x0 : x0 + side])
                    n[:, :, y : y + side, x0 : x0 + side] += 1
        left.append(float((total / n - whole).abs().mean()))
    assert sum(left) / 2 == pytest.approx(report.recipe["averaged_mismatch"], rel=1e-4)
    assert report.recipe["averaged_mismatch"] > 0


def test_the_loop_of_a_local_net_and_predict_tiled_of_both_are_exact(reports) -> None:
    wanted = model()
    image = wanted.preprocessing.normalise(torch.from_numpy(images(2).batch([0])))
    with torch.no_grad(), wanted.evaluating():
        space = {"torch": torch, "image": image, "net": wanted.module}
        exec(reports["batch"].recipe["loop"], space)
        torch.testing.assert_close(space["output"], wanted.module(image), rtol=0, atol=1e-5)
    assert reports["batch"].recipe["checked"] <= 1e-5
    assert reports["instance"].recipe["checked"] <= 1e-5
    assert "not exact" in reports["instance"].recipe["loop"]


def test_where_the_loop_is_not_exact_the_printed_lines_call_predict_tiled(reports) -> None:
    report, wanted = reports["instance"], model(norm="instance")
    said = str(report)
    assert "for x, x_end in" not in said  # the inexact loop
    lines = said.partition("\nin Python:\n")[2]
    assert lines
    assert lines.strip() in tile_view(report, 0)["recipe"]  # of the page
    image = torch.from_numpy(images(2).batch([0]))
    space = {"model": wanted, "image": image[0]}
    exec(lines, space)
    with torch.no_grad(), wanted.evaluating():
        whole = wanted.module(wanted.preprocessing.normalise(image))
    torch.testing.assert_close(space["output"][None], whole, rtol=0, atol=1e-5)


def test_a_recipe_says_when_tiles_are_not_worth_it_and_what_is_enough(reports) -> None:
    for norm, how in (("batch", "Use tiles of 26 px"), ("instance", "Use predict_tiled: tiles of 26 px")):
        lines, action = str(reports[norm]).splitlines(), sl.findings(reports[norm])[0].action
        assert action is not None
        assert action.text.startswith(how)
        assert any("which leaves" in line for line in lines)
        assert not any("pass them whole" in line for line in lines)
    small = sl.tile_report(sl.load_model("pretrained:unet-digits"), sl.load_images("digits-scenes", limit=1), tile=48)
    said = str(small)
    assert "these images are no larger than this tile: pass them whole" in said
    # 2 * 48 px of a side are context: 328 * 328 / (328 - 96)^2 = 2.0.
    assert "on larger images, 9.0 pixels are computed for each that is kept; with tiles of 328 px 2.0" in said
    assert "what that leaves was not measured: the tile is no smaller than these images" in said
    action = sl.findings(small)[0].action
    assert action is not None
    assert action.text.startswith("Pass these images whole")
