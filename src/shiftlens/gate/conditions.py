"""Limits and sweeps in, conditions with their evidence out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shiftlens.errors import InputError
from shiftlens.gate import against
from shiftlens.gate import quantities as q
from shiftlens.gate.evidence import Evidence
from shiftlens.gate.limits import Allowed, Gate, Limits, Within
from shiftlens.stats import Skipped
from shiftlens.tasks.task import Variable

DEFAULT_ALLOWED = Allowed(unshifted=1.0, near=1.0, side_difference=1.0)
"""Points that a sweep may be worse than its baseline where nobody says how many."""


@dataclass(frozen=True, eq=False)
class Condition:
    """One thing that must hold of one sweep.

    Attributes
    ----------
    sweep
        Which.
    name
        The quantity, such as "retained_radius" or "drop within 4 px".
    metric
        What it is measured on.
    side
        "at least" or "at most".
    limit, unit
        As the evidence is.
    against
        Name of the baseline; None of an absolute limit.
    evidence
        What the sweep says, or why it says nothing.
    """

    sweep: str
    name: str
    metric: str
    side: Literal["at least", "at most"]
    limit: float
    unit: str
    against: str | None
    evidence: Evidence | Skipped


def conditions_of(reading: q.Reading, gate: Gate, baseline: q.Reading | None, *, partial: bool) -> list[Condition]:
    """Every condition of a gate on one sweep.

    Raises
    ------
    InputError
        A metric or quantity that the sweep lacks, a limit that cannot be met or broken, or a baseline that is no match.
    """
    found: list[Condition] = []
    for metric, limits in gate.limits.items():
        found += _absolute(reading, metric, limits)
    if baseline is not None:
        pair = against.Pair.of(baseline, reading, gate.metric, partial=partial)
        found += _paired(pair, _allowed(gate, pair.aligned.metric))
    elif gate.allowed is not None:
        raise InputError("expected a baseline sweep for what is allowed against it, got none")
    return found


def _absolute(reading: q.Reading, metric: str | None, limits: Limits) -> list[Condition]:
    values = reading.values(metric)
    of = values.metric
    found: list[Condition] = []

    def add(name: str, side: Literal["at least", "at most"], limit: float, unit: str, say: Evidence | Skipped) -> None:
        found.append(Condition(reading.name, name, of.name, side, limit, unit, None, say))

    for name, low, high, measure in (
        ("unshifted", limits.min_unshifted, limits.max_unshifted, q.unshifted_evidence),
        ("near", limits.min_near, limits.max_near, q.near_evidence),
    ):
        wrong, right = (high, low) if of.sign > 0 else (low, high)
        prefix = "min" if of.sign > 0 else "max"
        if wrong is not None:
            better = "higher" if of.sign > 0 else "lower"
            raise InputError(f"{of.name} is better when it is {better}: expected {prefix}_{name}, got the other one")
        if right is not None:
            _within(f"{prefix}_{name}", right, of.bounds, of.unit)
            add(name, "at least" if of.sign > 0 else "at most", right, of.unit, measure(values))
    if limits.min_retained_radius is not None:
        _within("min_retained_radius", limits.min_retained_radius, (0, np.inf), "px")
        evidence = q.radius_evidence(reading, values, limits.min_retained_radius)
        add("retained_radius", "at least", limits.min_retained_radius, "px", evidence)
    unit, span = of.difference_unit, (0.0, of.factor * of.difference_bounds[1])
    if limits.max_drop is not None:
        _within("max_drop", limits.max_drop.limit, span, unit)
        name = _distanced("drop", limits.max_drop)
        add(name, "at most", limits.max_drop.limit, unit, q.drop_evidence(values, limits.max_drop.px))
    if limits.max_side_difference is not None:
        _within("max_side_difference", limits.max_side_difference, span, unit)
        add("side_difference", "at most", limits.max_side_difference, unit, q.side_evidence(values))
    if limits.min_consistency is not None:
        _within("min_consistency", limits.min_consistency, (0, 1), "share")
        add("consistency", "at least", limits.min_consistency, "share", q.consistency_evidence(reading))
    if limits.max_confidence_swing is not None:
        swing = limits.max_confidence_swing
        _within("max_confidence_swing", swing.limit, (0, 1), "share")
        add(_distanced("confidence_swing", swing), "at most", swing.limit, "share", q.swing_evidence(reading, swing.px))
    if limits.max_border_ratio is not None:
        _within("max_border_ratio", limits.max_border_ratio, (0, np.inf), "ratio")
        add("border_ratio", "at most", limits.max_border_ratio, "ratio", q.border_ratio(reading))
    return found


def _paired(pair: against.Pair, allowed: Allowed) -> list[Condition]:
    of = pair.aligned.metric
    found: list[Condition] = []
    span = of.factor * of.difference_bounds[1]

    def add(name: str, delta: float, most: float, unit: str, say: Evidence | Skipped, metric: str = of.name) -> None:
        if not 0 < delta <= most:
            between = f"above 0 and up to {most:g}" if np.isfinite(most) else "above 0"
            raise InputError(f"allowed.{name.split()[0]}: expected {between} {unit}, got {delta:g}")
        found.append(Condition(pair.new.name, name, metric, "at most", delta, unit, pair.base.name, say))

    unit = of.difference_unit
    if allowed.unshifted is not None:
        add("unshifted", allowed.unshifted, span, unit, against.unshifted_loss(pair))
    if allowed.near is not None:
        add("near", allowed.near, span, unit, against.near_loss(pair))
    if allowed.drop is not None:
        say = against.drop_loss(pair, allowed.drop.px)
        add(_distanced("drop", allowed.drop), allowed.drop.limit, span, unit, say)
    if allowed.retained_radius is not None:
        add("retained_radius", allowed.retained_radius, np.inf, "px", against.radius_loss(pair))
    if allowed.side_difference is not None:
        add("side_difference", allowed.side_difference, span, unit, against.side_loss(pair))
    if allowed.consistency is not None:
        say = against.consistency_loss(pair)
        add("consistency", allowed.consistency, 100, "points", say)
    if allowed.confidence_swing is not None:
        swing = allowed.confidence_swing
        add(_distanced("confidence_swing", swing), swing.limit, 100, "points", against.swing_gain(pair, swing.px))
    if allowed.border_ratio is not None:
        if allowed.border_ratio <= 1:
            raise InputError(f"allowed.border_ratio: expected above 1 times, got {allowed.border_ratio:g}")
        add("border_ratio", allowed.border_ratio, np.inf, "times", against.border_gain(pair))
    return found


def _allowed(gate: Gate, metric: Variable) -> Allowed:
    if gate.allowed is not None:
        return gate.allowed
    if metric.unit != "share":
        raise InputError(f"expected how much worse {metric.name} may be than the baseline (allowed), got nothing")
    return DEFAULT_ALLOWED


def _distanced(name: str, within: Within) -> str:
    return f"{name} within {within.px:g} px"


def _within(name: str, limit: float, bounds: tuple[float, float], unit: str) -> None:
    low, high = bounds
    if not low <= limit <= high:
        between = f"from {low:g} to {high:g}" if np.isfinite(high) else f"of at least {low:g}"
        raise InputError(f"{name}: expected a limit {between} ({unit or 'its unit'}), got {limit:g}")
