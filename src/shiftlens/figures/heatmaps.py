"""Matrices over (dx, dy): a metric, by class, a control beside the sweep, one side minus the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftlens.analysis.arrays import IntArray, SweepArrays, Values
from shiftlens.analysis.asymmetry import Asymmetry, Axis, asymmetry
from shiftlens.analysis.differences import sums_of
from shiftlens.analysis.matched_images import matched_rows
from shiftlens.analysis.regions import LEVELS, ROUNDING, connected_region
from shiftlens.figures.drawing import (
    Shifts,
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
    outline,
    panels,
    short,
    suptitle,
)
from shiftlens.naming import count_of
from shiftlens.stats import FloatArray
from shiftlens.styling import default_style
from shiftlens.tasks.task import Variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shiftlens.sweeps.sweep_result import Sweep

MOST_CLASSES = 20
LONGEST_TITLE = 18
LONGEST_SPEC = 36


def about(sweep: Sweep | SweepArrays, n: int | None = None) -> str:
    """Model and images, and how they were shifted: two lines for under a title."""
    names = sweep.title if isinstance(sweep, SweepArrays) else (sweep.header.model, sweep.header.data)
    first = " on ".join(short(name, LONGEST_SPEC) for name in names)
    return "\n".join(filter(None, (first, conditions(sweep, n))))


def conditions(sweep: Sweep | SweepArrays, n: int | None = None) -> str:
    """Number of images, fill and grid."""
    if isinstance(sweep, SweepArrays):
        there, planned, fill = sweep.n_images, sweep.n_images + sweep.n_missing, sweep.fill
    else:
        there, planned, fill = sweep.n_written, sweep.n_images, sweep.fill.name
    n = there if n is None else n
    count = count_of(n, "image") if there == planned else f"{n:,} of {count_of(planned, 'image')} so far"
    dys, dxs = (sweep.dys, sweep.dxs) if isinstance(sweep, SweepArrays) else (sweep.grid.dys, sweep.grid.dxs)
    return f"{count}, fill {fill}, {grid_text(dys, dxs)}"


def grid_text(dys: IntArray, dxs: IntArray) -> str:
    """Which shifts were measured: reach and step."""
    if len(dys) == len(dxs) == 1:
        return "no shifts"
    parts = []
    for axis in [dxs] if np.array_equal(dys, dxs) else [dxs, dys]:
        step = f" in steps of {int(axis[1] - axis[0])} px" if len(axis) > 1 and axis[1] - axis[0] > 1 else ""
        span = f"{int(axis[0])} to {int(axis[-1])}" if axis[0] != -axis[-1] else f"up to {int(axis[-1])}"
        parts.append(f"{span} px{step}" if len(axis) > 1 else "0 px")
    return f"shifts {parts[0]}" if len(parts) == 1 else f"shifts dx {parts[0]}, dy {parts[1]}"


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
    line = _kept_region(axes, metric, values, shifts)
    suptitle(figure, "\n".join(filter(None, (f"{capital(metric)} under every shift", about(sweep), line))), 11)
    colour_bar(figure, drawn, axes, label_of(metric), limits)
    return figure


def _kept_region(axes: Axes, metric: Variable, values: FloatArray, shifts: Shifts) -> str:
    """Draw the outline of the retained region at 95 %, and say what it is; nothing where the grid has no such region.

    It is `Retained.region` of the same level.
    """
    at = int(np.flatnonzero(shifts[0] == 0)[0]), int(np.flatnonzero(shifts[1] == 0)[0])
    unshifted = metric.sign * float(values[at])
    if values.size == 1 or not np.isfinite(unshifted) or unshifted == 0:
        return ""
    if metric.sign < 0 and abs(unshifted) < ROUNDING * float(np.nanmax(np.abs(values))):
        return ""
    region = connected_region(metric.sign * values, LEVELS[0], at)
    outline(axes, region, shifts, "white", 2.6)
    outline(axes, region, shifts, "black", 1.2)
    side = "at least" if metric.sign > 0 else "at most"
    factor = LEVELS[0] if unshifted > 0 else 2 - LEVELS[0]
    level = f"{100 * factor:.0f} % of" if metric.unit == "share" else f"{factor:.3g} times"
    return f"Line: connected to (0, 0) with {side} {level} the {metric.called} there"


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
    figure, every = panels(3, 3, (4.2, 4.3), (0, 0.5))
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
    suptitle(figure, f"Control: {name}\n{about(sweep, len(rows))}", 11)
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
    sides: tuple[tuple[Axis, IntArray, str], ...] = (
        ("x", sweep.dxs, f"Left against right\n{metric.called} at (dx, dy) minus at (−dx, dy)"),
        ("y", sweep.dys, f"Up against down\n{metric.called} at (dx, dy) minus at (dx, −dy)"),
    )
    for axis, along, text in sides:
        if np.isin(-along[along > 0], along).any():
            difference = mean - mirrored(mean, along, axis=1 if axis == "x" else 0)
            wanted.append((text, difference, _significant(values, axis)))
    limits = balanced(np.stack([difference for _, difference, _ in wanted]), least_of(metric))
    figure, every = panels(len(wanted), len(wanted), (4.5, 5.4), (1.4, 0.8))
    for axes, (text, difference, marked) in zip(every, wanted, strict=True):
        heat_map(axes, difference, sweep.shifts, limits, diverging(metric))
        outline(axes, marked, sweep.shifts)
        axes.set_title(text, fontsize=11, parse_math=False)
    name_panels(every, len(every))
    text = "red: better here than at the mirrored shift"
    colour_bar(figure, every[0].images[0], every, metric.difference_unit, limits, text, shrink=0.85)
    some = any(marked.any() for *_, marked in wanted)
    marks = "Lines surround pairs that differ significantly, for all pairs together (95 %)"
    none = "No single pair of shifts differs significantly, for all pairs together (95 %)"
    suptitle(figure, f"Is it the same on both sides?\n{about(sweep)}\n{marks if some else none}", 11)
    return figure


def _significant(values: Values, axis: Axis) -> IntArray:
    """(dy, dx): 1 and -1 where a shift is significantly better and worse than its opposite, 0 elsewhere."""
    sweep, out = values.sweep, np.zeros(values.sweep.shape, np.int64)
    made = asymmetry(values, axis)
    if isinstance(made, Asymmetry):
        rows, columns = np.searchsorted(sweep.dys, made.dys), np.searchsorted(sweep.dxs, made.dxs)
        mark = (made.lo > 0).astype(np.int64) - (made.hi < 0)
        out[rows, columns] = mark
        across = axis == "x"
        out[
            rows if across else np.searchsorted(sweep.dys, -made.dys),
            np.searchsorted(sweep.dxs, -made.dxs) if across else columns,
        ] = -mark
    return out


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
    more = f"; {count_of(left_out, 'class', 'classes')} with fewer images are left out" if left_out else ""
    shrink = min(1.0, 0.75 + 0.1 * -(-len(present) // n_columns))
    colour_bar(figure, every[0].images[0], figure.axes, label_of(metric), limits, shrink=shrink)
    suptitle(figure, f"{capital(metric)} by class (number of images){more}\n{about(sweep)}", 11)
    return figure
