"""The tutorials on detectors and segmenters run as they are printed, and find what they quote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from printed_docs import DOCS, QUOTE, SHOWN, blocks, units

pytestmark = pytest.mark.docs

PAGES = {
    "detection": {"recall-at-rest": 0.9, "object-swing": 10.0},
    "segmentation": {"mean_iou-at-rest": 0.9, "pixel_agreement-worst": 0.95},
}
"""Of each tutorial, findings with the least that any machine must find."""


@pytest.mark.parametrize("name", PAGES)
def test_a_tutorial_runs_and_finds_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "python") for line in block.splitlines() if line.strip()]
    assert 15 <= len(lines) <= 24
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks(text, "python"):
        exec(compile(block, f"{name}.md", "exec"), space)
    printed, found = capsys.readouterr().out, space["found"]
    for picture in re.findall(r"`([a-z_-]+\.png)`", text):
        assert (tmp_path / "pictures" / picture).is_file(), picture
    for picture in re.findall(r"`([a-z_-]+/[a-z_-]+\.png)`", text):
        assert (tmp_path / picture).is_file(), picture
    quotes = {quote["id"]: " ".join(quote["text"].replace("\n> ", " ").split()) for quote in QUOTE.finditer(text)}
    assert len(quotes) >= 3
    for which, quoted in quotes.items():
        said = found.named(which)
        assert said is not None, which
        assert said.statement in printed
        # Another machine rounds otherwise: the numbers may differ, their kinds and the words around may not.
        assert said.statement.split(" is ")[0].split(" by ")[0] == quoted.split(" is ")[0].split(" by ")[0]
        if said.unit in SHOWN and units(quoted):
            assert SHOWN[said.unit].strip() in {unit.strip() for unit in units(quoted)}
    for which, least in PAGES[name].items():
        assert found.named(which).value >= least
    assert space["outcome"].names == ("zeros", "reflect")
    assert "Which is better: " in printed
    assert "Objects, places and phases" in (tmp_path / "report.html").read_text(encoding="utf-8")
