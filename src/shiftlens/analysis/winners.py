"""The best arm, chosen on one half of the images and stated on the other: a winner's own score flatters it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from shiftlens.analysis.arm_scores import Quantity, Scores, score
from shiftlens.analysis.arms import Aligned
from shiftlens.analysis.arrays import BoolArray, IntArray
from shiftlens.analysis.paired import paired_estimate
from shiftlens.stats import Estimate, Skipped

HALVES_SEED = 0
"""Fixed, so that nobody can draw halves until the winner suits."""

FEWEST_IMAGES = 20
N_RESAMPLES = 500

Criterion = Literal["at-rest", "near", "worst", "retained", "retained-as-accurate"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)


@dataclass(frozen=True)
class Winner:
    """The best arm by one criterion.

    Attributes
    ----------
    criterion
        A quantity; "retained-as-accurate" is the retained area among the arms that are no worse at (0, 0) than the
        baseline on the half for choosing.
    which
        Position of the arm.
    chosen_by
        Its value on the half for choosing, in the metric's unit or px^2 of the comparison's: too good, as any winner's.
    stated
        Its value on the other half.
    difference
        Against the baseline on the other half, paired; `Skipped` when the baseline itself won. Nothing was chosen on
        these images: no correction for the choice is needed.
    difference_at_rest
        The same at (0, 0), which a winner in another respect may have paid with.
    n_chosen, n_stated
        Images in each half.
    """

    criterion: Criterion
    which: int
    chosen_by: float
    stated: Estimate
    difference: Estimate | Skipped
    difference_at_rest: Estimate | Skipped
    n_chosen: int
    n_stated: int


def first_half(index: IntArray) -> BoolArray:
    """Return which images are for choosing, (image,): a fixed draw that belongs to the images, not to their order.

    `index` is their position in the source.
    """
    rank = np.empty(len(index), np.int64)
    rank[np.argsort(index, kind="stable")] = np.arange(len(index))
    drawn = np.random.default_rng(HALVES_SEED).permutation(len(index))
    half: BoolArray = (drawn < len(index) // 2)[rank]
    return half


def winners(aligned: Aligned, seed: int = 0) -> tuple[Winner | Skipped, ...]:
    """Return the winner by each criterion.

    The seed is that of the bootstrap behind the retained areas; the halves do not depend on it.
    """
    if aligned.n_images < FEWEST_IMAGES:
        why = f"two halves need {FEWEST_IMAGES} images, of which there are {aligned.n_images}"
        return (Skipped("winners", why),)
    choosing = first_half(aligned.index)
    picked = dict.fromkeys(CRITERIA, -1)
    best = dict.fromkeys(CRITERIA, -np.inf)
    # The baseline first: with equal values it stays, and its own at (0, 0) decides who is as accurate.
    rest_of_base = np.inf
    for which in (aligned.baseline, *aligned.others):
        made = score(aligned, which, n_resamples=0, chosen=choosing)
        values = {criterion: _value(made, criterion) for criterion in CRITERIA}
        if which == aligned.baseline:
            rest_of_base = values["at-rest"]
        elif values["at-rest"] < rest_of_base:
            values["retained-as-accurate"] = -np.inf
        for criterion in CRITERIA:
            if values[criterion] > best[criterion]:
                best[criterion], picked[criterion] = values[criterion], which
    stated: dict[int, Scores] = {}
    for which in sorted({aligned.baseline, *picked.values()} - {-1}):
        made = score(aligned, which, n_resamples=N_RESAMPLES, seed=seed, chosen=~choosing)
        stated[which] = made.without_cells()
    n = int(choosing.sum())
    return tuple(_winner(aligned, criterion, picked[criterion], best[criterion], stated, n) for criterion in CRITERIA)


def _value(made: Scores, criterion: Criterion) -> float:
    if _quantity(criterion) != "retained":
        return made.performance(_quantity(criterion))
    return made.area if made.performance("at-rest") not in (0, -np.inf) else -np.inf


def _quantity(criterion: Criterion) -> Quantity:
    return "retained" if criterion == "retained-as-accurate" else criterion


def _winner(
    aligned: Aligned,
    criterion: Criterion,
    which: int,
    chosen_by: float,
    stated: dict[int, Scores],
    n_chosen: int,
) -> Winner | Skipped:
    if which < 0:
        return Skipped(f"winner by {criterion}", "no arm has a value")
    made, base, quantity = stated[which], stated[aligned.baseline], _quantity(criterion)
    found = made.estimate(quantity)
    if isinstance(found, Skipped):
        return Skipped(f"winner by {criterion}", found.why)
    if quantity != "retained":
        chosen_by *= made.metric.sign
    difference: Estimate | Skipped = Skipped("difference", "the baseline itself won")
    at_rest = difference
    if which != aligned.baseline:
        at_rest, difference = (paired_estimate(made, base, q) for q in ("at-rest", quantity))
    return Winner(criterion, which, chosen_by, found, difference, at_rest, n_chosen, found.n)
