"""The page: the numbers of the file, one file that asks for nothing, the same bytes twice, strangers' texts as text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reporting.planted import Page, sweep, unpacked
from shiftlens.analysis.arrays import from_sweep
from shiftlens.analysis.directions import Directions, directions
from shiftlens.analysis.regions import Retained
from shiftlens.analysis.summary import all_metrics
from shiftlens.arithmetic import inspect
from shiftlens.data.images import load_images
from shiftlens.lens.feature_maps import features
from shiftlens.models.loading import wrap
from shiftlens.narrative.comparing import compare
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.findings import measured
from shiftlens.nn.vgg import VGG
from shiftlens.reporting import Report, report
from shiftlens.reporting.page import web
from shiftlens.reporting.verdict import verdict, worse_side
from shiftlens.shifts import ShiftGrid
from shiftlens.stats import Skipped, per_cent, wilson
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from shiftlens.sweeps.sweep_store import SweepStore

HOSTILE = ("</script><script>alert(1)</script>", "{{ 7 * 7 }}{% raw %}", "<img src=x onerror=alert(2)>", "a\x1b[31m\nb")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def one(place: Path) -> Sweep:
    return sweep(place / "one.zarr", centre=(1.5, 0))


@pytest.fixture(scope="module")
def net() -> VGG:
    return VGG("vgg6", width=4, downsample="stride").eval()


@pytest.fixture(scope="module")
def items(one: Sweep, place: Path, net: VGG) -> list[Any]:
    images = load_images("digits", limit=12)
    model = wrap(net, mean=0.5, std=0.25, size=32)
    other = sweep(place / "other.zarr", edge=4.0)
    run = features(model, average=images, out=place / "features.zarr", layers=["0.0", "1.0", "2.0"])
    return [one, other, run, inspect(net, 32)]


@pytest.fixture(scope="module")
def made(items: list[Any], place: Path) -> Report:
    return report(items, place / "full.html")


@pytest.fixture(scope="module")
def seen(made: Report) -> Page:
    return Page(made.path)


def the_map(seen: Page, name: str, number: int = 0) -> dict[str, Any]:
    return next(each for each in seen.data["sweeps"][number]["maps"] if each["id"] == name)


def test_the_maps_are_those_of_the_file(seen: Page, one: Sweep) -> None:
    data = one.dataset
    prediction, label = data["prediction"].values.astype(int), data["label"].values.astype(int)
    loss = data["loss"].values.astype(np.float64)
    right = prediction == label[:, None, None]
    shown = the_map(seen, "accuracy")
    assert unpacked(shown["count"]).tolist() == right.sum(axis=0).tolist()
    assert (shown["n"], shown["low"], shown["high"]) == (60, 0, 100)
    assert unpacked(the_map(seen, "loss")["value"]) == pytest.approx(loss.mean(axis=0), rel=1e-6)
    probability = the_map(seen, "probability")
    assert unpacked(probability["value"]) == pytest.approx(100 * np.exp(-loss).mean(axis=0), rel=1e-5)
    half = 2.0010 * 100 * np.exp(-loss).std(axis=0, ddof=1) / np.sqrt(60)  # t of 59 degrees, two-sided 5 %
    assert unpacked(probability["hi"]) == pytest.approx(
        np.minimum(100 * np.exp(-loss).mean(axis=0) + half, 100), abs=1e-2
    )
    same = (prediction == prediction[:, 5:6, 5:6]).sum(axis=0)
    assert unpacked(the_map(seen, "agreement")["count"]).tolist() == same.tolist()
    for k in np.unique(label):
        of_class = the_map(seen, f"class-{k}")
        assert unpacked(of_class["count"]).tolist() == right[label == k].sum(axis=0).tolist()
        assert of_class["n"] == int((label == k).sum())
    sides = unpacked(the_map(seen, "sides-x")["value"])
    share = 100 * right.mean(axis=0)
    expected = share - share[:, ::-1]
    columns = np.arange(11) != 5
    assert sides[:, columns] == pytest.approx(expected[:, columns], abs=1e-4)
    assert np.isnan(sides[:, 5]).all()
    up = unpacked(the_map(seen, "sides-y")["value"])
    assert up[columns] == pytest.approx((share - share[::-1])[columns], abs=1e-4)


def test_discs_and_rings_are_means_over_shifts(seen: Page, one: Sweep) -> None:
    data = seen.data["sweeps"][0]
    right = one.dataset["prediction"].values == one.dataset["label"].values[:, None, None]
    d = np.arange(-5, 6)
    length = np.hypot(d[:, None], d[None, :])
    assert data["discs"]["radius"] == [0, 1, 2, 3, 4, 5]
    for k in range(6):
        inside = right[:, length <= k]
        assert data["discs"]["n_shifts"][k] == (length <= k).sum()
        assert data["discs"]["mean"][k] == pytest.approx(inside.mean(), rel=1e-5)
        assert data["discs"]["every"][k] == pytest.approx(inside.all(axis=1).mean(), rel=1e-5)
        lo, hi = wilson(inside.all(axis=1).sum(), 60)
        assert (data["discs"]["every_lo"][k], data["discs"]["every_hi"][k]) == pytest.approx(
            (float(lo), float(hi)), rel=1e-5, abs=1e-6
        )
    ring = unpacked(data["profile"][0]["ring"])
    for k, value in enumerate(data["profile"][0]["value"]):
        assert value == pytest.approx(100 * right[:, ring == k + 1].mean(), rel=1e-5)


def test_a_region_that_is_the_whole_grid_has_no_radius(one: Sweep) -> None:
    metrics = all_metrics(from_sweep(one))
    regions = {round(100 * each.level): each for each in metrics.retained if isinstance(each, Retained)}
    whole = {level: replace(each, region=np.ones_like(each.region)) for level, each in regions.items()}

    def far(*retained: Retained) -> str:
        return verdict(replace(metrics, retained=retained), Skipped("way", "unknown"), "net", "data", Findings())[1]

    assert far(whole[95]).endswith("stays at or above 95 % of that under every shift that was measured.")
    assert far(regions[95], whole[50]).endswith("at or above 50 % of it under every shift that was measured.")
    assert "over one of" in far(regions[95], regions[50])


def test_the_first_screen_says_how_good_how_far_and_where_worst(made: Report, seen: Page, one: Sweep) -> None:
    assert len(made.verdict) == 3
    rest = 100 * float(one.accuracy.sel(dx=0, dy=0))
    assert f"is {rest:.1f} % [" in made.verdict[0]
    strong = made.findings.named("retained-95")
    assert strong is not None
    # An area, not a promise for every shift of that length.
    assert f"area as large as a circle with a radius of {np.sqrt(strong.value / np.pi):.1f}" in made.verdict[1]
    # The region's middle is at dx = 1.5: moves to the left are worse.
    (side,) = (each.statement for each in made.findings if each.id == "asymmetry-x")
    assert "higher for shifts to the right than for shifts to the left" in side
    assert made.verdict[2] == side
    assert "60 images of 32x32 px" in seen.visible
    assert all(sentence in seen.visible for sentence in made.verdict)
    assert all(each.statement in seen.visible for each in made.findings)
    table = [row for row in seen.said if re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", row)]
    lo, hi = wilson(float(one.accuracy.sel(dx=0, dy=0)) * 60, 60)
    assert f"{rest:.1f} [{100 * lo:.1f}, {100 * hi:.1f}]" in table


def test_the_cards_say_how_far_it_goes_straight(seen: Page) -> None:
    region = unpacked(seen.data["sweeps"][0]["region"]).astype(bool)
    row, column = region[5], region[:, 5]
    runs = (row[5::-1], row[5:], column[5::-1], column[5:])
    sides = []
    for name, kept in zip(("left", "right", "up", "down"), runs, strict=True):
        lost = [k for k, inside in enumerate(kept) if not inside]
        sides.append(f"{name} {lost[0] - 1}" if lost else f"{name} at least 5")
    text = next(said for said in seen.said if "Straight:" in said)
    assert text.endswith(f"Straight: {', '.join(sides)} px.")
    assert len(set(sides)) == 4


def test_a_region_of_one_cell_goes_less_than_a_step_to_every_side(place: Path) -> None:
    coarse = sweep(place / "coarse.zarr", edge=1.0, grid=ShiftGrid(4, step=2))
    text = next(said for said in Page(report(coarse, place / "coarse.html").path).said if "Straight:" in said)
    assert text.endswith("Straight: less than one step (2 px) to every side.")


def test_the_card_names_the_side_that_the_findings_name(seen: Page) -> None:
    card = next(said for said in seen.said if said.startswith("right minus left "))
    assert re.search(r"\(significant\), down minus up .* \(not significant\), corrected for all tests$", card)
    assert seen.said[seen.said.index(card) - 1] == "to the left"


def test_no_side_is_called_worse_that_the_corrected_findings_do_not_hold(place: Path) -> None:
    metrics, found = measured(sweep(place / "sector.zarr", centre=(0.3, 0.3)), None, 0)
    sectors = directions(metrics.sweep.values(metrics.metric))
    assert isinstance(sectors, Directions)
    assert sectors.gap.lo > 0  # of a sector, not of a side
    said = verdict(metrics, sectors, "net", "data", found)[2]
    (pair,) = (each.statement for each in found if each.id == "asymmetry-x-pairs")
    none = "No whole side is significantly worse than its opposite."
    assert said == f"{none} {pair}"
    nothing = Findings([replace(each, test=None) for each in found])
    sector = verdict(metrics, sectors, "net", "data", nothing)[2]
    assert sector.startswith(f"{none} Of 4 pairs of opposite 45° sectors, the largest gap, chosen by looking")
    assert worse_side(metrics)[0] == "none on average"


def test_images_behind_the_cells(seen: Page, one: Sweep) -> None:
    images = seen.data["sweeps"][0]["images"]
    data = one.dataset
    position = data["index"].values.tolist()
    rows = [position.index(each) for each in images["position"]]
    assert len(rows) == images["n"] == 60  # all of them: the set is small
    assert images["label"] == data["label"].values[rows].tolist()
    assert unpacked(images["prediction"]).tolist() == data["prediction"].values[rows].tolist()
    sprite = images["sprite"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite["uri"].partition(",")[2]))).convert("RGB"))
    h, w = sprite["size"]
    digits = load_images("digits", split="test", limit=60)
    for k in (0, 9, 59):
        top, left = k // sprite["columns"] * h, k % sprite["columns"] * w
        truth = digits.batch([digits.index.tolist().index(images["position"][k])])[0].transpose(1, 2, 0)
        assert np.array_equal(pixels[top : top + h, left : left + w], truth)
    assert sprite["fill"] == {"rule": "constant", "rgb": [0, 0, 0]}


def test_one_file_that_asks_for_nothing(seen: Page, made: Report) -> None:
    for name, attributes in seen.tags:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")) or not value, (name, key, value)
        assert not [key for key in attributes if key.startswith("on")], name
    assert "@import" not in web("report.css")
    assert "url(" not in web("report.css")
    policy = next(each["content"] for each in seen.all_of("meta") if each.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]
    # The policy lets in exactly the scripts that are there.
    hashes = {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in seen.scripts}
    assert hashes == set(re.findall(r"'sha256-([^']+)'", policy))
    assert made.path.stat().st_size < 6e6


def test_every_control_has_a_label_and_every_id_is_there_once(seen: Page) -> None:
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {attributes.get("for") for attributes in seen.all_of("label")}
    for name in ("map-sweep-0", "radius-sweep-0", "map-sweep-1", "map-comparison-0", "layer-features-0"):
        assert name in ids
        assert name in labels
    # What the page's script promises to tests and other scripts, it has.
    listed = set(re.findall(r"#([a-z-]+-(?:sweep|features)-)N", web("report.js")))
    assert len(listed) > 12
    assert {name for name in listed if f"{name}0" not in ids} == set()
    for image in seen.all_of("img"):
        assert image.get("alt") is not None


def test_features_arithmetic_and_comparison_are_there(seen: Page, items: list[Any]) -> None:
    run, arithmetic = items[2], items[3]
    layers = seen.data["features"][0]["layers"]
    assert [each["name"] for each in layers] == [layer.name for layer in run.layers]
    assert all(each["average"] is not None for each in layers)
    for each in layers:
        for which in ("empty", "average"):
            assert Image.open(io.BytesIO(base64.b64decode(each[which]["filters"].partition(",")[2]))).size[0] >= 100
    last, shown = run.layers[-1], layers[-1]
    for which, scores, before in (
        ("empty", last.scores, ""),
        ("average", last.average.scores, "content taken out (rolled evenly, mirrored for left/right): "),
    ):
        assert shown[which]["scores"].startswith(f"{before}artefact energy {per_cent(scores.artefact_energy)}, ")
    assert "the first layer cannot see a border in it" in seen.visible
    # Each energy under the name that tables, findings and figures give it.
    for of in (run.shown, run.averaged):
        assert f"artefact energy of the {of}" in seen.visible
    names = [layer.name for layer in arithmetic.layers]
    assert all(name in seen.said for name in names)
    assert seen.visible.count(" uneven") >= len(arithmetic.uneven) > 0
    difference = seen.data["comparisons"][0]["maps"][0]
    truth = compare(items[:2])
    assert unpacked(difference["value"]) == pytest.approx(truth.against[0].map.value, abs=1e-4)
    assert (
        unpacked(difference["marked"]).astype(bool).tolist()
        == (truth.against[0].map.better | truth.against[0].map.worse).tolist()
    )
    assert all(each.statement in seen.visible for each in truth.findings)
    for letter in "ABCD":
        assert any(attributes.get("data-question") == letter for _, attributes in seen.tags)
    assert "Not in this report" not in seen.visible
    ids = {attributes.get("id") for _, attributes in seen.tags}
    links = [attributes["href"] for attributes in seen.all_of("a")]
    assert {link[1:] for link in links if link} <= ids


def test_the_same_input_gives_the_same_bytes(one: Sweep, place: Path) -> None:
    first = report([one], place / "first.html")
    second = report(str(one.path), place / "second.html")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == [
        path.name for path in place.iterdir() if path.name.endswith(".lock")
    ]


def test_strangers_texts_stay_text(place: Path, made: Report, net: VGG) -> None:
    names = (*HOSTILE, *"efghij")
    hostile = sweep(place / "{{ 6 * 7 }}.zarr", 30, 2, class_names=names, model=HOSTILE[0], data=HOSTILE[2])
    arithmetic = replace(inspect(net, 32), model=HOSTILE[2], notes=(HOSTILE[1], HOSTILE[0]))
    out = report([hostile, arithmetic], place / "hostile.html", title=f"{HOSTILE[1]} {HOSTILE[0]}")
    seen, calm = Page(out.path), Page(made.path)
    assert "{{ 7 * 7 }}{% raw %}" in seen.visible
    assert "{{ 6 * 7 }}" in seen.visible
    assert "49" not in seen.named("h-sweep-0").values()
    assert [attributes.get("type") for attributes in seen.all_of("script")] == [
        attributes.get("type") for attributes in calm.all_of("script")
    ]
    assert {name for name, _ in seen.tags} <= {name for name, _ in calm.tags}
    raw = out.path.read_text(encoding="utf-8")
    inside = raw.partition('id="page-data">')[2].partition("</script>")[0]
    assert not set(inside) & set("<>&\u2028\u2029")
    shown = seen.data["sweeps"][0]["images"]["class_names"]
    assert shown[0] == HOSTILE[0]
    assert "\x1b" not in raw


def test_the_vendored_script_is_the_one_named() -> None:
    text = web("vendor/README.md")
    stated = re.search(r"`([0-9a-f]{64})`", text)
    assert stated is not None
    assert hashlib.sha256(web("vendor/plotly-cartesian.min.js").encode()).hexdigest() == stated[1]
    assert "MIT" in web("vendor/plotly-LICENSE.txt") or "Permission is hereby granted" in web(
        "vendor/plotly-LICENSE.txt"
    )


def test_scripts_put_nothing_in_as_markup() -> None:
    for name in ("heatmap.js", "report.js"):
        code = re.sub(r"//.*", "", web(name))
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "fetch(",
        ):
            assert way not in code, (name, way)


def test_a_notebook_shows_the_report(made: Report) -> None:
    shown = replace(made, title="<b>", notes=("<i>",))._repr_html_()
    assert "<b>&lt;b&gt;</b>" in shown
    assert "&lt;i&gt;" in shown
    assert str(made.path) in shown
    assert len(shown) < 3000
    assert json.loads(json.dumps(made.to_dict()))["files"] == [str(made.path)]


def test_an_incomplete_sweep_is_reported_on_as_far_as_it_goes(place: Path, one: Sweep) -> None:
    import shutil

    part = place / "part.zarr"
    shutil.copytree(one.path, part)
    SweepStore(part, writable=True).main.reopen()
    for name in ("prediction", "loss", "confidence"):
        shutil.rmtree(part / name / "c" / "0")
    seen = Page(report(part, place / "part.html").path)
    assert seen.data["sweeps"][0]["n"] == open_sweep(part, partial=True).n_written == 44
    assert "44 images so far (16 still to be measured)" in seen.visible
