"""How often a gate errs: simulated comparisons of known truth, at the level of the statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from comparison.draws import drawn
from comparison.pairs import pair_of, plateau, sources
from gate.gate_sweeps import worse_on_one_side
from shiftlens.analysis.arms import align
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.gate import against, conditions, deciding
from shiftlens.gate.evidence import Evidence
from shiftlens.gate.limits import Allowed, Within
from shiftlens.gate.looking_on import looks_at
from shiftlens.gate.quantities import Reading

N_DRAWS = 400
N_IMAGES = 200
POPULATION = 10_000
MOST = 0.05 + 2 * np.sqrt(0.05 * 0.95 / N_DRAWS)
"""What 400 draws of a chance of 5 % show at most, but for one time in forty."""

LOSSES: dict[str, Callable[[against.Pair], Evidence]] = {
    "unshifted": against.unshifted_loss,
    "near": against.near_loss,
    "drop": lambda pair: against.drop_loss(pair, 3),
    "side_difference": against.side_loss,
    "consistency": against.consistency_loss,
}


def paired(made: list[SweepArrays]) -> against.Pair:
    base, new = (Reading(name, None, each) for name, each in zip("ab", made, strict=True))
    return against.Pair(base, new, align(sources(made), 0))


def outcome(made: list[SweepArrays], allowed: Allowed, mode: str, alpha: float = deciding.ALPHA) -> bool:
    found = deciding.decide(conditions._paired(paired(made), allowed), mode, alpha)
    return all(each.passed for each in found)


@pytest.fixture(scope="module")
def worse() -> tuple[list[SweepArrays], dict[str, float]]:
    """A population of images under a baseline and a sweep that is worse, and by how much it is."""
    mean = plateau(5, edge=4.0)
    population = pair_of(np.random.default_rng(0), POPULATION, [mean, worse_on_one_side(mean, 0.4) - 0.1])
    return population, {name: loss(paired(population)).value for name, loss in LOSSES.items()}


@pytest.mark.slow
def test_of_sweeps_that_are_alike_lenient_fails_at_most_one_in_twenty() -> None:
    mean = plateau(5, edge=4.0)
    allowed = Allowed(unshifted=0.5, near=0.5, side_difference=0.5, drop=Within(limit=1, px=3), consistency=0.5)
    failed = 0
    for draw in range(N_DRAWS):
        made = pair_of(np.random.default_rng([1, draw]), N_IMAGES, [mean, mean])
        failed += not outcome(made, allowed, "lenient")
    assert failed <= 0.05 * N_DRAWS


@pytest.mark.slow
def test_at_a_true_loss_of_delta_strict_passes_and_lenient_fails_at_most_one_in_twenty(
    worse: tuple[list[SweepArrays], dict[str, float]],
) -> None:
    population, truth = worse
    rng = np.random.default_rng(2)
    passed = dict.fromkeys(LOSSES, 0)
    failed = dict.fromkeys(LOSSES, 0)
    for _ in range(N_DRAWS):
        which = rng.integers(0, POPULATION, N_IMAGES)
        pair = paired([drawn(each, which) for each in population])
        for name, loss in LOSSES.items():
            lower, upper = loss(pair).bounds(deciding.ALPHA)
            passed[name] += upper < truth[name]
            failed[name] += lower > truth[name]
    assert {name: count for name, count in passed.items() if count > MOST * N_DRAWS} == {}
    assert {name: count for name, count in failed.items() if count > MOST * N_DRAWS} == {}


@pytest.mark.slow
def test_looking_on_errs_no_more_often(worse: tuple[list[SweepArrays], dict[str, float]]) -> None:
    """Looks at 50, 100, 200 ... images, stopped at the first that decides."""
    population, truth = worse
    looks = looks_at(800, 50)
    rng = np.random.default_rng(3)
    passed = failed = 0
    for _ in range(N_DRAWS):
        which = rng.integers(0, POPULATION, looks[-1])
        for n in looks:
            pair = paired([drawn(replace(each), which[:n]) for each in population])
            lower, upper = against.near_loss(pair).bounds(deciding.ALPHA / len(looks))
            if upper < truth["near"] or lower > truth["near"]:
                passed += upper < truth["near"]
                failed += lower > truth["near"]
                break
    assert passed <= MOST * N_DRAWS
    assert failed <= MOST * N_DRAWS
