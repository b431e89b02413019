"""Falls followed by a recovery further out: "loss increasing but then decreasing again" [own].

Looking at pairs of shifts one by one flags something on nearly every monotone map. Here one bootstrap over images gives
the distribution of the largest t over all pairs on all rays, and both the fall and the recovery must stand out of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import IntArray, SweepArrays
from shiftlens.analysis.estimated_maps import Replicates
from shiftlens.stats import CONFIDENCE, Estimate, FloatArray, Skipped, exceedance_p
from shiftlens.tasks.task import Variable

COMPASS = {
    "right": (1, 0), "down right": (1, 1), "down": (0, 1), "down left": (-1, 1),
    "left": (-1, 0), "up left": (-1, -1), "up": (0, -1), "up right": (1, -1),
}  # fmt: skip
FRAME = "frame"
FEWEST_POINTS = 3


@dataclass(frozen=True, eq=False)
class Ray:
    """Points outward from (0, 0): single shifts along a direction, or square frames of growing size.

    Attributes
    ----------
    name
        A direction of `COMPASS`, or "frame": the mean over all shifts with max(|dx|, |dy|) = r.
    shifts
        The shift (dx, dy) of each point; for frames (r, 0).
    cells
        Flat cells of each point.
    """

    name: str
    shifts: tuple[tuple[int, int], ...]
    cells: tuple[IntArray, ...]


@dataclass(frozen=True)
class Reversal:
    """A fall of performance along a ray, and its recovery further out.

    Attributes
    ----------
    ray
        Direction, or "frame".
    start, dip, recovery
        Shifts (dx, dy) in px; for "frame" (r, 0) stands for all shifts with max(|dx|, |dy|) = r.
    fall, rise
        Change of the metric from start to dip and from dip to recovery: of a share in points, of a number in its unit.
        Where lower is better, a fall of performance is positive. Intervals hold for all pairs together.
    p_value
        That neither is chance, corrected for every pair on every ray (max-t); at least `least_p` of the images there.
    dip_cells, recovery_cells
        Flat cells, for measuring the same contrast on a control.
    """

    ray: str
    start: tuple[int, int]
    dip: tuple[int, int]
    recovery: tuple[int, int]
    fall: Estimate
    rise: Estimate
    p_value: float
    dip_cells: tuple[int, ...]
    recovery_cells: tuple[int, ...]


@dataclass(frozen=True)
class Irregularity:
    """All reversals of one metric.

    Attributes
    ----------
    metric
        Which.
    p_value
        That there is none; corrected for all pairs and rays.
    reversals
        The strongest of each ray whose p-value is at most 0.05, strongest first.
    n_contrasts
        Number of pairs looked at.
    """

    metric: Variable
    p_value: float
    reversals: tuple[Reversal, ...]
    n_contrasts: int

    @property
    def quantity(self) -> str:
        """The metric's name."""
        return self.metric.name


def rays(sweep: SweepArrays) -> tuple[Ray, ...]:
    """Return the eight compass rays and the frames, each cut where the picture is gone, of three points or more."""
    (ny, nx), (y0, x0) = sweep.shape, sweep.origin
    found = []
    for name, (ux, uy) in COMPASS.items():
        points = []
        for k in range(max(ny, nx)):
            row, column = y0 + k * uy, x0 + k * ux
            if not (0 <= row < ny and 0 <= column < nx) or sweep.blank[row, column]:
                break
            points.append((row, column))
        shifts = tuple((int(sweep.dxs[column]), int(sweep.dys[row])) for row, column in points)
        found.append(Ray(name, shifts, tuple(np.array([row * nx + column]) for row, column in points)))
    frame = np.maximum(*np.broadcast_arrays(np.abs(np.arange(ny) - y0)[:, None], np.abs(np.arange(nx) - x0)[None, :]))
    rings = []
    for k in range(1 + min(y0, x0, ny - 1 - y0, nx - 1 - x0)):
        if sweep.blank[frame == k].any():
            break
        rings.append(np.flatnonzero(frame.ravel() == k))
    if sweep.step[0] == sweep.step[1]:
        found.append(Ray(FRAME, tuple((k * sweep.step[1], 0) for k in range(len(rings))), tuple(rings)))
    return tuple(ray for ray in found if len(ray.cells) >= FEWEST_POINTS)


@dataclass(frozen=True, eq=False)
class _Contrasts:
    """t of the performance gained from point i to point j of a ray (upper triangle), and the largest null |t|."""

    change: FloatArray
    se: FloatArray
    null: FloatArray

    @property
    def t(self) -> FloatArray:
        return np.divide(self.change, self.se, out=np.zeros_like(self.change), where=self.se > 0)


def _contrasts(ray: Ray, replicates: Replicates) -> _Contrasts:
    value = np.array([replicates.value[c].mean() for c in ray.cells])
    samples = np.stack([replicates.resampled[:, c].mean(axis=1) for c in ray.cells], axis=1)
    deviation = np.nan_to_num(samples - value)  # no image has a value there
    centred = samples - samples.mean(axis=0)
    covariance = centred.T @ centred / len(samples) * replicates.n / max(replicates.n - 1, 1)
    variance = np.diag(covariance)
    spread = np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0)
    # A pair on which no image differs has no spread and no change; the floor of one image tames the rare ones.
    se = np.where(spread > 1e-18, np.sqrt(spread + replicates.floor**2), 0.0)
    inverse = np.divide(1.0, se, out=np.zeros_like(se), where=se > 0)
    null = np.zeros(len(samples))
    for i in range(len(value) - 1):
        t = np.abs(deviation[:, i + 1 :] - deviation[:, i : i + 1]) * inverse[i, i + 1 :]
        np.maximum(null, t.max(axis=1), out=null)
    return _Contrasts(value[None, :] - value[:, None], se, null)


def irregularity(replicates: Replicates, sweep: SweepArrays) -> Irregularity | Skipped:
    """Return the significant reversals of a metric, from the replicates of its map."""
    metric = replicates.metric
    site = f"irregularities of {metric.called}"
    looked_at = rays(sweep)
    if not looked_at:
        return Skipped(site, "the grid holds fewer than two shifts outward on every ray")
    if replicates.n < 2:
        return Skipped(site, "one image has no interval")
    contrasts = [_contrasts(ray, replicates) for ray in looked_at]
    if not any((p.se > 0).any() for p in contrasts):
        return Skipped(site, "no image changes between any two shifts of a ray")
    null = np.max([p.null for p in contrasts], axis=0)
    found = []
    for ray, made in zip(looked_at, contrasts, strict=True):
        best = _strongest(metric.sign * made.t)
        if best is not None:
            found.append(_reversal(ray, made, best, null, replicates))
    found.sort(key=lambda r: (r.p_value, -abs(r.rise.value)))
    n_contrasts = sum(len(r.cells) * (len(r.cells) - 1) // 2 for r in looked_at)
    p = found[0].p_value if found else 1.0
    return Irregularity(metric, p, tuple(r for r in found if r.p_value <= 1 - CONFIDENCE), n_contrasts)


def _strongest(gain: FloatArray) -> tuple[int, int, int] | None:
    """Return (start, dip, recovery) with the largest min(t of fall, t of recovery), or None if nothing turns."""
    best, where = 0.0, None
    for dip in range(1, len(gain) - 1):
        start = int(np.argmin(gain[:dip, dip]))
        recovery = dip + 1 + int(np.argmax(gain[dip, dip + 1 :]))
        t = min(-gain[start, dip], gain[dip, recovery])
        if t > best:
            best, where = float(t), (start, dip, recovery)
    return where


def least_p(n_images: int) -> float:
    """Return the chance that so many images without any effect all change to the same side: no p-value is smaller.

    A bootstrap over a few images that agree has hardly any spread, and would take any change for significant.
    """
    return min(1.0, 2.0 ** (1 - n_images))


def _images_at(cells: IntArray, replicates: Replicates) -> int:
    """Images with a value at a point of a ray; of a frame, at the cell that most have."""
    return replicates.n if replicates.counts is None else int(replicates.counts[cells].max())


def _reversal(
    ray: Ray, made: _Contrasts, where: tuple[int, int, int], null: FloatArray, replicates: Replicates
) -> Reversal:
    start, dip, recovery = where
    crit, metric = float(np.quantile(null, CONFIDENCE)), replicates.metric
    t = min(abs(made.t[start, dip]), abs(made.t[dip, recovery]))
    least = least_p(min(_images_at(ray.cells[k], replicates) for k in where))

    def estimate(i: int, j: int) -> Estimate:
        change, half = float(made.change[i, j]), crit * float(made.se[i, j])
        p = max(exceedance_p(null, abs(float(made.t[i, j]))), least)
        found = Estimate(change, change - half, change + half, "", replicates.n, "max-t bootstrap over images", p)
        return found.scaled(metric.factor, metric.difference_unit)

    dip_cells, recovery_cells = (tuple(ray.cells[k].tolist()) for k in (dip, recovery))
    changes = estimate(start, dip), estimate(dip, recovery)
    return Reversal(
        ray.name,
        ray.shifts[start],
        ray.shifts[dip],
        ray.shifts[recovery],
        *changes,
        max(exceedance_p(null, t), least),
        dip_cells,
        recovery_cells,
    )
