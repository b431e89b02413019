"""Pictures of a comparison: the right cell, one range for all, lines where differences stand, the same bytes twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from comparison.pairs import pair_of, plateau, sources
from shiftlens.errors import InputError
from shiftlens.figures import png_bytes
from shiftlens.figures.comparison_figures import Drawable, difference_maps, metric_maps, plot_comparison, profiles
from shiftlens.figures.profile import Profile, profile
from shiftlens.narrative.comparing import compared
from shiftlens.tasks.classification import ACCURACY

REACH = 4
D = np.arange(-REACH, REACH + 1)


def drawable(n: int = 3, marked: tuple[int, int] | None = (2, -3)) -> Drawable:
    """Each arm but the baseline differs at one shift (dx, dy) = (2, -3) only, by its number in points."""
    line = np.arange(5.0)
    some = Profile(line, line, line - 1, line + 1, line)
    difference, mark = np.zeros((D.size, D.size)), np.zeros((D.size, D.size), np.int8)
    difference[REACH - 3, REACH + 2] = 1.0
    if marked is not None:
        mark[REACH + marked[1], REACH + marked[0]] = 1
    means = np.stack([np.full((D.size, D.size), 0.1 * (k + 1)) for k in range(n)])
    return Drawable(
        names=tuple(f"net {k}" for k in range(n)),
        baseline=0,
        dys=D,
        dxs=D,
        metric=ACCURACY,
        about="2 images, fill black",
        profiles=(some,) * n,
        means=means,
        differences={k: 4 * k * difference for k in range(1, n)},
        marked=dict.fromkeys(range(1, n), mark),
        blank=np.zeros((D.size, D.size), np.bool_),
    )


def images_of(figure):
    return [axes.images[0] for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]


def test_difference_maps_share_one_symmetric_range():
    figure = difference_maps(drawable(4))
    drawn = images_of(figure)
    assert len(drawn) == 3
    assert {image.get_clim() for image in drawn} == {(-12.0, 12.0)}
    assert {image.get_cmap().name for image in drawn} == {"RdBu_r"}
    assert [axes.get_title() for axes in figure.axes[:3]] == ["net 1", "net 2", "net 3"]
    assert "range ±12; red: better than net 0, blue: worse" in figure.axes[-1].get_ylabel()


def test_a_difference_is_drawn_where_its_shift_moves_the_picture_and_its_line_runs_around_it():
    figure = difference_maps(drawable())
    axes = figure.axes[0]
    left, right, bottom, top = axes.images[0].get_extent()
    assert (left, right, bottom, top) == (-4.5, 4.5, 4.5, -4.5)
    row, column = np.argwhere(axes.images[0].get_array() == 4)[0]
    assert (column - REACH, row - REACH) == (2, -3)
    corners = {tuple(point) for line in axes.collections[0].get_segments() for point in line.tolist()}
    assert corners == {(1.5, -3.5), (2.5, -3.5), (1.5, -2.5), (2.5, -2.5)}
    assert len(axes.collections[0].get_segments()) == 4
    assert not difference_maps(drawable(marked=None)).axes[0].collections


def test_a_line_runs_between_better_and_worse():
    mark = np.zeros((D.size, D.size), np.int8)
    mark[:, :REACH], mark[:, REACH:] = 1, -1
    lines = difference_maps(replace(drawable(2), marked={1: mark})).axes[0].collections[0].get_segments()
    between = [line for line in lines if (line[:, 0] == -0.5).all()]
    assert len(between) == D.size


def test_a_quiet_map_does_not_shout():
    quiet = replace(drawable(2), differences={1: np.full((D.size, D.size), 0.01)})
    assert images_of(difference_maps(quiet))[0].get_clim() == (-1.0, 1.0)


def test_blank_shifts_stay_grey_and_unmarked():
    blank = np.zeros((D.size, D.size), np.bool_)
    blank[REACH - 3, REACH + 2] = True
    made = replace(drawable(2), blank=blank)
    axes = difference_maps(made).axes[0]
    assert np.ma.getmaskarray(axes.images[0].get_array()).sum() == 1
    assert not axes.collections
    # And they do not stretch the range.
    assert axes.images[0].get_clim() == (-1.0, 1.0)


def test_metric_maps_share_the_full_range():
    figure = metric_maps(drawable(5))
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
    figure = profiles(drawable(20))
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_the_same_bytes_twice_and_strange_names(tmp_path):
    made = replace(drawable(), names=("$\\alpha_{", "<b>" + "x" * 80, "a\x1b[31mb"))
    first, second = (plot_comparison(made, tmp_path / name, format="svg") for name in ("one", "two"))
    assert [path.name for path in first.files] == ["differences.svg", "maps.svg", "profiles.svg"]
    for a, b in zip(first.files, second.files, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert b"\x1b" not in a.read_bytes()
    assert png_bytes(first["differences"]) == png_bytes(second["differences"])
    assert set(plot_comparison(made)) == {"differences", "maps", "profiles"}
    with pytest.raises(InputError, match="unknown picture format 'jpg'"):
        plot_comparison(made, tmp_path, format="jpg")


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (9, (3, 3))])
def test_panels_fill_their_rows(n, shape):
    figure = metric_maps(drawable(n))
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    assert sum(axes.get_visible() for axes in figure.axes) == n + 1
    with_y = [axes.get_ylabel() for axes in figure.axes[:n]]
    assert [bool(text) for text in with_y] == [k % shape[1] == 0 for k in range(n)]


def test_a_comparison_hands_its_own_numbers_to_the_pictures(monkeypatch):
    lean = 0.8 * np.tanh(np.arange(-6, 7))[None, :]
    made = pair_of(np.random.default_rng(0), 300, [plateau(6, edge=4), plateau(6, edge=4) + lean])
    found = compared(sources(made), baseline=1, n_resamples=100)
    monkeypatch.setattr("shiftlens.figures.comparison_figures.plot_comparison", lambda given, *_, **__: given)
    given = found.plot()
    assert (given.names, given.baseline, given.about) == (("a", "b"), 1, "300 images, fill black")
    change = found["a"].map
    assert np.array_equal(given.differences[0], change.value)
    assert (given.marked[0] == 1).sum() == change.better.sum() > 0
    assert (given.marked[0] == -1).sum() == change.worse.sum() > 0
    # The baseline leans to the right: the other is better on the left.
    assert np.argwhere(given.marked[0] == 1)[:, 1].mean() < 6 < np.argwhere(given.marked[0] == -1)[:, 1].mean()
    assert np.array_equal(given.means, found.means)
