"""What a finding is made of: its question, severity and section, what was measured, how it was tested, what to do."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass
from typing import Any, Literal

from shiftlens.narrative.words import p_text
from shiftlens.stats import Estimate

Question = Literal["A", "B", "C", "D", "E"]
QUESTIONS: dict[Question, str] = {
    "A": "How far may the image be shifted, and is the model equally good in all directions?",
    "B": "What do the feature maps contain that is not in the image?",
    "C": "Which layers pad unevenly, and is padding the cause?",
    "D": "What does a repair change?",
    "E": "How far is tiled inference from the whole image's output, and why?",
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

    @property
    def warn(self) -> Severity:
        """A warning where it holds."""
        return "warn" if self.holds else "info"

    def sided(self, cost: float) -> Severity:
        """A warning where a cost is significant; what is significantly gained is a note."""
        return self.warn if cost > 0 or not self.holds else "note"

    def left_open(self, estimate: Estimate) -> str:
        """What to add after an interval that excludes 0, and so looks settled, where the corrected test is not."""
        settled = estimate.lo > 0 or estimate.hi < 0
        if not settled or self.holds:
            return ""
        shown = "" if self.corrected_p is None else f" ({p_text(self.corrected_p)})"
        return f", which is not significant after correction for {self.family}{shown}"

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

    def __post_init__(self) -> None:
        for word, how in (
            ("MODEL", "replace MODEL with its spec; a model made in Python has none"),
            ("DATA", "DATA: the spec of your images"),
        ):
            if word in self.command and word not in self.text:
                object.__setattr__(self, "text", f"{self.text} ({how})")

    @property
    def line(self) -> str:
        """The command as a shell takes it; empty where there is none."""
        return shlex.join(self.command)

    def __str__(self) -> str:
        return f"{self.text}: `{self.line}`" if self.command else f"{self.text}."


def number(value: float, unit: str) -> Estimate:
    """A number without an interval."""
    return Estimate(value, value, value, unit, 0, "")


def finite(value: float | None) -> float | None:
    """A number for JSON; None where it is infinite or not a number."""
    return float(value) if value is not None and math.isfinite(value) else None
