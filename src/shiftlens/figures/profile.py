"""Accuracy and loss against the length of the shift, with a band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftlens.analysis.arrays import BoolArray, SweepArrays
from shiftlens.figures.drawing import new_figure, suptitle
from shiftlens.figures.heatmaps import about
from shiftlens.stats import CONFIDENCE, FloatArray, mean_interval
from shiftlens.styling import default_style

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


def profile(sweep: SweepArrays, *, of_loss: bool) -> Profile:
    """Return the mean accuracy (in per cent) or loss (in nats) of every ring.

    Parameters
    ----------
    sweep
        The arrays.
    of_loss
        Which of the two.
    """
    found = rings(sweep)
    sizes = np.array([float(ring.sum()) for ring in found])
    weights = np.stack([ring.ravel() / size for ring, size in zip(found, sizes, strict=True)], axis=1)
    n_cells = weights.shape[0]
    per_image = np.empty((sweep.n_images, len(found)))
    for s in sweep.slices():
        values = np.asarray(sweep.loss[s]) if of_loss else sweep.correct[s]
        per_image[s] = values.reshape(-1, n_cells).astype(np.float64) @ weights
    if not of_loss:
        per_image *= 100
    radius = np.array([float(np.median(sweep.distance[ring])) for ring in found])
    mean = per_image.mean(axis=0)
    if sweep.n_images < 2:
        nothing = np.full(len(found), np.nan)
        return Profile(radius, mean, nothing, nothing, sizes)
    centred = per_image - mean
    confidence = 1 - (1 - CONFIDENCE) / len(found)
    _, low, high, _ = mean_interval(np.zeros(len(found)), (centred**2).sum(axis=0), sweep.n_images, confidence)
    top = np.inf if of_loss else 100.0
    return Profile(radius, mean, np.maximum(mean + low, 0), np.minimum(mean + high, top), sizes)


@default_style()
def radial_profile(sweep: SweepArrays) -> Figure:
    """Accuracy and loss against distance from (0, 0), with bands, and the occlusion control where there is one."""
    figure = new_figure(10.4, 4.4)
    left, right = figure.subplots(1, 2)
    shown = [("shifted", sweep, SWEEP_COLOUR)]
    if "occlusion" in sweep.controls:
        shown.append(("same pixels lost, rest in place", sweep.controls["occlusion"], CONTROL_COLOUR))
    for axes, of_loss in ((left, False), (right, True)):
        for name, arrays, colour in shown:
            draw_profile(axes, profile(arrays, of_loss=of_loss), name, colour)
        length_axis(axes, "length of the shift (pixels)")
    left.set_ylim(0, 102)
    left.set_ylabel("accuracy (%), range 0 to 100")
    right.set_ylim(bottom=0)
    right.set_ylabel("cross-entropy (nats)")
    left.legend(loc="best", frameon=False)
    suptitle(figure, f"Mean over all directions, band: 95 % for all lengths together. {about(sweep)}")
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
