"""The command line as a user meets it: results on stdout, one line for each failure, exit codes by the contract."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shiftlens.cli import main

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).eval()

def raises():
    raise RuntimeError("no licence")

def nan():
    class Bad(nn.Module):
        def forward(self, x):
            scores = x.flatten(1)[:, :10].clone()
            scores[x.amax((1, 2, 3)) > 0.99] = float("nan")
            return scores
    return Bad()

def five():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that must end with exit code 2."""
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("shiftlens: ")
    return lines[0]


def test_evaluate_json_keeps_its_contract(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        ["evaluate", "--model", f"{net}:make", "--data", "digits", "--limit", "40", "--shift", "3", "-2", "--json"]
    )
    captured = capsys.readouterr()
    assert code == 0
    values = json.loads(captured.out)
    assert set(values) >= {
        "accuracy",
        "accuracy_interval",
        "loss",
        "loss_interval",
        "n",
        "per_class",
        "shift",
        "fill",
    }
    assert values["n"] == 40
    assert values["shift"] == [3, -2]
    assert len(values["per_class"]) == 10
    low, high = values["accuracy_interval"]
    assert low <= values["accuracy"] <= high
    assert "declares no preprocessing" in captured.err


def test_sweep_then_resume(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s.zarr"
    command = ["sweep", "--model", f"{net}:make", "--limit", "20", "--max-shift", "4x6", "--step", "2", "--mean", "0"]
    command += ["--std", "1", "--control", "occlusion,flip", "--out", str(out), "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["n_images"] == 20
    assert first["n_shifts"] == 5 * 7
    assert first["images_resumed"] == 0
    assert first["peak_memory_bytes"] > 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["images_resumed"] == 20
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_evaluate_agrees_with_the_sweep(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shiftlens as sl

    common = ["--model", f"{net}:make", "--limit", "30", "--mean", "0.5", "--std", "0.5"]
    assert main(["sweep", *common, "--max-shift", "3", "--out", str(tmp_path / "s.zarr"), "--quiet"]) == 0
    sweep = sl.open_sweep(tmp_path / "s.zarr")
    capsys.readouterr()
    for dx, dy in ((0, 0), (3, -1), (-2, 3)):
        assert main(["evaluate", *common, "--shift", str(dx), str(dy), "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        assert values["accuracy"] == pytest.approx(float(sweep.accuracy.sel(dx=dx, dy=dy)), abs=1e-9)
        assert values["loss"] == pytest.approx(float(sweep.mean_loss.sel(dx=dx, dy=dy)), abs=1e-5)


def test_a_gpu_checkpoint_with_prefixes(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(5)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    weights = tmp_path / "w.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}, "epoch": 3}, weights)
    arguments = ["--model", f"{net}:make", "--limit", "20", "--mean", "0", "--std", "1", "--json"]
    assert main(["evaluate", *arguments, "--weights", str(weights)]) == 0
    with_weights = json.loads(capsys.readouterr().out)["loss"]
    assert main(["evaluate", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] != with_weights


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("pickle-was-run"),)  # type: ignore[return-value]


def test_bad_input_is_one_line(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = tmp_path / "evil.pt"
    evil.write_bytes(pickle.dumps({"state_dict": Payload()}))
    other = tmp_path / "other.pt"
    torch.save({"features.weight": torch.zeros(2)}, other)
    nan = tmp_path / "nan.pt"
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)).state_dict()
    torch.save(state | {"0.bias": torch.full((4,), float("nan"))}, nan)
    model = f"{net}:make"
    cases = [
        (["--model", "runs/none"], "runs/none"),
        (["--model", f"{net}:mak"], "make"),
        (["--model", f"{net}:raises"], "no licence"),
        (["--model", "torchvision:resnet81"], "resnet"),
        (["--model", model, "--weights", str(tmp_path / "none.pt")], "none.pt"),
        (["--model", model, "--weights", str(evil)], "evil.pt"),
        (["--model", model, "--weights", str(other)], "features.weight"),
        (["--model", model, "--weights", str(nan)], "0.bias"),
        (["--model", model, "--data", "digit"], "digits"),
        (["--model", model, "--data", f"folder:{tmp_path / 'nowhere'}"], "nowhere"),
        (["--model", model, "--limit", "0"], "--limit"),
        (["--model", model, "--limit", "-3"], "--limit"),
        (["--model", model, "--fill", "blak"], "blak"),
        (["--model", model, "--mean", "a,b"], "--mean"),
        (["--model", model, "--input-size", "32by32"], "--input-size"),
        (["--model", model, "--device", "tpu"], "tpu"),
        (["--model", model, "--max-shift", "0"], "max-shift"),
        (["--model", model, "--max-shift", "4", "--step", "5"], "step"),
        (["--model", model, "--max-shift", "4", "--step", "0"], "step"),
        (["--model", model, "--engine", "magic"], "magic"),
        (["--model", model, "--dtype", "int4"], "int4"),
        (["--model", model, "--control", "occlude"], "occlu"),
        (["--model", model, "--fill", "wrap", "--control", "occlusion"], "blank"),
        (["--model", model, "--input-size", "16"], "16"),
        (["--model", f"{net}:five", "--mean", "0", "--std", "1"], "5"),
        (["--model", model, "--no-such-option"], "no-such-option"),
    ]
    for extra, expected in cases:
        line = failing(capsys, "sweep", "--out", "s.zarr", *extra)
        assert expected in line, (extra, line)
        assert not Path("s.zarr").exists(), extra
    assert not Path("pickle-was-run").exists()


def test_scores_that_are_not_finite_name_the_images(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failing(
        capsys, "sweep", "--model", f"{net}:nan", "--mean", "0", "--std", "1", "--max-shift", "2", "--limit", "30",
        "--out", str(tmp_path / "s.zarr"), "--quiet",
    )  # fmt: skip
    assert "not finite" in line
    assert any(character.isdigit() for character in line)


def test_an_output_path_that_holds_something_else(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "sweep",
        "--model",
        f"{net}:make",
        "--limit",
        "10",
        "--max-shift",
        "2",
        "--mean",
        "0",
        "--std",
        "1",
        "-q",
    ]
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    assert "notes.txt" in failing(capsys, *command, "--out", str(taken))
    assert taken.read_text() == "mine"
    out = tmp_path / "s.zarr"
    assert main([*command, "--out", str(out)]) == 0
    capsys.readouterr()
    accuracy = np.asarray(__import__("shiftlens").open_sweep(out).accuracy)
    for extra, word in (
        (["--limit", "12"], "data"),
        (["--max-shift", "3"], "max-shift"),
        (["--mean", "0.1"], "preprocessing"),
        (["--fill", "mean"], "fill"),
        (["--dtype", "bfloat16"], "dtype"),
    ):
        assert word in failing(capsys, *command, *extra, "--out", str(out)), extra
    np.testing.assert_array_equal(np.asarray(__import__("shiftlens").open_sweep(out).accuracy), accuracy)


def test_interrupt_and_crash_have_their_exit_codes(
    net: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shiftlens import evaluation

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    command = ["evaluate", "--model", f"{net}:make", "--limit", "10", "-q", "--mean", "0", "--std", "1"]
    monkeypatch.setattr(evaluation, "evaluate", interrupted)
    assert main(command) == 130
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setattr(evaluation, "evaluate", broken)
    assert main(command) == 3
    assert "defect" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "train", "evaluate", "sweep"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: shiftlens {command}" in " ".join(text.split())
    for option in ("--device", "--seed", "--quiet", "--json"):
        assert option in text


def test_progress_on_a_pipe_is_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from shiftlens.cli import console

    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    shell = console.Shell()
    with shell.progress("sweeping", "evaluations") as report:
        report(0, 10)
        report(5, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("sweeping: 5 of 10 evaluations (")
