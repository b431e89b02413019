"""docs/report.md runs as it is printed, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from reporting.planted import Page

pytestmark = pytest.mark.docs

DOC = Path(__file__).parents[2] / "docs" / "report.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"^```python\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert code is not None
    space: dict[str, Any] = {"__name__": "doc"}
    exec(compile(code[1], "report.md", "exec"), space)
    made = space["made"]
    assert made.path == Path("report.html")
    assert len(made.verdict) == 3
    ids = {attributes.get("id") for _, attributes in Page(made.path).tags}
    assert {"sweep-0", "features-0", "inspection-0"} <= ids
    # Images in memory are not of a named source: no pictures, and the page says so.
    assert len(made.notes) <= 1
