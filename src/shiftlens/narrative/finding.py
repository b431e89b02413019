"""One statement with its evidence, and a list of them that a notebook shows as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from shiftlens.narrative.words import number_text, plain, with_interval

Severity = Literal["info", "note", "warn"]
Question = Literal["A", "B", "C", "D"]

COLOURS: dict[Severity, str] = {"warn": "#b3261e", "note": "#8a6100", "info": "#3b5b76"}


@dataclass(frozen=True)
class Finding:
    """One statement about a sweep.

    Attributes
    ----------
    id
        Which: lower case with hyphens, the same for every sweep.
    question
        "A" translation, "B" feature maps, "C" cause, "D" repair.
    severity
        "info": a number, or why there is none. "note": what must be known before a number is quoted. "warn": a
        difference that holds after correction for every test of the sweep.
    statement
        A sentence that can be quoted: number, unit, 95 % interval over images.
    value, unit, interval
        The number of the statement: `unit` is "share" (0 to 1), "points", "nats", "px", "px^2" or a count's name;
        None where the statement has none.
    p_value
        Corrected for all tests of the sweep (Holm); None where nothing is tested.
    evidence
        How it was measured, on how many images, and what it does not say.
    remedy
        What to do, with a command that runs in backticks; capital words in it are yours to fill in. None where
        nothing needs doing.
    """

    id: str
    question: Question
    severity: Severity
    statement: str
    value: float | None = None
    unit: str | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    evidence: str = ""
    remedy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens findings --json`; what is not a finite number is None."""
        interval = None if self.interval is None else [_finite(bound) for bound in self.interval]
        return {
            "id": self.id,
            "question": self.question,
            "severity": self.severity,
            "statement": self.statement,
            "value": _finite(self.value),
            "unit": self.unit,
            "interval": interval,
            "p_value": _finite(self.p_value),
            "evidence": self.evidence,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        """The statement with its severity."""
        return f"{self.severity}: {plain(self.statement)}"

    def _repr_html_(self) -> str:
        return Findings([self])._repr_html_()


class Findings(list[Finding]):
    """A list of findings that a notebook shows as a table, and `print` as sentences."""

    def with_severity(self, *wanted: Severity) -> Findings:
        """Only those of some severities, in the same order."""
        return Findings(each for each in self if each.severity in wanted)

    def named(self, name: str) -> Finding | None:
        """The first of that `id`; None when this sweep has none."""
        return next((each for each in self if each.id == name), None)

    def __str__(self) -> str:
        """One line a finding."""
        return "\n".join(str(each) for each in self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("", "finding", "value", "what to do"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, self))}</tbody></table>"


def _row(finding: Finding) -> str:
    # Statements quote class names, and those come from whoever named a folder: everything is escaped.
    mark = f"<b style='color:{COLOURS[finding.severity]}'>{escape(finding.severity)}</b>"
    said = f"{escape(finding.statement)}<br><small>{escape(finding.evidence)}</small>"
    cells = (mark, said, escape(value_text(finding)), escape(finding.remedy or ""))
    return "<tr>" + "".join(f"<td style='text-align:left;vertical-align:top'>{cell}</td>" for cell in cells) + "</tr>"


def value_text(finding: Finding) -> str:
    """Value, unit and interval of a finding in one short text; empty without a value."""
    if finding.value is None or finding.unit is None:
        return ""
    if finding.interval is None:
        return number_text(finding.value, finding.unit)
    return with_interval(finding.value, *finding.interval, finding.unit)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
