"""How far a picture may move: retained area and radius, the centre of the region, the worst within a radius."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, special

from shiftlens.analysis.arrays import BoolArray, FloatArray, IntArray, SweepArrays, Values
from shiftlens.analysis.differences import mean_of
from shiftlens.analysis.estimated_maps import Replicates, standard_error
from shiftlens.naming import count_of
from shiftlens.stats import CONFIDENCE, Estimate, Skipped, t_value, wilson

LEVELS = (0.95, 0.90, 0.50)
WORST_RADIUS = 4.0
SMALLEST_CENTRED_REGION = 9
ROUNDING = 1e-4
"""Share of a metric's largest mean below which that at (0, 0) is taken for 0: there an output meets itself."""
N_CALIBRATION = 500
CLEARLY = (1.96, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 4.0, 5.0)


@dataclass(frozen=True, eq=False)
class Retained:
    """The region around (0, 0) where performance keeps `level` of that at (0, 0), see `threshold` [own].

    Attributes
    ----------
    level
        Share of the performance at (0, 0).
    area
        In px^2; a cell counts the step squared.
    region
        (dy, dx), the cells; connected to (0, 0) over sides, not corners.
    """

    level: float
    area: Estimate
    region: BoolArray

    @property
    def at_least(self) -> bool:
        """The region touches the grid's edge, so that area and radius are lower limits."""
        return self.area.at_least

    @property
    def radius(self) -> Estimate:
        """Of the circle of that area, in px."""
        value, lo, hi = (float(np.sqrt(each / np.pi)) for each in (self.area.value, self.area.lo, self.area.hi))
        return replace(self.area, value=value, lo=lo, hi=hi, unit="px")


@dataclass(frozen=True)
class Centre:
    """Where the middle of the retained region lies [own]; (0, 0) for a model without preference.

    Attributes
    ----------
    x, y
        Weighted centroid of the region in px, with interval and p-value against 0.
    level
        The region's level.
    """

    x: Estimate
    y: Estimate
    level: float


def threshold(at_origin: FloatArray, level: float) -> FloatArray:
    """Return how far performance may fall: by (1 - level) of its size at (0, 0).

    Where higher is better that is `level` times the value. Where lower is better, performance is minus the value: a
    loss may rise to (2 - level) times that at (0, 0).
    """
    out: FloatArray = np.where(at_origin >= 0, level, 2 - level) * at_origin
    return out


def connected_region(performance: FloatArray, level: float, origin: tuple[int, int]) -> BoolArray:
    """Return the cells connected to the origin (row, column) where performance is at least the threshold.

    Performance is (..., dy, dx), one map or a stack of maps, each with its own origin's value; higher is better.
    """
    stack = performance.reshape(-1, *performance.shape[-2:])
    lowest = threshold(stack[:, origin[0], origin[1]], level)
    # Shares are ratios of counts: a cell exactly at the level must not fall out by rounding.
    strong = stack >= (lowest - 1e-9 * np.abs(lowest))[:, None, None]
    return around_origin(strong, origin).reshape(performance.shape)


def around_origin(cells: BoolArray, origin: tuple[int, int]) -> BoolArray:
    """Return the part of each map of cells that is connected to the origin over sides."""
    stack = cells.reshape(-1, *cells.shape[-2:])
    sides = np.zeros((3, 3, 3), np.int64)
    sides[1] = ndimage.generate_binary_structure(2, 1)
    parts, _ = ndimage.label(stack, sides)
    region: BoolArray = stack & (parts == parts[:, origin[0], origin[1]][:, None, None])
    return region.reshape(cells.shape)


def touches_edge(region: BoolArray) -> bool:
    """Whether a region (dy, dx) reaches the grid's edge, so that it may go on beyond."""
    return bool(region[[0, -1], :].any() or region[:, [0, -1]].any())


def retained(replicates: Replicates, sweep: SweepArrays, level: float) -> Retained | Skipped:
    """Return the retained area and radius at one level, with intervals by bootstrap over images.

    The interval runs from the area of the cells clearly above the level to that of the cells not clearly below it;
    by 1.96 standard errors, or by as many more as the bootstrap samples need for 95 % of the intervals made from them
    to hold this map's area. Percentiles of the bootstrapped area hold the truth in 74 to 98 % only: noise gnaws at a
    region's rim, and the bootstrap gnaws twice.
    """
    site = f"retained area at {level:.0%}"
    if sweep.shape == (1, 1):
        return Skipped(site, "the grid holds no shift but (0, 0)")
    skipped = _unfit(site, replicates, sweep)
    if skipped:
        return skipped
    region = connected_region(_performance(replicates, sweep), level, sweep.origin)
    cell = sweep.step[0] * sweep.step[1]
    area = float(region.sum()) * cell
    lo, hi = (count * float(cell) for count in _area_interval(replicates, sweep, level, int(region.sum())))
    method = "inner and outer region, calibrated by bootstrap over images"
    made = Estimate(area, lo, hi, "px^2", replicates.n, method, at_least=touches_edge(region))
    return Retained(level, made, region)


def _unfit(site: str, replicates: Replicates, sweep: SweepArrays) -> Skipped | None:
    at_origin, metric = replicates.value[sweep.origin_cell], replicates.metric
    if at_origin == 0 or np.isnan(at_origin):
        nothing = "no image is right" if metric.name == "accuracy" else f"the {metric.called} is 0"
        return Skipped(site, f"{'no image has a value' if at_origin else nothing} at (0, 0)")
    if metric.better == "lower" and abs(at_origin) < ROUNDING * float(np.nanmax(np.abs(replicates.value))):
        return Skipped(site, f"at (0, 0) the {metric.called} is 0 up to rounding: no share of it can be kept")
    return Skipped(site, "one image has no interval") if replicates.n < 2 else None


def _performance(replicates: Replicates, sweep: SweepArrays) -> FloatArray:
    return replicates.metric.sign * replicates.value.reshape(sweep.shape)


def _area_interval(replicates: Replicates, sweep: SweepArrays, level: float, n_cells: int) -> tuple[int, int]:
    """Return the number of cells in the region clearly above, and in that not clearly below, the level.

    "Clearly" is a common number of standard errors of the difference from the threshold.
    """
    sign, at = replicates.metric.sign, sweep.origin_cell
    value = sign * replicates.value - threshold(sign * replicates.value[at], level)
    drawn = sign * replicates.resampled[:N_CALIBRATION]
    samples = drawn - threshold(drawn[:, [at]], level)
    se = np.sqrt(standard_error(samples, replicates.n) ** 2 + replicates.floor**2)

    def cells(maps: FloatArray, t: float) -> IntArray:
        clear = (maps >= t * se).reshape(-1, *sweep.shape)
        clear[:, sweep.origin[0], sweep.origin[1]] = True
        count: IntArray = around_origin(clear, sweep.origin).sum(axis=(1, 2))
        return count

    for t in CLEARLY:
        held = (cells(samples, t) <= n_cells) & (cells(samples, -t) >= n_cells)
        if held.mean() >= CONFIDENCE:
            break
    return min(int(cells(value, t)[0]), n_cells), max(int(cells(value, -t)[0]), n_cells)


def _weighted_centroids(performance: FloatArray, level: float, sweep: SweepArrays) -> tuple[FloatArray, FloatArray]:
    """Return the centroid (x, y) of each map; a cell's weight grows from 0 at the threshold to 1 half-way up.

    With weights of 0 and 1 the centroid jumps when a cell of the rim falls out, and its bootstrap interval fails.
    """
    at_origin = performance[:, sweep.origin[0], sweep.origin[1]][:, None, None]
    size = np.abs(at_origin)
    weight = np.clip((performance / size - threshold(at_origin, level) / size) / ((1 - level) / 2), 0, 1)
    weight = np.nan_to_num(weight) * connected_region(performance, level, sweep.origin)
    total = weight.sum(axis=(1, 2))
    return (weight.sum(axis=1) @ sweep.dxs) / total, (weight.sum(axis=2) @ sweep.dys) / total


def centre(replicates: Replicates, sweep: SweepArrays) -> Centre | Skipped:
    """Return the centroid of the widest retained region that the grid holds whole.

    A region cut by the grid's edge has a centroid that the cut decides, so 50 % gives way to 90 and then 95 %.
    """
    if min(sweep.shape) < 3:
        return Skipped("centre", "needs at least one shift to each side on both axes")
    skipped = _unfit("centre", replicates, sweep)
    if skipped:
        return skipped
    performance, sign = _performance(replicates, sweep), replicates.metric.sign
    for level in sorted(LEVELS):
        region = connected_region(performance, level, sweep.origin)
        if touches_edge(region) or region.sum() < SMALLEST_CENTRED_REGION:
            continue
        x, y = _weighted_centroids(performance[None], level, sweep)
        samples = replicates.resampled.reshape(-1, *sweep.shape)
        # A hundred samples at a time: the cells' weights are as large as all the replicates.
        blocks = (sign * samples[k : k + 100] for k in range(0, len(samples), 100))
        usable = (block[block[:, sweep.origin[0], sweep.origin[1]] != 0] for block in blocks)
        parts = [_weighted_centroids(block, level, sweep) for block in usable if len(block)]
        xs, ys = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Centre(_normal(float(x[0]), xs, replicates.n), _normal(float(y[0]), ys, replicates.n), level)
    return Skipped("centre", "no retained region of 9 cells or more lies within the grid")


def _normal(value: float, resampled: FloatArray, n: int) -> Estimate:
    se = float(standard_error(resampled[:, None], n)[0])
    half = float(t_value((1 - CONFIDENCE) / 2, n - 1)) * se
    p = float(2 * special.stdtr(n - 1, -abs(value) / se)) if se > 0 else 1.0
    return Estimate(value, value - half, value + half, "px", n, "bootstrap standard error over images", p)


def worst_per_image(values: Values, radius: float) -> FloatArray:
    """Return each image's worst value under all shifts of at most `radius` pixels, (image,); NaN where it has none."""
    inside, sign = (values.sweep.distance <= radius).ravel(), values.metric.sign
    # `fmin` leaves NaN out.
    parts = [sign * np.fmin.reduce(sign * values[s][:, inside], axis=1) for s in values.sweep.slices()]
    return np.concatenate(parts).astype(np.float64)


def worst_of_radius(values: Values, radius: float = WORST_RADIUS) -> Estimate | Skipped:
    """Return the mean over images of the worst under all shifts of at most `radius` pixels (Euclidean).

    Of a share that is the share of images that have it under every shift.

    Source
    ------
    After arXiv 1712.02779, which uses a square of shifts; here a disc, as for the retained radius.
    """
    sweep, site = values.sweep, f"worst of {radius:g} px"
    reach = min(int(sweep.dys.max()), int(-sweep.dys.min()), int(sweep.dxs.max()), int(-sweep.dxs.min()))
    if reach < radius:
        return Skipped(site, f"the grid reaches {reach} px only")
    n_shifts = int((sweep.distance <= radius).sum())
    if n_shifts < 2:
        return Skipped(site, f"the grid's step of {max(sweep.step)} px leaves no shift within {radius:g} px")
    worst, metric = worst_per_image(values, radius), values.metric
    if metric.is_share:
        return share_estimate(worst, f"{count_of(n_shifts, 'shift')}")
    return mean_of(metric, worst, site)


def share_estimate(values: FloatArray, note: str = "") -> Estimate:
    """Return the share of images whose value is 1, with Wilson's interval."""
    k, n = round(float(values.sum())), len(values)
    lo, hi = wilson(k, n)
    return Estimate(k / n, float(lo), float(hi), "share", n, f"Wilson; {note}" if note else "Wilson")
