"""docs/how-to/other-tasks.md runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOC = Path(__file__).parents[2] / "docs" / "how-to" / "other-tasks.md"


@pytest.mark.docs
def test_every_line_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "doc"}
    for block in re.findall(r"^```python\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, DOC.name, "exec"), space)
    said = capsys.readouterr().out
    assert "['mean_iou', 'pixel_accuracy', 'pixel_agreement', 'interior_agreement']" in said
    assert "1.0 (4, 7, 7)" in said
    assert "counting ['off', 'same']" in said
