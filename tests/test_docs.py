"""The tutorial runs as it is printed, and what it quotes is what the findings say, up to the numbers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from shiftlens.cli.app import app

DOCS = Path(__file__).parent.parent / "docs"
QUOTE = re.compile(r"^> `(?P<id>[a-z0-9-]+)`: (?P<text>.+(?:\n> .+)*)", re.MULTILINE)


SHOWN = {"px^2": "px²", "points": "points", "nats": "nats", "share": "%", "px": " px"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def units(text: str) -> set[str]:
    return {unit for unit in SHOWN.values() if re.search(rf"\d ?{unit.strip()}", text)}


@pytest.fixture(scope="module")
def tutorial() -> str:
    return (DOCS / "tutorial-translation.md").read_text(encoding="utf-8")


def test_the_tutorial_has_the_length_it_claims(tutorial: str) -> None:
    lines = [line for block in blocks(tutorial, "python") for line in block.splitlines() if line.strip()]
    assert 12 <= len(lines) <= 18


def test_the_tutorial_runs_and_its_numbers_are_of_the_right_kind(
    tutorial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks(tutorial, "python"):
        exec(compile(block, "tutorial-translation.md", "exec"), space)
    printed = capsys.readouterr().out
    found, sweep = space["found"], space["sweep"]
    assert sweep.complete
    assert sweep.controls == ("occlusion", "flip")
    assert sweep.grid.n_shifts == 289
    assert all(path.stat().st_size > 5000 for path in space["pictures"].files)
    for name in re.findall(r"`([a-z-]+\.png)`", tutorial):
        assert (tmp_path / "pictures" / name).is_file(), name
    quotes = {quote["id"]: " ".join(quote["text"].replace("\n> ", " ").split()) for quote in QUOTE.finditer(tutorial)}
    assert len(quotes) >= 10
    for name, text in quotes.items():
        said = found.named(name)
        assert said is not None, name
        # The verdict, and with it the wording, may differ on another machine; the kind of number may not.
        if said.unit is not None and units(text):
            assert SHOWN[said.unit] in units(text), (said.statement, text)
        if said.interval is not None:
            assert said.interval[0] <= said.value <= said.interval[1]
    # What every machine must find: a digit moved by 4 px is still a digit, and one moved by 16 px is mostly gone.
    assert found.named("accuracy-at-rest").value > 0.9
    assert float(sweep.accuracy.sel(dx=4, dy=0)) > 0.85
    assert float(sweep.accuracy.sel(dx=16, dy=16)) < 0.5
    assert 100 < found.named("retained-95").value < 1000
    assert found.named("retained-95").statement in printed


def test_the_commands_of_the_tutorial_exist(tutorial: str) -> None:
    lines = re.findall(r"^shiftlens .*$", tutorial, re.MULTILINE)
    assert len(lines) >= 2
    group = typer.main.get_command(app)
    for line in lines:
        words = shlex.split(line)[1:]
        context = group.make_context("shiftlens", list(words))
        name, command, rest = group.resolve_command(context, list(words))
        command.make_context(name, rest, parent=context)
