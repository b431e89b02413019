"""Kept masks and boxes on the stage: what the page holds is what the sweep kept; without any, how to keep them."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from narrative.commands import parse
from reporting.planted import Page
from reporting.test_stage_part import inflated
from shiftlens.data.imageset import ImageSet
from shiftlens.reporting import report
from shiftlens.reporting.stage_outputs import packed_output
from shiftlens.reporting.stage_part import NO_VALUE, stage_part
from shiftlens.reporting.thumbnails import Source
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks import kept_outputs
from tasks.small_tasks import CASES, PIXELS, W
from tasks.test_durable_tasks import swept


def boxes_at(packed: dict[str, Any], iy: int, ix: int, dx: int, dy: int) -> NDArray[np.int64]:
    counts, table = inflated(packed["counts"]), inflated(packed["boxes"]).astype(np.int64)
    found = table[: counts[iy, ix], :, iy * counts.shape[1] + ix]
    found[:, :4] = (found[:, :4] + 10 * np.array([dx, dy, dx, dy])) % 2**16
    return found


def mask_at(packed: dict[str, Any], iy: int, ix: int, dx: int, dy: int) -> NDArray[np.int64]:
    still = inflated(packed["still"])
    rows, columns = still.shape
    down, across = (int(np.floor(d / packed["every"] + 0.5)) for d in (dy, dx))
    moved = np.zeros_like(still)
    for y in range(rows):
        for x in range(columns):
            if 0 <= y - down < rows and 0 <= x - across < columns:
                moved[y, x] = still[y - down, x - across]
    return np.asarray(moved ^ inflated(packed["change"])[iy, ix].reshape(rows, columns), np.int64)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return swept("detection", tmp_path_factory.mktemp("boxes") / "one.zarr", keep_outputs=2)


def test_boxes_come_back_as_they_were_kept(boxes: Sweep) -> None:
    assert boxes.kept is not None
    stored = boxes.kept.dataset.load()
    for row in (0, 1):
        packed = packed_output(boxes.kept, row)
        for iy, dy in enumerate(boxes.grid.dys.tolist()):
            for ix, dx in enumerate(boxes.grid.dxs.tolist()):
                here = stored.isel(image=row, dy=iy, dx=ix)
                names = ("left", "top", "right", "bottom", "score", "class")
                table = np.stack([here[f"kept_{name}"].values for name in names], axis=1).astype(int)
                wanted = sorted(table[table[:, 5] < 65534].tolist())
                assert sorted(boxes_at(packed, iy, ix, dx, dy).tolist()) == wanted


@pytest.mark.parametrize("every", [1, 3])
def test_masks_come_back_as_they_were_kept(every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_outputs, "LARGEST_MAP", -(-W // every))
    made = swept("segmentation", tmp_path / "s.zarr", n=1, keep_outputs=1)
    assert made.kept is not None
    maps, packed = made.kept.dataset["class_map"].values[0], packed_output(made.kept, 0)
    for iy, dy in enumerate(made.grid.dys.tolist()):
        for ix, dx in enumerate(made.grid.dxs.tolist()):
            np.testing.assert_array_equal(mask_at(packed, iy, ix, dx, dy).ravel(), maps[:, iy, ix])


def test_the_page_has_the_metric_of_the_kept_images(boxes: Sweep, tmp_path: Path) -> None:
    other = swept("detection", tmp_path / "other.zarr", keep_outputs=1)
    images = ImageSet(PIXELS, CASES["detection"][1])
    made = Page(report([boxes, other], tmp_path / "r.html", images=images).path)
    assert "; it counts detections of every score, recall those of at least 0.5." in made.visible
    stage = made.data["stage"]
    assert stage["kind"] == "boxes"
    assert stage["position"] == [0]  # the other sweep has kept no more
    assert len(stage["models"]) == 2
    stored = boxes.dataset["confidence"].values[:1]
    wanted = np.where(np.isnan(stored), NO_VALUE, np.rint(1000 * stored.astype(np.float64)))
    np.testing.assert_array_equal(inflated(stage["models"][0]["values"]), wanted)
    assert stage["models"][0]["outputs"] == [packed_output(boxes.kept, 0)]
    in_view = np.isfinite(boxes.dataset["object_confidence"].values[:1]).sum(axis=1)
    np.testing.assert_array_equal(inflated(stage["models"][0]["objects"]), in_view)
    assert stage["models"][0]["score_threshold"] == boxes.kept.header.task.settings["score_threshold"]
    alone = stage_part([boxes], ["one"], Source(images))
    assert alone is not None
    assert [group["name"] for group in alone.data["groups"]] == ["Images with outputs, most fragile first"]
    assert sorted(alone.data["groups"][0]["images"]) == [0, 1]


def test_without_kept_outputs_the_page_says_how_to_keep_them(tmp_path: Path) -> None:
    made = swept("segmentation without masks", tmp_path / "s.zarr", n=1)
    page = Page(report([made], tmp_path / "r.html").path)
    assert page.data["stage"] is None
    found = re.search(r'class="stage-hint".*?</div>', page.text, re.DOTALL)
    assert found is not None
    said = html.unescape(re.sub(r"<[^>]+>", "", found[0]))
    assert "To drag an image with its mask here, keep the outputs of some images" in said
    words = shlex.split(said[said.index("shiftlens sweep") :].split("\n")[0])
    name, given = parse(words)
    wanted = {"keep_outputs": 1, "task": "segmentation", "max_shift": "4x4", "step": 4, "out": made.path}
    assert (name, {key: given[key] for key in wanted}) == ("sweep", wanted)
    assert {"--model", "--data"} <= set(words)
