"""The tutorial runs as it is printed, and what it quotes is what the findings say, up to the numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from printed_docs import DOCS, QUOTE, SHOWN, blocks, units

pytestmark = pytest.mark.docs


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
