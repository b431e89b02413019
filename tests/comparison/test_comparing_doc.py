"""The how-to runs as it is printed, and says what it claims."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.docs


DOC = Path(__file__).parents[2] / "docs" / "comparing.md"
QUOTE = re.compile(r"^> `(?P<id>[a-z0-9-]+)`: (?P<text>.+(?:\n> .+)*)", re.MULTILINE)


@pytest.fixture(scope="module")
def text() -> str:
    return DOC.read_text(encoding="utf-8")


def test_the_example_runs_and_says_what_is_quoted(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {"__name__": "comparing"}
    exec(compile(block, "comparing.md", "exec"), space)
    found = space["found"]
    quotes = {quote["id"]: " ".join(quote["text"].replace("\n> ", " ").split()) for quote in QUOTE.finditer(text)}
    assert len(quotes) == 3
    printed = capsys.readouterr().out
    for name, quoted in quotes.items():
        said = found.findings.named(name).statement
        # Another processor may turn a prediction or two: the words are the same, the numbers nearly.
        assert re.sub(r"-?[\d.]+", "#", said) == re.sub(r"-?[\d.]+", "#", quoted)
        numbers, expected = ([float(n.rstrip(".")) for n in re.findall(r"-?\d[\d.]*", t)] for t in (said, quoted))
        assert np.allclose(numbers, expected, atol=1.5)
        if not name.startswith("winner"):
            assert said in printed
    assert (tmp_path / "pictures" / "differences.png").stat().st_size > 5000
