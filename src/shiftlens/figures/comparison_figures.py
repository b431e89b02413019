"""Several sweeps side by side: difference maps on one range, accuracy maps on one range, profiles in one axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import BoolArray, IntArray
from shiftlens.figures.drawing import (
    DIVERGING,
    balanced,
    check_format,
    extent,
    heat_map,
    name_axes,
    new_figure,
    save,
)
from shiftlens.figures.gallery import Pictures
from shiftlens.figures.heatmaps import LEAST_POINTS
from shiftlens.figures.profile import Profile
from shiftlens.stats import FloatArray
from shiftlens.styling import default_style

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
    about
        Images and fill, for under a title.
    profiles
        Of each sweep's accuracy; empty where there are no shifts.
    accuracy
        (sweep, dy, dx) share.
    differences
        For each sweep but the baseline, by its position: (dy, dx) in points, that sweep minus the baseline.
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
    about: str
    profiles: tuple[Profile, ...]
    accuracy: FloatArray
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
        `differences`, `accuracies` and, where there are shifts, `profiles`.

    Raises
    ------
    InputError
        Another format, or a directory that cannot be written.
    """
    kind = check_format(format)
    figures = {"differences": difference_maps(made), "accuracies": accuracy_maps(made)}
    if made.profiles:
        figures["profiles"] = profiles(made)
    if out is None:
        return Pictures(figures)
    return Pictures(figures, tuple(save(figure, Path(out) / f"{name}.{kind}") for name, figure in figures.items()))


@default_style()
def difference_maps(made: Drawable) -> Figure:
    """Accuracy of each sweep minus that of the baseline in points, one symmetric range for all.

    A line surrounds the shifts whose difference stands when all shifts are looked at together.
    """
    shown = {k: np.where(made.blank, np.nan, values) for k, values in made.differences.items()}
    low, high = balanced(np.stack(list(shown.values())), LEAST_POINTS)
    figure, panels = _panels(len(shown))
    drawn = None
    for place, (k, values) in enumerate(shown.items()):
        axes = panels[place]
        drawn = heat_map(axes, values, made.shifts, (low, high), DIVERGING)
        _outline(axes, np.where(made.blank, 0, made.marked[k]), made)
        axes.set_title(_short(made.names[k]), fontsize=11, parse_math=False)
        _label(axes, place, len(shown))
    base = _short(made.names[made.baseline])
    if drawn is not None:
        label = f"points, range ±{high:.1f}; red: better than {base}, blue: worse"
        bar = figure.colorbar(drawn, ax=panels[: len(shown)], shrink=0.85)
        bar.set_label(label, parse_math=False)
    figure.suptitle(
        f"Accuracy minus that of {base}. {made.about}\n"
        "Lines surround differences that stand when all shifts are looked at together (95 %)",
        parse_math=False,
        fontsize=11,
    )
    return figure


@default_style()
def accuracy_maps(made: Drawable) -> Figure:
    """Accuracy over (dx, dy) of every sweep in per cent, all on the range 0 to 100."""
    n = len(made.names)
    figure, panels = _panels(n)
    drawn = None
    for k, name in enumerate(made.names):
        drawn = heat_map(panels[k], 100 * made.accuracy[k], made.shifts, (0.0, 100.0))
        text = f"{_short(name)} (baseline)" if k == made.baseline else _short(name)
        panels[k].set_title(text, fontsize=11, parse_math=False)
        _label(panels[k], k, n)
    if drawn is not None:
        figure.colorbar(drawn, ax=panels[:n], label="accuracy (%), range 0 to 100", shrink=0.85)
    figure.suptitle(f"Accuracy under every shift. {made.about}", parse_math=False, fontsize=11)
    return figure


@default_style()
def profiles(made: Drawable) -> Figure:
    """Accuracy against the length of the shift, all sweeps in one axes, each with its band."""
    figure = new_figure(7.6, 4.8)
    axes = figure.add_subplot()
    for k, (name, found) in enumerate(zip(made.names, made.profiles, strict=True)):
        colour, dashes = LINES[k % len(LINES)], DASHES[k // len(LINES) % len(DASHES)]
        text = f"{_short(name)} (baseline)" if k == made.baseline else _short(name)
        axes.plot(found.radius, found.value, dashes, color=colour, marker=".", markersize=4, label=text)
        if np.isfinite(found.lo).all():
            axes.fill_between(found.radius, found.lo, found.hi, color=colour, alpha=0.18, linewidth=0)
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.set_ylabel("accuracy (%), range 0 to 100")
    axes.set_xlabel("length of the shift (pixels of each net's input)")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    legend = axes.legend(loc="best", frameon=False)
    for text_artist in legend.get_texts():
        text_artist.set_parse_math(False)
    figure.suptitle(
        f"Mean over all directions. {made.about}\n"
        "Bands: 95 % for all lengths of one net. The same images: overlapping bands may still differ",
        parse_math=False,
        fontsize=11,
    )
    return figure


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    n_columns = _columns(n)
    n_rows = -(-n // n_columns)
    figure = new_figure(max(1.6 + 3.6 * n_columns, 6.4), 1.4 + 3.5 * n_rows)
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False).ravel())
    for axes in panels[n:]:
        axes.set_visible(False)
    return figure, panels


def _columns(n: int) -> int:
    """As few rows as fit, evenly filled: five are three and two, not four and one."""
    n_rows = -(-n // MOST_COLUMNS)
    return -(-n // n_rows)


def _label(axes: Axes, place: int, n: int) -> None:
    n_columns = _columns(n)
    name_axes(axes, x=place + n_columns >= n, y=place % n_columns == 0, short=True)


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


def _short(name: str) -> str:
    safe = "".join(c if c.isprintable() else "?" for c in name)
    return safe if len(safe) <= LONGEST_NAME else f"{safe[: LONGEST_NAME - 1]}…"
