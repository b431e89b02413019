"""A finding: a sentence that can be quoted, with the estimate, the test and the action behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shiftlens.naming import count_of
from shiftlens.narrative.finding_parts import (
    SECTIONS,
    Action,
    Quantity,
    Question,
    Section,
    Severity,
    Significance,
    finite,
)
from shiftlens.narrative.rendering import as_html, as_text
from shiftlens.stats import Estimate


@dataclass(frozen=True)
class Finding:
    """One statement about a sweep, a feature run, layer arithmetic or a comparison.

    Attributes
    ----------
    kind
        What sort of finding, the same for every sweep: "accuracy-at-rest", "asymmetry", "difference", ...
    statement
        A sentence that can be quoted: number, unit, 95 % interval over images.
    quantity
        What was measured, and where; None where nothing was.
    estimate
        The number of the statement; `n` is 0 where it has no interval.
    test
        None where nothing is tested.
    action
        What to do; None where nothing needs doing. Words of a command in capitals are yours to fill in.
    note
        How it was measured, and what it does not say.
    severity
        "warn": a difference that is significant after correction for every test. "note": what must be known before a
        number is quoted. "info": a number, or why there is none.
    question
        A key of `QUESTIONS`.
    section
        Of a comparison, a key of `SECTIONS`; None elsewhere.
    which
        Which one of its kind: "x-model", "near-1"; empty where there is only one.

    Examples
    --------
    >>> finding = sl.findings(sl.open_sweep("vgg.zarr")).named("accuracy-at-rest")
    >>> print(finding)  # doctest: +ELLIPSIS
    info: Unshifted, accuracy is ... %...
    >>> low, high = finding.interval
    >>> low <= finding.value <= high
    True
    """

    kind: str
    statement: str
    quantity: Quantity | None = None
    estimate: Estimate | None = None
    test: Significance | None = None
    action: Action | None = None
    note: str = ""
    severity: Severity = "info"
    question: Question = "A"
    section: Section | None = None
    which: str = ""

    @property
    def id(self) -> str:
        """Kind and `which`, in lower case with hyphens: unique in a list, the same for every sweep."""
        return f"{self.kind}-{self.which}" if self.which else self.kind

    @property
    def value(self) -> float | None:
        """The number of the statement, in `unit`."""
        return None if self.estimate is None else self.estimate.value

    @property
    def unit(self) -> str | None:
        """Of the number: "share" (0 to 1), "points", "nats", "px", "px^2" or a count's name."""
        return None if self.estimate is None else self.estimate.unit

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval over images; an end that the grid hides is infinite."""
        return (self.estimate.lo, self.estimate.hi) if self.estimate is not None and self.estimate.n else None

    @property
    def p_value(self) -> float | None:
        """Corrected for all tests made together (Holm)."""
        return None if self.test is None else self.test.corrected_p

    @property
    def evidence(self) -> str:
        """On how many images and how it was measured, what it does not say, and how the test came out."""
        made = self.estimate
        basis = f"{count_of(made.n, 'image')}; interval: {made.method}." if made is not None and made.method else ""
        return " ".join(text for text in (basis, self.note, str(self.test or "")) if text)

    @property
    def remedy(self) -> str | None:
        """The action in one text, with its command in backticks."""
        return None if self.action is None else str(self.action)

    def to_dict(self) -> dict[str, Any]:
        """The object of `shiftlens findings --json`; what is not a finite number is None."""
        return {
            "id": self.id,
            "question": self.question,
            "severity": self.severity,
            "statement": self.statement,
            "value": finite(self.value),
            "unit": self.unit,
            "interval": None if self.interval is None else [finite(end) for end in self.interval],
            "p_value": finite(self.p_value),
            "evidence": self.evidence,
            "remedy": self.remedy,
            "section": self.section,
            "quantity": None if self.quantity is None else self.quantity.to_dict(),
            "action": None if self.action is None else {"text": self.action.text, "command": [*self.action.command]},
        }

    def __str__(self) -> str:
        """The statement with its severity."""
        return as_text(self.severity, self.statement)

    def _repr_html_(self) -> str:
        return Findings([self])._repr_html_()


class Findings(list[Finding]):
    """A list of findings that a notebook shows as a list, and `print` as sentences."""

    def with_severity(self, *wanted: Severity) -> Findings:
        """Only those of some severities, in the same order."""
        return Findings(each for each in self if each.severity in wanted)

    def of_kind(self, *kinds: str) -> Findings:
        """Only those of some kinds, in the same order."""
        return Findings(each for each in self if each.kind in kinds)

    def in_section(self, section: Section) -> Findings:
        """Only those of one section of a comparison, in the same order."""
        return Findings(each for each in self if each.section == section)

    def by_section(self) -> list[tuple[str, Findings]]:
        """The sections of a comparison that hold something: heading and findings."""
        return [(heading, found) for name, heading in SECTIONS.items() if (found := self.in_section(name))]

    def named(self, name: str) -> Finding | None:
        """The first of that `id`; None when there is none."""
        return next((each for each in self if each.id == name), None)

    def __str__(self) -> str:
        """One line a finding."""
        return "\n".join(map(str, self))

    def _repr_html_(self) -> str:
        items = (as_html(each.severity, each.statement, each.action, each.evidence) for each in self)
        return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"
