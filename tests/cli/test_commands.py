"""The command line as a user meets it: results on stdout, one line for each failure, exit codes."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.cli.app import app

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

def talks():
    print("building")
    net = make()
    net.register_forward_hook(lambda *_: print("forward"))
    return net

def offset():
    net = make()
    net[3].bias.data += 300
    return net

def uncopyable():
    import threading
    net = make()
    net.lock = threading.Lock()
    return net

def empty_is_nan():
    class Normalising(nn.Module):
        def forward(self, x):
            return (x / x.std((1, 2, 3), keepdim=True)).flatten(1)[:, 500:510]
    return Normalising()

def infinite():
    class Far(nn.Module):
        def forward(self, x):
            return torch.tensor([[3e38] + [-3e38] * 9]).expand(len(x), -1)
    return Far()

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


@pytest.mark.parametrize("command", ["evaluate", "consistency", "sweep"])
def test_the_result_line_names_model_and_data(
    command: str, net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --data it is the embedded digits: nobody should take that for their own images."""
    arguments = [command, "--model", f"{net}:make", "--limit", "20"]
    if command == "sweep":
        arguments += ["--max-shift", "1", "--out", str(tmp_path / "s.zarr")]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{net}:make on digits: ")


def test_no_interval_of_a_loss_goes_below_zero() -> None:
    def sure(x: torch.Tensor) -> torch.Tensor:
        """Right without doubt but for one image."""
        scores = torch.zeros(len(x), 2)
        scores[:, 0] = 30
        scores[x.amax((1, 2, 3)) > 0.99, 0] = 0
        return scores

    pixels = np.zeros((12, 4, 4, 3), np.uint8)
    pixels[0] = 255
    images = sl.ImageSet(pixels, np.zeros(12, np.int64), class_names=("a", "b"))
    made = sl.evaluate(sl.wrap(sure, mean=(0, 0, 0), std=(1, 1, 1)), images)
    assert made.loss_interval is not None
    assert made.loss_interval[0] == 0 < made.loss < made.loss_interval[1]


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
    common = ["--model", f"{net}:make", "--limit", "30", "--mean", "0.5", "--std", "0.5"]
    assert main(["sweep", *common, "--max-shift", "3", "--out", str(tmp_path / "s.zarr"), "--quiet"]) == 0
    sweep = sl.open_sweep(tmp_path / "s.zarr")
    capsys.readouterr()
    for dx, dy in ((0, 0), (3, -1), (-2, 3)):
        assert main(["evaluate", *common, "--shift", str(dx), str(dy), "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        assert values["accuracy"] == pytest.approx(float(sweep.accuracy.sel(dx=dx, dy=dy)), abs=1e-9)
        assert values["loss"] == pytest.approx(float(sweep.mean_loss.sel(dx=dx, dy=dy)), abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*label k is taken as the model's class k")
def test_every_result_says_how_many_of_the_images_were_used(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(30):
        place = tmp_path / "set" / f"class{k % 10}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (8 * k, 0, 0)).save(place / f"{k}.png")
    model = ["--model", f"{net}:make", "--mean", "0", "--std", "1", "--quiet"]
    source = f"folder:{tmp_path / 'set'}"
    base = [*model, "--data", source]
    assert main(["neurons", *base, "--split", "test", "--no-impact"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{net}:make on 10 of 30 images of {source}"
    features = ["features", *model, "--average", source, "--no-controls", "--input-size", "32"]
    assert main([*features, "--limit", "6", "--out", str(tmp_path / "f.zarr")]) == 0
    assert f"average over 6 of 30 images of {source}" in capsys.readouterr().out.splitlines()
    sweep = ["sweep", "--max-shift", "1"]
    for command in (["evaluate"], ["consistency"], sweep):
        for extra, told in (
            ([], "30 images"),
            (["--split", "test"], "10 of 30 images"),
            (["--limit", "9"], "9 of 30 im"),
        ):
            out = ["--out", str(tmp_path / f"{len(told)}.zarr")] if command is sweep else []
            assert main([*command, *base, *extra, *out]) == 0
            line = capsys.readouterr().out.splitlines()[0]
            assert told in line
            assert (" of 30" in line) == (" of 30" in told)


def test_resize_crop_and_interpolation_reach_the_images(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for k in range(10):
        (tmp_path / "set" / f"class{k}").mkdir(parents=True)
        pixels = rng.integers(0, 256, (40, 57, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / f"class{k}" / "a.png")
    base = ["evaluate", "--model", f"{net}:make", "--mean", "0", "--std", "1", "--data", f"folder:{tmp_path / 'set'}"]
    losses = []
    for kind in ("nearest", "bicubic"):
        assert main([*base, "--resize", "36", "--crop", "32", "--interpolation", kind, "--json"]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
        model = sl.load_model(f"{net}:make", mean=0, std=1, resize=36, crop=32, interpolation=kind)
        assert losses[-1] == sl.evaluate(model, sl.load_images(f"folder:{tmp_path / 'set'}")).loss
    assert losses[0] != losses[1]
    assert "resize must be at least 32" in failing(capsys, *base, "--resize", "8", "--crop", "32")
    assert "input size (32, 32) and crop (16, 16), give one" in failing(
        capsys, *base, "--input-size", "32", "--crop", "16"
    )


def test_a_gpu_checkpoint_with_prefixes(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(5)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    weights = tmp_path / "w.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}, "epoch": 3}, weights)
    arguments = ["--model", f"{net}:make", "--limit", "20", "--mean", "0", "--std", "1", "--json"]
    assert main(["evaluate", *arguments, "--weights", str(weights)]) == 0
    expected = sl.evaluate(sl.wrap(module, mean=0.0, std=1.0, size=32), sl.load_images("digits", limit=20))
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(expected.loss, abs=1e-6)


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
        (["--model", model, "--limit", "0"], "limit must be a whole number of at least 1, got 0"),
        (["--model", model, "--limit", "-3"], "limit must be a whole number of at least 1, got -3"),
        (["--model", model, "--fill", "blak"], "blak"),
        (["--model", model, "--mean", "a,b"], "mean must be one number or one a channel"),
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
    assert re.search(r"at image \d+(, \d+)* of digits", line), line


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
    accuracy = np.asarray(sl.open_sweep(out).accuracy)
    for extra, word in (
        (["--limit", "12"], "s.zarr holds 10 images, 12 were requested: use --reuse"),
        (["--max-shift", "3"], "max-shift"),
        (["--mean", "0.1"], "preprocessing"),
        (["--fill", "mean"], "fill"),
        (["--dtype", "bfloat16"], "dtype"),
    ):
        assert word in failing(capsys, *command, *extra, "--out", str(out)), extra
    np.testing.assert_array_equal(np.asarray(sl.open_sweep(out).accuracy), accuracy)


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


def test_what_the_model_prints_does_not_reach_stdout(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["evaluate", "--model", f"{net}:talks", "--limit", "10", "--mean", "0", "--std", "1", "--json"])
    captured = capsys.readouterr()
    assert code == 0
    assert set(json.loads(captured.out)) >= {"accuracy"}
    assert "building" in captured.err
    assert "forward" in captured.err


def test_no_size_is_announced_of_a_sweep_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "--model", "pretrained:unet-digits", "--data", "digits-scenes", "--limit", "1", "--out"]
    assert main([*command, str(tmp_path / "s.zarr")]) == 2
    said = capsys.readouterr().err
    assert "digits-scenes has no class labels" in said
    assert "are swept" not in said


def test_what_cannot_be_measured_is_one_line(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--limit", "10", "--mean", "0", "--std", "1", "--out", str(tmp_path / "s.zarr"), "-q"]
    line = failing(capsys, "sweep", "--model", f"{net}:uncopyable", "--max-shift", "2", *common)
    assert "cannot be copied" in line
    line = failing(capsys, "sweep", "--model", f"{net}:empty_is_nan", "--max-shift", "32", "--step", "16", *common)
    assert "on the empty picture" in line
    assert "somewhere in images" in line
    evaluate = ["evaluate", "--limit", "10", "--mean", "0", "--std", "1", "--json", "-q"]
    assert "loss is not finite" in failing(capsys, *evaluate, "--model", f"{net}:infinite")
    for extra in (["--max-shift", "200000"], ["--max-shift", "9" * 5000], ["--seed", "1"]):
        failing(capsys, "sweep", "--model", f"{net}:make", *extra, *common)
    for seed in ("-1", "9" * 30):
        failing(capsys, "evaluate", "--model", f"{net}:make", "--limit", "5", "--seed", seed, "-q")
    line = failing(capsys, "sweep", "--model", f"{net}:make", "--max-shift", "1" + "0" * 9, *common)
    assert "--max-shift must be at most 16384 pixels" in line
    line = failing(capsys, "evaluate", "--model", f"{net}:make", "--shift", "9" * 20, "0", "--limit", "5", "-q")
    assert "whole pixels" in line


def test_control_characters_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in failing(capsys, "evaluate", "--model", "a\x1b[31mred\nnet.py:make")


def test_a_reader_that_has_gone_is_no_failure(net: Path) -> None:
    command = [sys.executable, "-m", "shiftlens", "evaluate", "--model", f"{net}:make", "--limit", "5", "--json", "-q"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*command, "--mean", "0", "--std", "1"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("extra", [["--json"], []])
def test_a_full_disk_behind_stdout_is_one_line(net: Path, extra: list[str]) -> None:
    command = [sys.executable, "-m", "shiftlens", "evaluate", "--model", f"{net}:make", "--limit", "5", "-q", *extra]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--mean", "0", "--std", "1"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2, done.stderr
    assert "cannot write the result" in done.stderr
    assert "Traceback" not in done.stderr


def test_alone_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("Usage: shiftlens")
    assert "\n  sweep" in captured.out


@pytest.mark.parametrize("command", ["demo", "train", "evaluate", "sweep"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: shiftlens {command}" in " ".join(text.split())
    for option in ("--device", "--quiet", "--json"):
        assert option in text
    assert ("--seed" in text) == (command != "sweep")  # nothing in a sweep is drawn


def test_help_is_grouped_by_subject_and_names_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--help"]) == 0
    out = capsys.readouterr().out
    at = [out.index(f"\n{subject}:\n") for subject in ("Model", "Images", "Shifts", "Compute", "Output")]
    assert at == sorted(at)
    model, images, shifts, compute, output = (out[a:b] for a, b in pairwise([*at, len(out)]))
    assert "--model SPEC" in model
    assert "--limit N" in images
    assert "--fill FILL" in shifts
    assert "--device auto|cpu|cuda" in compute
    assert "--engine auto|direct|dedup" in compute
    assert "--out PATH" in output
    # One's own model comes first.
    assert out.index("--model net.py:make") < out.index("--model runs/vgg")


@pytest.mark.parametrize(
    ("command", "said"),
    [("export", "--format torch|onnx"), ("plot", "--format png|svg"), ("repair", "adapted to (default: train,")],
)
def test_help_says_what_an_option_of_this_command_takes(
    command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", [str(each.callback.__name__).replace("_", "-") for each in app.registered_commands])
def test_no_option_is_shown_by_its_type(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert not re.search("<[^>]*>", capsys.readouterr().out)


def test_the_list_of_commands_cuts_no_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "..." not in out.split("Commands:")[1]
    assert "an interrupted sweep is resumed by the same command." in out


@pytest.mark.parametrize(("typed", "completed"), [("swe", "sweep"), ("sweep --half", "--half-width")])
def test_a_shell_completes_commands_and_options(typed: str, completed: str) -> None:
    asked = {"_SHIFTLENS_COMPLETE": "complete_bash", "COMP_WORDS": f"shiftlens {typed}"}
    asked["COMP_CWORD"] = str(len(typed.split()))
    done = subprocess.run(
        [sys.executable, "-m", "shiftlens"], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, [completed]), done.stderr


def test_progress_on_a_pipe_is_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from shiftlens import progress_bar
    from shiftlens.cli import console

    monkeypatch.setattr(progress_bar, "SECONDS_BETWEEN_LINES", 0.0)
    shell = console.Shell()
    with shell.progress("sweeping", "evaluations") as report:
        report(0, 10)
        report(5, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("sweeping: 5 of 10 evaluations (")
