"""Matrices over (dx, dy): accuracy, loss, classes, a control beside the sweep, one side minus the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftlens.analysis.arrays import BoolArray, IntArray, SweepArrays, image_slices, matched_rows
from shiftlens.figures.drawing import (
    COLOURS,
    DIVERGING,
    LOSS_COLOURS,
    Shifts,
    balanced,
    heat_map,
    name_axes,
    new_figure,
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
    total = np.zeros(correct.shape[1:], np.int64)
    for s in image_slices(len(correct), total.size):
        total += correct[s].sum(axis=0, dtype=np.int32)
    return 100 * total / len(correct)


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
        "canvas": ("No padding near the picture", "What the padding changes"),
        "flip": ("Mirrored pictures, drawn mirrored back", "What the mirror changes"),
    }
    title, difference_title = words.get(name, (f"Control {name}", "Sweep minus control"))
    if name == "flip":
        kept = _mirrored(kept, sweep.dxs, axis=1)
    difference = moved - kept
    low, high = balanced(difference, LEAST_POINTS)
    figure = new_figure(12.6, 4.3)
    left, middle, right = figure.subplots(1, 3)
    heat_map(left, moved, _shifts(sweep), (0.0, 100.0))
    shared = heat_map(middle, kept, _shifts(sweep), (0.0, 100.0))
    drawn = heat_map(right, difference, _shifts(sweep), (low, high), DIVERGING)
    for axes, text in ((left, "Shifted"), (middle, title), (right, difference_title)):
        axes.set_title(text, fontsize=11)
        name_axes(axes, y=axes is left, short=True)
    figure.colorbar(shared, ax=[left, middle], label="accuracy (%), range 0 to 100", shrink=0.82)
    label = f"shifted minus control (points), range ±{high:.1f}"
    figure.colorbar(drawn, ax=right, label=label, shrink=0.82)
    figure.suptitle(f"Control: {name}. {about(sweep, len(rows))}", parse_math=False)
    return figure


def _mirrored(values: FloatArray, along: IntArray, axis: int) -> FloatArray:
    """Return the map whose cell d holds the value at -d; nan where -d is not on the grid."""
    place = {int(d): k for k, d in enumerate(along)}
    partner = np.array([place.get(-int(d), -1) for d in along])
    out: FloatArray = np.take(values, np.maximum(partner, 0), axis=axis).astype(np.float64)
    if axis == 1:
        out[:, partner < 0] = np.nan
    else:
        out[partner < 0, :] = np.nan
    return out


def has_sides(sweep: SweepArrays) -> bool:
    """Whether the grid holds a pair of opposite shifts at all."""
    return any(np.isin(-axis[axis > 0], axis).any() for axis in (sweep.dys, sweep.dxs))


@default_style()
def side_matrices(sweep: SweepArrays) -> Figure:
    """Left against right and up against down: each shift's accuracy minus that of its mirror image, in points."""
    values = share_right(sweep.correct)
    values[sweep.blank] = np.nan
    wanted = []
    for number, along, title in (
        (1, sweep.dxs, "Left against right\naccuracy at (dx, dy) minus at (−dx, dy)"),
        (0, sweep.dys, "Up against down\naccuracy at (dx, dy) minus at (dx, −dy)"),
    ):
        if np.isin(-along[along > 0], along).any():
            wanted.append((title, values - _mirrored(values, along, axis=number)))
    low, high = balanced(np.stack([difference for _, difference in wanted]), LEAST_POINTS)
    figure = new_figure(1.4 + 4.5 * len(wanted), 5.4)
    panels = figure.subplots(1, len(wanted), squeeze=False)[0]
    drawn = None
    for axes, (title, difference) in zip(panels, wanted, strict=True):
        drawn = heat_map(axes, difference, _shifts(sweep), (low, high), DIVERGING)
        axes.set_title(title, fontsize=11)
        name_axes(axes, y=axes is panels[0], short=True)
    if drawn is not None:
        label = f"points, range ±{high:.1f}; red: better here than at the mirrored shift"
        figure.colorbar(drawn, ax=panels, label=label, shrink=0.85)
    figure.suptitle(f"Is it the same on both sides? {about(sweep)}", parse_math=False)
    return figure


@default_style()
def class_matrices(sweep: SweepArrays) -> Figure:
    """Accuracy of each class, small multiples on the range 0 to 100; at most 20 classes, those with most images."""
    counts = np.bincount(sweep.labels)
    present = [int(k) for k in np.argsort(-counts, kind="stable")[:MOST_CLASSES] if counts[k]]
    present.sort()
    n_columns = min(5, len(present))
    n_rows = -(-len(present) // n_columns)
    figure = new_figure(1.6 + 2.2 * n_columns, 1.0 + 2.3 * n_rows)
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    drawn = None
    for position, axes in enumerate(panels.ravel()):
        if position >= len(present):
            axes.set_visible(False)
            continue
        k = present[position]
        chosen = np.flatnonzero(sweep.labels == k)
        drawn = heat_map(axes, share_right(sweep.correct[chosen]), _shifts(sweep), (0.0, 100.0), n_ticks=4)
        # Names come from folders and files: dollar signs are no formulas, long ones are cut.
        axes.set_title(f"{_title(sweep, k)} ({len(chosen):,})", fontsize=9.5, parse_math=False)
        below = position + n_columns >= len(present)
        name_axes(axes, x=below, y=position % n_columns == 0, short=True)
        axes.tick_params(labelbottom=below)
    left_out = int(np.count_nonzero(counts)) - len(present)
    more = f"; {left_out} classes with fewer images are left out" if left_out else ""
    if drawn is not None:
        figure.colorbar(drawn, ax=panels, label="accuracy (%), range 0 to 100", shrink=min(1.0, 0.75 + 0.1 * n_rows))
    figure.suptitle(f"Accuracy by class (number of images){more}\n{about(sweep)}", parse_math=False, fontsize=11)
    return figure


def _title(sweep: SweepArrays, k: int) -> str:
    name = sweep.class_names[k] if k < len(sweep.class_names) else str(k)
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= LONGEST_TITLE else f"{name[: LONGEST_TITLE - 1]}…"
