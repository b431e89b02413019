"""The retained radius with bounds at any level, alone and against a baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats as sps

from shiftlens.analysis.arrays import FloatArray, SweepArrays, Values
from shiftlens.analysis.estimated_maps import estimated_map, standard_error
from shiftlens.analysis.paired import correlation, joint
from shiftlens.analysis.regions import around_origin, connected_region, threshold, touches_edge
from shiftlens.stats import Skipped, resample_weights

LEVEL = 0.95
"""Share of the performance on unshifted images that bounds the region."""

N_RESAMPLES = 1000
STEPS = np.concatenate([np.arange(0, 5, 0.125), [5.5, 6, 7, 8, 10]])
"""Standard errors by which a cell may be clearly above or below the threshold."""


@dataclass(frozen=True, eq=False)
class Radius:
    """Radius of the circle that has the retained area.

    The lower bound is the region of the cells that are clearly above the threshold, the upper one that of the cells
    not clearly below it: by as many standard errors as the level needs in bootstrap samples of the images, and by no
    fewer than a normal distribution needs.

    Attributes
    ----------
    grid
        The sweep's shifts.
    above, samples_above
        (cell,) and (resample, cell): how far performance is above the threshold, of the map and of its bootstrap
        samples.
    standard_error
        (cell,) of that.
    n_cells
        In the region itself.
    scale
        px for one px of the net's own input.
    """

    grid: SweepArrays
    above: FloatArray
    samples_above: FloatArray
    standard_error: FloatArray
    n_cells: int
    scale: float
    n: int
    unit: str = "px"
    method: str = "inner and outer region, calibrated by bootstrap over images"
    _missed: dict[tuple[int, int], float] = field(default_factory=dict, init=False)

    @property
    def value(self) -> float:
        """In px."""
        return self._px(self.n_cells)

    @cached_property
    def at_least(self) -> bool:
        """Whether the region touches the grid's edge, so that the radius is a lower limit."""
        return touches_edge(self._regions(self.above, 0.0)[0])

    @cached_property
    def samples(self) -> FloatArray:
        """(resample,) px, the radii of the bootstrap samples."""
        counts = self._regions(self.samples_above, 0.0).sum(axis=(1, 2))
        return np.asarray(np.sqrt(counts), np.float64)

    def bounds(self, alpha: float) -> tuple[float, float]:
        """See `gate.evidence.Evidence`; beyond the resolution of the bootstrap there is no bound but 0."""
        first = int(np.searchsorted(STEPS, sps.norm.isf(alpha)))
        low, high = (self._first(sign, first, alpha) for sign in (1, -1))
        lower = 0.0 if low is None else self._px(int(self._regions(self.above, STEPS[low]).sum()))
        upper = np.inf
        if high is not None:
            outer = self._regions(self.above, -STEPS[high])[0]
            upper = np.inf if touches_edge(outer) else self._px(int(outer.sum()))
        return min(lower, self.value), max(upper, self.value)

    def _first(self, sign: int, first: int, alpha: float) -> int | None:
        """The smallest step from `first` on whose bound misses this map's own region in at most `alpha` of samples."""
        low, high = first, len(STEPS)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._share_missed(sign, middle) <= alpha else (middle + 1, high)
        return low if low < len(STEPS) else None

    def _share_missed(self, sign: int, step: int) -> float:
        """Share of samples whose bound misses, never 0: so many samples show no smaller one."""
        if (sign, step) not in self._missed:
            counts = self._regions(self.samples_above, sign * STEPS[step]).sum(axis=(1, 2))
            missed = np.count_nonzero(counts > self.n_cells if sign > 0 else counts < self.n_cells)
            self._missed[sign, step] = float((1 + missed) / (1 + len(counts)))
        return self._missed[sign, step]

    def _regions(self, maps: FloatArray, t: float) -> NDArray[np.bool_]:
        """Cells connected to (0, 0) that are above the threshold by `t` standard errors, (map, dy, dx)."""
        # Shares are ratios of counts: a cell exactly at the threshold must not fall out by rounding.
        clear = (maps >= t * self.standard_error - 1e-9).reshape(-1, *self.grid.shape)
        clear[:, self.grid.origin[0], self.grid.origin[1]] = True
        return around_origin(clear, self.grid.origin)

    def _px(self, n_cells: int) -> float:
        cell = self.grid.step[0] * self.grid.step[1]
        return self.scale * float(np.sqrt(n_cells * cell / np.pi))


@dataclass(frozen=True, eq=False)
class RadiusLoss:
    """By how many px a radius is smaller than that of the baseline, from the bounds of both.

    Source
    ------
    G. Y. Zou and A. Donner, Stat. Med. 27 (2008); as in `analysis.paired`.
    """

    base: Radius
    new: Radius
    unit: str = "px"
    method: str = "from the bounds of both radii"

    @property
    def n(self) -> int:
        """Images of both."""
        return self.new.n

    @property
    def value(self) -> float:
        """Radius of the baseline less the new one."""
        return self.base.value - self.new.value

    def bounds(self, alpha: float) -> tuple[float, float]:
        """See `gate.evidence.Evidence`."""
        (a_lo, a_hi), (b_lo, b_hi) = self.base.bounds(alpha), self.new.bounds(alpha)
        a, b, together = self.base.value, self.new.value, correlation(self.base.samples, self.new.samples)
        lower, upper = -np.inf, np.inf
        if np.isfinite(b_hi) and not self.new.at_least:
            lower = a - b - joint(a - a_lo, b_hi - b, together)
        if np.isfinite(a_hi) and not self.base.at_least:
            upper = a - b + joint(a_hi - a, b - b_lo, together)
        return lower, upper


def radius(values: Values, scale: float = 1.0, seed: int = 0) -> Radius | Skipped:
    """Return the retained radius at 95 %, in px times a scale."""
    sweep, metric, site = values.sweep, values.metric, "retained radius"
    if sweep.shape == (1, 1) or sweep.n_images < 2:
        return Skipped(site, "the grid holds no shift but (0, 0)" if sweep.shape == (1, 1) else "one image is too few")
    found = estimated_map(values, resample_weights(sweep.positions, N_RESAMPLES, seed))
    if isinstance(found, Skipped):
        return found
    replicates = found[1]
    at = sweep.origin_cell
    if replicates.value[at] == 0 or np.isnan(replicates.value[at]):
        return Skipped(site, f"the {metric.called} on unshifted images is {replicates.value[at]:g}")
    performance, drawn = metric.sign * replicates.value, metric.sign * replicates.resampled
    samples = drawn - threshold(drawn[:, [at]], LEVEL)
    return Radius(
        grid=sweep,
        above=performance - threshold(performance[at], LEVEL),
        samples_above=samples,
        standard_error=np.sqrt(standard_error(samples, replicates.n) ** 2 + replicates.floor**2),
        n_cells=int(connected_region(performance.reshape(sweep.shape), LEVEL, sweep.origin).sum()),
        scale=scale,
        n=replicates.n,
    )
