"""`check` on the command line: exit codes, files, annotations, and an adaptive check."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from shiftlens.cli import main


def test_the_exit_code_is_0_passed_1_failed_2_bad_use(small_sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(small_sweep)
    assert main(["check", path, "--max-drop", "30@2"]) == 1  # seven images prove nothing
    assert "FAIL accuracy: drop within 2 px" in capsys.readouterr().out
    assert main(["check", path, "--max-drop", "30@2", "--lenient"]) == 0
    assert capsys.readouterr().out.startswith("passed: 1 condition (lenient, at 5 % together, 7 images)")
    assert main(["check", path, "--max-drop", "100@9"]) == 2
    assert "reaches 2 px" in capsys.readouterr().err
    assert main(["check", path]) == 2
    assert main(["check", "--min-near", "0.5"]) == 2
    assert main(["check", path, "--model", "net.py:make", "--min-near", "0.5"]) == 2
    assert main(["check", path, "--adaptive", "--min-near", "0.5"]) == 2
    assert main(["check", path, "--min-near", "0.5", "--allow", "near"]) == 2
    assert main(["check", path, "--baseline", path, "--allow", "nar=1"]) == 2
    assert "did you mean 'near'" in capsys.readouterr().err


def test_a_crash_is_not_a_failed_gate(small_sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shiftlens.gate.gating.check", lambda *_, **__: 1 / 0)
    assert main(["check", str(small_sweep), "--min-near", "0.5"]) == 3


def test_it_writes_junit_and_a_summary_and_prints_annotations(
    small_sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    junit, summary = tmp_path / "check.xml", tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    arguments = ["check", str(small_sweep), "--min-near", "0.9", "--junit", str(junit), "--summary", str(summary)]
    assert main([*arguments, "--json"]) == 1
    written = capsys.readouterr()
    assert json.loads(written.out)["passed"] is False
    assert "::error title=" in written.err
    assert ET.parse(junit).getroot().find(".//failure") is not None
    assert summary.read_text().startswith("before\n### shiftlens check: **failed**")
    assert main([*arguments, "--no-annotations"]) == 1
    assert "::error" not in capsys.readouterr().out
    assert main(["check", str(small_sweep), "--min-near", "0.9", "--junit", str(tmp_path / "no" / "x.xml")]) == 2


NET = """
import torch
from torch import nn

class Position(nn.Module):
    def forward(self, x):
        scores = torch.zeros(len(x), 10)
        truth = (x[:, 0, 16, 16] > 0).long()
        scores[torch.arange(len(x)), truth] = 4.0
        return scores + x.mean((1, 2, 3))[:, None] * 0

def make():
    return Position()
"""


def test_an_adaptive_check_stops_as_soon_as_it_is_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(NET)
    model = [
        "--model",
        f"{tmp_path / 'net.py'}:make",
        "--mean",
        "0",
        "--std",
        "1",
        "--data",
        "digits",
        "--input-size",
        "32",
    ]
    call = ["check", "--adaptive", *model, "--max-shift", "2", "--batch-size", "64", "--json"]
    assert main([*call, "--min-unshifted", "0.9"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["n_images"] == 100
    assert found["conditions"][0]["proven"] == "breached"
    assert found["alpha"] == pytest.approx(0.05 / 6)
    assert found["notes"] == ["decided after 100 of 1,797 images under 25 shifts, look 1 of 6"]
    kept = tmp_path / "kept"
    limit = 0.02 + found["conditions"][0]["value"]
    assert main([*call, "--min-unshifted", str(limit), "--limit", "300", "--out", str(kept)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["notes"] == ["undecided after 300 of 300 images under 25 shifts, all images are measured: 1 condition"]
    assert sorted(each.name for each in kept.iterdir() if each.suffix == ".zarr") == [
        "look-100.zarr",
        "look-200.zarr",
        "look-300.zarr",
    ]
    assert main([*call, "--min-unshifted", str(limit), "--limit", "300", "--lenient"]) == 0
