"""Images that a sweep and another one, such as a control, both hold."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.arrays import IntArray, SweepArrays


def matched_rows(sweep: SweepArrays, control: SweepArrays) -> tuple[IntArray, IntArray]:
    """Return the rows of the images that both hold, in the sweep and in the control, in the same order."""
    _, here, there = np.intersect1d(sweep.positions, control.positions, assume_unique=True, return_indices=True)
    order = np.argsort(here)
    return here[order], there[order]
