"""Several sweeps side by side: difference maps on one range, the metric's maps on one range, profiles in one axes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shiftlens.analysis.arms import Aligned
from shiftlens.analysis.paired import DifferenceMap
from shiftlens.figures.drawing import (
    balanced,
    check_format,
    colour_bar,
    colours_of,
    diverging,
    heat_map,
    label_of,
    least_of,
    limits_of,
    name_panels,
    new_figure,
    outline,
    panels,
    short,
    suptitle,
)
from shiftlens.figures.gallery import Pictures
from shiftlens.figures.heatmaps import capital, conditions
from shiftlens.figures.profile import draw_profile, length_axis, profile, value_axis
from shiftlens.stats import FloatArray
from shiftlens.styling import default_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("#31688e", "#d1783c", "#4c9a57", "#a8428c", "#8a6100", "#6b6b6b", "#17a3b8", "#b3261e")
DASHES = ("-", "--", "-.", ":")
MOST_COLUMNS = 4
LONGEST_NAME = 28

Changes = Mapping[int, DifferenceMap]
"""For each sweep but the baseline, by its position."""


def plot_comparison(
    aligned: Aligned,
    means: FloatArray,
    changes: Changes,
    out: str | Path | None = None,
    *,
    format: str = "png",  # noqa: A002
) -> Pictures:
    """Draw every picture of a comparison from its means (sweep, dy, dx) and differences; see `Comparison.plot`."""
    kind = check_format(format)
    figures = {"differences": difference_maps(aligned, changes), "maps": metric_maps(aligned, means)}
    if means[0].size > 1:
        figures["profiles"] = profiles(aligned)
    return Pictures(figures).saved(out, kind)


@default_style()
def difference_maps(aligned: Aligned, changes: Changes) -> Figure:
    """Each sweep minus the baseline, one symmetric range for all.

    A line surrounds the shifts whose difference stands when all shifts are looked at together.
    """
    metric, shifts, tested = aligned.metric, (aligned.dys, aligned.dxs), aligned.tested
    shown = {k: np.where(tested, change.value, np.nan) for k, change in changes.items()}
    limits = balanced(np.stack(list(shown.values())), least_of(metric))
    figure, every = _panels(len(shown))
    for axes, (k, values) in zip(every, shown.items(), strict=True):
        heat_map(axes, values, shifts, limits, diverging(metric))
        marked = changes[k].better.astype(np.int8) - changes[k].worse.astype(np.int8)
        outline(axes, np.where(tested, marked, 0), shifts)
        axes.set_title(short(aligned.arms[k].name, LONGEST_NAME), fontsize=11, parse_math=False)
    base = short(aligned.arms[aligned.baseline].name, LONGEST_NAME)
    text = f"red: better than {base}, blue: worse"
    colour_bar(figure, every[0].images[0], every, metric.difference_unit, limits, text, shrink=0.85)
    marks = "Lines surround differences that are significant for all shifts simultaneously (95 %)"
    suptitle(figure, f"{capital(metric)} minus that of {base}. {_about(aligned)}\n{marks}", 11)
    return figure


@default_style()
def metric_maps(aligned: Aligned, means: FloatArray) -> Figure:
    """The metric over (dx, dy) of every sweep, all on one range."""
    metric = aligned.metric
    limits = limits_of(metric, metric.factor * means)
    figure, every = _panels(len(means))
    for axes, mean, name in zip(every, metric.factor * means, _labels(aligned), strict=True):
        heat_map(axes, mean, (aligned.dys, aligned.dxs), limits, colours_of(metric))
        axes.set_title(name, fontsize=11, parse_math=False)
    colour_bar(figure, every[0].images[0], every, label_of(metric), limits, shrink=0.85)
    suptitle(figure, f"{capital(metric)} under every shift. {_about(aligned)}", 11)
    return figure


@default_style()
def profiles(aligned: Aligned) -> Figure:
    """The metric against the length of the shift, all sweeps in one axes, each with its band."""
    figure = new_figure(7.6, 4.8)
    axes = figure.add_subplot()
    for k, name in enumerate(_labels(aligned)):
        style = {"linestyle": DASHES[k // len(LINES) % len(DASHES)], "markersize": 4}
        # One arm at a time: its answers, unpacked, are forgotten before the next.
        draw_profile(axes, profile(aligned.arrays(k).values()), name, LINES[k % len(LINES)], alpha=0.18, **style)
    length_axis(axes, "length of the shift (pixels of each net's input)")
    value_axis(axes, aligned.metric)
    for text in axes.legend(loc="best", frameon=False).get_texts():
        text.set_parse_math(False)
    bands = "Bands: 95 % for all lengths of one net. The same images: overlapping bands may still differ"
    suptitle(figure, f"Mean over all directions. {_about(aligned)}\n{bands}", 11)
    return figure


def _about(aligned: Aligned) -> str:
    """The images, the fill and the grid: models are named above each map."""
    arrays = aligned.arrays(aligned.baseline)
    return f"{short(aligned.arms[aligned.baseline].header.data, LONGEST_NAME)}\n{conditions(arrays)}"


def _labels(aligned: Aligned) -> list[str]:
    names = [short(arm.name, LONGEST_NAME) for arm in aligned.arms]
    return [f"{name} (baseline)" if k == aligned.baseline else name for k, name in enumerate(names)]


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    """As few rows as fit, evenly filled: five are three and two, not four and one."""
    n_columns = -(-n // -(-n // MOST_COLUMNS))
    figure, every = panels(n, n_columns, (3.6, 3.5), (1.6, 1.4), least=6.4)
    name_panels(every, n_columns)
    return figure, every
