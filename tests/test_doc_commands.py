"""Every command that the README and the docs print is one: its name, its options and their values are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from shiftlens.cli.app import app

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?:\.venv/bin/)?shiftlens (.*?)(?: > .*)?$", re.MULTILINE)


def printed(path: Path) -> list[str]:
    """The commands on a page, without the program's name."""
    return [line for block in BLOCK.findall(path.read_text(encoding="utf-8")) for line in LINE.findall(block)]


FILES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES = {str(path.relative_to(ROOT)): printed(path) for path in FILES}


def test_the_readme_and_the_tutorials_print_commands() -> None:
    assert all(PAGES[page] for page in ("README.md", "docs/tutorial-translation.md", "docs/tutorial-features.md"))


@pytest.mark.parametrize("page", [page for page, lines in PAGES.items() if lines])
def test_the_commands_of_a_page_exist(page: str) -> None:
    group = typer.main.get_command(app)
    for line in PAGES[page]:
        words = shlex.split(line, comments=True)
        context = group.make_context("shiftlens", list(words))
        name, command, rest = group.resolve_command(context, list(words))
        command.make_context(name, rest, parent=context)
