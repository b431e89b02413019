"""The report as a page: from disk, silent, for everyone, on paper, without scripts, whatever things are called."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pages import HOSTILE, Built, Watch

from narrative import millimetres as mm
from shiftlens.reporting.page import SCRIPTS

PHONE = {"width": 360, "height": 740}
READY = "html[data-ready=yes]"


def opened(page: Any, built: Built) -> Any:
    page.goto(built.report.as_uri())
    page.wait_for_selector(READY, state="attached")
    return page


def test_it_opens_from_disk_and_asks_nobody_for_anything(page: Any, watch: Any, built: Built) -> None:
    report = opened(page, built)
    # What `watch` holds at the end of every test is held here for the whole page, scrolled through.
    report.evaluate("for (const e of document.querySelectorAll('details')) { e.open = true; }")
    report.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    report.wait_for_timeout(200)
    assert watch.requests[0].startswith("file:")
    assert watch.outside == []
    assert "shiftlens report" in report.title()
    pictures = report.eval_on_selector_all("img", "all => all.map(e => [e.src.slice(0, 5), e.alt])")
    assert len(pictures) > 8
    assert all(start in ("data:", "blob:") and alt for start, alt in pictures)


def test_a_page_that_asks_is_caught(page: Any, tmp_path: Any) -> None:
    # The watch itself must be able to fail.
    (tmp_path / "x.html").write_text('<img src="http://127.0.0.1:9/x.png"><script>undefined_name</script>')
    found = Watch(page)
    page.goto((tmp_path / "x.html").as_uri())
    page.wait_for_timeout(200)
    assert found.outside == ["http://127.0.0.1:9/x.png"]
    assert any("undefined_name" in each for each in found.complaints)


def test_the_policy_lets_no_other_script_run(page: Any, watch: Any, built: Built) -> None:
    report = opened(page, built)
    report.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s);"
    )
    assert report.evaluate("window.hacked") is None
    assert any("Content Security Policy" in each for each in watch.complaints)
    watch.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_serious_finding_of_accessibility(page: Any, watch: Any, built: Built, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    opened(page, built)
    page.evaluate("for (const e of document.querySelectorAll('details')) { e.open = true; }")
    found = Axe().run(page).response["violations"]
    serious = [
        f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


COLOURS = """[
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.body).color,
    document.querySelector('#heatmap-sweep-0 canvas').toDataURL(),
    document.querySelector('#across-sweep-0 .xtick text').style.fill,
]"""


def test_light_and_dark_are_different_and_follow_the_reader(page: Any, watch: Any, built: Built) -> None:
    page.emulate_media(color_scheme="light")
    opened(page, built)
    light = page.evaluate(COLOURS)
    page.emulate_media(color_scheme="dark")
    # The page draws again in its own time; a wait of a fixed length failed on a busy machine.
    page.wait_for_function(f"light => {COLOURS}.every((colour, k) => colour !== light[k])", arg=light)
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"light => {COLOURS}.every((colour, k) => colour === light[k])", arg=light)


@pytest.mark.parametrize("javascript", [True, False])
def test_a_phone_needs_no_sideways_scrolling(
    browser: Any, browser_context_args: dict[str, Any], built: Built, javascript: bool
) -> None:
    context = browser.new_context(**browser_context_args | {"viewport": PHONE, "java_script_enabled": javascript})
    page = context.new_page()
    page.goto(built.report.as_uri())
    if javascript:
        page.wait_for_selector(READY, state="attached")
    page.evaluate("for (const e of document.querySelectorAll('details')) { e.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate("document.body.scrollWidth") <= PHONE["width"]
    picture = page.locator("#sweep-0 canvas" if javascript else "#sweep-0 .still img").first.bounding_box()
    assert picture["x"] >= 0
    assert picture["x"] + picture["width"] <= PHONE["width"]
    if not javascript:
        context.close()
        return
    # Controls stay large enough for a finger, and inside the screen.
    for selector in ("#map-sweep-0", "#radius-sweep-0", "#layer-features-0"):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert box["height"] >= 24
    context.close()


def test_a_tap_chooses_a_cell(browser: Any, browser_context_args: dict[str, Any], built: Built) -> None:
    context = browser.new_context(**browser_context_args | {"viewport": PHONE, "has_touch": True, "is_mobile": True})
    page = opened(context.new_page(), built)
    canvas = page.locator("#heatmap-sweep-0 canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    canvas.tap(position={"x": box["width"] - 10, "y": 10})
    assert page.eval_on_selector("#chosen-sweep-0", "e => [e.dataset.dx, e.dataset.dy]") == ["6", "-6"]
    context.close()


def test_without_scripts_the_findings_and_the_main_picture_are_there(
    browser: Any, browser_context_args: dict[str, Any], built: Built
) -> None:
    import shiftlens as sl

    context = browser.new_context(**browser_context_args | {"java_script_enabled": False})
    page = context.new_page()
    page.goto(built.report.as_uri())
    picture = page.locator("#sweep-0 .still img").first
    assert picture.is_visible()
    assert picture.bounding_box()["width"] > 250
    assert page.locator("#verdict-sweep-0 p").count() == 3
    shown = page.locator("#findings-sweep-0 .finding").count()
    found = sl.findings(sl.open_sweep(built.sweep))
    assert shown == len(found.with_severity("warn", "note")) > 0
    text = page.inner_text("#findings-sweep-0")
    for each in found.with_severity("warn", "note"):
        assert each.statement in text
    # What only scripts can bring to life does not stand there dead.
    assert page.locator(".live:visible").count() == 0
    context.close()


def test_the_table_beside_the_map_has_its_numbers(report: Any, built: Built) -> None:
    zarr = xr.open_zarr(built.sweep, consolidated=False)
    table = report.evaluate(
        "() => { const t = document.getElementById('table-sweep-0'); return ["
        "[...t.querySelectorAll('thead th')].slice(1).map(e => e.textContent), "
        "[...t.querySelectorAll('tbody tr')].map(r => [...r.children].map(e => e.textContent))]; }"
    )
    dxs = [int(text.replace("−", "-")) for text in table[0]]
    assert 0 in dxs
    assert {min(dxs), max(dxs)} == {-6, 6}
    for head, *cells in table[1]:
        dy = int(head.replace("−", "-"))
        for dx, cell in zip(dxs, cells, strict=True):
            assert cell.startswith(f"{100 * float(zarr.accuracy.sel(dx=dx, dy=dy)):.1f} [")


def test_on_paper_everything_is_dark_on_light_and_no_control_is_left(page: Any, watch: Any, built: Built) -> None:
    page.emulate_media(color_scheme="dark")
    opened(page, built)
    page.emulate_media(color_scheme="dark", media="print")
    page.wait_for_timeout(100)
    colours = page.evaluate(
        "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k].match(/[\\d.]+/g).map(Number))"
    )
    assert sum(colours[0][:3]) < 200
    assert sum(colours[1][:3]) > 700 or colours[1][3:] == [0]
    for selector in ("#map-sweep-0", "#radius-sweep-0", "#layer-features-0"):
        assert not page.locator(selector).is_visible()
    for selector in ("#verdict-sweep-0", "#findings-sweep-0", "#provenance"):
        assert page.locator(selector).is_visible()
    # The map itself is on the paper: as a canvas or as the picture.
    assert (
        page.locator("#heatmap-sweep-0 canvas").is_visible() or page.locator("#sweep-0 .still img").first.is_visible()
    )
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert len(paper) > 50_000


def test_hostile_names_stay_text(page: Any, watch: Any, hostile: Built) -> None:
    opened(page, hostile)
    page.evaluate("for (const e of document.querySelectorAll('details')) { e.open = true; }")
    for which in page.eval_on_selector_all("#map-sweep-0 option", "all => all.map(e => e.value)"):
        page.select_option("#map-sweep-0", which)
    page.locator("#heatmap-sweep-0 canvas").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    page.check("#all-images-sweep-0")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    # Nothing in the page was made by a name: no element, no handler, no link.
    counts = page.evaluate(
        "[document.querySelectorAll('svg[onload], [onerror], [onmouseover], img[src=x], a[href^=javascript]').length, "
        "document.querySelectorAll('script').length]"
    )
    assert counts[0] == 0
    assert counts[1] == len(SCRIPTS) + 1
    text = page.evaluate("document.body.textContent")
    assert "{{7*7}}" in text
    labels = page.eval_on_selector_all("#map-sweep-0 option", "all => all.map(e => e.textContent)")
    for name in HOSTILE[:9]:
        assert any(name in label for label in labels), name
    # A name that turns the writing round does not get to.
    assert "\u202e" not in text
    shown = page.inner_text("#fails-sweep-0")
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in page.title()


def test_hostile_names_stay_text_without_scripts(
    browser: Any, browser_context_args: dict[str, Any], hostile: Built
) -> None:
    context = browser.new_context(**browser_context_args | {"java_script_enabled": False})
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(hostile.report.as_uri())
    assert "{{7*7}}" in page.inner_text("body")
    assert page.locator("img[src=x], svg[onload]").count() == 0
    assert all(url.startswith(("file:", "data:")) for url in requests)
    context.close()


def test_a_comparison_from_a_file_has_no_dead_map(page: Any, watch: Any, built: Built, tmp_path: Path) -> None:
    import shiftlens as sl

    made = sl.compare([built.sweep, built.other])
    saved = tmp_path / "compared.json"
    saved.write_text(json.dumps(made.to_dict()))
    page.goto(sl.report([saved, built.sweep], tmp_path / "report.html").path.as_uri())
    page.wait_for_selector(READY, state="attached")
    assert page.locator("#comparison-0").is_visible()
    assert page.locator("#comparison-0 .live").count() == 0
    page.evaluate("for (const e of document.querySelectorAll('details')) { e.open = true; }")
    text = page.inner_text("#comparison-0")
    assert all(each.statement in text for each in made.findings)
    # What follows it on the page is alive.
    page.locator("#heatmap-sweep-0 canvas").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#readout-sweep-0", "data-dx") == "1"


def test_a_number_that_is_better_when_lower_comes_alive(page: Any, watch: Any, tmp_path: Path) -> None:
    import shiftlens as sl

    one, two = (mm.sweep(tmp_path / f"{name}.zarr", scale=scale) for name, scale in (("one", 1.0), ("two", 1.2)))
    page.goto(sl.report([one, two], tmp_path / "r.html").path.as_uri())
    page.wait_for_selector(READY, state="attached")
    mean = one.mean_of(mm.MAE).values
    assert f"MAE {mean[mm.REACH, mm.REACH]:.3f} mm [" in page.inner_text("#readout-sweep-0")
    page.locator("#radius-sweep-0").fill("2")
    told = page.eval_on_selector("#radius-text-sweep-0", "e => ({...e.dataset, text: e.textContent})")
    near = np.hypot(mm.D[:, None], mm.D[None, :]) <= 2
    assert float(told["mean"]) == pytest.approx(mean[near].mean(), rel=1e-4)
    assert float(told["lowest"]) == pytest.approx(mean[near].max(), rel=1e-4)
    assert "MAE averages 0." in told["text"]
    assert "the highest mean is 0." in told["text"]
    assert page.eval_on_selector("#across-sweep-0", "e => e.layout.yaxis.title.text") == "MAE, mm"


def test_the_data_in_the_page_is_the_json_it_says(report: Any) -> None:
    data = json.loads(report.eval_on_selector("#page-data", "e => e.textContent"))
    assert {"sweeps", "comparisons", "features"} <= set(data)


@pytest.mark.slow
def test_a_page_of_the_full_size_is_light_and_opens_soon(page: Any, watch: Any, full: Built) -> None:
    assert full.report.stat().st_size < 6_000_000
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        opened(page, full)
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seconds.append(time.perf_counter() - begun)
    print(f"{full.report.stat().st_size / 1e6:.2f} MB, opened in {sorted(round(each, 2) for each in seconds)} s")
    # A limit for a quiet machine is 2 s; here only what no load explains fails.
    assert min(seconds) < 6
