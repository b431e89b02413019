"""Strict or lenient: which conditions pass, at 5 % over all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from shiftlens.gate.conditions import Condition
from shiftlens.gate.evidence import Means, p_at_least, p_at_most
from shiftlens.gate.limits import Mode
from shiftlens.stats import Skipped, holm

ALPHA = 0.05
"""Chance that a strict gate passes a sweep that breaks a limit, or that a lenient one fails one that keeps them all."""


@dataclass(frozen=True)
class Outcome:
    """One condition and what became of it.

    Attributes
    ----------
    sweep, name, metric, side, limit, unit, against
        See `Condition`.
    value
        The estimate; None where there is none.
    interval
        Its one-sided bounds, each at the level at which Holm's correction tests its side: the limit lies outside
        exactly if `proven` is not "neither". Infinite ends where the sweep gives no bound.
    passed
        By the gate's mode.
    proven
        "kept", "breached", or "neither", corrected for all conditions.
    reason
        In words.
    p_value
        Of the test that decides, corrected: that the limit is broken (strict) or kept (lenient).
    power
        Against a baseline, the chance that this condition passes strictly where nothing has changed; None of others.
    images_needed
        Images that bring it to 80 %; None where that is not known.
    n_images
        Images behind the estimate.
    """

    sweep: str
    name: str
    metric: str
    side: str
    limit: float
    unit: str
    against: str | None
    value: float | None
    interval: tuple[float, float] | None
    passed: bool
    proven: str
    reason: str
    p_value: float
    power: float | None
    images_needed: int | None
    n_images: int | None

    @property
    def title(self) -> str:
        """The condition in one line."""
        than = f" {'that of' if self.unit == 'times' else 'worse than'} {self.against}" if self.against else ""
        return f"{self.name} {self.side} {shown(self.limit, self.unit)}{than}"

    @property
    def found(self) -> str:
        """The estimate with its bounds."""
        if self.value is None or self.interval is None:
            return "no estimate"
        lo, hi = self.interval
        ends = [self._shown(end) if np.isfinite(end) else "none" for end in (lo, hi)]
        return f"{self._shown(self.value)} (bounds {ends[0]}, {ends[1]})"

    def _shown(self, value: float) -> str:
        """A number; against a baseline, a difference says whether it is for the better."""
        if self.against is None or self.unit == "times":
            return shown(value, self.unit)
        return f"{shown(abs(value), self.unit)} {'worse' if value >= 0 else 'better'}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an end without a bound is None."""
        ends = None if self.interval is None else [end if np.isfinite(end) else None for end in self.interval]
        return {**vars(self), "interval": ends}


def decide(conditions: Sequence[Condition], mode: Mode, alpha: float = ALPHA) -> tuple[Outcome, ...]:
    """Decide every condition.

    Strict tests "the limit is broken" and passes what is rejected; lenient tests "the limit is kept" and fails what is
    rejected. Either family is corrected by Holm, so that a single wrong decision in it has a probability of at most
    `alpha`. What could not be measured is neither proven kept nor proven breached.
    """
    kept, breached = _family(conditions, alpha, breached=False), _family(conditions, alpha, breached=True)
    rows = zip(conditions, kept, breached, strict=True)
    return tuple(_outcome(each, mode, of_kept, of_breached) for each, of_kept, of_breached in rows)


class _Test(NamedTuple):
    """What became of one test of a family: whether it rejects, at which level, and its corrected p-value."""

    rejects: bool
    level: float
    p_value: float


def _family(conditions: Sequence[Condition], alpha: float, *, breached: bool) -> list[_Test]:
    """Holm's tests of "the limit is kept" (`breached`), or of "it is broken", one a condition.

    Each step tests what is left at `alpha` by the number that is left, on the bound at that level. What is left in the
    end has the level of the last step. So a test rejects exactly if the bound at its level excludes the limit.
    """
    p_values = np.array([_p(each, breached=breached) for each in conditions], np.float64)
    left = np.argsort(p_values, kind="stable").tolist()
    levels = np.zeros(len(conditions))
    rejects = np.zeros(len(conditions), np.bool_)
    while left:
        level = alpha / len(left)
        found = next((k for k in left if _excludes(conditions[k], level, breached=breached)), None)
        if found is None:
            levels[left] = level
            break
        levels[found], rejects[found] = level, True
        left.remove(found)
    # A p-value is found by bisection: it must not fall on the other side of `alpha` by rounding.
    corrected = holm(p_values)
    corrected = np.where(rejects, np.minimum(corrected, alpha), np.maximum(corrected, np.nextafter(alpha, 1)))
    return [_Test(*row) for row in zip(rejects.tolist(), levels.tolist(), corrected.tolist(), strict=True)]


def _excludes(condition: Condition, level: float, *, breached: bool) -> bool:
    """Whether the bound at a level proves a breach (`breached`), or that the limit is kept."""
    evidence, limit = condition.evidence, condition.limit
    if isinstance(evidence, Skipped):
        return False
    lower, upper = evidence.bounds(level)
    return upper < limit if (condition.side == "at least") == breached else lower > limit


def _p(condition: Condition, *, breached: bool) -> float:
    """p-value against "the limit is kept" (`breached`), or against "it is broken"."""
    evidence, limit = condition.evidence, condition.limit
    if isinstance(evidence, Skipped):
        return 1.0
    at_least = condition.side == "at least"
    return p_at_least(evidence, limit) if at_least == breached else p_at_most(evidence, limit)


def _outcome(condition: Condition, mode: Mode, kept: _Test, breached: _Test) -> Outcome:
    facts = {name: value for name, value in vars(condition).items() if name != "evidence"}
    evidence = condition.evidence
    proven = "kept" if kept.rejects else "breached" if breached.rejects else "neither"
    passed = proven == "kept" if mode == "strict" else proven != "breached"
    p_value = kept.p_value if mode == "strict" else breached.p_value
    if isinstance(evidence, Skipped):
        reason = f"not measured: {evidence.why}"
        return Outcome(**facts, value=None, interval=None, passed=passed, proven=proven, reason=reason,
                       p_value=1.0, power=None, images_needed=None, n_images=None)  # fmt: skip
    power, needed = None, None
    if condition.against is not None and isinstance(evidence, Means):
        power, needed = evidence.passing_at_no_change(condition.limit, kept.level)
    of_lower, of_upper = (kept, breached) if condition.side == "at least" else (breached, kept)
    return Outcome(
        **facts,
        value=evidence.value,
        interval=(evidence.bounds(of_lower.level)[0], evidence.bounds(of_upper.level)[1]),
        passed=passed,
        proven=proven,
        reason=_reason(condition, evidence.value, proven),
        p_value=p_value,
        power=power,
        images_needed=needed,
        n_images=evidence.n,
    )


def _reason(condition: Condition, value: float, proven: str) -> str:
    if proven == "kept":
        return "the limit is proven kept"
    if proven == "breached":
        return "a breach is proven"
    inside = value >= condition.limit if condition.side == "at least" else value <= condition.limit
    return f"neither proven: the estimate is {'within' if inside else 'beyond'} the limit, its bounds reach both sides"


def shown(value: float, unit: str) -> str:
    """A number with its unit, as many digits as a reader needs."""
    if unit == "share":
        return f"{100 * value:.2f} %"
    if unit == "points":
        return f"{value:.2f} points"
    if unit == "px":
        return f"{value:.2f} px"
    return f"{value:.4g} {unit}".removesuffix(" ratio").rstrip()
