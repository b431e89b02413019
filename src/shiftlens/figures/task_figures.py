"""What tasks show beside their metrics: one line an object, and a metric by the phase of the shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftlens.analysis.arrays import IntArray
from shiftlens.analysis.object_curves import OBJECT_RADIUS, ObjectCurves
from shiftlens.analysis.phases import Phases
from shiftlens.figures.drawing import balanced, colour_bar, diverging, least_of, new_figure, suptitle
from shiftlens.naming import count_of
from shiftlens.stats import FloatArray
from shiftlens.styling import default_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 60
"""Objects that are drawn: more lines hide one another."""
_WORST = 5


@default_style()
def object_lines(curves: ObjectCurves, about: str) -> Figure:
    """Draw each object's number against dx and against dy, those that swing most in front, and the mean of all."""
    sides = [("dx", curves.dxs, curves.across), ("dy", curves.dys, curves.down)]
    sides = [side for side in sides if len(side[1]) > 1]
    figure = new_figure(5.0 * len(sides), 4.4)
    every = figure.subplots(1, len(sides), sharey=True, squeeze=False)[0]
    order = np.argsort(np.nan_to_num(curves.swing, nan=-1.0), kind="stable")
    shown = order[np.unique(np.rint(np.linspace(0, len(order) - 1, MOST_LINES)).astype(np.int64))]
    worst = order[-_WORST:]
    what = curves.called
    for axes, (axis, shifts, lines) in zip(every, sides, strict=True):
        # The worst are drawn last, on top of the others.
        for k in shown[~np.isin(shown, worst)]:
            axes.plot(shifts, lines[k], color="0.65", linewidth=0.7, alpha=0.7)
        for k in worst:
            axes.plot(shifts, lines[k], color="#b8561b", linewidth=1.2)
        _mean_line(axes, shifts, lines)
        axes.axvspan(-OBJECT_RADIUS, OBJECT_RADIUS, color="#31688e", alpha=0.08)
        axes.set_xlabel(f"{axis}: image moved {'right' if axis == 'dx' else 'down'} (pixels)")
        axes.set_xlim(float(shifts[0]), float(shifts[-1]))
    every[0].set_ylabel(f"{what} of the object")
    if np.nanmin(curves.across) >= 0 and np.nanmax(curves.across) <= 1:
        every[0].set_ylim(-0.02, 1.02)
    n, most = len(order), len(np.union1d(shown, worst))
    count = count_of(n, "object") if most == n else f"{most} of {count_of(n, 'object')}"
    suptitle(
        figure,
        f"The {what} of each object against the shift: {count}; orange: the {len(worst)} that swing most within\n"
        f"{OBJECT_RADIUS:g} px (shaded); black: mean of all objects in view. {about}",
        fontsize="medium",
    )
    return figure


def _mean_line(axes: Axes, shifts: IntArray, lines: FloatArray) -> None:
    there = np.count_nonzero(~np.isnan(lines), axis=0)
    mean = np.divide(np.nansum(lines, axis=0), there, out=np.full(len(there), np.nan), where=there > 0)
    axes.plot(shifts, mean, color="black", linewidth=2)


@default_style()
def phase_matrix(made: Phases, about: str) -> Figure:
    """Draw a metric by (dx mod s, dy mod s), the trend over the shifts taken away; red is better."""
    from matplotlib import colormaps

    metric, (down, across) = made.metric, made.stride
    shown = metric.factor * made.deviation
    limits = balanced(shown, least_of(metric) / 10)
    figure = new_figure(6.2, 5.0 if down > 1 else 3.2)
    axes = figure.subplots()
    drawn = axes.imshow(
        shown, cmap=colormaps[diverging(metric)], vmin=limits[0], vmax=limits[1], interpolation="nearest"
    )
    axes.set_xticks(range(across))
    axes.set_yticks(range(down))
    axes.set_xlabel(f"dx mod {across} (pixels)" if across > 1 else "dx = 0")
    axes.set_ylabel(f"dy mod {down} (pixels)" if down > 1 else "dy = 0")
    colour_bar(figure, drawn, axes, metric.difference_unit or metric.called, limits, "red is better")
    half = metric.factor * float(made.half_width.max())
    unit = f" {metric.difference_unit}".rstrip()
    suptitle(
        figure,
        f"{metric.called[:1].upper()}{metric.called[1:]} by the phase of the shift, less its mean over a period\n"
        f"95 % intervals for all cells together: at most ±{half:.2g}{unit}. {about}",
        fontsize="medium",
    )
    return figure
