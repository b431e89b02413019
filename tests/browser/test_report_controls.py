"""Every control of the report does what it says, and what the page shows is what the Zarr holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pages import MIRRORS, Built

from shiftlens.stats import wilson

# Of the canvas, in CSS px: what stands around the map itself (web/heatmap.js).
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 40


@pytest.fixture(scope="session")
def zarr(built: Built) -> xr.Dataset:
    return xr.open_zarr(built.sweep, consolidated=False).load()


def readout(page: Any, name: str = "sweep-0") -> dict[str, str]:
    found: dict[str, str] = page.eval_on_selector(f"#readout-{name}", "e => ({...e.dataset, text: e.textContent})")
    return found


def place(page: Any, dx: int, dy: int, name: str = "sweep-0", within: float = 0.5) -> tuple[float, float]:
    """A point of a cell, in CSS px from the canvas's corner; `within` 0 is the cell's upper left, 1 its lower right."""
    reach = 6
    box = page.locator(f"#heatmap-{name} canvas").bounding_box()
    n = 2 * reach + 1
    width, height = box["width"] - LEFT - RIGHT, box["height"] - TOP - BOTTOM
    return LEFT + (dx + reach + within) * width / n, TOP + (dy + reach + within) * height / n


def point(page: Any, dx: int, dy: int, name: str = "sweep-0", within: float = 0.5) -> dict[str, str]:
    x, y = place(page, dx, dy, name, within)
    page.locator(f"#heatmap-{name} canvas").hover(position={"x": x, "y": y})
    return readout(page, name)


def click(page: Any, dx: int, dy: int, name: str = "sweep-0") -> None:
    x, y = place(page, dx, dy, name)
    page.locator(f"#heatmap-{name} canvas").click(position={"x": x, "y": y})


SHIFTS = ((0, 0), (6, -6), (-6, 6), (-3, 0), (0, 5), (2, 1))


@pytest.mark.parametrize(("dx", "dy"), SHIFTS)
def test_pointing_at_a_cell_tells_its_accuracy_interval_and_n(report: Any, zarr: xr.Dataset, dx: int, dy: int) -> None:
    for within in (0.1, 0.9, 0.5):
        found = point(report, dx, dy, within=within)
        assert (found["dx"], found["dy"]) == (str(dx), str(dy))
    value = float(zarr.accuracy.sel(dx=dx, dy=dy))
    assert float(found["value"]) == pytest.approx(100 * value, abs=1e-4)
    low, high = wilson(round(value * 40), 40)
    assert (float(found["lo"]), float(found["hi"])) == pytest.approx((100 * float(low), 100 * float(high)), abs=1e-6)
    assert found["n"] == "40"
    assert f"{100 * value:.1f} %" in found["text"]
    assert "n = 40" in found["text"]


def test_leaving_the_map_goes_back_to_the_chosen_cell(report: Any) -> None:
    click(report, 3, -2)
    assert point(report, -5, -5)["dx"] == "-5"
    report.mouse.move(2, 2)
    assert (readout(report)["dx"], readout(report)["dy"]) == ("3", "-2")


def expected(zarr: xr.Dataset, built: Built, which: str, dx: int, dy: int) -> float:
    """One cell of a map, from what is stored alone."""
    cell = zarr.sel(dx=dx, dy=dy)
    right = zarr.prediction == zarr.label
    if which == "loss":
        return float(cell.loss.mean())
    if which == "probability":
        return float(100 * np.exp(-cell.loss.astype(np.float64)).mean())
    if which == "agreement":
        return float(100 * (cell.prediction == zarr.prediction.sel(dx=0, dy=0)).mean())
    if which.startswith("class-"):
        own = (zarr.label == int(which.removeprefix("class-"))).values
        return float(100 * right.sel(dx=dx, dy=dy).values[own].mean())
    if which.startswith("sides-"):
        mirror = {"dx": -dx, "dy": dy} if which == "sides-x" else {"dx": dx, "dy": -dy}
        return float(100 * (zarr.accuracy.sel(dx=dx, dy=dy) - zarr.accuracy.sel(**mirror)))
    if which.startswith("difference-"):
        control = xr.open_zarr(built.sweep / f"control_{which.removeprefix('difference-')}", consolidated=False)
        return float(100 * (zarr.accuracy.sel(dx=dx, dy=dy) - control.accuracy.sel(dx=dx, dy=dy)))
    if which.startswith("control-"):
        control = xr.open_zarr(built.sweep / which.replace("-", "_"), consolidated=False)
        return float(100 * control.accuracy.sel(dx=-dx if which == "control-flip" else dx, dy=dy))
    assert which == "accuracy"
    return float(100 * cell.accuracy)


def test_every_map_of_the_list_shows_its_own_numbers(report: Any, zarr: xr.Dataset, built: Built) -> None:
    maps = report.eval_on_selector_all("#map-sweep-0 option", "all => all.map(e => e.value)")
    kinds = {"accuracy", "loss", "probability", "agreement", "sides-x", "sides-y"}
    kinds |= {"control-occlusion", "control-flip", "difference-occlusion", *(f"class-{k}" for k in range(10))}
    assert kinds <= set(maps)
    seen = set()
    for which in maps:
        report.select_option("#map-sweep-0", which)
        for dx, dy in ((5, -3), (-6, 6)):
            found = point(report, dx, dy)
            assert found["map"] == which
            wanted = expected(zarr, built, which, dx, dy)
            assert float(found["value"]) == pytest.approx(wanted, abs=2e-3), (which, dx, dy)
            if found["lo"]:
                assert float(found["lo"]) <= wanted + 1e-3
                assert wanted <= float(found["hi"]) + 1e-3
        if which.startswith("sides-"):
            # No shift is opposite to (0, 0): a place without a number, and why.
            report.locator("#heatmap-sweep-0 canvas").focus()
            report.keyboard.press("Home")
            assert readout(report)["text"] == "dx 0, dy 0 px: no number here: no opposite shift"
        low, high = (report.inner_text(f"#scale-{end}-sweep-0") for end in ("low", "high"))
        assert re.search(r"\d", low)
        assert re.search(r"\d", high)
        seen.add(report.eval_on_selector("#heatmap-sweep-0 canvas", "e => e.toDataURL()"))
    assert len(seen) > len(maps) / 2


def test_clicking_a_cell_shows_the_images_that_fail_there(report: Any, zarr: xr.Dataset) -> None:
    for dx, dy in ((6, 6), (-6, 0), (0, 0)):
        click(report, dx, dy)
        chosen = report.eval_on_selector("#chosen-sweep-0", "e => [e.dataset.dx, e.dataset.dy]")
        assert chosen == [str(dx), str(dy)]
        shown = report.eval_on_selector_all(
            "#fails-sweep-0 li",
            "all => all.map(e => [e.dataset.position, e.dataset.label, e.dataset.predicted].map(Number))",
        )
        cell = zarr.sel(dx=dx, dy=dy)
        wrong = (cell.prediction != zarr.label).values
        triples = zip(zarr["index"].values, zarr.label.values, cell.prediction.values, strict=True)
        wanted = [tuple(map(int, triple)) for triple, fails in zip(triples, wrong, strict=True) if fails]
        assert sorted(map(tuple, shown)) == sorted(wanted)
        assert f"{wrong.sum()} of the 40" in report.inner_text("#fails-text-sweep-0")
        # In words too, and each with its picture.
        for each, (_, label, predicted) in zip(report.locator("#fails-sweep-0 li").all()[:3], shown[:3], strict=False):
            assert each.inner_text().startswith(f"{label}, taken for {predicted}")
    report.check("#all-images-sweep-0")
    assert report.locator("#fails-sweep-0 li").count() == 40
    report.uncheck("#all-images-sweep-0")
    assert report.locator("#fails-sweep-0 li").count() == int((zarr.prediction.sel(dx=0, dy=0) != zarr.label).sum())


def test_thumbnails_are_the_pictures_as_the_net_saw_them(report: Any, zarr: xr.Dataset) -> None:
    import shiftlens as sl

    images = sl.load_images("digits", split="test", limit=40)
    report.check("#all-images-sweep-0")
    # The sprite is a picture of its own: it is drawn when it has been decoded.
    report.wait_for_function(
        "() => [...document.querySelectorAll('#fails-sweep-0 canvas')].some("
        "e => e.getContext('2d').getImageData(0, 0, 32, 32).data.some((v, k) => k % 4 < 3 && v > 0))"
    )
    for dx, dy in ((0, 0), (5, -4)):
        click(report, dx, dy)
        drawn = report.eval_on_selector_all(
            "#fails-sweep-0 li",
            "all => all.map(e => [Number(e.dataset.position), "
            "[...e.querySelector('canvas').getContext('2d').getImageData(0, 0, 32, 32).data]])",
        )
        assert len(drawn) == 40
        pixels = images.batch(slice(None))
        moved = sl.translate(pixels, dx, dy)
        row = {int(position): k for k, position in enumerate(images.index)}
        for position, data in drawn:
            shown = np.array(data, np.uint8).reshape(32, 32, 4)[..., :3].transpose(2, 0, 1)
            assert np.abs(shown.astype(int) - moved[row[position]].astype(int)).max() <= 2


def test_thumbnails_under_fills_that_repeat_the_picture(page: Any, watch: Any, mirrored: Path) -> None:
    import shiftlens as sl

    page.goto(mirrored.as_uri())
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    images = sl.load_images("digits", split="test", limit=8)
    pixels = images.batch(slice(None))
    row = {int(position): k for k, position in enumerate(images.index)}
    for n, fill in enumerate(MIRRORS):
        page.check(f"#all-images-sweep-{n}")
        page.wait_for_function(
            f"() => [...document.querySelectorAll('#fails-sweep-{n} canvas')].some("
            "e => e.getContext('2d').getImageData(0, 0, 32, 32).data.some((v, k) => k % 4 < 3 && v > 0))"
        )
        canvas = page.locator(f"#heatmap-sweep-{n} canvas")
        canvas.focus()
        # From (0, 0) to dx +40, dy -20: farther than the picture is wide.
        for key in ("Home", "ArrowRight", "ArrowRight", "ArrowUp", "Enter"):
            page.keyboard.press(key)
        assert page.eval_on_selector(f"#chosen-sweep-{n}", "e => [e.dataset.dx, e.dataset.dy]") == ["40", "-20"]
        drawn = page.eval_on_selector_all(
            f"#fails-sweep-{n} li",
            "all => all.map(e => [Number(e.dataset.position), "
            "[...e.querySelector('canvas').getContext('2d').getImageData(0, 0, 32, 32).data]])",
        )
        assert len(drawn) == 8
        moved = sl.translate(pixels, 40, -20, fill=fill)
        for position, data in drawn:
            shown = np.array(data, np.uint8).reshape(32, 32, 4)[..., :3].transpose(2, 0, 1)
            assert np.abs(shown.astype(int) - moved[row[position]].astype(int)).max() <= 2, fill


def test_the_radius_slider_tells_what_holds_within(report: Any, zarr: xr.Dataset) -> None:
    slider = report.locator("#radius-sweep-0")
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == ("0", "6")
    right = (zarr.prediction == zarr.label).transpose("image", "dy", "dx").values
    far = np.hypot(zarr.dy.values[:, None], zarr.dx.values[None, :])
    pictures = set()
    for radius in (0, 3, 6):
        slider.fill(str(radius))
        told = report.eval_on_selector("#radius-text-sweep-0", "e => ({...e.dataset, text: e.textContent})")
        inside = right[:, far <= radius]
        assert float(told["radius"]) == radius
        assert float(told["mean"]) == pytest.approx(inside.mean(), abs=1e-6)
        assert float(told["every"]) == pytest.approx(inside.all(1).mean(), abs=1e-6)
        assert float(told["lowest"]) == pytest.approx(inside.mean(0).min(), abs=1e-6)
        assert f"({inside.shape[1]} shift" in told["text"]
        assert f"{radius} px" in report.inner_text("#radius-value-sweep-0")
        pictures.add(report.eval_on_selector("#heatmap-sweep-0 canvas", "e => e.toDataURL()"))
    assert len(pictures) == 3


def curve(page: Any, which: str, name: str = "sweep-0") -> tuple[list[float], list[float]]:
    trace = page.eval_on_selector(
        f"#{which}-{name}",
        "e => { const t = e.data.find(t => t.mode === 'lines+markers'); return [[...t.x], [...t.y]]; }",
    )
    return trace[0], trace[1]


def test_the_cross_sections_go_through_the_chosen_cell(report: Any, zarr: xr.Dataset) -> None:
    click(report, 4, -5)
    x, y = curve(report, "across")
    assert x == list(range(-6, 7))
    assert y == pytest.approx(100 * zarr.accuracy.sel(dy=-5).values, abs=1e-4)
    x, y = curve(report, "down")
    assert y == pytest.approx(100 * zarr.accuracy.sel(dx=4).values, abs=1e-4)
    report.select_option("#map-sweep-0", "loss")
    _, y = curve(report, "down")
    assert y == pytest.approx(zarr.loss.mean("image").sel(dx=4).values, rel=1e-3)


def test_clicking_a_cross_section_moves_the_chosen_cell(report: Any) -> None:
    click(report, 4, -5)
    plot = report.locator("#across-sweep-0 .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    left, width = report.eval_on_selector(
        "#across-sweep-0", "e => { const a = e._fullLayout.xaxis; return [a.d2p(-2), a._length]; }"
    )
    assert width == pytest.approx(box["width"], abs=2)
    report.mouse.move(box["x"] + left, box["y"] + box["height"] / 2)
    report.mouse.click(box["x"] + left, box["y"] + box["height"] / 2)
    report.wait_for_function("() => document.getElementById('chosen-sweep-0').dataset.dx === '-2'")
    assert report.eval_on_selector("#chosen-sweep-0", "e => e.dataset.dy") == "-5"


def test_the_profile_is_the_mean_over_rings(report: Any, zarr: xr.Dataset) -> None:
    radius, value = curve(report, "profile")
    far = np.hypot(zarr.dy.values[:, None], zarr.dx.values[None, :])
    accuracy = zarr.accuracy.transpose("dy", "dx").values
    wanted = [100 * accuracy[np.rint(far) == k].mean() for k in range(len(radius))]
    assert value == pytest.approx(wanted, abs=1e-3)
    assert radius[0] == 0


def test_keys_move_over_the_map_and_choose(report: Any) -> None:
    canvas = report.locator("#heatmap-sweep-0 canvas")
    canvas.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        report.keyboard.press(key)
    assert (readout(report)["dx"], readout(report)["dy"]) == ("2", "-1")
    report.keyboard.press("Shift+ArrowLeft")
    assert readout(report)["dx"] == "-3"
    report.keyboard.press("Enter")
    assert report.eval_on_selector("#chosen-sweep-0", "e => [e.dataset.dx, e.dataset.dy]") == ["-3", "-1"]
    for _ in range(9):
        report.keyboard.press("Shift+ArrowDown")
    assert readout(report)["dy"] == "6"
    report.keyboard.press("Home")
    assert (readout(report)["dx"], readout(report)["dy"]) == ("0", "0")
    report.keyboard.press(" ")
    assert report.eval_on_selector("#chosen-sweep-0", "e => [e.dataset.dx, e.dataset.dy]") == ["0", "0"]


def test_keys_alone_reach_every_control(report: Any) -> None:
    wanted = {"map-sweep-0", "radius-sweep-0", "all-images-sweep-0", "map-comparison-0", "layer-features-0"}
    seen: set[str] = set()
    for _ in range(400):
        report.keyboard.press("Tab")
        where = report.evaluate("document.activeElement.id || document.activeElement.parentElement.id")
        seen.add(where)
        if wanted <= seen and "heatmap-sweep-0" in seen and "heatmap-comparison-0" in seen:
            break
    assert wanted <= seen
    assert {"heatmap-sweep-0", "heatmap-comparison-0"} <= seen


def test_the_second_sweep_and_the_comparison_have_numbers_of_their_own(
    report: Any, zarr: xr.Dataset, built: Built
) -> None:
    other = xr.open_zarr(built.other, consolidated=False).load()
    found = point(report, 4, -4, "sweep-1")
    assert float(found["value"]) == pytest.approx(100 * float(other.accuracy.sel(dx=4, dy=-4)), abs=1e-4)
    for dx, dy in ((4, -4), (-6, 1)):
        found = point(report, dx, dy, "comparison-0")
        wanted = 100 * float(other.accuracy.sel(dx=dx, dy=dy) - zarr.accuracy.sel(dx=dx, dy=dy))
        assert float(found["value"]) == pytest.approx(wanted, abs=1e-3)
        assert float(found["lo"]) <= wanted <= float(found["hi"])
    click(report, -6, 1, "comparison-0")
    assert report.eval_on_selector("#chosen-comparison-0", "e => [e.dataset.dx, e.dataset.dy]") == ["-6", "1"]


def test_the_layer_slider_changes_the_pictures(report: Any) -> None:
    slider = report.locator("#layer-features-0")
    last = int(slider.get_attribute("max"))
    assert last >= 3
    seen = []
    for k in range(last + 1):
        slider.fill(str(k))
        name = report.inner_text("#layer-name-features-0")
        pictures = [
            report.eval_on_selector(f"#{which}-{what}-features-0", "e => [e.src, e.alt]")
            for which in ("empty", "average")
            for what in ("filters", "mean")
        ]
        assert all(src.startswith("data:image/png;base64,") for src, _ in pictures)
        assert all(name.split(" ")[0] in alt for _, alt in pictures)
        seen.append((name, *(src for src, _ in pictures)))
    assert len({each[0] for each in seen}) == last + 1
    assert len({each[3] for each in seen}) > last / 2
    for picture in report.locator(".layers img").all():
        assert picture.evaluate("e => e.complete && e.naturalWidth > 0")
