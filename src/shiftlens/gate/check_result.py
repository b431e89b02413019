"""What a check has decided, and its forms: text, JSON, JUnit XML, Markdown, GitHub annotations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any
from xml.etree import ElementTree as ET

from shiftlens.gate.deciding import ALPHA, Outcome
from shiftlens.gate.limits import Mode
from shiftlens.naming import Printed, count_of, printable

EXIT_FAILED = 1


@dataclass(frozen=True, repr=False)
class CheckResult(Printed):
    """Pass or fail, condition by condition.

    Attributes
    ----------
    conditions
        One entry a condition and sweep.
    mode
        "strict" or "lenient".
    n_images
        Images of the sweep that has fewest.
    alpha
        Level of all conditions together (of this look, where there are several).
    notes
        What a reader should know: which sweep is incomplete, how an adaptive check ended.
    map_text
        The map of the metric in characters and the worst shifts, where they were asked for.

    Examples
    --------
    >>> result = sl.check("vgg.zarr", max_drop=(2, 4))
    >>> result.passed, result.exit_code, [each.title for each in result.conditions]
    (False, 1, ['drop within 4 px at most 2.00 points'])
    """

    conditions: tuple[Outcome, ...]
    mode: Mode
    n_images: int
    alpha: float = ALPHA
    notes: tuple[str, ...] = ()
    map_text: str = ""

    @property
    def passed(self) -> bool:
        """Whether every condition passes."""
        return all(each.passed for each in self.conditions)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed."""
        return 0 if self.passed else EXIT_FAILED

    def lines(self) -> list[str]:
        """The verdict, then each condition with its number, bounds and reason."""
        n_failed = sum(not each.passed for each in self.conditions)
        count = f"{len(self.conditions)} condition" + ("s" if len(self.conditions) > 1 else "")
        verdict = "passed" if self.passed else f"failed: {n_failed} of"
        head = f"{verdict} {count}" if not self.passed else f"passed: {count}"
        level = f"{self.mode}, at {100 * self.alpha:.3g} % together, {count_of(self.n_images, 'image')}"
        found = [f"{head} ({level})"]
        several = len({each.sweep for each in self.conditions}) > 1
        for each in self.conditions:
            where = f"{each.sweep}: " if several else ""
            mark = "ok  " if each.passed else "FAIL"
            found.append(
                f"{mark} {where}{each.metric}: {each.title}: {each.found}; {each.reason}{_power(each, self.mode)}"
            )
        return [*found, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "passed": self.passed,
            "mode": self.mode,
            "alpha": self.alpha,
            "n_images": self.n_images,
            "conditions": [each.to_dict() for each in self.conditions],
            "notes": list(self.notes),
        }

    def junit(self) -> str:
        """JUnit XML: one test case a condition. GitHub, GitLab and Jenkins read it."""
        suites = ET.Element("testsuites", name="shiftlens check")
        for sweep in dict.fromkeys(each.sweep for each in self.conditions):
            cases = [each for each in self.conditions if each.sweep == sweep]
            failed = [each for each in cases if not each.passed]
            numbers = {"tests": str(len(cases)), "failures": str(len(failed)), "errors": "0", "skipped": "0"}
            suite = ET.SubElement(suites, "testsuite", {"name": _xml(f"shiftlens check {sweep}"), **numbers})
            facts = ET.SubElement(suite, "properties")
            for name, value in (("mode", self.mode), ("alpha", f"{self.alpha:g}"), ("n_images", str(self.n_images))):
                ET.SubElement(facts, "property", name=name, value=value)
            for each in cases:
                case = ET.SubElement(suite, "testcase", classname=_xml(f"{sweep}.{each.metric}"), name=_xml(each.title))
                text = _xml(f"{each.found}; {each.reason}{_power(each, self.mode)}")
                if each.passed:
                    ET.SubElement(case, "system-out").text = text
                else:
                    ET.SubElement(case, "failure", type=each.proven, message=_xml(each.reason)).text = text
        ET.indent(suites)
        return ET.tostring(suites, encoding="unicode", xml_declaration=False) + "\n"

    def markdown(self) -> str:
        """A table for a pull request or a job's summary."""
        verdict = "passed" if self.passed else "**failed**"
        rows = [
            f"### shiftlens check: {verdict}",
            "",
            f"{self.mode}, at {100 * self.alpha:.3g} % over all conditions together, "
            f"{count_of(self.n_images, 'image')}",
            "",
            "| | sweep | metric | condition | found | reason |",
            "|---|---|---|---|---|---|",
        ]
        for each in self.conditions:
            cells = (each.sweep, each.metric, each.title, each.found, each.reason + _power(each, self.mode))
            rows.append(f"| {'pass' if each.passed else '**FAIL**'} | {' | '.join(map(_cell, cells))} |")
        return "\n".join([*rows, *(f"\n{_cell(note)}" for note in self.notes)]) + "\n"

    def _repr_html_(self) -> str:
        cells = [("", "sweep", "metric", "condition", "found", "reason")]
        for each in self.conditions:
            mark = "pass" if each.passed else "FAIL"
            cells.append((mark, each.sweep, each.metric, each.title, each.found, each.reason + _power(each, self.mode)))
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{escape(printable(cell))}</td>" for cell in row) + "</tr>"
            for row in cells
        )
        notes = "".join(f"<p>{escape(printable(note))}</p>" for note in self.notes)
        return f"<table><caption>{escape(self.lines()[0])}</caption>{rows}</table>{notes}"

    def annotations(self) -> Iterator[str]:
        """GitHub workflow commands: an error for each condition that fails, else one notice."""
        for each in self.conditions:
            if not each.passed:
                title, text = f"shiftlens {each.sweep}: {each.title}", f"{each.metric}: {each.found}; {each.reason}"
                yield f"::error title={_escaped(title, parameter=True)}::{_escaped(text)}"
        if self.passed:
            yield f"::notice title=shiftlens check::{_escaped(self.lines()[0])}"


def _power(each: Outcome, mode: Mode) -> str:
    """What the power of a strict condition against a baseline is, as a clause; empty where it has passed."""
    if each.power is None or mode != "strict" or each.passed:
        return ""
    more = f"; about {each.images_needed:,} images make it 80 %" if each.power < 0.8 and each.images_needed else ""
    return f"; passes with {100 * each.power:.0f} % chance if nothing has changed{more}"


def _xml(text: str) -> str:
    """Text without the characters that XML 1.0 has no place for."""
    return printable(text)


def _cell(text: str) -> str:
    """Text in a Markdown table: names come from strangers."""
    safe = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\|`*_[]":
        safe = safe.replace(character, f"\\{character}")
    return safe


def _escaped(text: str, *, parameter: bool = False) -> str:
    """As GitHub's workflow commands want it."""
    safe = printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return safe.replace(":", "%3A").replace(",", "%2C") if parameter else safe
