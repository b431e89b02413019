"""A metric against the length of the shift, with a band."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftlens.analysis.arrays import BoolArray, SweepArrays, Values
from shiftlens.figures.drawing import label_of, panels, range_of, suptitle
from shiftlens.figures.heatmaps import about
from shiftlens.stats import CONFIDENCE, FloatArray, mean_interval
from shiftlens.styling import default_style
from shiftlens.tasks.task import Variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SWEEP_COLOUR, CONTROL_COLOUR = "#31688e", "#d1783c"


@dataclass(frozen=True, eq=False)
class Profile:
    """Mean over rings of shifts.

    Attributes
    ----------
    radius
        (ring,) in px: shifts whose Euclidean length rounds to it, in steps of the grid.
    value, lo, hi
        (ring,) mean over images of each image's mean over the ring; the band holds for all rings together (Bonferroni,
        Student t over images). Without a band for a single image: lo and hi are then nan.
    n_shifts
        (ring,)
    """

    radius: FloatArray
    value: FloatArray
    lo: FloatArray
    hi: FloatArray
    n_shifts: FloatArray


def rings(sweep: SweepArrays) -> list[BoolArray]:
    """The cells of each ring, up to the nearest edge of the grid and while some of the picture is left everywhere."""
    step = max(sweep.step)
    number = np.rint(sweep.distance / step).astype(np.int64)
    found = []
    for k in range(sweep.reach // step + 1):
        ring = number == k
        if (ring & sweep.blank).any():
            break
        if ring.any():
            found.append(ring)
    return found


def profile(values: Values) -> Profile:
    """Return the mean of a metric over every ring, shares in per cent."""
    sweep, metric = values.sweep, values.metric
    found = rings(sweep)
    per_image = metric.factor * np.stack([values.per_image(ring) for ring in found], axis=1)
    radius = np.array([float(np.median(sweep.distance[ring])) for ring in found])
    sizes = np.array([float(ring.sum()) for ring in found])
    there = ~np.isnan(per_image)
    counts = there.sum(axis=0)
    mean = np.divide(np.nansum(per_image, axis=0), counts, out=np.full(len(found), np.nan), where=counts > 0)
    squares = np.nansum((per_image - mean) ** 2, axis=0)
    confidence = 1 - (1 - CONFIDENCE) / len(found)
    _, low, high, _ = mean_interval(np.zeros(len(found)), squares, counts, confidence)
    bottom, top = (metric.factor * bound for bound in metric.bounds)
    return Profile(radius, mean, np.maximum(mean + low, bottom), np.minimum(mean + high, top), sizes)


@default_style()
def radial_profile(sweep: SweepArrays, metrics: Sequence[Variable] = ()) -> Figure:
    """Each metric against distance from (0, 0), with a band, and the occlusion control where there is one."""
    metrics = metrics or sweep.metrics
    figure, every = panels(len(metrics), min(len(metrics), 2), (5.2, 4.4), (0, 0), least=7.6)
    shown = [("shifted", sweep, SWEEP_COLOUR)]
    if "occlusion" in sweep.controls:
        shown.append(("same pixels lost, rest in place", sweep.controls["occlusion"], CONTROL_COLOUR))
    for axes, metric in zip(every, metrics, strict=True):
        for name, arrays, colour in shown:
            draw_profile(axes, profile(arrays.values(metric)), name, colour)
        length_axis(axes, "length of the shift (pixels)")
        value_axis(axes, metric)
    every[0].legend(loc="best", frameon=False)
    suptitle(figure, f"Mean over all directions, band: 95 % for all lengths together\n{about(sweep)}", 11)
    return figure


def draw_profile(axes: Axes, made: Profile, label: str, colour: str, *, alpha: float = 0.25, **style: Any) -> None:
    """A line with its band."""
    axes.plot(made.radius, made.value, color=colour, marker=".", label=label, **style)
    if np.isfinite(made.lo).all():
        axes.fill_between(made.radius, made.lo, made.hi, color=colour, alpha=alpha, linewidth=0)


def length_axis(axes: Axes, label: str) -> None:
    """The x axis of a profile, from 0, with a grid behind the lines."""
    axes.set_xlabel(label)
    axes.set_xlim(left=0)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)


def value_axis(axes: Axes, metric: Variable) -> None:
    """The y axis of a profile, within the metric's bounds where it has them."""
    low, high = (metric.factor * bound if np.isfinite(bound) else None for bound in metric.bounds)
    text = label_of(metric)
    if low is not None and high is not None:
        text, high = f"{text}, {range_of((low, high))}", high + 0.02 * (high - low)
    axes.set_ylim(low, high)
    axes.set_ylabel(textwrap.fill(text, 46), parse_math=False)
