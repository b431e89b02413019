"""The live page in a browser: every number on it is the model's, by mouse, finger, keys, photo and fill."""

from __future__ import annotations

import base64
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
    return sl.wrap(net(), mean=0.5, std=0.25, size=32), sl.load_images("digits", limit=20)


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
        (answer,) = model.answers(image, dx=dx, dy=dy, fill=fill, paddings=[padding])
        wanted = answer.said["classes"]
        page.wait_for_function(
            "([k, logit]) => Math.abs(document.getElementById(`says-${k}`).dataset.logit - logit) < 1e-4",
            arg=[k, wanted[0]["logit"]],
        )
        found = page.eval_on_selector(f"#says-{k}", "e => ({...e.dataset})")
        assert int(found["predicted"]) == wanted[0]["number"]
        shown = page.eval_on_selector_all(
            f"#says-{k} .scores li", "all => all.map(e => [...e.children].map(c => c.textContent))"
        )
        assert [row[:3] for row in shown] == [
            [each["name"], f"{100 * each['probability']:.1f} %", f"{each['logit']:.2f}"] for each in wanted
        ]
        first = answer.said["unshifted"]
        judged = page.inner_text(f"#says-{k} .judged")
        if (dx, dy) == (0, 0):
            assert judged == "unshifted"
        elif first["number"] == wanted[0]["number"]:
            assert judged == f"the same class as unshifted ({100 * first['probability']:.1f} %)"
        else:
            assert judged == f"flipped: unshifted it was {first['name']} {100 * first['probability']:.1f} %"


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
    moved = sl.translate(model.shown.pixels("0"), -1, -1).transpose(1, 2, 0)
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
    both = model.answers("5", dx=5, fill="edge", paddings=["original", "circular"], layer="2")
    maps = np.concatenate([each.maps for each in both if each.maps is not None])
    said = live.inner_text("#maps-1 figcaption")
    assert f"({maps.max():.2f})" in said
    assert f"({maps.min():.2f})" in said
    assert live.eval_on_selector("#maps-1 canvas", "e => [e.height, e.width]") == [2 * 17 - 1, 4 * 17 - 1]
    seen = live.eval_on_selector("#maps-1 canvas", "e => [...e.getContext('2d').getImageData(0, 0, 67, 33).data]")
    greens = np.reshape(seen, (33, 67, 4))[..., 1]
    # The colour scale's green rises with the value: the brightest cell is the strongest.
    assert greens[np.unravel_index(greens.argmax(), greens.shape)] == greens.max()
    strongest = np.unravel_index(maps[8:].reshape(2, 4, 16, 16).argmax(), (2, 4, 16, 16))
    row, column = strongest[0] * 17 + strongest[2], strongest[1] * 17 + strongest[3]
    assert greens[row, column] == greens.max()
    assert not np.reshape(seen, (33, 67, 4))[16, :, 3].any()
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
    mine = model.shown.add((tmp_path / "mine.png").read_bytes())
    holds(live, model, mine, 0, 0)
    for how, data in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        live.click("#thumbnails button[data-image='2']")
        live.wait_for_selector("#frame[data-image='2']", state="attached")
        live.evaluate(
            """([how, data, png]) => {
                const held = new DataTransfer();
                held.items.add(new File([Uint8Array.from(atob(png), (c) => c.charCodeAt(0))], "mine.png"));
                const kind = how === "drop" ? DragEvent : ClipboardEvent;
                document.body.dispatchEvent(new kind(how, { [data]: held, bubbles: true, cancelable: true }));
            }""",
            [how, data, base64.b64encode((tmp_path / "mine.png").read_bytes()).decode()],
        )
        live.wait_for_selector("#frame[data-image^=photo]", state="attached")
        holds(live, model, mine, 0, 0)
    (tmp_path / "none.png").write_text("<svg onload=alert(1)>")
    live.set_input_files("#photo", str(tmp_path / "none.png"))
    live.wait_for_function("() => document.getElementById('problem').textContent.includes('the photo is no picture')")


def test_where_it_flips(live: Any, model: LiveModel) -> None:
    # Progress is shown while rows arrive.
    live.evaluate(
        """() => {
            const bar = document.getElementById("progress");
            window.seen = [];
            const note = () => window.seen.push([bar.hidden, bar.value]);
            new MutationObserver(note).observe(bar, { attributes: true });
        }"""
    )
    live.click("#sweep")
    for k, padding in enumerate(("original", "symmetric")):
        live.wait_for_selector(f"#flips-{k}[data-done=yes]", state="attached")
        won = np.array(list(model.sweep("0", padding=padding)))
        unshifted = won[16, 16]
        shares = live.eval_on_selector_all(f"#flips-{k} .legend li", "all => all.map(each => each.textContent)")
        assert f"{unshifted} {100 * np.mean(won == unshifted):.1f} %" in shares
    seen = live.evaluate("window.seen")
    assert seen[0][0] is False
    assert any(0 < value < 1 for _, value in seen)
    canvas = live.locator("#map-0 canvas")
    width = (canvas.bounding_box()["width"] - 52) / 33
    canvas.click(position={"x": 44 + 20.5 * width, "y": 8 + 10.5 * width})
    holds(live, model, "0", 4, -6)
    live.select_option("#fill", "wrap")
    live.wait_for_selector("#flips-0", state="hidden")


def test_a_finger_drags_the_image(address: str, browser: Any, browser_context_args: dict[str, Any], model: Any) -> None:
    context = browser.new_context(
        **browser_context_args | {"has_touch": True, "viewport": {"width": 390, "height": 844}}
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(READY, state="attached")
    box = page.locator("#frame").bounding_box()
    pixel, x, y = box["width"] / 32, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [{"x": x, "y": y}]),
        ("touchMove", [{"x": x - 2 * pixel, "y": y + pixel}]),
        ("touchMove", [{"x": x - 3.1 * pixel, "y": y + 2.1 * pixel}]),
        ("touchEnd", []),
    ):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    holds(page, model, "0", -3, 2)
    assert page.locator("#invite").is_hidden()
    context.close()


def test_a_slow_model_is_asked_when_the_image_is_let_go(live: Any, model: LiveModel) -> None:
    box = live.locator("#frame").bounding_box()
    pixel, x, y = box["width"] / 32, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    # As if the last answers had taken two seconds each.
    live.evaluate("document.getElementById('rate').dataset.rate = '0.5'")
    live.mouse.move(x, y)
    live.mouse.down()
    live.mouse.move(x + 3 * pixel, y, steps=3)
    live.wait_for_selector("#frame[data-dx='3']", state="attached")
    live.wait_for_timeout(200)
    assert live.get_attribute("#says-0", "data-dx") == "0"
    live.mouse.up()
    holds(live, model, "0", 3, 0)


@pytest.mark.slow
def test_segmenters_detectors_and_a_switch_between_models(page: Any) -> None:
    made = explore()
    made.start()
    names = page.goto(made.address) and page.eval_on_selector_all("#model option", "all => all.map(e => e.textContent)")
    assert sorted(names) == ["detector-digits", "unet-digits", "vgg-cifar10"]
    for name in ("unet-digits", "detector-digits"):
        page.wait_for_selector(READY, state="attached")
        page.select_option("#model", label=name)
        page.wait_for_function("name => document.getElementById('facts').textContent.includes(name)", arg=name)
        page.wait_for_selector(READY, state="attached")
        assert page.locator("#sweep").is_hidden()
        page.locator("#frame").focus()
        page.keyboard.press("Shift+ArrowRight")
        page.wait_for_selector("#says-1[data-dx='5']", state="attached")
        live = LiveModel(f"pretrained:{name}", "digits-scenes")
        for k, found in enumerate(live.answers("0", dx=5, paddings=["original", "symmetric"])):
            shown = page.eval_on_selector_all(
                f"#says-{k} .scores li", "all => all.filter(e => !e.hidden).map(e => e.children[1].textContent)"
            )
            assert shown == [f"{100 * each['probability']:.1f} %" for each in found.said["classes"]]
            large = page.inner_text(f"#says-{k} .class")
            if found.mask is None:
                assert large.startswith(f"{len(found.said['boxes'])} object")
            else:
                assert large == f"{100 * found.said['kept']:.1f} %"
            # Something is drawn over the image.
            drawn = page.eval_on_selector(
                f"#says-{k} .seen", "e => [...e.getContext('2d').getImageData(0, 0, e.width, e.height).data]"
            )
            colours = np.reshape(drawn, (-1, 4))[:, :3]
            assert (np.ptp(colours, axis=1) > 20).sum() > 100
    made.close()


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
