"""How much of what shifts do to a net is its padding's doing: the sweep against the canvas control [own]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import Values, row_means
from shiftlens.analysis.controls import ControlEffect, effect_of, in_both, tested_cells
from shiftlens.analysis.differences import Differences, difference_of
from shiftlens.stats import Estimate, Skipped


@dataclass(frozen=True, eq=False)
class PaddingEffect:
    """What changes when the picture's surroundings are fill all the way, and no padding is near.

    Attributes
    ----------
    effect
        m(canvas control) - m(shift) under each shift that leaves some of the picture, (0, 0) among them.
    fall, fall_without
        m(0, 0) minus the mean over all other such shifts: in the sweep, and on the canvas. This is the position effect:
        what moving the picture costs, lost content included. All in points of a share, else in the metric's unit.
    fall_of_padding
        The first minus the second, paired: the part of the position effect that is the padding's.
    """

    effect: ControlEffect
    fall: Estimate
    fall_without: Estimate
    fall_of_padding: Estimate


def padding_effect(values: Values) -> PaddingEffect | Skipped:
    """Return what the padding costs, from a sweep with its canvas control.

    Without `canvas` among its controls, or with fewer than two common images, `Skipped`.
    """
    sweep, metric, site = values.sweep, values.metric, "padding effect"
    if "canvas" not in sweep.controls:
        return Skipped(site, "there is no canvas control")
    control = values.of("canvas")
    found = tested_cells(sweep, control.sweep, site)
    if isinstance(found, Skipped):
        return found
    n, others = found
    effect, tested, origin = Differences(metric, n, values.n_cells), ~sweep.blank.ravel(), sweep.origin_cell
    falls = np.zeros((2, n))
    for s, moved, kept in in_both(values, control):
        effect.add(s, kept - moved, tested)
        for k, each in enumerate((moved, kept)):
            falls[k, s] = each[:, origin] - row_means(each[:, others])
    return PaddingEffect(
        effect_of("padding", effect, tested, sweep.shape),
        difference_of(metric, falls[0]),
        difference_of(metric, falls[1]),
        difference_of(metric, falls[0] - falls[1], widest=2),
    )
