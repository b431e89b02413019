"""Findings as text, for a terminal and as HTML, safe whatever a model, a class or a file is called."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from shiftlens.narrative.finding_parts import Action, Severity
from shiftlens.narrative.words import number_text, plain, with_interval
from shiftlens.stats import Estimate

if TYPE_CHECKING:
    from rich.text import Text

STYLES: dict[Severity, str] = {"warn": "bold red", "note": "yellow", "info": "dim"}


def as_text(severity: Severity, statement: str, evidence: str = "", action: Action | None = None) -> str:
    """Severity and statement in one line; evidence and action below, each in an indented line of its own."""
    lines = (f"{severity}: {statement}", evidence, f"-> {action}" if action else "")
    return "\n  ".join(plain(line) for line in lines if line)


def as_rich(severity: Severity, statement: str, action: Action | None = None, evidence: str = "") -> Text:
    """Severity in colour and statement; action and evidence below."""
    from rich.text import Text

    line = Text.assemble((f"{severity}  ", STYLES[severity]), plain(statement))
    if action:
        line.append(f"\n      -> {plain(str(action))}")
    if evidence:
        line.append(f"\n      {plain(evidence)}", "dim")
    return line


def as_html(severity: Severity, statement: str, action: Action | None = None, evidence: str = "") -> str:
    """Severity and statement, action, evidence: each a paragraph with a class of its name."""
    html = f'<p><strong class="severity">{severity}</strong> {_safe(statement)}</p>'
    if action:
        html += f'\n<p class="remedy">What to do: {action_html(action)}</p>'
    if evidence:
        html += f'\n<p class="evidence">{_safe(evidence)}</p>'
    return html


def action_html(action: Action | str) -> str:
    """A sentence, or a text with its command, which is marked as code."""
    if isinstance(action, str) or not action.command:
        return _safe(str(action))
    return f"{_safe(action.text)}: <code>{_safe(action.line)}</code>"


def value_text(made: Estimate | None) -> str:
    """Value, unit and interval in one short text; empty without a value."""
    if made is None:
        return ""
    return with_interval(made.value, made.lo, made.hi, made.unit) if made.n else number_text(made.value, made.unit)


def _safe(text: str) -> str:
    return escape(plain(text))
