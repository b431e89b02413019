"""Findings as the page lists them: those that warn first, nothing twice."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import SEVERITIES, Action
from shiftlens.narrative.rendering import as_html
from shiftlens.reporting.encoding import Data

DECIDES = ("--control", "--fill", "--padding")
"""The options by which a command is recognised again."""


def sorted_out(found: Iterable[Finding]) -> list[Data]:
    """Findings for the template, those that warn first; the order within a severity stays.

    A command or evidence that the list has already given is not repeated, and the advice to draw what the page shows
    is left out.
    """
    rows: list[Data] = []
    given: set[tuple[str, ...] | str] = set()
    last = ""
    for each in sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)):
        evidence = "" if each.evidence == last else each.evidence
        html = as_html(each.severity, each.statement, _once(each.action, given), evidence)
        rows.append({"id": each.id, "severity": each.severity, "html": html})
        last = each.evidence
    return rows


def _once(action: Action | None, given: set[tuple[str, ...] | str]) -> Action | None:
    """An action without a command that was given before; what it gives is added to `given`."""
    if action is None or "--plots" in action.command or action.command[:2] == ("shiftlens", "plot"):
        return None
    if str(action) in given:
        return Action("As above")
    repeated = bool(action.command) and action.command in given
    given.update((str(action), action.command))
    if not repeated:
        return action
    option = next((f", with {name} {value}" for name, value in pairwise(action.command) if name in DECIDES), "")
    return Action(f"{action.text}: as above{option}")
