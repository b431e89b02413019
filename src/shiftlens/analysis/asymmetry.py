"""Is it the same to the left as to the right, and up as down? With and without the data's own asymmetry [own]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats as sps

from shiftlens.analysis.arrays import BoolArray, IntArray, SweepArrays, image_slices, matched_rows
from shiftlens.stats import (
    Estimate,
    FloatArray,
    Skipped,
    benjamini_hochberg,
    mcnemar_exact,
    mean_estimate,
    paired_share_interval,
    z_value,
)

Axis = Literal["x", "y"]
SIDES: dict[Axis, tuple[str, str]] = {"x": ("right", "left"), "y": ("down", "up")}


@dataclass(frozen=True, eq=False)
class Asymmetry:
    """Accuracy on the positive side minus that on the negative side, each pair of opposite shifts once.

    Attributes
    ----------
    axis
        "x": (dx, dy) against (-dx, dy), positive is right. "y": (dx, dy) against (dx, -dy), positive is down.
    overall
        Mean over all pairs, in points, interval and p-value over images.
    dys, dxs
        (pair,) the positive member of each pair.
    effect, lo, hi
        (pair,) in points; the intervals hold for all pairs together (Bonferroni).
    p, q
        (pair,) p-value (McNemar exact, or Student t with the flip control) and its Benjamini-Hochberg adjustment.
    n
        Number of images.
    without_data
        Whether the data's own asymmetry is taken out by the flip control.
    """

    axis: Axis
    overall: Estimate
    dys: IntArray
    dxs: IntArray
    effect: FloatArray
    lo: FloatArray
    hi: FloatArray
    p: FloatArray
    q: FloatArray
    n: int
    without_data: bool

    @property
    def stronger_side(self) -> str:
        """The side to which the model bears moving better: right, left, down, up, or neither."""
        if self.overall.value == 0:
            return "neither"
        return SIDES[self.axis][0 if self.overall.value > 0 else 1]

    @property
    def family_p(self) -> float:
        """Simes' p-value that any pair differs."""
        return float(self.q.min())

    @property
    def strongest(self) -> int:
        """Which pair has the smallest p-value; among equals the largest effect."""
        return int(np.lexsort((-np.abs(self.effect), self.p))[0])


def opposite_pairs(sweep: SweepArrays, axis: Axis) -> tuple[IntArray, IntArray]:
    """Return the flat cells (positive member, negative member) of every pair that is on the grid and not blank."""
    ny, nx = sweep.shape
    rows, columns = np.meshgrid(np.arange(ny), np.arange(nx), indexing="ij")
    along = sweep.dxs if axis == "x" else sweep.dys
    place = {int(d): k for k, d in enumerate(along)}
    partner = np.array([place.get(-int(d), -1) for d in along])
    where = columns if axis == "x" else rows
    other = partner[where]
    keep = (along[where] > 0) & (other >= 0) & ~sweep.blank
    plus = (rows * nx + columns)[keep]
    minus = (rows * nx + other)[keep] if axis == "x" else (other * nx + columns)[keep]
    return plus, minus


def asymmetry(correct: BoolArray, sweep: SweepArrays, axis: Axis) -> Asymmetry | Skipped:
    """Return the asymmetry along one axis as it is, the data's own included.

    Parameters
    ----------
    correct
        (image, dy, dx).
    sweep
        For the grid.
    axis
        "x" or "y".
    """
    plus, minus = opposite_pairs(sweep, axis)
    n, flat = len(correct), correct.reshape(len(correct), -1)
    skipped = _unfit(axis, n, len(plus))
    if skipped:
        return skipped
    net, discordant, per_image = np.zeros(len(plus), np.int64), np.zeros(len(plus), np.int64), np.zeros(n)
    for s in image_slices(n, flat.shape[1]):
        d = flat[s][:, plus].view(np.int8) - flat[s][:, minus].view(np.int8)
        net += d.sum(axis=0, dtype=np.int32)
        discordant += np.abs(d).sum(axis=0, dtype=np.int32)
        per_image[s] = d.sum(axis=1, dtype=np.int32)
    if not discordant.any():
        return Skipped(_site(axis), "no image changes between opposite shifts")
    b, c = (discordant + net) // 2, (discordant - net) // 2
    lo, hi = paired_share_interval(b, c, n, z_value(n_comparisons=len(plus)))
    p = mcnemar_exact(b, c)
    overall = mean_estimate(per_image / len(plus), "share", bounds=(-1, 1)).scaled(100, "points")
    dys, dxs = _coordinates(sweep, plus)
    return Asymmetry(
        axis, overall, dys, dxs, 100 * net / n, 100 * lo, 100 * hi, p, benjamini_hochberg(p), n, without_data=False
    )


def asymmetry_without_data(
    correct: BoolArray, flipped: BoolArray, sweep: SweepArrays, flip: SweepArrays
) -> Asymmetry | Skipped:
    """Return the model's own left/right asymmetry, from the sweep of the mirrored pictures.

    For a model without a preferred side, acc(+d, x) = acc(-d, flip x). Half the difference of acc(+d, x) - acc(-d,
    flip x) between +d and -d is what the model adds: the data's own asymmetry has opposite signs in the two sweeps and
    cancels, and so does what the model finds harder about mirrored pictures in general.

    Parameters
    ----------
    correct, flipped
        (image, dy, dx) of the sweep and of its flip control.
    sweep, flip
        For the grid and for matching the images.
    """
    rows, flip_rows = matched_rows(sweep, flip)
    plus, minus = opposite_pairs(sweep, "x")
    n = len(rows)
    skipped = _unfit("x", n, len(plus))
    if skipped:
        return skipped
    flat, flat_flip = correct.reshape(len(correct), -1), flipped.reshape(len(flipped), -1)
    total, squares, per_image = np.zeros(len(plus)), np.zeros(len(plus)), np.zeros(n)
    for s in image_slices(n, flat.shape[1]):
        a, f = flat[rows[s]].view(np.int8), flat_flip[flip_rows[s]].view(np.int8)
        d = a[:, plus] - a[:, minus] + f[:, plus] - f[:, minus]
        total += d.sum(axis=0, dtype=np.int32)
        squares += (d * d).sum(axis=0, dtype=np.int32)
        per_image[s] = d.sum(axis=1, dtype=np.int32)
    if not squares.any():
        return Skipped(_site("x"), "no image changes between opposite shifts")
    mean = total / n
    # One image of each sign is added, as in the interval of paired shares: no pair passes with no spread at all.
    se = np.sqrt((squares + 2 - total * mean) / n / n)
    p = 2 * sps.t.sf(np.abs(mean) / se, n - 1)
    z = z_value(n_comparisons=len(plus))
    half = z * np.sqrt((squares + z * z / 2 - total * mean) / n / n)
    overall = mean_estimate(per_image / len(plus) / 2, "share", bounds=(-1, 1)).scaled(100, "points")
    dys, dxs = _coordinates(sweep, plus)
    return Asymmetry(
        "x",
        overall,
        dys,
        dxs,
        50 * mean,
        50 * (mean - half),
        50 * (mean + half),
        p,
        benjamini_hochberg(p),
        n,
        without_data=True,
    )


def _site(axis: Axis) -> str:
    return "asymmetry left/right" if axis == "x" else "asymmetry up/down"


def _unfit(axis: Axis, n: int, n_pairs: int) -> Skipped | None:
    if n_pairs == 0:
        return Skipped(_site(axis), f"the grid has no pair of opposite shifts along {axis}")
    return Skipped(_site(axis), "one image has no interval") if n < 2 else None


def _coordinates(sweep: SweepArrays, cells: IntArray) -> tuple[IntArray, IntArray]:
    rows, columns = np.divmod(cells, sweep.shape[1])
    return sweep.dys[rows], sweep.dxs[columns]
