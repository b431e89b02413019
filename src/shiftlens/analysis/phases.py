"""By phase: a metric by (dx mod s, dy mod s), s a stride of the net, once its trend over the shifts is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from scipy import stats as sps
from scipy.ndimage import convolve1d

from shiftlens.analysis.aliasing import not_blank
from shiftlens.analysis.arrays import SweepArrays, Values
from shiftlens.stats import CONFIDENCE, FloatArray, Skipped
from shiftlens.tasks.task import Variable

LARGEST_STRIDE = 16
"""Of larger strides a matrix would have more cells than a reader looks at."""
FEWEST_PERIODS = 3
"""Along each axis: one is lost at the ends, and of a single one nothing is averaged."""


@dataclass(frozen=True, eq=False)
class Phases:
    """A metric by the phase of the shift.

    Attributes
    ----------
    metric
        What is measured.
    stride
        (down, across), in px; 1 along an axis that the grid does not have.
    deviation
        (dy mod s, dx mod s) in the metric's own unit: how far the metric is above its mean over one whole period
        around the shift, on average over the shifts of this phase and over images, less the mean over all phases.
    half_width
        Of the 95 % interval of each cell over images (Student t), for all cells together (Bonferroni).
    n
        Images that have the metric under every shift.
    """

    metric: Variable
    stride: tuple[int, int]
    deviation: FloatArray
    half_width: FloatArray
    n: int


def phases(values: Values) -> Phases | Skipped:
    """Return the phases of the largest stride of which the grid has three periods along each of its axes.

    A mean over exactly one period has no ripple of that period, and holds any straight trend: what is left after
    subtracting it is the ripple, as in a classical seasonal decomposition. The shift (0, 0) counts for no phase: some
    metrics compare it with itself.
    """
    sweep = values.sweep
    rows, columns = not_blank(sweep)
    n_points = rows.stop - rows.start, columns.stop - columns.start
    stride = _stride(sweep, n_points)
    if isinstance(stride, Skipped):
        return stride
    found = []
    for images in sweep.slices():
        cells = np.asarray(values[images], np.float64).reshape(-1, *sweep.shape)[:, rows, columns]
        found.append(_deviations(cells[~np.isnan(cells).any(axis=(1, 2))], sweep, (rows, columns), stride))
    each = np.concatenate(found)
    n = len(each)
    if n < 2:
        return Skipped("phases", "fewer than two images have the metric under every shift")
    quantile = float(sps.t.ppf(1 - (1 - CONFIDENCE) / (2 * stride[0] * stride[1]), n - 1))
    half: FloatArray = quantile * each.std(axis=0, ddof=1) / np.sqrt(n)
    return Phases(values.metric, stride, each.mean(axis=0), half, n)


def _stride(sweep: SweepArrays, n_points: tuple[int, int]) -> tuple[int, int] | Skipped:
    if not any(each > 1 for each in sweep.strides):
        return Skipped("phases", "the net has no stride above 1, or it is not known")
    why = ""
    for stride in sorted((each for each in sweep.strides if 1 < each <= LARGEST_STRIDE), reverse=True):
        along = [(n, step) for n, step in zip(n_points, sweep.step, strict=True) if n > 1]
        shared = [step for _, step in along if gcd(step, stride) > 1]
        if shared:
            why = why or f"a step of {shared[0]} px shares a factor with the stride {stride} and cannot see its phases"
        elif not along or min(n for n, _ in along) < FEWEST_PERIODS * stride:
            why = why or f"the grid has fewer than {FEWEST_PERIODS} periods of the stride {stride}"
        else:
            down, across = (stride if n > 1 else 1 for n in n_points)
            return down, across
    return Skipped("phases", why or f"the net's strides are above {LARGEST_STRIDE}")


def _deviations(
    cells: FloatArray, sweep: SweepArrays, spans: tuple[slice, slice], strides: tuple[int, int]
) -> FloatArray:
    """(image, phase y, phase x) of values (image, dy, dx): each less its mean over a period, averaged by phase."""
    smooth, inner, which = cells, cells, []
    for axis, stride, span, shifts in zip((1, 2), strides, spans, sweep.shifts, strict=True):
        half = stride // 2
        keep = slice(half, cells.shape[axis] - half)
        part = (slice(None),) * axis + (keep,)
        smooth = convolve1d(smooth, _one_period(stride), axis=axis)[part]
        inner = inner[part]
        which.append(shifts[span][keep])
    ripple = inner - smooth
    (dys, dxs), out = which, np.empty((len(cells), *strides))
    moved = (dys != 0)[:, None] | (dxs != 0)[None, :]
    for y in range(strides[0]):
        for x in range(strides[1]):
            cell = (dys % strides[0] == y)[:, None] & (dxs % strides[1] == x)[None, :] & moved
            out[:, y, x] = ripple[:, cell].mean(axis=1)
    # A curved trend lies above or below its own means, at all phases alike.
    centred: FloatArray = out - out.mean(axis=(1, 2), keepdims=True)
    return centred


def _one_period(stride: int) -> FloatArray:
    """Weights of the mean over one period: an even one has half a weight at either end, to have a middle."""
    if stride % 2:
        return np.full(stride, 1 / stride)
    weights = np.full(stride + 1, 1 / stride)
    weights[[0, -1]] /= 2
    return weights
