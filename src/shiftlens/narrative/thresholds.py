"""How large a significant difference must be to be worth a warning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from shiftlens.errors import InputError
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.words import number_text
from shiftlens.stats import Estimate

THRESHOLDS: Mapping[str, float] = {"points": 1.0, "nats": 0.1, "px": 0.5}
"""By unit, what is a warning from this size on. In another unit every significant difference is one."""


def checked_thresholds(thresholds: Mapping[str, float] | None) -> dict[str, float]:
    """The defaults, and what a user has set instead.

    Raises
    ------
    InputError
        A threshold that is not a finite number of at least 0.
    """
    for unit, size in (thresholds or {}).items():
        if isinstance(size, bool) or not isinstance(size, int | float) or not (math.isfinite(size) and size >= 0):
            raise InputError(f"expected a threshold of at least 0 {unit}, got {size!r}")
    return {**THRESHOLDS, **(thresholds or {})}


def weighed(found: Iterable[Finding], thresholds: Mapping[str, float]) -> Findings:
    """The same findings, of which those that are significant and yet too small for a warning are none."""
    return Findings(_weighed(each, thresholds) for each in found)


def _weighed(finding: Finding, thresholds: Mapping[str, float]) -> Finding:
    estimate = finding.estimate
    if finding.severity != "warn" or estimate is None or not _is_trifle(estimate, thresholds):
        return finding
    least = number_text(thresholds[estimate.unit], estimate.unit)
    note = f"{finding.note} Significant, but no warning: it is smaller than {least} (thresholds)."
    return replace(finding, severity="info", note=note.strip())


def _is_trifle(estimate: Estimate, thresholds: Mapping[str, float]) -> bool:
    return abs(estimate.value) < thresholds.get(estimate.unit, 0.0)
