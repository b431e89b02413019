"""Strict or lenient: which conditions pass, at 5 % over all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shiftlens.gate.conditions import Condition
from shiftlens.gate.evidence import Means
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
        Its one-sided bounds, each at the level at which Holm's correction tests this condition; infinite ends where
        the sweep gives no bound.
    passed
        By the gate's mode.
    proven
        "kept", "breached", or "neither", corrected for all conditions.
    reason
        In words.
    p_value
        Of the test that decides, corrected: that the limit is broken (strict) or kept (lenient).
    power
        Against a baseline, the chance that this condition passes where nothing has changed; None of others.
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
        worse = f" worse than {self.against}" if self.against else ""
        return f"{self.name} {self.side} {shown(self.limit, self.unit)}{worse}"

    @property
    def found(self) -> str:
        """The estimate with its bounds."""
        if self.value is None or self.interval is None:
            return "no estimate"
        lo, hi = self.interval
        ends = [shown(end, self.unit) if np.isfinite(end) else "none" for end in (lo, hi)]
        return f"{shown(self.value, self.unit)} (bounds {ends[0]}, {ends[1]})"

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
    kept = np.array([_p(each, breached=False) for each in conditions], np.float64)
    breached = np.array([_p(each, breached=True) for each in conditions], np.float64)
    deciding = kept if mode == "strict" else breached
    order = np.argsort(np.argsort(deciding, kind="stable"), kind="stable")
    levels = alpha / (len(conditions) - order)
    rows = zip(conditions, holm(kept), holm(breached), levels, strict=True)
    return tuple(_outcome(each, mode, float(p), float(q), alpha, float(level)) for each, p, q, level in rows)


def _p(condition: Condition, *, breached: bool) -> float:
    """p-value against "the limit is kept" (`breached`), or against "it is broken"."""
    evidence, limit = condition.evidence, condition.limit
    if isinstance(evidence, Skipped):
        return 1.0
    at_least = condition.side == "at least"
    return evidence.p_at_least(limit) if at_least == breached else evidence.p_at_most(limit)


def _outcome(condition: Condition, mode: Mode, kept: float, breached: float, alpha: float, level: float) -> Outcome:
    facts = {name: value for name, value in vars(condition).items() if name != "evidence"}
    evidence = condition.evidence
    proven = "kept" if kept <= alpha else "breached" if breached <= alpha else "neither"
    passed = proven == "kept" if mode == "strict" else proven != "breached"
    p_value = kept if mode == "strict" else breached
    if isinstance(evidence, Skipped):
        reason = f"not measured: {evidence.why}"
        return Outcome(**facts, value=None, interval=None, passed=passed, proven=proven, reason=reason,
                       p_value=1.0, power=None, images_needed=None, n_images=None)  # fmt: skip
    power, needed = None, None
    if condition.against is not None and isinstance(evidence, Means):
        power, needed = evidence.passing_at_no_change(condition.limit, level)
    return Outcome(
        **facts,
        value=evidence.value,
        interval=evidence.bounds(level),
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
