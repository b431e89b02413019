"""Matrices over (dx, dy): a metric, by class, a control beside the sweep, one side minus the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftlens.analysis.arrays import IntArray, SweepArrays, Values
from shiftlens.analysis.differences import sums_of
from shiftlens.analysis.matched_images import matched_rows
from shiftlens.figures.drawing import (
    balanced,
    colour_bar,
    colours_of,
    diverging,
    heat_map,
    label_of,
    least_of,
    limits_of,
    mirrored,
    name_axes,
    name_panels,
    new_figure,
    panels,
    short,
    suptitle,
)
from shiftlens.stats import FloatArray
from shiftlens.styling import default_style
from shiftlens.tasks.task import Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shiftlens.sweeps.sweep_result import Sweep

MOST_CLASSES = 20
LONGEST_TITLE = 18


def about(sweep: Sweep | SweepArrays, n: int | None = None) -> str:
    """Images and fill, for under a title."""
    if isinstance(sweep, SweepArrays):
        there, planned, fill = sweep.n_images, sweep.n_images + sweep.n_missing, sweep.fill
    else:
        there, planned, fill = sweep.n_written, sweep.n_images, sweep.fill.name
    n = there if n is None else n
    count = f"{n:,} images" if there == planned else f"{n:,} of {planned:,} images so far"
    return f"{count}, fill {fill}"


def shown_mean(values: Values, rows: IntArray | None = None) -> FloatArray:
    """Mean (dy, dx) over some images, or all: shares in per cent."""
    return values.metric.factor * sums_of(values, rows).mean.reshape(values.sweep.shape)


@default_style()
def metric_matrix(sweep: Sweep | SweepArrays, metric: Variable | None = None) -> Figure:
    """A metric over (dx, dy), the default one by default: within its bounds where it has them, shares in per cent."""
    metric = metric or sweep.metrics[0]
    if isinstance(sweep, SweepArrays):
        values, shifts = shown_mean(sweep.values(metric)), sweep.shifts
    else:
        # A Sweep's own means are there already: no pass over its images.
        values = metric.factor * np.asarray(sweep.mean_of(metric), np.float64)
        shifts = sweep.grid.dys, sweep.grid.dxs
    figure = new_figure(6.4, 5.4)
    axes = figure.add_subplot()
    limits = limits_of(metric, values)
    drawn = heat_map(axes, values, shifts, limits, colours_of(metric))
    name_axes(axes)
    axes.set_title(f"{capital(metric)} under every shift\n{about(sweep)}", parse_math=False)
    colour_bar(figure, drawn, axes, label_of(metric), limits)
    return figure


def capital(metric: Variable) -> str:
    """The metric's name as a title begins with it."""
    return metric.called[:1].upper() + metric.called[1:]


@default_style()
def control_matrices(values: Values, name: str) -> Figure:
    """A control beside the sweep and their difference, over the images that both hold.

    The flip control is drawn mirrored back, (dx, dy) from its (-dx, dy): a model without a preferred side gives two
    equal pictures.
    """
    sweep, metric, control = values.sweep, values.metric, values.of(name)
    rows, control_rows = matched_rows(sweep, control.sweep)
    moved, kept = shown_mean(values, rows), shown_mean(control, control_rows)
    words = {
        "occlusion": ("Same pixels lost, rest left in place", "What the move itself changes"),
        "canvas": ("No padding near the image", "What the padding changes"),
        "flip": ("Mirrored images, drawn mirrored back", "What the mirror changes"),
    }
    control_title, difference_title = words.get(name, (f"Control {name}", "Sweep minus control"))
    if name == "flip":
        kept = mirrored(kept, sweep.dxs, axis=1)
    difference = moved - kept
    limits = balanced(difference, least_of(metric))
    both = limits_of(metric, np.stack([moved, kept]))
    figure, every = panels(3, 3, (4.2, 4.3), (0, 0))
    left, middle, right = every
    heat_map(left, moved, sweep.shifts, both, colours_of(metric))
    shared = heat_map(middle, kept, sweep.shifts, both, colours_of(metric))
    drawn = heat_map(right, difference, sweep.shifts, limits, diverging(metric))
    for axes, text in zip(every, ("Shifted", control_title, difference_title), strict=True):
        axes.set_title(text, fontsize=11)
    name_panels(every, 3)
    colour_bar(figure, shared, [left, middle], label_of(metric), both, shrink=0.82)
    unit = f"shifted minus control ({metric.difference_unit})"
    colour_bar(figure, drawn, right, unit, limits, "red: better", shrink=0.82)
    suptitle(figure, f"Control: {name}. {about(sweep, len(rows))}")
    return figure


def has_sides(sweep: SweepArrays) -> bool:
    """Whether the grid holds a pair of opposite shifts at all."""
    return any(np.isin(-axis[axis > 0], axis).any() for axis in (sweep.dys, sweep.dxs))


@default_style()
def side_matrices(values: Values) -> Figure:
    """Left against right and up against down: the metric at each shift minus that at its mirror image."""
    sweep, metric, mean = values.sweep, values.metric, shown_mean(values)
    mean[sweep.blank] = np.nan
    wanted = []
    for number, along, text in (
        (1, sweep.dxs, f"Left against right\n{metric.called} at (dx, dy) minus at (−dx, dy)"),
        (0, sweep.dys, f"Up against down\n{metric.called} at (dx, dy) minus at (dx, −dy)"),
    ):
        if np.isin(-along[along > 0], along).any():
            wanted.append((text, mean - mirrored(mean, along, axis=number)))
    limits = balanced(np.stack([difference for _, difference in wanted]), least_of(metric))
    figure, every = panels(len(wanted), len(wanted), (4.5, 5.4), (1.4, 0))
    for axes, (text, difference) in zip(every, wanted, strict=True):
        heat_map(axes, difference, sweep.shifts, limits, diverging(metric))
        axes.set_title(text, fontsize=11, parse_math=False)
    name_panels(every, len(every))
    text = "red: better here than at the mirrored shift"
    colour_bar(figure, every[0].images[0], every, metric.difference_unit, limits, text, shrink=0.85)
    suptitle(figure, f"Is it the same on both sides? {about(sweep)}")
    return figure


@default_style()
def class_matrices(values: Values) -> Figure:
    """A metric for each class on one range; at most 20 classes, those with most images."""
    sweep, metric, counts = values.sweep, values.metric, np.bincount(values.sweep.labels)
    present = sorted(int(k) for k in np.argsort(-counts, kind="stable")[:MOST_CLASSES] if counts[k])
    n_columns = min(5, len(present))
    means = [shown_mean(values, np.flatnonzero(sweep.labels == k)) for k in present]
    limits = limits_of(metric, np.stack(means))
    figure, every = panels(len(present), n_columns, (2.2, 2.3), (1.6, 1.0), shared=True)
    for position, (k, mean, axes) in enumerate(zip(present, means, every, strict=True)):
        heat_map(axes, mean, sweep.shifts, limits, colours_of(metric), n_ticks=4)
        name = short(sweep.class_names[k] if k < len(sweep.class_names) else str(k), LONGEST_TITLE)
        axes.set_title(f"{name} ({counts[k]:,})", fontsize=9.5, parse_math=False)
        axes.tick_params(labelbottom=position + n_columns >= len(present))
    name_panels(every, n_columns)
    left_out = int(np.count_nonzero(counts)) - len(present)
    more = f"; {left_out} classes with fewer images are left out" if left_out else ""
    shrink = min(1.0, 0.75 + 0.1 * -(-len(present) // n_columns))
    colour_bar(figure, every[0].images[0], figure.axes, label_of(metric), limits, shrink=shrink)
    suptitle(figure, f"{capital(metric)} by class (number of images){more}\n{about(sweep)}", 11)
    return figure
