"""Pictures of a comparison: the right cell, one range for all, lines where differences stand, the same bytes twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from comparison.pairs import pair_of, plateau, sources
from shiftlens.analysis.arms import Aligned, Arm, Packed
from shiftlens.analysis.paired import DifferenceMap
from shiftlens.errors import InputError
from shiftlens.figures import png_bytes
from shiftlens.figures.comparison_figures import difference_maps, metric_maps, plot_comparison, profiles
from shiftlens.figures.profile import profile
from shiftlens.narrative.comparing import compared
from shiftlens.stats import Skipped
from shiftlens.tasks.classification import ACCURACY

REACH = 4
D = np.arange(-REACH, REACH + 1)


def aligned(n: int = 3, names: tuple[str, ...] = (), picture: int = 32) -> Aligned:
    """Arms of two images, right under every shift."""
    cells = Packed(np.packbits(np.ones((2, D.size * D.size), np.bool_), axis=1), (2, D.size, D.size))
    source = sources([pair_of(np.random.default_rng(0), 2, [plateau(REACH)])[0]])[0]
    given = {"cells": cells, "agreement": Skipped("", ""), "scale": 1.0}
    arms = [
        Arm(name, source.arrays, source.header, source.path, 2, 2, **given)
        for name in names or [f"net {k}" for k in range(n)]
    ]
    return Aligned(tuple(arms), 0, np.arange(2), D, D, (picture, picture), True, 0, "source", ACCURACY)


def change(points: float = 1.0, marked: tuple[int, int] | None = (2, -3)) -> DifferenceMap:
    """A difference at one shift (dx, dy) = (2, -3) only."""
    value, mark = np.zeros((D.size, D.size)), np.zeros((D.size, D.size), np.bool_)
    value[REACH - 3, REACH + 2] = points
    if marked is not None:
        mark[REACH + marked[1], REACH + marked[0]] = True
    judged = {"tested": mark | ~mark, "better": mark, "worse": mark & ~mark, "p_value": 1.0, "holm_p": 1.0}
    return DifferenceMap(value, value, value, value, value, "points", 2, "", **judged)


def changes(n: int = 3, marked: tuple[int, int] | None = (2, -3)) -> dict[int, DifferenceMap]:
    return {k: change(4 * k, marked) for k in range(1, n)}


def means(n: int) -> np.ndarray:
    return np.stack([np.full((D.size, D.size), 0.1 * (k + 1)) for k in range(n)])


def images_of(figure):
    return [axes.images[0] for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]


def test_difference_maps_share_one_symmetric_range():
    figure = difference_maps(aligned(4), changes(4))
    drawn = images_of(figure)
    assert len(drawn) == 3
    assert {image.get_clim() for image in drawn} == {(-12.0, 12.0)}
    assert {image.get_cmap().name for image in drawn} == {"RdBu_r"}
    assert [axes.get_title() for axes in figure.axes[:3]] == ["net 1", "net 2", "net 3"]
    assert "range ±12; red: better than net 0, blue: worse" in figure.axes[-1].get_ylabel()


def test_a_difference_is_drawn_where_its_shift_moves_the_picture_and_its_line_runs_around_it():
    figure = difference_maps(aligned(), changes())
    axes = figure.axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    assert (left, right, bottom, top) == (-4.5, 4.5, 4.5, -4.5)
    row, column = np.argwhere(axes.images[0].get_array() == 4)[0]
    assert (column - REACH, row - REACH) == (2, -3)
    corners = {tuple(point) for line in axes.collections[0].get_segments() for point in line.tolist()}
    assert corners == {(1.5, -3.5), (2.5, -3.5), (1.5, -2.5), (2.5, -2.5)}
    assert len(axes.collections[0].get_segments()) == 4
    assert not difference_maps(aligned(), changes(marked=None)).axes[0].collections


def test_a_line_runs_between_better_and_worse():
    better = np.repeat((D < 0)[None], D.size, axis=0)
    made = replace(change(), better=better, worse=~better)
    lines = difference_maps(aligned(2), {1: made}).axes[0].collections[0].get_segments()
    between = [line for line in lines if (line[:, 0] == -0.5).all()]
    assert len(between) == D.size


def test_a_quiet_map_does_not_shout():
    quiet = {1: replace(change(), value=np.full((D.size, D.size), 0.01))}
    assert images_of(difference_maps(aligned(2), quiet))[0].get_clim() == (-1.0, 1.0)


def test_blank_shifts_stay_grey_and_unmarked():
    # Of a picture of 3 px, shifts of 3 px leave nothing: (2, -3) is one of them.
    axes = difference_maps(aligned(2, picture=3), changes(2)).axes[0]
    assert np.ma.getmaskarray(axes.images[0].get_array()).sum() == D.size**2 - 25
    assert not axes.collections
    # And they do not stretch the range.
    assert axes.images[0].get_clim() == (-1.0, 1.0)


def test_metric_maps_share_the_full_range():
    figure = metric_maps(aligned(5), means(5))
    drawn = images_of(figure)
    assert {image.get_clim() for image in drawn} == {(0.0, 100.0)}
    assert [round(float(image.get_array().mean())) for image in drawn] == [10, 20, 30, 40, 50]
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles == ["net 0 (baseline)", "net 1", "net 2", "net 3", "net 4"]


def test_profiles_are_those_of_each_sweep_in_one_axes():
    made = pair_of(np.random.default_rng(0), 60, [plateau(6, edge=3), plateau(6, edge=4)])
    found = compared(sources(made), n_resamples=20)
    figure = found.plot()["profiles"]
    assert len(figure.axes) == 1
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert [line.get_label() for line in lines] == ["a (baseline)", "b"]
    for line, arrays in zip(lines, made, strict=True):
        expected = profile(arrays.values())
        assert np.allclose(line.get_xdata(), expected.radius)
        assert np.allclose(line.get_ydata(), expected.value)
    assert figure.axes[0].get_ylim() == (0, 102)
    assert len({line.get_color() for line in lines}) == 2


def test_many_arms_are_told_apart():
    figure = profiles(aligned(20))
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_the_same_bytes_twice_and_strange_names(tmp_path):
    made = aligned(names=("$\\alpha_{", "<b>" + "x" * 80, "a\x1b[31mb")), means(3), changes()
    first, second = (plot_comparison(*made, tmp_path / name, format="svg") for name in ("one", "two"))
    assert [path.name for path in first.files] == ["differences.svg", "maps.svg", "profiles.svg"]
    for a, b in zip(first.files, second.files, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert b"\x1b" not in a.read_bytes()
    assert png_bytes(first["differences"]) == png_bytes(second["differences"])
    assert set(plot_comparison(*made)) == {"differences", "maps", "profiles"}
    with pytest.raises(InputError, match="unknown picture format 'jpg'"):
        plot_comparison(*made, tmp_path, format="jpg")


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (9, (3, 3))])
def test_panels_fill_their_rows(n, shape):
    figure = metric_maps(aligned(n), means(n))
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    assert sum(axes.get_visible() for axes in figure.axes) == n + 1
    with_y = [axes.get_ylabel() for axes in figure.axes[:n]]
    assert [bool(text) for text in with_y] == [k % shape[1] == 0 for k in range(n)]


def test_a_comparison_hands_its_own_numbers_to_the_pictures():
    lean = 0.8 * np.tanh(np.arange(-6, 7))[None, :]
    made = pair_of(np.random.default_rng(0), 300, [plateau(6, edge=4), plateau(6, edge=4) + lean])
    found = compared(sources(made), baseline=1, n_resamples=100)
    difference = found.plot()["differences"]
    title = difference.get_suptitle()
    assert title.startswith("Accuracy minus that of b. DATA\n300 images, fill black, shifts up to 6 px\n")
    axes, change = difference.axes[0], found["a"].map
    assert axes.get_title() == "a"
    assert np.array_equal(np.asarray(axes.images[0].get_array()), change.value)
    assert change.better.sum() > 0
    assert change.worse.sum() > 0
    # The baseline leans to the right: the other is better on the left.
    assert np.argwhere(change.better)[:, 1].mean() < 6 < np.argwhere(change.worse)[:, 1].mean()
    assert axes.collections
    drawn = [np.asarray(image.get_array()) for image in images_of(found.plot()["maps"])]
    assert np.allclose(drawn, 100 * found.means)
