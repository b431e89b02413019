"""The decision of each condition, its bounds, its p-value and its sentence say the same."""

from __future__ import annotations

import numpy as np
import pytest

from shiftlens.gate.conditions import Condition
from shiftlens.gate.deciding import ALPHA, decide
from shiftlens.gate.evidence import Evidence, Stated, means_of
from shiftlens.gate.limits import Mode
from shiftlens.stats import Skipped


class Wavy:
    """Bounds that do not always widen as the level falls, as those of a difference of radii may not."""

    unit, n, method = "points", 50, ""

    def __init__(self, value: float, spread: float) -> None:
        self.value, self.spread = value, spread

    def bounds(self, alpha: float) -> tuple[float, float]:
        half = self.spread * (np.log(0.6 / alpha) + 1.5 * np.sin(3 * np.log(alpha)) ** 2)
        return self.value - half, self.value + half


def conditions_at_random(rng: np.random.Generator) -> list[Condition]:
    """One to six conditions with a limit of 1 whose evidence is close to it."""
    found = []
    for number in range(rng.integers(1, 7)):
        z = rng.normal(0, 2.5)
        evidence: Evidence | Skipped = (
            Stated(1 + z, 1.0, 40, "points", 41, ""),
            means_of(rng.normal(1 + z / 6, 1.0, (40, 3)), (-np.inf, np.inf), "points"),
            Wavy(1 + z, 0.5),
            Skipped("it", "no image"),
        )[rng.choice(4, p=[0.35, 0.3, 0.3, 0.05])]
        side = "at most" if rng.random() < 0.5 else "at least"
        found.append(Condition("sweep", f"c{number}", "accuracy", side, 1.0, "points", None, evidence))
    return found


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_a_limit_is_outside_the_printed_bounds_exactly_if_something_is_proven(mode: Mode) -> None:
    rng = np.random.default_rng(5)
    seen = {"kept": 0, "breached": 0, "neither": 0}
    for _ in range(150):
        for each in decide(conditions_at_random(rng), mode):
            if each.interval is None:
                assert each.proven == "neither"
                continue
            lower, upper = each.interval
            too_low, too_high = ("breached", "kept") if each.side == "at least" else ("kept", "breached")
            expected = too_high if lower > each.limit else too_low if upper < each.limit else "neither"
            assert each.proven == expected, f"{each.title}: {each.found}"
            assert ("reach both sides" in each.reason) == (expected == "neither")
            assert (each.p_value <= ALPHA) == (each.proven == ("kept" if mode == "strict" else "breached"))
            seen[each.proven] += 1
    assert min(seen.values()) > 50


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_a_breach_that_holds_without_correction_only_has_bounds_that_reach_the_limit(mode: Mode) -> None:
    breach, fine = (Stated(value, se, 50, "points", 51, "") for value, se in ((5.0, 2.0), (0.4, 0.5)))
    assert breach.bounds(ALPHA)[0] > 1.0
    both = [
        Condition("s", name, "m", "at most", 1.0, "points", "b", evidence)
        for name, evidence in (("drop", breach), ("near", fine))
    ]
    found = decide(both, mode)[0]
    assert found.proven == "neither"
    assert found.interval == pytest.approx(breach.bounds(ALPHA / 2))
