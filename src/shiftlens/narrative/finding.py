"""A finding: what was measured, its estimate, its test and what to do, with a sentence that can be quoted."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass
from typing import Any, Literal

from shiftlens.narrative.rendering import as_html, as_text
from shiftlens.narrative.words import p_text
from shiftlens.stats import Estimate

Question = Literal["A", "B", "C", "D"]
QUESTIONS: dict[Question, str] = {
    "A": "How far may the image be shifted, and is the model equally good in all directions?",
    "B": "What do the feature maps contain that is not in the image?",
    "C": "Which layers pad unevenly, and is padding the cause?",
    "D": "What does a repair change?",
}

Severity = Literal["warn", "note", "info"]
SEVERITIES: tuple[Severity, ...] = ("warn", "note", "info")

Section = Literal["improved", "worse", "inconclusive", "by-shift", "non-inferiority", "best", "caveats"]
SECTIONS: dict[Section, str] = {
    "improved": "Improved",
    "worse": "Got worse",
    "inconclusive": "Inconclusive",
    "by-shift": "Shift by shift",
    "non-inferiority": "Non-inferiority",
    "best": "Best sweeps: chosen on one half of the images, measured on the other",
    "caveats": "Caveats",
}
"""The parts of a comparison, in the order in which a reader needs them."""


@dataclass(frozen=True)
class Quantity:
    """What was measured, and where; None where a field does not apply.

    Attributes
    ----------
    metric
        "accuracy", "loss", "retained area", "artefact energy", ...
    axis
        "x" or "y".
    shift
        (dx, dy) in px.
    layer, class_name
        Names as the model gives them.
    of, versus
        The sweep or the control, and what it is compared with.
    control
        The control that removes another cause: "flip" removes the dataset bias.
    """

    metric: str
    axis: str | None = None
    shift: tuple[int, int] | None = None
    layer: str | None = None
    class_name: str | None = None
    of: str | None = None
    versus: str | None = None
    control: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is known, by name."""
        known = {key: value for key, value in asdict(self).items() if value is not None}
        return known | ({"shift": [*self.shift]} if self.shift else {})


@dataclass(frozen=True)
class Significance:
    """How a test came out: `corrected_p` (Holm) is None where it could not be made; `family` says what it is among."""

    corrected_p: float | None
    family: str = ""
    holds: bool = False

    def __str__(self) -> str:
        if not self.family:
            return ""
        if self.corrected_p is None:
            return "Not tested."
        verdict = "significant" if self.holds else "not significant"
        return f"Corrected for {self.family} (Holm), {p_text(self.corrected_p)}: {verdict}."


@dataclass(frozen=True)
class Action:
    """What to do: a text without its final point, and a command as a list of arguments, where one does it."""

    text: str
    command: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The command as a shell takes it; empty where there is none."""
        return shlex.join(self.command)

    def __str__(self) -> str:
        return f"{self.text}: `{self.line}`" if self.command else f"{self.text}."


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
        basis = f"{made.n:,} images; interval: {made.method}." if made is not None and made.method else ""
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
        return as_text(self)

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
        return f"<ul>{''.join(f'<li>{as_html(each)}</li>' for each in self)}</ul>"


def number(value: float, unit: str) -> Estimate:
    """A number without an interval."""
    return Estimate(value, value, value, unit, 0, "")


def finite(value: float | None) -> float | None:
    """A number for JSON; None where it is infinite or not a number."""
    return float(value) if value is not None and math.isfinite(value) else None
