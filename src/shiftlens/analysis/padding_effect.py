"""How much of what shifts do to a net is its padding's doing: the sweep against the canvas control [own]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import SweepArrays, image_slices, matched_rows
from shiftlens.analysis.controls import ControlEffect, effect_of
from shiftlens.stats import Estimate, Skipped, mean_estimate


@dataclass(frozen=True, eq=False)
class PaddingEffect:
    """What changes when the picture's surroundings are fill all the way, and no padding is near.

    Attributes
    ----------
    effect
        acc(canvas control) - acc(shift) under each shift that leaves some of the picture, (0, 0) among them; in points.
    fall, fall_without
        acc(0, 0) minus the mean accuracy over all other such shifts, in points: in the sweep, and on the canvas. This
        is the position effect: what moving the picture costs, lost content included.
    fall_of_padding
        The first minus the second, paired: the part of the position effect that is the padding's.
    """

    effect: ControlEffect
    fall: Estimate
    fall_without: Estimate
    fall_of_padding: Estimate


def padding_effect(sweep: SweepArrays) -> PaddingEffect | Skipped:
    """Return what the padding costs, from a sweep with its canvas control.

    Parameters
    ----------
    sweep
        With `canvas` among its controls; otherwise, or with fewer than two common images, `Skipped`.
    """
    site = "padding effect"
    if "canvas" not in sweep.controls:
        return Skipped(site, "there is no canvas control")
    control = sweep.controls["canvas"]
    rows, control_rows = matched_rows(sweep, control)
    n, n_cells = len(rows), int(np.prod(sweep.shape))
    origin = sweep.origin[0] * sweep.shape[1] + sweep.origin[1]
    tested = ~sweep.blank.ravel()
    others = tested.copy()
    others[origin] = False
    if n < 2 or not others.any():
        return Skipped(site, f"{n} images are in both sweep and control" if n < 2 else "the grid holds only (0, 0)")
    flat, flat_control = sweep.correct.reshape(-1, n_cells), control.correct.reshape(-1, n_cells)
    net, discordant = np.zeros(n_cells, np.int64), np.zeros(n_cells, np.int64)
    per_image, falls = np.zeros(n), np.zeros((2, n))
    for s in image_slices(n, n_cells):
        moved, kept = flat[rows[s]].view(np.int8), flat_control[control_rows[s]].view(np.int8)
        d = kept - moved
        net += d.sum(axis=0, dtype=np.int32)
        discordant += np.abs(d).sum(axis=0, dtype=np.int32)
        per_image[s] = d[:, tested].sum(axis=1, dtype=np.int32) / tested.sum()
        for k, right in enumerate((moved, kept)):
            falls[k, s] = right[:, origin] - right[:, others].sum(axis=1, dtype=np.int32) / others.sum()

    def points(values: np.ndarray[tuple[int], np.dtype[np.float64]], most: float) -> Estimate:
        return mean_estimate(values, "share", bounds=(-most, most)).scaled(100, "points")

    return PaddingEffect(
        effect_of("padding", net, discordant, per_image, tested, sweep.shape),
        points(falls[0], 1),
        points(falls[1], 1),
        points(falls[0] - falls[1], 2),
    )
