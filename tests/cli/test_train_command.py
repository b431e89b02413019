"""`shiftlens train` end to end on a handful of digits: the run directory is a model like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shiftlens.cli import main

SMALL = ["--data", "digits", "--limit", "60", "--arch", "vgg6", "--size", "16", "--epochs", "1", "--quiet"]


def test_train_evaluate_and_refuse_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", *SMALL, "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) >= {"epochs", "accuracy", "accuracy_interval", "out"}
    assert [set(epoch) >= {"epoch", "train_loss", "accuracy", "seconds"} for epoch in result["epochs"]] == [True]
    assert (out / "model.json").is_file()
    assert (out / "learning-curve.png").stat().st_size > 1000

    assert main(["evaluate", "--model", str(out), "--data", "digits", "--json", "--quiet"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["accuracy"] == pytest.approx(result["accuracy"], abs=1e-9)

    # Of a source without splits, a model is shown what it did not learn from, unless the user says otherwise.
    note = f"{out} was trained on a part of digits: 359 of 1,797 images, those that were held out then are used"
    for extra, count, noted in (([], "359 of 1,797 images", True), (["--split", "all"], "1,797 images", False)):
        assert main(["evaluate", "--model", str(out), "--data", "digits", *extra]) == 0
        told = capsys.readouterr()
        assert f"({count}, shift" in told.out
        assert (note in told.err) == noted
    assert main(["evaluate", "--model", str(out), "--data", "digits", "--limit", "50", "--json"]) == 0
    few = json.loads(capsys.readouterr().out)
    assert (
        main(["evaluate", "--model", str(out), "--data", "digits", "--limit", "50", "--split", "test", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == few

    before = (out / "model.safetensors").read_bytes()
    assert main(["train", *SMALL, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == result["accuracy"]
    assert main(["train", *SMALL, "--out", str(out), "--padding", "reflect"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "padding" in error
    assert (out / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--arch", "vgg9"], "vgg8"),
        (["--padding", "mirror"], "mirror"),
        (["--downsample", "maxx"], "max"),
        (["--epochs", "0"], "epochs"),
        (["--minutes", "-1"], "minutes"),
        (["--minutes", "0.0001"], "too short"),
        (["--size", "big"], "--size"),
    ],
)
def test_bad_requests_are_one_line(
    extra: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [a for a in SMALL if a not in ("--epochs", "1")] if "--minutes" in extra else SMALL
    assert main(["train", *base, "--out", str(tmp_path / "run"), *extra]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert expected in captured.err
    assert not (tmp_path / "run" / "model.json").exists()
