"""The stage with masks and boxes: they follow mouse, finger, keys and link, and are what the sweep has kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import OUTPUTS, Watch
from test_stage import PHONE, opened, shift, told

import shiftlens as sl
from tasks.small_tasks import PIXELS, H, W

METRIC = {"boxes": "confidence", "masks": "mean_iou"}


@pytest.fixture(scope="module", params=sorted(OUTPUTS))
def still(
    request: pytest.FixtureRequest, browser: Any, browser_context_args: dict[str, Any], kept: Path
) -> Iterator[tuple[Any, Watch, str]]:
    context = browser.new_context(**browser_context_args | {"reduced_motion": "reduce"})
    page = context.new_page()
    found = Watch(page)
    yield opened(page, kept / f"{request.param}.html"), found, request.param
    context.close()


@pytest.fixture
def stage(still: tuple[Any, Watch, str]) -> Iterator[tuple[Any, str]]:
    page, found, kind = still
    yield page, kind
    found.hold()


def known(page: Any, model: int) -> list[Any]:
    page.wait_for_function(f"() => document.getElementById('stage-says-{model}').dataset.found !== ''")
    found: list[Any] = json.loads(told(page, f"#stage-says-{model}")["found"])
    return found


def holds(page: Any, folder: Path, kind: str, models: tuple[str, ...] = ("first", "second")) -> None:
    """What is shown of each model is what its sweep has kept, and its metric there."""
    image, (dx, dy) = int(told(page, "#stage-frame")["image"]), shift(page)
    for model, name in enumerate(models):
        sweep = sl.open_sweep(folder / f"{kind}-{name}.zarr")
        found, says = known(page, model), told(page, f"#stage-says-{model}")
        value = float(sweep.dataset[METRIC[kind]].isel(image=image).sel(dx=dx, dy=dy))
        assert says["value"] == ("" if np.isnan(value) else f"{100 * value:.1f}")
        assert sweep.kept is not None
        here = sweep.kept.dataset.isel(image=image).sel(dx=dx, dy=dy)
        if kind == "boxes":
            names = ("class", "score", "left", "top", "right", "bottom")
            table = np.stack([here[f"kept_{each}"].values for each in names], axis=1).astype(float)
            table = table[table[:, 0] < 65534] / [1, 1000, 10, 10, 10, 10]
            assert sorted(found) == pytest.approx(np.array(sorted(table.tolist())).reshape(-1, 6))
            shown = int(sweep.dataset["object_confidence"].isel(image=image).sel(dx=dx, dy=dy).notnull().sum())
            assert re.search(rf"{shown} objects? in view, {len(table)} box(es)? of a score of at least", says["text"])
            assert all(f"class {which}: {score:.2f}" in says["text"] for which, score, *_ in found[:10])
            assert (f"{len(table) - 10} more" in says["text"]) == (len(table) > 10)
        else:
            shares = np.bincount(here.class_map.values, minlength=3) / (H * W)
            assert dict(found) == pytest.approx({k: 100 * each for k, each in enumerate(shares) if each})


def drawn_part(page: Any, model: int) -> np.ndarray[Any, Any]:
    """Opacity of the canvas over the image at the middle of each pixel of the image."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = page.eval_on_selector(
        f"#stage-over-{model}",
        "(e, [h, w]) => { const out = [];"
        "const all = e.getContext('2d').getImageData(0, 0, e.width, e.height).data;"
        "for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) out.push(all["
        "4 * (Math.floor((y + 0.5) * e.height / h) * e.width + Math.floor((x + 0.5) * e.width / w)) + 3]);"
        "return out; }",
        [H, W],
    )
    return np.reshape(found, (H, W))


def test_a_link_and_keys_show_what_was_kept(stage: tuple[Any, str], kept: Path) -> None:
    page, kind = stage
    for image, dx, dy in ((2, 4, -6), (0, 0, 0), (0, -6, 2)):
        page.evaluate(f"location.hash = '#image={image}&dx={dx}&dy={dy}'")
        page.wait_for_function(f"() => document.getElementById('stage-frame').dataset.image === '{image}'")
        page.wait_for_function(f"() => document.getElementById('stage-frame').dataset.dx === '{dx}'")
        assert shift(page) == (dx, dy)
        holds(page, kept, kind)
    page.locator("#stage-frame").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert shift(page) == (2, 0)
    holds(page, kept, kind)


def test_either_frame_is_dragged_and_both_models_follow(stage: tuple[Any, str], kept: Path) -> None:
    page, kind = stage
    page.evaluate("location.hash = '#image=0&dx=0&dy=0'")
    for selector in ("#stage-frame", "#stage-says-1 .stage-copy"):
        page.click("#stage-home")
        frame = page.locator(selector)
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        pixel = box["width"] / W
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 4.2 * pixel, y - 1.9 * pixel, steps=3)
        page.mouse.up()
        assert shift(page) == (4, -2)
        holds(page, kept, kind)
    assert page.evaluate("location.hash") == "#image=0&dx=4&dy=-2"


def test_what_is_drawn_lies_where_it_was_found(stage: tuple[Any, str], kept: Path) -> None:
    page, kind = stage
    page.evaluate("location.hash = '#image=0&dx=-4&dy=2'")
    page.wait_for_function("() => document.getElementById('stage-frame').dataset.dx === '-4'")
    for model, name in enumerate(("first", "second")):
        found, over = known(page, model), drawn_part(page, model)
        if kind == "masks":
            sweep = sl.open_sweep(kept / f"{kind}-{name}.zarr").kept
            assert sweep is not None
            whole = sweep.dataset.class_map.values[0]
            classes = sweep.dataset.class_map.isel(image=0).sel(dx=-4, dy=2).values.reshape(H, W)
            counts = np.bincount(np.concatenate([whole[:, 3, 3], *(whole.reshape(H * W, -1).T)]))
            np.testing.assert_array_equal(over > 0, classes != counts.argmax())
        else:
            assert found
            assert (over > 0).any()
            outside = np.ones((H, W), bool)
            for _, _, left, top, right, bottom in found:
                outside[max(0, int(top) - 3) : int(bottom) + 3, max(0, int(left) - 2) : int(right) + 15] = False
            assert not over[outside].any()


def test_a_finger_drags_one_model(browser: Any, browser_context_args: dict[str, Any], kept: Path) -> None:
    context = browser.new_context(**browser_context_args | PHONE | {"reduced_motion": "reduce"})
    page = opened(context.new_page(), kept / "boxes-alone.html", "#image=0&dx=0&dy=0")
    found = Watch(page)
    frame = page.locator("#stage-frame")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    pixel = box["width"] / W
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = context.new_cdp_session(page)
    for kind, k in (("touchStart", 0), ("touchMove", 1), ("touchMove", 2), ("touchMove", 3)):
        point = {"x": x - 1.4 * k * pixel, "y": y + 0.7 * k * pixel}
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert shift(page) == (-4, 2)
    holds(page, kept, "boxes", ("first",))
    assert (drawn_part(page, 0) > 0).any()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    found.hold()
    context.close()


@pytest.mark.parametrize(("name", "width", "scheme"), [("boxes", 1280, "dark"), ("masks", 390, "light")])
def test_the_stage_is_accessible(page: Any, watch: Any, kept: Path, name: str, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    opened(page, kept / f"{name}.html")
    known(page, 0)
    found = Axe().run(page, context="#stage").response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []


def test_the_pixels_are_those_that_the_net_saw(stage: tuple[Any, str]) -> None:
    page, _ = stage
    page.evaluate("location.hash = '#image=2&dx=6&dy=-2'")
    page.wait_for_function("() => document.getElementById('stage-frame').dataset.image === '2'")
    moved = sl.translate(PIXELS[[2]], 6, -2)[0, 0].astype(int)
    for selector in ("#stage-frame", "#stage-says-0 .stage-copy"):
        seen = page.eval_on_selector(
            selector, "(e, [h, w]) => [...e.getContext('2d').getImageData(0, 0, w, h).data]", [H, W]
        )
        assert np.abs(np.reshape(seen, (H, W, 4))[..., 0] - moved).max() <= 2
