"""The live page in a browser: every number on it is the model's, by mouse, finger, keys, photo and fill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shiftlens as sl

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from explorer.test_live_model import net
from shiftlens.explorer import LiveModel, explore

READY = "html[data-ready=yes]"


@pytest.fixture(scope="module")
def parts() -> tuple[sl.Model, sl.ImageSet]:
    return sl.wrap(net(), mean=0.5, std=0.25, size=32), sl.load_images("digits", limit=12)


@pytest.fixture(scope="module")
def model(parts: tuple[sl.Model, sl.ImageSet]) -> LiveModel:
    """Another one than the page asks."""
    return LiveModel(*parts)


@pytest.fixture(scope="module")
def address(parts: tuple[sl.Model, sl.ImageSet]) -> Iterator[str]:
    made = explore(*parts)
    made.start()
    yield made.address
    made.close()


@pytest.fixture
def live(page: Any, address: str) -> Iterator[Any]:
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(address)
    page.wait_for_selector(READY, state="attached")
    yield page
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert [text for text in complaints if "status of 400" not in text] == []


def holds(
    page: Any, model: LiveModel, image: str, dx: int, dy: int, fill: str = "black", beside: str = "symmetric"
) -> None:
    """Wait for the answers at this shift, and hold them against the model's."""
    for k, padding in enumerate(("original", beside)):
        page.wait_for_selector(f"#says-{k}[data-dx='{dx}'][data-dy='{dy}'][data-padding='{padding}']", state="attached")
        wanted = model.answer(image, dx=dx, dy=dy, fill=fill, padding=padding)["classes"]
        page.wait_for_function(
            "([k, logit]) => Math.abs(document.getElementById(`says-${k}`).dataset.logit - logit) < 1e-4",
            arg=[k, wanted[0]["logit"]],
        )
        found = page.eval_on_selector(f"#says-{k}", "e => ({...e.dataset})")
        assert int(found["predicted"]) == wanted[0]["number"]
        shown = page.eval_on_selector_all(
            f"#scores-{k} li", "all => all.map(e => [...e.children].map(c => c.textContent))"
        )
        assert [row[:3] for row in shown] == [
            [each["name"], f"{100 * each['probability']:.1f} %", f"{each['logit']:.2f}"] for each in wanted
        ]


def test_the_image_follows_mouse_and_keys(live: Any, model: LiveModel) -> None:
    holds(live, model, "0", 0, 0)
    box = live.locator("#frame").bounding_box()
    pixel, x, y = box["width"] / 32, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    live.mouse.move(x, y)
    live.mouse.down()
    live.mouse.move(x + 4.2 * pixel, y - 2.1 * pixel, steps=5)
    live.mouse.up()
    holds(live, model, "0", 4, -2)
    live.locator("#frame").focus()
    live.keyboard.press("Shift+ArrowLeft")
    live.keyboard.press("ArrowDown")
    holds(live, model, "0", -1, -1)
    seen = live.eval_on_selector("#frame", "e => [...e.getContext('2d').getImageData(0, 0, 32, 32).data]")
    moved = sl.translate(model.pixels("0"), -1, -1).transpose(1, 2, 0)
    assert np.abs(np.reshape(seen, (32, 32, 4))[..., :3] - moved.astype(int)).max() <= 2
    live.keyboard.press("Home")
    holds(live, model, "0", 0, 0)


def test_fill_padding_image_and_layer_are_switched_on_the_spot(live: Any, model: LiveModel) -> None:
    live.fill("#image", "5")
    live.locator("#image").blur()
    live.wait_for_selector("#frame[data-image='5']", state="attached")
    live.locator("#frame").focus()
    live.keyboard.press("Shift+ArrowRight")
    holds(live, model, "5", 5, 0)
    live.select_option("#fill", "edge")
    holds(live, model, "5", 5, 0, "edge")
    live.select_option("#padding", "circular")
    holds(live, model, "5", 5, 0, "edge", "circular")
    live.select_option("#layer", "2")
    live.wait_for_selector("#maps-1:not([hidden])")
    maps = model.answer("5", dx=5, fill="edge", padding="circular", layer="2")["maps"]
    assert live.inner_text("#maps-1 figcaption").endswith(f"from {maps['low']:.2f} to {maps['high']:.2f}")
    size = live.eval_on_selector("#maps-1 canvas", "e => [e.height, e.width]")
    assert size == maps["cells"]["shape"]
    # What the net cannot do is said, and the page goes on.
    live.select_option("#padding", "full")
    live.wait_for_function("() => document.getElementById('problem').textContent.includes('cannot pad with full')")
    live.select_option("#padding", "replicate")
    holds(live, model, "5", 5, 0, "edge", "replicate")
    assert live.inner_text("#problem") == ""


def test_a_photo_of_one_s_own(live: Any, model: LiveModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    live.set_input_files("#photo", str(tmp_path / "mine.png"))
    live.wait_for_selector("#frame[data-image^=photo]", state="attached")
    holds(live, model, model.add((tmp_path / "mine.png").read_bytes()), 0, 0)
    (tmp_path / "none.png").write_text("<svg onload=alert(1)>")
    live.set_input_files("#photo", str(tmp_path / "none.png"))
    live.wait_for_function("() => document.getElementById('problem').textContent.includes('the photo is no picture')")


def test_where_it_flips(live: Any, model: LiveModel) -> None:
    live.click("#sweep")
    for k, padding in enumerate(("original", "symmetric")):
        live.wait_for_selector(f"#flips-{k}[data-done=yes]", state="attached")
        won = np.array(list(model.sweep("0", padding=padding)))
        unshifted = won[16, 16]
        share = f"{unshifted} {100 * np.mean(won == unshifted):.1f} %"
        assert share in live.inner_text(f"#flips-{k} figcaption")
    canvas = live.locator("#map-0 canvas")
    width = (canvas.bounding_box()["width"] - 52) / 33
    canvas.click(position={"x": 44 + 20.5 * width, "y": 8 + 10.5 * width})
    holds(live, model, "0", 4, -6)
    live.select_option("#fill", "wrap")
    live.wait_for_selector("#flips-0", state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(live: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    live.emulate_media(color_scheme=scheme)
    live.set_viewport_size({"width": 390, "height": 844})
    live.select_option("#layer", "2")
    live.wait_for_selector("#maps-1:not([hidden])")
    live.click("#sweep")
    live.wait_for_selector("#flips-1[data-done=yes]", state="attached")
    assert live.evaluate("document.documentElement.scrollWidth") <= 390
    # The page allows no other script, not even this tool's: it is injected past the policy.
    found = Axe().run(live).response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []
