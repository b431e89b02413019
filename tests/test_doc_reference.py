"""The reference pages name every command, every option and every JSON key that there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import shiftlens as sl
from shiftlens.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "reference"
DEPRECATED = {("sweep", "--verify")}
GOLDEN: dict[str, Any] = json.loads((ROOT / "tests" / "golden" / "golden.json").read_text(encoding="utf-8"))
CHOSEN_BY_THE_DATA = {"per_class"}


def commands() -> dict[str, set[str]]:
    group = typer.main.get_command(app)
    context = group.make_context("shiftlens", ["--help"], resilient_parsing=True)
    found = {}
    for name in group.list_commands(context):
        params = group.get_command(context, name).params
        words = {word for each in params for word in (*each.opts, *each.secondary_opts) if word.startswith("-")}
        found[name] = {word for word in words if (name, word) not in DEPRECATED}
    return found


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in CHOSEN_BY_THE_DATA:
                yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def named(text: str) -> set[str]:
    return {word for code in re.findall(r"`([^`]+)`", text) for word in re.findall(r"[\w-]+", code)}


def section(text: str, heading: str) -> str:
    found = re.search(rf"^## (?:[\w, ]*\b)?{heading}\b.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[0]


@pytest.mark.parametrize("name", commands())
def test_a_command_has_its_line_and_its_options_are_named(name: str) -> None:
    text = (PAGES / "commands.md").read_text(encoding="utf-8")
    [line] = re.findall(rf"^\| `{name}` \|.*", text, re.MULTILINE)
    shared = text[: text.index("## Measure")]
    listed = named(line) | named(shared)
    assert commands()[name] - listed == set()
    for word in (word for word in commands()[name] if word not in named(line)):
        [row] = [row for row in shared.splitlines() if row.startswith("|") and word in named(row.split("|")[1])]
        users = row.split("|")[3]
        by_reference = re.search(r"\ball\b|the same", users)
        assert by_reference or name in named(users), (name, word)


@pytest.mark.parametrize("command", [name for name in GOLDEN if name != "page"])
def test_every_json_key_is_named_in_its_section(command: str) -> None:
    text = (PAGES / "json.md").read_text(encoding="utf-8")
    part = section(text, command.split()[0])
    if command == "compare":
        part += section(text, "findings")
    known = named(part) | named(text[: text.index("## evaluate")])
    given = set(keys(GOLDEN[command])) - known
    missing = {key for key in given if key.removesuffix("_interval") not in known}
    assert missing == set()


def test_every_public_name_has_its_text_and_is_in_the_index() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES.glob("*.md"))
    index = named((PAGES / "index.md").read_text(encoding="utf-8"))
    names = [name for name in sl.__all__ if name != "nn"]
    assert [name for name in names if name not in index] == []
    described = set(re.findall(r"^::: shiftlens\.([\w.]+)$", text, re.MULTILINE))
    assert {*names, *(f"nn.{name}" for name in sl.nn.__all__)} - described == set()
