"""`shiftlens doctor` names what is installed, what is not, and what is too old."""

from __future__ import annotations

import json

import pytest

from shiftlens import installation
from shiftlens.cli import main


def test_what_is_installed_is_printed_with_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split(" ")[0] for line in lines[:5]] == [
        "shiftlens", "packages", "device", "number", "caches",
    ]  # fmt: skip
    assert "problem" not in lines[-1]


def test_a_missing_and_an_old_package_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = installation._installed
    pretended = {"timm": None, "scipy": "0.1"}
    monkeypatch.setattr(installation, "_installed", lambda name: pretended.get(name, installed(name)))
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["extras"]["models"] == {"timm": None}
    assert [each.split(" ")[:2] for each in found["problems"]] == [["scipy", "0.1"]]
    assert main(["doctor"]) == 0
    assert "extra models: not installed: timm (pip install 'shiftlens[models]')" in capsys.readouterr().out
