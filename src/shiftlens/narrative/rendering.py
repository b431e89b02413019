"""Findings as text, for a terminal and as HTML, safe whatever a model, a class or a file is called."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from shiftlens.narrative.words import number_text, plain, with_interval

if TYPE_CHECKING:
    from rich.text import Text

    from shiftlens.narrative.finding import Action, Finding, Severity

STYLES: dict[Severity, str] = {"warn": "bold red", "note": "yellow", "info": "dim"}


def as_text(finding: Finding, *, full: bool = False) -> str:
    """Severity and statement in one line; `full` adds evidence and action, each in an indented line of its own."""
    lines = [f"{finding.severity}: {finding.statement}"]
    if full:
        lines += [finding.evidence, f"-> {finding.action}" if finding.action else ""]
    return "\n  ".join(plain(line) for line in lines if line)


def as_rich(finding: Finding, *, action: bool, evidence: bool) -> Text:
    """Severity in colour and statement, with action and evidence below where they are wanted."""
    from rich.text import Text

    line = Text.assemble((f"{finding.severity}  ", STYLES[finding.severity]), plain(finding.statement))
    if action and finding.action:
        line.append(f"\n      -> {plain(str(finding.action))}")
    if evidence and finding.evidence:
        line.append(f"\n      {plain(finding.evidence)}", "dim")
    return line


def as_html(finding: Finding, *, evidence: bool = True) -> str:
    """Severity, statement, action and evidence, each a paragraph with a class of its name."""
    paragraphs = [f'<p><strong class="severity">{finding.severity}</strong> {_safe(finding.statement)}</p>']
    if finding.action:
        paragraphs.append(f'<p class="remedy">What to do: {action_html(finding.action)}</p>')
    if evidence and finding.evidence:
        paragraphs.append(f'<p class="evidence">{_safe(finding.evidence)}</p>')
    return "\n".join(paragraphs)


def action_html(action: Action | str) -> str:
    """A sentence, or a text with its command, which is marked as code."""
    if isinstance(action, str) or not action.command:
        return _safe(str(action))
    return f"{_safe(action.text)}: <code>{_safe(action.line)}</code>"


def value_text(finding: Finding) -> str:
    """Value, unit and interval of a finding in one short text; empty without a value."""
    made = finding.estimate
    if made is None:
        return ""
    return with_interval(made.value, made.lo, made.hi, made.unit) if made.n else number_text(made.value, made.unit)


def _safe(text: str) -> str:
    return escape(plain(text))
