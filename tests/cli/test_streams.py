"""Standard streams as shells really leave them: full, closed, of few characters; and terminals of odd widths."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shiftlens.cli import main

FULL = Path("/dev/full")
LINE = "shiftlens: cannot write the result: No space left on device\n"

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no full device")


def shell(line: str) -> tuple[int, str]:
    """Run a line of the shell in which $S is the command line; its exit code, and what reached standard error."""
    environment = {**os.environ, "S": f"{sys.executable} -m shiftlens"}
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(["bash", "-c", line], env=environment, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("$S --help > /dev/full", 2, LINE),
        ("$S --version > /dev/full", 2, LINE),
        ("$S nosuch 2> /dev/full", 2, ""),
        ("$S --help >&-", 0, ""),
        ("$S nosuch >&- 2>&-", 2, ""),
        ("set -o pipefail; $S --help | true", 0, ""),
        ("set -o pipefail; COLUMNS=0 $S sweep --help | head -1", 0, ""),
    ],
)
def test_streams_that_take_no_more(line: str, code: int, said: str) -> None:
    assert shell(line) == (code, said)


@pytest.mark.parametrize("options", [["--map"], ["--json"]])
def test_a_full_output_is_one_line(
    small_sweep: Path, options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["findings", str(small_sweep), "-q", *options]) == 2
    assert capsys.readouterr().err == LINE


def test_remarks_that_cannot_be_written_stop_nothing(
    small_sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FULL.open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["findings", str(small_sweep)]) == 0
    assert "accuracy" in capsys.readouterr().out


def test_characters_that_the_output_does_not_know_are_written_out(
    small_sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["findings", str(small_sweep), "-q", "--map", "--evidence"]) == 0
    assert "accuracy" in written.getvalue().decode("ascii")


@pytest.mark.parametrize("columns", ["0", "1", "-5", "wide", "²", "9" * 5000])
def test_odd_widths_count_as_none(
    small_sweep: Path, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["findings", str(small_sweep), "-q", "--map"]) == 0
    usual = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["findings", str(small_sweep), "-q", "--map"]) == 0
    assert capsys.readouterr().out == usual
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["findings", str(small_sweep), "-q", "--map"]) == 0
    assert capsys.readouterr().out != usual


def test_a_working_folder_that_is_gone_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["inspect", "--model", "nowhere.net:make", "--size", "16"]) == 2
    assert capsys.readouterr().err == (
        "shiftlens: the folder that this was started in is gone; change to one that is there\n"
    )
