"""docs/repair.md: its commands exist, its Python runs, its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from shiftlens.nn import PADDING_MODES
from shiftlens.nn.edits import DOWNSAMPLING_REPAIRS
from shiftlens.nn.vgg import DOWNSAMPLINGS

pytestmark = pytest.mark.docs

TEXT = (Path(__file__).parent.parent.parent / "docs" / "repair.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[str]:
    table = TEXT[TEXT.index(heading) :].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_the_tables_name_every_mode() -> None:
    assert set(rows("| `--padding` |")) == set(PADDING_MODES)
    assert tuple(rows("| `--downsample` |")) == DOWNSAMPLING_REPAIRS
    listed = TEXT[TEXT.index("runs/polyphase`") :].split(")")[0]
    assert set(re.findall(r"`([\w-]+)`", listed.partition("(")[2])) == set(DOWNSAMPLINGS)


def test_the_python_runs() -> None:
    space: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        exec(compile(block, "repair.md", "exec"), space)
    assert space["logits"].shape == (1, 10)
    assert str(space["edits"][0]) == "0.0: padding zeros -> reflect"
    assert "0.6: downsample stride 2 -> blur" in [str(edit) for edit in space["edits"]]
