"""The second tutorial runs as it is printed, and its findings are of the kind that it quotes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from printed_docs import DOCS, QUOTE, SHOWN, blocks, units

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def tutorial() -> str:
    return (DOCS / "tutorial-features.md").read_text(encoding="utf-8")


def test_it_has_the_length_it_claims(tutorial: str) -> None:
    lines = [line for block in blocks(tutorial, "python") for line in block.splitlines() if line.strip()]
    assert 15 <= len(lines) <= 24


def test_it_runs_and_finds_what_it_says(
    tutorial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks(tutorial, "python"):
        exec(compile(block, "tutorial-features.md", "exec"), space)
    printed = capsys.readouterr().out
    for name in re.findall(r"`([a-z-]+\.png)`", tutorial):
        assert (tmp_path / "pictures" / name).is_file(), name
    assert (tmp_path / "features.zarr").is_dir()
    found, layers, maps = space["found"], space["layers"], space["maps"]
    said = {each.id: each for each in [*found, *space["sl"].findings(layers)]}
    quotes = {quote["id"]: " ".join(quote["text"].replace("\n> ", " ").split()) for quote in QUOTE.finditer(tutorial)}
    assert len(quotes) >= 5
    for name, text in quotes.items():
        assert name in said, name
        if said[name].unit in SHOWN and units(text):
            assert SHOWN[said[name].unit].strip() in {unit.strip() for unit in units(text)}
    # What every machine must find: arithmetic and path counts know no weights; the frame begins at the second layer.
    assert said["uneven-padding"].statement == quotes["uneven-padding"]
    assert said["artefact-start"].statement == quotes["artefact-start"]
    assert maps["0.0"].scores.reach_cells == 0
    assert [layer.name for layer in layers.uneven] == ["0.6", "1.6", "2.6"]
    for line in ("32 zeros: left/right 2.26", "33 zeros: left/right 1.00, left/all 0.30", "left/all 1.60"):
        assert line in printed
    assert "2.26 times" in " ".join(tutorial.split())
    assert said["average-energy"].value > 0.01


def test_links_lead_somewhere(tutorial: str) -> None:
    for text in (tutorial, (DOCS / "features.md").read_text(encoding="utf-8")):
        for target in re.findall(r"\]\(([a-z-]+\.md)\)", text):
            assert (DOCS / target).is_file(), target
