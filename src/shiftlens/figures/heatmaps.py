"""Matrices over (dx, dy): accuracy, loss, classes, a control beside the sweep, one side minus the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftlens.analysis.arrays import BoolArray, SweepArrays, matched_rows
from shiftlens.figures.drawing import (
    COLOURS,
    DIVERGING,
    LOSS_COLOURS,
    Shifts,
    balanced,
    heat_map,
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shiftlens.sweeps.sweep_result import Sweep

LEAST_POINTS = 1.0
"""Smallest half range of a difference in points: below it, colours would shout about nothing."""

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


def share_right(correct: BoolArray) -> FloatArray:
    """Accuracy (dy, dx) in per cent."""
    return np.asarray(100 * correct.sum(axis=0) / len(correct))


def mean_loss(sweep: SweepArrays) -> FloatArray:
    """Mean cross-entropy (dy, dx) in nats."""
    total = np.zeros(sweep.shape)
    for s in sweep.slices():
        total += np.asarray(sweep.loss[s]).sum(axis=0, dtype=np.float64)
    out: FloatArray = total / sweep.n_images
    return out


def _shifts(sweep: Sweep | SweepArrays) -> Shifts:
    return (sweep.dys, sweep.dxs) if isinstance(sweep, SweepArrays) else (sweep.grid.dys, sweep.grid.dxs)


def _single(values: FloatArray, sweep: Sweep | SweepArrays, title: str, label: str, top: float, colours: str) -> Figure:
    figure = new_figure(6.4, 5.4)
    axes = figure.add_subplot()
    drawn = heat_map(axes, values, _shifts(sweep), (0.0, top), colours)
    name_axes(axes)
    axes.set_title(f"{title}\n{about(sweep)}", parse_math=False)
    figure.colorbar(drawn, ax=axes, label=label)
    return figure


@default_style()
def accuracy_matrix(sweep: Sweep | SweepArrays) -> Figure:
    """Accuracy over (dx, dy) in per cent, on the fixed range 0 to 100."""
    # A Sweep's own means are there already: no pass over its predictions.
    if isinstance(sweep, SweepArrays):
        values = share_right(sweep.correct)
    else:
        values = 100 * np.asarray(sweep.accuracy, np.float64)
    return _single(values, sweep, "Accuracy under every shift", "accuracy (%), range 0 to 100", 100.0, COLOURS)


@default_style()
def loss_matrix(sweep: Sweep | SweepArrays) -> Figure:
    """Mean cross-entropy over (dx, dy) in nats, from 0 to the map's largest value."""
    values = mean_loss(sweep) if isinstance(sweep, SweepArrays) else np.asarray(sweep.mean_loss, np.float64)
    top = max(float(values[np.isfinite(values)].max(initial=0.0)), 1e-9)
    label = f"cross-entropy (nats), range 0 to {top:.2f}"
    return _single(values, sweep, "Mean loss under every shift", label, top, LOSS_COLOURS)


@default_style()
def control_matrices(sweep: SweepArrays, name: str) -> Figure:
    """A control beside the sweep and their difference in points, over the images that both hold.

    The flip control is drawn mirrored back, (dx, dy) from its (-dx, dy): a model without a preferred side gives two
    equal pictures.
    """
    control = sweep.controls[name]
    rows, control_rows = matched_rows(sweep, control)
    moved, kept = share_right(sweep.correct[rows]), share_right(control.correct[control_rows])
    words = {
        "occlusion": ("Same pixels lost, rest left in place", "What the move itself changes"),
        "canvas": ("No padding near the image", "What the padding changes"),
        "flip": ("Mirrored images, drawn mirrored back", "What the mirror changes"),
    }
    control_title, difference_title = words.get(name, (f"Control {name}", "Sweep minus control"))
    if name == "flip":
        kept = mirrored(kept, sweep.dxs, axis=1)
    difference = moved - kept
    low, high = balanced(difference, LEAST_POINTS)
    figure, every = panels(3, 3, (4.2, 4.3), (0, 0))
    left, middle, right = every
    heat_map(left, moved, _shifts(sweep), (0.0, 100.0))
    shared = heat_map(middle, kept, _shifts(sweep), (0.0, 100.0))
    drawn = heat_map(right, difference, _shifts(sweep), (low, high), DIVERGING)
    for axes, text in zip(every, ("Shifted", control_title, difference_title), strict=True):
        axes.set_title(text, fontsize=11)
    name_panels(every, 3)
    figure.colorbar(shared, ax=[left, middle], label="accuracy (%), range 0 to 100", shrink=0.82)
    label = f"shifted minus control (points), range ±{high:.1f}"
    figure.colorbar(drawn, ax=right, label=label, shrink=0.82)
    suptitle(figure, f"Control: {name}. {about(sweep, len(rows))}")
    return figure


def has_sides(sweep: SweepArrays) -> bool:
    """Whether the grid holds a pair of opposite shifts at all."""
    return any(np.isin(-axis[axis > 0], axis).any() for axis in (sweep.dys, sweep.dxs))


@default_style()
def side_matrices(sweep: SweepArrays) -> Figure:
    """Left against right and up against down: each shift's accuracy minus that of its mirror image, in points."""
    values = share_right(sweep.correct)
    values[sweep.blank] = np.nan
    wanted = []
    for number, along, text in (
        (1, sweep.dxs, "Left against right\naccuracy at (dx, dy) minus at (−dx, dy)"),
        (0, sweep.dys, "Up against down\naccuracy at (dx, dy) minus at (dx, −dy)"),
    ):
        if np.isin(-along[along > 0], along).any():
            wanted.append((text, values - mirrored(values, along, axis=number)))
    low, high = balanced(np.stack([difference for _, difference in wanted]), LEAST_POINTS)
    figure, every = panels(len(wanted), len(wanted), (4.5, 5.4), (1.4, 0))
    for axes, (text, difference) in zip(every, wanted, strict=True):
        heat_map(axes, difference, _shifts(sweep), (low, high), DIVERGING)
        axes.set_title(text, fontsize=11)
    name_panels(every, len(every))
    label = f"points, range ±{high:.1f}; red: better here than at the mirrored shift"
    figure.colorbar(every[0].images[0], ax=every, label=label, shrink=0.85)
    suptitle(figure, f"Is it the same on both sides? {about(sweep)}")
    return figure


@default_style()
def class_matrices(sweep: SweepArrays) -> Figure:
    """Accuracy of each class, small multiples on the range 0 to 100; at most 20 classes, those with most images."""
    counts = np.bincount(sweep.labels)
    present = sorted(int(k) for k in np.argsort(-counts, kind="stable")[:MOST_CLASSES] if counts[k])
    n_columns = min(5, len(present))
    figure, every = panels(len(present), n_columns, (2.2, 2.3), (1.6, 1.0), shared=True)
    for position, (k, axes) in enumerate(zip(present, every, strict=True)):
        chosen = np.flatnonzero(sweep.labels == k)
        heat_map(axes, share_right(sweep.correct[chosen]), _shifts(sweep), (0.0, 100.0), n_ticks=4)
        name = short(sweep.class_names[k] if k < len(sweep.class_names) else str(k), LONGEST_TITLE)
        axes.set_title(f"{name} ({len(chosen):,})", fontsize=9.5, parse_math=False)
        axes.tick_params(labelbottom=position + n_columns >= len(present))
    name_panels(every, n_columns)
    left_out = int(np.count_nonzero(counts)) - len(present)
    more = f"; {left_out} classes with fewer images are left out" if left_out else ""
    shrink = min(1.0, 0.75 + 0.1 * -(-len(present) // n_columns))
    label = "accuracy (%), range 0 to 100"
    figure.colorbar(every[0].images[0], ax=figure.axes, label=label, shrink=shrink)
    suptitle(figure, f"Accuracy by class (number of images){more}\n{about(sweep)}", 11)
    return figure
