"""`explore`: one address on one line, and one line where it cannot serve."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from shiftlens.cli import main
from shiftlens.explorer import serving

COMMAND = (sys.executable, "-m", "shiftlens", "explore", "--limit", "5")


def test_without_the_server_s_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    assert main(["explore"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip().endswith("pip install 'shiftlens[explore]'")
    assert len(said.err.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="needs uvicorn")
def test_the_printed_address_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    narrow = os.environ | {"COLUMNS": "30"}
    for words in ((), ("--json",)):
        with (tmp_path / "out").open("w+") as out:
            running = subprocess.Popen([*COMMAND, *words], stdout=out, stderr=subprocess.DEVNULL, env=narrow)
            try:
                for _ in range(600):
                    if (tmp_path / "out").read_text().endswith("\n"):
                        break
                    time.sleep(0.1)
                (line,) = (tmp_path / "out").read_text().splitlines()
                address = json.loads(line)["address"] if words else line
                time.sleep(1)
                with urllib.request.urlopen(address, timeout=30) as answer:
                    assert answer.status == 200
            finally:
                running.send_signal(signal.SIGINT)
                assert running.wait(30) == 0
