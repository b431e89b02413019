"""The page of a detector, a segmenter and an embedding net: their own pictures, words and findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import shiftlens as sl
from reporting.planted import Page
from shiftlens.analysis.arrays import from_sweep
from shiftlens.analysis.object_curves import ObjectCurves, object_curves
from shiftlens.reporting.task_part import task_part
from shiftlens.reporting.task_strips import worst_images, worst_objects
from shiftlens.reporting.thumbnails import Source

GRID = sl.ShiftGrid((0, 6))
"""One row, three periods of the nets' stride of 4."""


@pytest.fixture(scope="module")
def scenes() -> sl.ImageSet:
    return sl.load_images("digits-scenes", split="test", limit=5)


def swept(scenes: sl.ImageSet, where: Path, model: str, task: str) -> sl.Sweep:
    return sl.sweep(f"pretrained:{model}-digits", scenes, GRID, out=where / f"{task}.zarr", task=task)


@pytest.fixture(scope="module")
def boxes(scenes: sl.ImageSet, tmp_path_factory: pytest.TempPathFactory) -> sl.Sweep:
    return swept(scenes, tmp_path_factory.mktemp("boxes"), "detector", "detection")


@pytest.fixture(scope="module")
def masks(scenes: sl.ImageSet, tmp_path_factory: pytest.TempPathFactory) -> sl.Sweep:
    return swept(scenes, tmp_path_factory.mktemp("masks"), "unet", "segmentation")


def alts(page: Page) -> str:
    return " | ".join(each.get("alt") or "" for tag, each in page.tags if tag == "img")


def test_a_detectors_page_shows_its_objects_places_and_phases(boxes: sl.Sweep, tmp_path: Path) -> None:
    made = sl.report(boxes, tmp_path / "r.html")
    page = Page(made.path)
    assert "Objects, places and phases" in page.visible
    for picture in (
        "The confidence of each object, a line each, against dx and against dy",
        "The objects whose confidence swings most within 4 px, with their boxes; red: the lowest",
        "Recall of objects centred there: by the place in the frame, and by the distance to the nearest border",
        "Recall by the phase of the shift (dx mod s, dy mod s), s a stride of the net",
    ):
        assert picture in alts(page)
    assert "Not shown" not in page.visible
    # In the answer to question A, and under the findings.
    for text in ("The confidence of the same object swings by", "px of a border, the recall of objects centred there"):
        assert page.visible.count(text) == 2
    assert {each.id for each in made.findings} >= {"object-swing", "border-rate"}
    assert "accuracy" not in page.visible.lower()
    assert "--padding reflect" in page.visible
    assert "--finetune" not in page.visible
    for what, why in (
        ("occlusion effect", "there is no occlusion control"),
        ("padding effect", "the control canvas is not defined for detection"),
    ):
        assert page.visible.count(f"Not measured: {what}, since {why}.") == 1


def test_a_segmenters_page_has_whole_images_instead_of_objects(masks: sl.Sweep, tmp_path: Path) -> None:
    made = sl.report(masks, tmp_path / "r.html")
    page = Page(made.path)
    border = made.findings.named("border-rate")
    assert border is not None
    # Five images, each a group of its own, are enough for an interval.
    assert border.interval is not None
    assert "jackknife over 5 groups of images" in border.evidence
    assert "The images whose mean IoU swings most within 4 px; red: the lowest" in alts(page)
    assert "Share of pixels whose class changes: by the place in the frame" in alts(page)
    assert "of each object" not in alts(page)
    # Stride 8 has no three periods in 13 shifts, stride 4 has.
    assert "Mean IoU by the phase of the shift" in alts(page)


def test_what_a_task_has_not_is_said_once_and_classification_has_no_such_part(tmp_path: Path) -> None:
    digits = sl.load_images("digits", limit=4)
    net = sl.nn.VGG("vgg6", width=4).eval()
    model, grid = sl.wrap(net, mean=0, std=1, size=32), sl.ShiftGrid((0, 2))
    # Without training a deep net's outputs hardly depend on the image.
    blurred = sl.wrap(
        nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.AvgPool2d(8), nn.Flatten()), mean=0, std=1, size=32
    )
    turned = sl.sweep(
        blurred, digits, grid, out=tmp_path / "e.zarr", task="embedding", engine="direct", dtype="float32"
    )
    page = Page(sl.report(turned, tmp_path / "e.html").path)
    assert "The images whose cosine swings most" in alts(page)
    assert page.visible.count("Not shown: by place, since the task embedding stores nothing by place.") == 1
    assert page.visible.count("Not shown: phases, since the grid has fewer than 3 periods of the stride 8.") == 1
    classes = sl.sweep(model, digits, grid, out=tmp_path / "c.zarr", engine="direct", dtype="float32")
    assert "Objects, places" not in Page(sl.report(classes, tmp_path / "c.html").path).visible


def test_images_that_are_not_at_hand_are_not_shown_and_said(
    masks: sl.Sweep, scenes: sl.ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shiftlens.reporting.thumbnails.EMBEDDED", ())
    values = from_sweep(masks).values()
    without, given = (task_part(masks, values, source) for source in (Source(), Source(scenes)))
    assert without is not None
    assert given is not None
    assert without["missing"][0].startswith("Not shown: images, since no source of the images was given")
    assert given["missing"] == []
    assert len(given["pictures"]) == len(without["pictures"]) + 1


def test_a_strip_shows_the_object_in_its_box_under_each_shift(boxes: sl.Sweep, scenes: sl.ImageSet) -> None:
    curves = object_curves(boxes)
    assert isinstance(curves, ObjectCurves)
    rows = worst_objects(boxes, curves, scenes)
    assert len(rows) == 5
    k = int(np.nanargmax(curves.swing))
    row, place = curves.image[k], curves.place[k]
    first, (left, top, right, bottom) = rows[0], scenes.targets.boxes[row, place, :4].astype(int)
    near = curves.across[k][2:-2]
    assert first.captions == [
        f"dx {dx:+d}\n{v:.2f}".replace("+0", "0") for dx, v in zip(range(-4, 5), near, strict=True)
    ]
    turned = replace(curves, across=curves.down, down=curves.across, dxs=curves.dys, dys=curves.dxs)
    down = worst_objects(boxes, turned, scenes)[0]
    assert down.captions == [caption.replace("dx", "dy") for caption in first.captions]
    assert first.worst == int(np.argmin(near))
    at_rest = first.boxes[4].astype(int)
    crop = first.pictures[4][at_rest[1] : at_rest[3], at_rest[0] : at_rest[2]]
    whole = scenes.batch([int(row)])[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(crop, np.broadcast_to(whole[top:bottom, left:right], crop.shape))
    moved = first.boxes[6].astype(int)
    np.testing.assert_array_equal(first.pictures[6][moved[1] : moved[3], moved[0] : moved[2]], crop)


def test_whole_images_are_marked_where_their_metric_is_worst(masks: sl.Sweep, scenes: sl.ImageSet) -> None:
    arrays = from_sweep(masks)
    rows = worst_images(masks, arrays.values(), scenes)
    near = arrays.values()[slice(0, 5)][:, 2:-2]
    spread = dict(zip(arrays.positions.tolist(), np.ptp(near, axis=1), strict=True))
    named = [int(row.name.removeprefix("image ")) for row in rows]
    assert named == sorted(spread, key=lambda position: -spread[position])
    one = near[list(spread).index(named[0])]
    assert rows[0].worst == int(np.argmin(one))
    assert rows[0].captions[rows[0].worst].endswith(f"{100 * one.min():.1f} %")
