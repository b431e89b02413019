"""docs/how-to/tiles.md runs as it is printed, and gives what it says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from printed_docs import DOCS, blocks
from shiftlens.cli.app import main

pytestmark = pytest.mark.docs

TEXT = (DOCS / "how-to" / "tiles.md").read_text(encoding="utf-8")


def test_every_line_of_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "doc"}
    for block in blocks(TEXT, "python"):
        exec(compile(block, "tiles.md", "exec"), space)
    said = capsys.readouterr().out
    assert said.rstrip().endswith("2 None\nTrue")
    shares = {cause.cause: cause.share for cause in space["report"].causes}  # type: ignore[attr-defined]
    assert max(shares, key=shares.__getitem__) == "norm"


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [commands] = blocks(TEXT, "")
    for line in commands.splitlines():
        assert main(shlex.split(line)[1:]) == 0
    assert Path("report.html").stat().st_size > 10_000
