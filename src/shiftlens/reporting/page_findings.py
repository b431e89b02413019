"""Findings as plain values for the template: texts made safe to print, commands marked as code."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace

from shiftlens.narrative.finding import Finding, Severity, value_text
from shiftlens.narrative.words import p_text, plain
from shiftlens.reporting.encoding import Data

DECIDES = re.compile(r"--(?:control|fill|padding) \S+")
"""The option by which a command is known again."""

ORDER: dict[Severity, int] = {"warn": 0, "note": 1, "info": 2}


def parts(text: str) -> list[tuple[bool, str]]:
    """A text with commands in backticks as (is code, text) pairs; an odd backtick is a letter like any other."""
    pieces = plain(text).split("`")
    if len(pieces) % 2 == 0:
        return [(False, plain(text))]
    return [(k % 2 == 1, piece) for k, piece in enumerate(pieces) if piece]


def told(finding: Finding) -> Data:
    """One finding for the template; value and p-value only where the sentences do not have them already."""
    p = "" if finding.p_value is None else p_text(finding.p_value)
    return {
        "id": finding.id,
        "question": finding.question,
        "severity": finding.severity,
        "statement": plain(finding.statement),
        "value": _value(finding),
        "p": "" if p in finding.evidence else p,
        "evidence": plain(finding.evidence),
        "remedy": [] if finding.remedy is None else parts(finding.remedy),
    }


def _value(finding: Finding) -> str:
    """Value and interval, unless the statement has them, with that sign or with the other and "higher" or "less"."""
    if finding.value is None or finding.interval is None or not all(map(math.isfinite, finding.interval)):
        return ""
    lo, hi = finding.interval
    turned = replace(finding, value=-finding.value, interval=(-hi, -lo))
    shown = value_text(finding)
    return "" if shown in finding.statement or value_text(turned) in finding.statement else shown


def sorted_out(found: Iterable[Finding]) -> list[Data]:
    """Findings for the template, those that warn first; order within a severity stays.

    What a reader of the page has before them is not said again: a command or a footing that has been given, and the
    advice to draw what the page shows.
    """
    made = [told(each) for each in sorted(found, key=lambda finding: ORDER[finding.severity])]
    given: set[str] = set()
    footing = ""
    for each in made:
        each["remedy"] = _once(each["remedy"], given)
        footing, each["evidence"] = each["evidence"], "" if each["evidence"] == footing else each["evidence"]
    return made


def _once(remedy: list[tuple[bool, str]], given: set[str]) -> list[tuple[bool, str]]:
    """A remedy without the commands that were given before, which are added to."""
    whole = "".join(text for _, text in remedy)
    codes = [text for is_code, text in remedy if is_code]
    if codes and all(code.startswith("shiftlens plot ") or code.endswith(" --plots pictures") for code in codes):
        return []
    if remedy and whole in given:
        return [(False, "as above")]
    shorter: list[tuple[bool, str]] = []
    for is_code, text in remedy:
        changed = DECIDES.search(text) if is_code and text in given else None
        if changed:
            shorter += [(False, "as above, with "), (True, changed[0])]
        else:
            shorter.append((False, "as above") if is_code and text in given else (is_code, text))
    given.update((whole, *codes))
    return shorter
