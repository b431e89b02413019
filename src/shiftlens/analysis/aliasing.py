"""Does a metric ripple with the period of the net's strides? [own].

A net with total stride s treats shifts by multiples of s alike, apart from the border. A ripple of period s in the
metric along an axis, beyond what neighbouring frequencies show, is that stride's aliasing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from scipy import special

from shiftlens.analysis.arrays import FloatArray, SweepArrays, Values
from shiftlens.analysis.asymmetry import Axis
from shiftlens.stats import Estimate, Skipped, mean_estimate
from shiftlens.tasks.task import Variable

NEIGHBOURS = (-3, -2, 2, 3)
FEWEST_PERIODS = 5
"""With fewer, the neighbouring frequencies are the trend's own: in simulation no ripple stood out (docs/metrics.md)."""


@dataclass(frozen=True)
class Aliasing:
    """The ripple of a metric along one axis with the period of one stride.

    Attributes
    ----------
    axis, stride
        Where, and the period in px.
    ripple
        Amplitude of cos(2 pi d / stride), in points for a share: positive when the metric is higher at multiples of
        the stride.
    quadrature
        The same for sin(2 pi d / stride): a ripple whose crests lie elsewhere; `Skipped` for period 2,
        whose crests cannot.
    neighbour
        Largest amplitude at the neighbouring frequencies.
    p_value
        That the ripple is no larger than at each neighbouring frequency (one-sided, intersection-union).
    """

    axis: Axis
    stride: int
    ripple: Estimate
    quadrature: Estimate | Skipped
    neighbour: float
    p_value: float


def line_weights(n_points: int, lag: int, frequency: float) -> tuple[FloatArray, FloatArray]:
    """Return the weights over a line of points that give the cosine and the sine amplitude at one frequency.

    The second difference c(d) - (c(d - lag) + c(d + lag)) / 2 takes the trend away; a Hann window keeps what is left of
    it from leaking; both gains are divided out, so that a ripple A cos(2 pi f d) gives A. `lag` is in points,
    `frequency` in cycles a point, above 0 and at most 0.5. The phase is 0 at point 0.
    """
    inner = np.arange(lag, n_points - lag)
    window = np.sin(np.pi * (np.arange(len(inner)) + 1) / (len(inner) + 1)) ** 2
    one_sided = 1.0 if abs(frequency - 0.5) < 1e-9 else 2.0
    scale = one_sided / (window.sum() * (1 - np.cos(2 * np.pi * frequency * lag)))
    out = []
    for wave in (np.cos, np.sin):
        phase = wave(2 * np.pi * frequency * inner)
        if wave is np.sin and one_sided == 1.0:
            phase = np.zeros(len(inner))  # sin(pi d) is 0, not 1e-16
        demodulated = window * phase * scale
        weights = np.zeros(n_points)
        weights[inner] += demodulated
        np.subtract.at(weights, inner - lag, demodulated / 2)
        np.subtract.at(weights, inner + lag, demodulated / 2)
        out.append(weights)
    return out[0], out[1]


def not_blank(sweep: SweepArrays) -> tuple[slice, slice]:
    """Return rows and columns of the rectangle of shifts that is not blank."""
    # Blank cells are whole rows and columns at the far ends: the origin's row and column show where they start.
    row, column = sweep.origin
    ends = (np.flatnonzero(~line)[[0, -1]] for line in (sweep.blank[:, column], sweep.blank[row, :]))
    rows, columns = (slice(int(first), int(last) + 1) for first, last in ends)
    return rows, columns


def functionals(sweep: SweepArrays, axis: Axis, stride: int) -> FloatArray | Skipped:
    """Return weights over cells, shape (2 x frequencies, dy, dx): cosine and sine at the stride, then nearby.

    Applied to an image's row of values they give that image's share of the ripple, the mean over images being
    the map's.
    """
    site = f"aliasing at stride {stride} along {axis}"
    step = sweep.step[1] if axis == "x" else sweep.step[0]
    rows, columns = not_blank(sweep)
    span, origin = (columns, sweep.origin[1]) if axis == "x" else (rows, sweep.origin[0])
    n_points, start = span.stop - span.start, origin - span.start
    if gcd(step, stride) > 1:
        return Skipped(site, f"a step of {step} px shares a factor with the stride and cannot see it")
    lag = stride // 2
    if n_points - 2 * lag < FEWEST_PERIODS * stride:
        return Skipped(
            site,
            f"{n_points} shifts along {axis} hold fewer than {FEWEST_PERIODS} periods, which a trend may look like",
        )
    centre = _folded(step / stride)
    width = 1 / (n_points - 2 * lag)
    near = [centre + k * width for k in NEIGHBOURS if 0.5 * width < centre + k * width < 0.5 + 1e-9]
    out = np.zeros((2 * (1 + len(near)), *sweep.shape))
    n_lines = (rows.stop - rows.start) if axis == "x" else (columns.stop - columns.start)
    for k, frequency in enumerate((centre, *near)):
        cosine, sine = line_weights(n_points, lag, frequency)
        turn = 2 * np.pi * frequency * start
        # The phase counts from the shift 0, not from the line's first point.
        along, across = round(float(np.cos(turn)), 12), round(float(np.sin(turn)), 12)
        in_phase = along * cosine + across * sine
        quarter = along * sine - across * cosine
        for j, weights in enumerate((in_phase, quarter)):
            spread = weights[None, :] if axis == "x" else weights[:, None]
            out[2 * k + j, rows, columns] = spread / n_lines
    return out


def _folded(frequency: float) -> float:
    inside = frequency % 1.0
    return min(inside, 1.0 - inside)


def aliasing(values: Values) -> tuple[Aliasing | Skipped, ...]:
    """Return the ripple of a metric at every stride of the net, along both axes."""
    sweep = values.sweep
    strides = sorted({int(s) for s in sweep.strides if s > 1})
    if not strides:
        return (Skipped("aliasing", "the sweep names no stride larger than 1"),)
    if sweep.n_images < 2:
        return (Skipped("aliasing", "one image has no interval"),)
    axes: tuple[Axis, Axis] = ("x", "y")
    wanted = {(axis, stride): functionals(sweep, axis, stride) for axis in axes for stride in strides}
    weights = [made.reshape(len(made), -1) for made in wanted.values() if not isinstance(made, Skipped)]
    # One pass over the values for all of them; each takes its columns.
    sums = _weighted_sums(values, np.concatenate(weights).T) if weights else np.zeros((sweep.n_images, 0))
    parts = iter(np.split(sums, np.cumsum([len(each) for each in weights])[:-1], axis=1))
    return tuple(
        made if isinstance(made, Skipped) else _ripple(next(parts), *which, values.metric)
        for which, made in wanted.items()
    )


def _weighted_sums(values: Values, weights: FloatArray) -> FloatArray:
    """Return every image's weighted sums over cells, shape (image, k); weights of shape (cell, k).

    NaN for an image without a value in any cell that has a weight.
    """
    used = weights.any(axis=1) if values.metric.optional else slice(None)
    return np.concatenate([values[s][:, used].astype(np.float64) @ weights[used] for s in values.sweep.slices()])


def _ripple(values: FloatArray, axis: Axis, stride: int, metric: Variable) -> Aliasing | Skipped:
    site = f"aliasing at stride {stride} along {axis}"
    values = values[~np.isnan(values).any(axis=1)]
    if len(values) < 2:
        return Skipped(site, f"{len(values)} images have a value under every shift along the axis")
    mean, n = values.mean(axis=0), len(values)
    if not np.ptp(values[:, 0]) and not np.ptp(values[:, 1]):
        return Skipped(site, "no image changes along the axis")
    waves = mean.reshape(-1, 2)
    amplitude = np.hypot(waves[:, 0], waves[:, 1])
    unit = np.divide(waves, amplitude[:, None], out=np.zeros_like(waves), where=amplitude[:, None] > 0)
    # Each image's contribution to the amplitude, along the mean's own phase: the delta method.
    share = np.einsum("nkj,kj->nk", values.reshape(n, -1, 2), unit)
    p = 0.0
    for k in range(1, len(amplitude)):
        excess = share[:, 0] - share[:, k]
        se = float(excess.std(ddof=1)) / np.sqrt(n)
        t = (amplitude[0] - amplitude[k]) / se if se > 0 else 0.0
        p = max(p, float(special.stdtr(n - 1, -t)))
    neighbour = float(amplitude[1:].max()) if len(amplitude) > 1 else 0.0

    def amplitude_of(which: int) -> Estimate:
        return mean_estimate(values[:, which], metric.unit).scaled(metric.factor, metric.difference_unit)

    quadrature: Estimate | Skipped = Skipped("quadrature", "a ripple of period 2 has none")
    if values[:, 1].any():
        quadrature = amplitude_of(1)
    p = p if len(amplitude) > 1 else 1.0
    return Aliasing(axis, stride, amplitude_of(0), quadrature, metric.factor * neighbour, p)
