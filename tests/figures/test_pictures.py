"""Pictures: the right cell at the right place, ranges stated, the same bytes twice, strange names drawn as they are."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import shiftlens
from analysis.planted import arrays, margins, sweep, trend
from cuts import cut
from shiftlens import figures
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.asymmetry import asymmetry
from shiftlens.analysis.summary import all_metrics
from shiftlens.errors import InputError
from shiftlens.figures.drawing import extent, heat_map, measured_ticks, new_figure
from shiftlens.figures.heatmaps import grid_text
from shiftlens.figures.notebook import sweep_html
from shiftlens.figures.profile import profile, rings
from shiftlens.figures.terminal import text_map
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeps.sweep_result import open_sweep
from shiftlens.tasks.classification import ACCURACY
from sweeps import small_sweeps as small

YELLOW = np.array([253, 231, 37])  # the upper end of viridis
HOSTILE = ("$\\alpha_{$", "<script>alert(1)</script>", "日本語", "a\x1b[31mb\n" + "c" * 80, "e")


def one_bright_cell(dx, dy, reach=8):
    """A sweep of two images that are right at one shift only."""
    prediction = np.ones((2, 2 * reach + 1, 2 * reach + 1), np.uint8)
    prediction[:, reach + dy, reach + dx] = 0
    d = np.arange(-reach, reach + 1)
    stored = {"prediction": prediction, "loss": np.ones(prediction.shape, np.float32)}
    return SweepArrays(stored, np.zeros(2, np.int64), d, d, ("a", "b"))


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(figures.png_bytes(figure))).convert("RGB")).astype(int)


def inside(figure, image, axes=0):
    """The part of an image that is inside an axes: (pixels, px a shift); drawn before, so the layout is settled."""
    box = figure.axes[axes].get_window_extent()
    scale = image.shape[0] / (figure.get_size_inches()[1] * figure.dpi)
    x0, x1 = (round(v * scale) for v in (box.x0, box.x1))
    y0, y1 = (round(image.shape[0] - v * scale) for v in (box.y1, box.y0))
    return image[y0:y1, x0:x1]


@pytest.mark.parametrize(("dx", "dy"), [(5, -2), (-3, 6), (0, 4)])
def test_a_cell_is_drawn_where_its_shift_moves_the_picture(dx, dy):
    figure = figures.metric_matrix(one_bright_cell(dx, dy))
    panel = inside(figure, pixels(figure))
    height, width = panel.shape[:2]
    rows, columns = np.nonzero((np.abs(panel - YELLOW) < 12).all(axis=2))
    assert len(rows) > 50
    # From the middle of the panel, which is (0, 0): right for dx > 0, down for dy > 0.
    assert (columns.mean() + 0.5 - width / 2) / (width / 17) == pytest.approx(dx, abs=0.15)
    assert (rows.mean() + 0.5 - height / 2) / (height / 17) == pytest.approx(dy, abs=0.15)
    # The origin's cross: black on white in the middle.
    cross = panel[height // 2 - 4 : height // 2 + 5, width // 2 - 4 : width // 2 + 5]
    assert cross.min() < 30


def test_extent_is_in_pixels_of_the_shift_with_whole_cells():
    assert extent((np.array([-4, -2, 0, 2, 4]), np.array([-6, -3, 0, 3, 6]))) == (-7.5, 7.5, 5, -5)
    assert extent((np.array([0]), np.array([-1, 0, 1]))) == (-1.5, 1.5, 0.5, -0.5)


@pytest.fixture(scope="module")
def controlled():
    rng = np.random.default_rng(0)
    d = np.arange(-9, 10.0)
    moved = arrays(margins(rng, 60, trend(d, d, edge=5, centre=(2, -1))), rng)
    kept = np.where(moved.loss < 2, moved.labels[:, None, None], 9)
    kept = replace(moved, variables={**moved.variables, "prediction": kept})
    return replace(moved, controls={"occlusion": kept, "flip": kept}, class_names=HOSTILE)


def test_every_picture_is_there_and_not_blank(controlled):
    made = figures.plot(controlled)
    assert list(made) == ["accuracy", "loss", "profile", "sides", "classes", "control-occlusion", "control-flip"]
    for name, figure in made.items():
        image = pixels(figure)
        assert image.std() > 20, name
        assert min(image.shape[:2]) > 300, name
        # Nothing touches the rim: no label is cut.
        rim = np.concatenate([image[:2].ravel(), image[-2:].ravel(), image[:, :2].ravel(), image[:, -2:].ravel()])
        assert rim.min() == 255, name


def test_ranges_are_stated(controlled):
    made = figures.plot(controlled)
    texts = {name: " | ".join(axes.get_ylabel() for axes in figure.axes) for name, figure in made.items()}
    for name in ("accuracy", "classes", "control-occlusion", "profile"):
        assert "range 0 to 100" in texts[name], name
    assert re.search(r"range 0 to [\d.]+$", texts["loss"].rstrip(" |"))
    for name in ("sides", "control-flip"):
        stated = float(re.search(r"range ±([\d.]+)", texts[name])[1])
        shown = [image.get_clim() for axes in made[name].axes for image in axes.images if image.get_clim()[0] < 0]
        assert shown
        assert all(low == -high and high == pytest.approx(stated, abs=0.06) for low, high in shown)


def test_sides_are_this_shift_minus_its_mirror_image(controlled):
    across, along = (
        np.asarray(axes.images[0].get_array()) for axes in figures.side_matrices(controlled.values()).axes[:2]
    )
    share = 100 * controlled.correct.mean(axis=0)
    kept = ~controlled.blank
    assert across[kept] == pytest.approx((share - share[:, ::-1])[kept])
    assert along[kept] == pytest.approx((share - share[::-1])[kept])


def lines_in(axes):
    """Ends of the outline's lines in px of the shift, each once."""
    segments = [segment for collection in axes.collections for segment in collection.get_segments()]
    return {tuple(sorted(tuple(map(float, end)) for end in segment)) for segment in segments}


def test_significant_pairs_of_sides_are_outlined():
    rng = np.random.default_rng(3)
    d = np.arange(-3, 4.0)
    # Right and left differ where the image moves far to the right; up and down do not.
    lean = np.where(d > 2, -3.0, 0.0)[None, :]
    made = arrays(margins(rng, 400, trend(d, d, edge=9) + lean), rng)
    figure = figures.side_matrices(made.values())
    across, along = figure.axes[:2]
    found = asymmetry(made.values(), "x")
    wide = {(x, y) for pair in lines_in(across) for x, y in pair}
    assert {x for x, _ in wide} == {-3.5, -2.5, 2.5, 3.5}
    assert ((found.lo > 0) | (found.hi < 0))[found.dxs == 3].all()
    assert not lines_in(along)
    assert "Lines surround pairs that differ significantly" in figure.get_suptitle()
    even = arrays(margins(rng, 60, trend(d, d, edge=9)), rng)
    assert "No single pair of shifts differs significantly" in figures.side_matrices(even.values()).get_suptitle()


def test_the_retained_region_is_outlined_and_the_caption_says_what_was_measured(controlled):
    figure = figures.metric_matrix(replace(controlled, title=("torchvision:a_long_name_of_a_net_that_goes_on", "$x$")))
    axes = figure.axes[0]
    kept = all_metrics(controlled).retained[0]
    assert kept.level == 0.95
    xs = [x for pair in lines_in(axes) for x, _ in pair]
    ys = [y for pair in lines_in(axes) for _, y in pair]
    rows, columns = np.nonzero(kept.region)
    assert (min(xs), max(xs)) == (controlled.dxs[columns.min()] - 0.5, controlled.dxs[columns.max()] + 0.5)
    assert (min(ys), max(ys)) == (controlled.dys[rows.min()] - 0.5, controlled.dys[rows.max()] + 0.5)
    first, second, third, last = figure.get_suptitle().splitlines()
    assert (first, second) == ("Accuracy under every shift", "torchvision:a_long_name_of_a_net_th… on $x$")
    assert third == "60 images, fill black, shifts up to 9 px"
    assert last == "Line: connected to (0, 0) with at least 95 % of the accuracy there"


def test_ticks_are_shifts_that_were_measured():
    assert measured_ticks(np.arange(-9, 10, 3), 7) == [-9, -6, -3, 0, 3, 6, 9]
    assert measured_ticks(np.arange(-16, 17, 2), 7) == [-12, -6, 0, 6, 12]
    assert measured_ticks(np.arange(0, 13, 4), 4) == [0, 4, 8, 12]
    assert measured_ticks(np.array([0]), 7) == [0]
    for reach, step in ((64, 1), (50, 5), (7, 7), (33, 11)):
        shifts = np.arange(-reach // step * step, reach + 1, step)
        shifts = shifts[np.isin(-shifts, shifts)]
        found = measured_ticks(shifts, 7)
        assert {0, *found} <= {*shifts.tolist()}
        assert len(found) <= 7
    assert grid_text(np.arange(-4, 5, 2), np.arange(-9, 10, 3)) == (
        "shifts dx up to 9 px in steps of 3 px, dy up to 4 px in steps of 2 px"
    )
    assert grid_text(np.arange(0, 3), np.arange(0, 3)) == "shifts 0 to 2 px"


def test_a_number_that_is_the_same_everywhere_has_no_colour():
    shifts = np.arange(-2, 3), np.arange(-2, 3)
    for values, n_colours in ((np.full((5, 5), 2.5), 1), (2.5 + np.eye(5), 3)):
        low, high = float(values.min()), float(values.max())
        image = heat_map(new_figure(3, 3).add_subplot(), values, shifts, (low, max(high, low + 1e-9)))
        red, green, blue, _ = np.asarray(image.cmap(image.norm(np.asarray(values)))).reshape(-1, 4).T
        assert (len({*zip(red, green, blue, strict=True)}) == 1) == (n_colours == 1)
        assert (n_colours == 1) == bool(np.all(red == 1))


def test_a_control_and_its_difference(controlled):
    for name, turn in (("occlusion", 1), ("flip", -1)):
        moved, kept, difference = (
            np.asarray(axes.images[0].get_array())
            for axes in figures.control_matrices(controlled.values(), name).axes[:3]
        )
        truth = 100 * controlled.controls[name].correct.mean(axis=0)[:, ::turn]
        assert kept == pytest.approx(truth)
        assert moved == pytest.approx(100 * controlled.correct.mean(axis=0))
        assert difference == pytest.approx(moved - truth)


def test_the_profile_is_the_mean_over_rings(controlled):
    made = profile(controlled.values())
    loss = profile(controlled.values("loss"))
    assert len(made.value) == len(rings(controlled)) == 10
    length = np.hypot(controlled.dys[:, None], controlled.dxs[None, :])
    for k in range(10):
        cells = [(y, x) for y in range(19) for x in range(19) if round(length[y, x]) == k]
        assert made.n_shifts[k] == len(cells)
        per_image = [np.mean([image[c] for c in cells]) for image in controlled.correct]
        assert made.value[k] == pytest.approx(100 * np.mean(per_image))
        assert loss.value[k] == pytest.approx(np.mean([[image[c] for c in cells] for image in controlled.loss]))
        half = np.std(per_image, ddof=1) / np.sqrt(60) * 2.905  # t of 59 degrees at 0.05 / 10, two-sided
        assert made.hi[k] == pytest.approx(min(100 * (np.mean(per_image) + half), 100), abs=0.05)
    cut = replace(controlled, picture_size=(5, 9))
    assert len(rings(cut)) == 5  # the ring of 5 px holds a shift that leaves nothing


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_sweep_gives_the_same_bytes(controlled, tmp_path, kind):
    first = figures.plot(controlled, tmp_path / "one", format=kind)
    second = figures.plot(controlled, str(tmp_path / "two"), format=kind)
    assert len(first.files) == 7
    for one, two in zip(first.files, second.files, strict=True):
        assert one.suffix == f".{kind}"
        assert one.read_bytes() == two.read_bytes()
        if kind == "svg":
            assert "<script" not in one.read_text()
            assert "<dc:date>" not in one.read_text()


def test_a_format_or_a_place_that_cannot_be(controlled, tmp_path):
    with pytest.raises(InputError, match="unknown picture format 'jpg'"):
        figures.plot(controlled, tmp_path, format="jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the picture"):
        figures.plot(controlled, tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda s: cut(s, images=slice(1)), {"sides", "profile"}),
        (lambda s: cut(s, rows=slice(4, 5), columns=slice(4, 5)), {"classes"}),
        (lambda s: cut(s, rows=slice(4, 5)), {"sides", "profile", "classes"}),
        (lambda s: cut(s, columns=slice(4, None)), {"sides", "profile", "classes"}),
        (lambda s: cut(s, rows=slice(4, None), columns=slice(4, None)), {"profile", "classes"}),
        (lambda s: replace(s, dys=s.dys * 6, dxs=s.dxs * 6, picture_size=(32, 32)), {"sides", "profile", "classes"}),
    ],
    ids=["one image", "one shift", "one row", "one-sided", "one corner", "coarse"],
)
def test_odd_grids_give_the_pictures_they_can(change, names):
    made = figures.plot(change(sweep(0, 40, 4)))
    assert set(made) == {"accuracy", "loss"} | names
    for figure in made.values():
        figures.png_bytes(figure)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)


def test_a_notebook_shows_a_sweep_and_hostile_names_stay_text(tmp_path):
    store = small.create(tmp_path / "s.zarr", class_names=("<script>", "</td><img src=x>", "c"), model="<b>net")
    small.fill(store)
    page = sweep_html(open_sweep(tmp_path / "s.zarr"))
    assert Tags(page).tags == {"table", "tr", "th", "td", "p", "img"}
    assert "&lt;script&gt;" in page
    assert page.count("<img") == 2
    assert "7 of 7 measured" in page
    empty = small.create(tmp_path / "empty.zarr", grid=ShiftGrid(2))
    assert "0 of 7 measured" in sweep_html(open_sweep(empty.path, partial=True))
    assert Tags(figures.plot(open_sweep(tmp_path / "s.zarr"))._repr_html_()).tags == {"p", "img"}


def test_a_running_notebook_is_told_how_to_show_a_sweep(monkeypatch):
    told = {}
    formatter = SimpleNamespace(for_type_by_name=lambda module, name, show: told.update({(module, name): show}))
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": formatter}))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    shiftlens._register_notebook_display()
    assert list(told) == [
        ("shiftlens.sweeps.sweep_result", "Sweep"),
        ("shiftlens.lens.feature_run", "FeatureRun"),
        ("shiftlens.tiles.tile_result", "TileReport"),
    ]
    assert shiftlens.Sweep.__module__ == "shiftlens.sweeps.sweep_result"
    assert shiftlens.FeatureRun.__module__ == "shiftlens.lens.feature_run"
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    shiftlens._register_notebook_display()  # a script that merely has IPython


def test_a_map_for_a_terminal():
    values = np.zeros((17, 17))
    values[8 - 6, 8 + 5] = 0.55
    values[8 + 2, 8 - 8] = 1.0
    d = np.arange(-8, 9)
    lines = text_map(values, (d, d), ACCURACY, colour=False).plain.splitlines()
    assert len(lines) == 10
    assert lines[4][8] == "X"
    assert (lines[1][13], lines[5][0], lines[0][0]) == ("+", "@", " ")
    wide = text_map(values, (d, d), ACCURACY, colour=False, width=9).plain.splitlines()
    assert wide[2][4] == "X"
    assert len(wide[0]) == 9
    # Whatever is left out, the origin's row and column stay.
    odd = np.zeros((15, 15))
    odd[7 + 4, 7 + 2] = 1.0
    narrow = text_map(odd, (d[1:-1], d[1:-1]), ACCURACY, colour=False, width=8).plain.splitlines()
    assert (narrow[1][3], narrow[2][4]) == ("X", "@")
    coloured = text_map(values, (d, d), ACCURACY, colour=True)
    rows = coloured.plain.splitlines()
    assert len(rows) == 10
    assert rows[4][8] == "X"
    styles = {str(span.style) for span in coloured.spans}
    assert any("rgb(253,231,37)" in style for style in styles)
    one = text_map(np.full((1, 3), np.nan), (np.array([0]), np.array([-1, 0, 1])), ACCURACY, colour=True)
    assert one.plain.splitlines()[0] == "▀X▀"
