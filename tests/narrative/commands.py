"""Commands of findings, parsed by the real command line without running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from shiftlens.cli.app import app


def parse(command: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Name and options; raises on what the command line does not take."""
    assert command[0] == "shiftlens"
    words, group = list(command[1:]), typer.main.get_command(app)
    context = group.make_context("shiftlens", list(words), resilient_parsing=False)
    name, chosen, rest = group.resolve_command(context, words)
    return name, chosen.make_context(name, rest, parent=context).params
