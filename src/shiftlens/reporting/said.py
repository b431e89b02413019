"""Findings as plain values for the template: texts made safe to print, commands marked as code."""

from __future__ import annotations

from collections.abc import Iterable

from shiftlens.diagnosis.finding import Finding, Severity, value_text
from shiftlens.diagnosis.words import p_text, plain
from shiftlens.reporting.encoding import Data

ORDER: dict[Severity, int] = {"warn": 0, "note": 1, "info": 2}


def parts(text: str) -> list[tuple[bool, str]]:
    """A text with commands in backticks as (is code, text) pairs; an odd backtick is a letter like any other."""
    pieces = plain(text).split("`")
    if len(pieces) % 2 == 0:
        return [(False, plain(text))]
    return [(k % 2 == 1, piece) for k, piece in enumerate(pieces) if piece]


def told(finding: Finding) -> Data:
    """One finding for the template; its value only where the sentence does not have it already."""
    value = value_text(finding)
    return {
        "id": finding.id,
        "question": finding.question,
        "severity": finding.severity,
        "statement": plain(finding.statement),
        "value": "" if value in finding.statement else value,
        "p": "" if finding.p_value is None else p_text(finding.p_value),
        "evidence": plain(finding.evidence),
        "remedy": [] if finding.remedy is None else parts(finding.remedy),
    }


def sorted_out(found: Iterable[Finding]) -> list[Data]:
    """Findings for the template, those that warn first; order within a severity stays."""
    return [told(each) for each in sorted(found, key=lambda finding: ORDER[finding.severity])]
