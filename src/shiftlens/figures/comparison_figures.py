"""Several sweeps side by side: difference maps on one range, the metric's maps on one range, profiles in one axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import BoolArray, IntArray
from shiftlens.figures.drawing import (
    balanced,
    check_format,
    colours_of,
    diverging,
    extent,
    heat_map,
    label_of,
    least_of,
    limits_of,
    name_panels,
    new_figure,
    panels,
    range_of,
    short,
    suptitle,
)
from shiftlens.figures.gallery import Pictures
from shiftlens.figures.heatmaps import capital
from shiftlens.figures.profile import Profile, draw_profile, length_axis, value_axis
from shiftlens.stats import FloatArray
from shiftlens.styling import default_style
from shiftlens.tasks.task import Variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("#31688e", "#d1783c", "#4c9a57", "#a8428c", "#8a6100", "#6b6b6b", "#17a3b8", "#b3261e")
DASHES = ("-", "--", "-.", ":")
MOST_COLUMNS = 4
LONGEST_NAME = 28


@dataclass(frozen=True, eq=False)
class Drawable:
    """What the pictures of a comparison need.

    Attributes
    ----------
    names, baseline
        Of the sweeps, and which of them the others are compared with.
    dys, dxs
        Common shifts in px, ascending.
    metric
        What is compared.
    about
        Images and fill, for under a title.
    profiles
        Of each sweep; empty where there are no shifts.
    means
        (sweep, dy, dx) in the metric's unit.
    differences
        For each sweep but the baseline, by its position: (dy, dx) that sweep minus the baseline, shares in points.
    marked
        For each of them (dy, dx): 1 where it is better and -1 where it is worse when all shifts are looked at together,
        0 elsewhere.
    blank
        (dy, dx): nothing of some net's picture is left.
    """

    names: tuple[str, ...]
    baseline: int
    dys: IntArray
    dxs: IntArray
    metric: Variable
    about: str
    profiles: tuple[Profile, ...]
    means: FloatArray
    differences: Mapping[int, FloatArray]
    marked: Mapping[int, NDArray[np.int8]]
    blank: BoolArray

    @property
    def shifts(self) -> tuple[IntArray, IntArray]:
        """The common dys and dxs."""
        return self.dys, self.dxs


def plot_comparison(made: Drawable, out: str | Path | None = None, *, format: str = "png") -> Pictures:  # noqa: A002
    """Draw every picture of a comparison, and write them when told where.

    Parameters
    ----------
    made
        The sweeps.
    out
        Directory, made if it is not there; None writes nothing.
    format
        "png" or "svg".

    Returns
    -------
    Pictures
        `differences`, `maps` and, where there are shifts, `profiles`.

    Raises
    ------
    InputError
        Another format, or a directory that cannot be written.
    """
    kind = check_format(format)
    figures = {"differences": difference_maps(made), "maps": metric_maps(made)}
    if made.profiles:
        figures["profiles"] = profiles(made)
    return Pictures(figures).saved(out, kind)


@default_style()
def difference_maps(made: Drawable) -> Figure:
    """Each sweep minus the baseline, one symmetric range for all.

    A line surrounds the shifts whose difference stands when all shifts are looked at together.
    """
    shown = {k: np.where(made.blank, np.nan, values) for k, values in made.differences.items()}
    metric, limits = made.metric, balanced(np.stack(list(shown.values())), least_of(made.metric))
    figure, every = _panels(len(shown))
    for axes, (k, values) in zip(every, shown.items(), strict=True):
        heat_map(axes, values, made.shifts, limits, diverging(metric))
        _outline(axes, np.where(made.blank, 0, made.marked[k]), made)
        axes.set_title(short(made.names[k], LONGEST_NAME), fontsize=11, parse_math=False)
    base = short(made.names[made.baseline], LONGEST_NAME)
    bar = figure.colorbar(every[0].images[0], ax=every, shrink=0.85)
    better = f"red: better than {base}, blue: worse"
    bar.set_label(f"{metric.difference_unit}, {range_of(limits)}; {better}", parse_math=False)
    marks = "Lines surround differences that are significant for all shifts simultaneously (95 %)"
    suptitle(figure, f"{capital(metric)} minus that of {base}. {made.about}\n{marks}", 11)
    return figure


@default_style()
def metric_maps(made: Drawable) -> Figure:
    """The metric over (dx, dy) of every sweep, all on one range."""
    metric, means = made.metric, made.metric.factor * made.means
    limits = limits_of(metric, means)
    figure, every = _panels(len(made.names))
    for axes, mean, name in zip(every, means, _labels(made), strict=True):
        heat_map(axes, mean, made.shifts, limits, colours_of(metric))
        axes.set_title(name, fontsize=11, parse_math=False)
    bar = figure.colorbar(every[0].images[0], ax=every, shrink=0.85)
    bar.set_label(f"{label_of(metric)}, {range_of(limits)}", parse_math=False)
    suptitle(figure, f"{capital(metric)} under every shift. {made.about}", 11)
    return figure


@default_style()
def profiles(made: Drawable) -> Figure:
    """The metric against the length of the shift, all sweeps in one axes, each with its band."""
    figure = new_figure(7.6, 4.8)
    axes = figure.add_subplot()
    for k, (name, found) in enumerate(zip(_labels(made), made.profiles, strict=True)):
        style = {"linestyle": DASHES[k // len(LINES) % len(DASHES)], "markersize": 4}
        draw_profile(axes, found, name, LINES[k % len(LINES)], alpha=0.18, **style)
    length_axis(axes, "length of the shift (pixels of each net's input)")
    value_axis(axes, made.metric)
    for text in axes.legend(loc="best", frameon=False).get_texts():
        text.set_parse_math(False)
    bands = "Bands: 95 % for all lengths of one net. The same images: overlapping bands may still differ"
    suptitle(figure, f"Mean over all directions. {made.about}\n{bands}", 11)
    return figure


def _labels(made: Drawable) -> list[str]:
    names = [short(name, LONGEST_NAME) for name in made.names]
    return [f"{name} (baseline)" if k == made.baseline else name for k, name in enumerate(names)]


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    """As few rows as fit, evenly filled: five are three and two, not four and one."""
    n_columns = -(-n // -(-n // MOST_COLUMNS))
    figure, every = panels(n, n_columns, (3.6, 3.5), (1.6, 1.4), least=6.4)
    name_panels(every, n_columns)
    return figure, every


def _outline(axes: Axes, cells: NDArray[np.integer], made: Drawable) -> None:
    """Lines along the sides between cells of different mark: a contour would cut their corners."""
    left, right, bottom, top = extent(made.shifts)
    ys = np.linspace(top, bottom, cells.shape[0] + 1)
    xs = np.linspace(left, right, cells.shape[1] + 1)
    padded = np.pad(cells, 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]
    down = padded[1:-1, 1:] != padded[1:-1, :-1]
    segments = [((xs[c], ys[r]), (xs[c + 1], ys[r])) for r, c in np.argwhere(across)]
    segments += [((xs[c], ys[r]), (xs[c], ys[r + 1])) for r, c in np.argwhere(down)]
    if segments:
        from matplotlib.collections import LineCollection

        axes.add_collection(LineCollection(segments, colors="black", linewidths=0.9))
