"""docs/adaptive.md: its commands exist, its example runs, and its numbers are those of the benchmark."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shiftlens as sl

pytestmark = pytest.mark.docs

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def text() -> str:
    return (DOCS / "adaptive.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "benchmarks" / "adaptive.json").read_text(encoding="utf-8"))
    return found


def test_the_example_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert code is not None
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    pictures = np.random.default_rng(0).integers(0, 256, (250, 3, 2, 2), dtype=np.uint8)
    images = sl.ImageSet(pictures, np.arange(250) % 2)
    space: dict[str, Any] = {"sl": sl, "model": sl.wrap(net, mean=0.5, std=0.5, size=2), "images": images}
    exec(compile(code[1], "adaptive.md", "exec"), space)
    assert space["sweep"].half_width <= 5
    assert space["sweep"].n_population == 250


def test_the_table_is_the_benchmark_s(text: str, measured: dict[str, Any]) -> None:
    both = {each["n_population"]: each["needed"] for each in measured["widths"]}
    rows = re.findall(r"^\| ±(\d) \| ([\d,]+) \| .*? \| ([\d,]+) \|", text, re.MULTILINE)
    assert [row[0] for row in rows] == ["6", "5", "4", "3", "2", "1"]
    for width, large, small in rows:
        assert int(large.replace(",", "")) == both[10_000][width]["images"]
        assert int(small.replace(",", "")) == both[2000][width]["images"]
    assert [width for width, _, _ in rows if both[10_000][width]["measured"]] == ["6", "5"]


def test_the_goals_of_the_benchmark_are_reached(measured: dict[str, Any]) -> None:
    needed = next(each["needed"] for each in measured["widths"] if each["n_population"] == 10_000)
    assert needed["6"]["images"] <= 2500
    assert needed["5"]["images"] <= 2000
    assert all(each["coverage"] >= 0.94 for each in measured["coverage"])
    assert max(each["draws"] for each in measured["coverage"]) >= 1000
