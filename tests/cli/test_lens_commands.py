"""`features`, `foveation` and `kernels` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.nn import VGG

NET = """
import torch
from shiftlens.nn import VGG

def make():
    torch.manual_seed(0)
    return VGG("vgg6", width=2)

def chain():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, 2, 1))

def flat():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    assert main([str(a) for a in arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_features_json_keeps_its_contract(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f.zarr"
    arguments = ["--model", f"{net}:make", "--mean", "0.5", "--average", "digits", "--limit", 6, "--out", out]
    arguments += ["--layers", "0.0,0.3"]
    text, _ = run(capsys, "features", *arguments, "--pictures", tmp_path / "p", "--json")
    values = json.loads(text)
    assert values["input"] == "zeros"
    assert values["n_images"] == 6
    first = values["layers"][0]
    assert set(first) >= {
        "path", "call", "shape", "artefact_energy", "reach_cells", "reach_pixels", "contrast_lr", "contrast_ud",
    }  # fmt: skip
    assert first["path"] == "0.0"
    assert first["shape"] == [2, 32, 32]
    assert first["reach_cells"] == 0
    assert first["contrast_lr"] is None
    assert "constant" in first["skipped"]["contrast_lr"]
    assert values["layers"][1]["reach_cells"] == 1
    assert values["layers"][1]["average"]["n"] == 6
    assert values["starts_at"] == "0.3"
    assert all(Path(file).is_file() for file in values["files"])
    assert sl.open_features(out).to_dict()["layers"] == values["layers"]


def test_a_feature_run_is_read_and_drawn_like_a_sweep(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "f.zarr"
    run(capsys, "features", "--model", f"{net}:make", "--input-size", 32, "--layers", "0.0,0.3", "--out", out)
    text, _ = run(capsys, "findings", out, "--evidence")
    assert "Border artefacts on the feature map of a blank input (zeros) start at layer 0.3" in " ".join(text.split())
    assert "value [95 % interval]" in text
    one = tmp_path / "one.zarr"
    run(capsys, "features", "--model", f"{net}:make", "--input-size", 32, "--layers", "0.0", "--out", one)
    assert "value" not in run(capsys, "findings", one)[0]  # no number, no table of numbers
    text, _ = run(capsys, "findings", out, "--json")
    found = json.loads(text)["findings"]
    assert {each["question"] for each in found} == {"B"}
    assert {each["sweep"] for each in found} == {str(out)}
    text, _ = run(capsys, "plot", out, "--out", tmp_path / "p", "--format", "svg", "--json")
    names = [Path(file).name for file in json.loads(text)["files"]]
    assert names == ["overview.svg", "depth.svg", "layer-000-0.0.svg", "layer-001-0.3.svg"]


def test_features_says_it_in_words(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", f"{net}:make", "--mean", "0.5", "--input-size", "32", "--out", tmp_path / "f.zarr"]
    text, _ = run(capsys, "features", *arguments, "--input", "black", "--layers", "0.3,1.3", "--before")
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "kind", "shape", "energy", "reach", "px", "odd", "l/r", "odd", "u/d"]
    assert [line.split()[0] for line in lines[1:3]] == ["0.3", "1.3"]
    assert any(
        line.startswith("border artefacts start at layer 0.3 (conv) on the blank input (black)") for line in lines
    )
    assert not sl.open_features(tmp_path / "f.zarr").after


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--input", "grey"], "input 'grey' is no file"),
        (["--layers", "0.33"], "has no spatial layer '0.33'; did you mean '0.3'"),
        (["--input-size", "4"], "4x4 pixels"),
        (["--average", "cifar11"], "did you mean 'cifar10'"),
        (["--format", "gif"], "unknown picture format 'gif'"),
    ],
)
def test_features_refuses_in_one_line(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    sizes = [] if "--input-size" in arguments else ["--input-size", "32"]
    fixed = ["--model", f"{net}:make", "--mean", "0.5", *sizes, "--out", tmp_path / "f.zarr"]
    out, err = run(capsys, "features", *fixed, *arguments, code=2)
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert text in err
    assert not (tmp_path / "f.zarr").exists()


def test_features_leaves_other_files_alone(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    arguments = ["--model", f"{net}:make", "--mean", "0.5", "--input-size", "32", "--out", tmp_path / "notes.txt"]
    _, err = run(capsys, "features", *arguments, code=2)
    assert "is a file; it is left as it is" in err
    _, err = run(capsys, "features", "--model", f"{net}:flat", *arguments[2:-1], tmp_path / "g.zarr", code=2)
    assert "no spatial layers" in err


def test_foveation_writes_counts_and_says_which_side(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", f"{net}:chain", "--size", "8", "--out", tmp_path / "sub" / "paths.npy"]
    text, _ = run(capsys, "foveation", *arguments, "--picture", tmp_path / "paths.png", "--json")
    values = json.loads(text)
    counts = np.load(tmp_path / "sub" / "paths.npy")
    assert counts.dtype == np.float64
    np.testing.assert_array_equal(counts[0], [1, 2, 1, 2, 1, 2, 1, 1])
    assert values["first_to_last_column"] == pytest.approx(1.0)
    assert values["files"] == [str(tmp_path / "sub" / "paths.npy"), str(tmp_path / "paths.png")]
    text, _ = run(capsys, "foveation", *arguments, "--padding", "circular")
    assert "circular padding: " in text
    assert "first column / last column" in text
    _, err = run(capsys, "foveation", *arguments, "--padding", "circuler", code=2)
    assert "did you mean 'circular'" in err
    _, err = run(capsys, "foveation", "--model", f"{net}:chain", "--out", tmp_path / "x.npy", code=2)
    assert "give one (--size)" in err
    _, err = run(capsys, "foveation", *arguments[:-1], tmp_path / "net.py" / "x.npy", code=2)
    assert "cannot write" in err


def test_kernels_measures_weights(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, err = run(capsys, "kernels", "--model", f"{net}:make", "--picture", tmp_path / "k.png", "--json")
    values = json.loads(text)
    assert err == ""
    assert [layer["path"] for layer in values["layers"]] == ["0.0", "0.3", "1.0", "1.3", "2.0", "2.3"]
    assert (tmp_path / "k.png").stat().st_size > 5000
    text, _ = run(capsys, "kernels", "--model", f"{net}:make")
    assert text.splitlines()[0].startswith("layer")
    assert "mirror images" in text
    _, err = run(capsys, "kernels", "--model", f"{net}:flat", code=2)
    assert "no convolution layer" in err


def test_neurons_counts_channels(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", f"{net}:make", "--mean", "0.5", "--limit", 12, "--layers", "0.0,0.3"]
    values = json.loads(run(capsys, "neurons", *arguments, "--json")[0])
    assert values["n_images"] == 12
    assert [(layer["path"], layer["n_channels"]) for layer in values["layers"]] == [("0.0", 2), ("0.3", 2)]
    text, _ = run(capsys, "neurons", *arguments, "--no-impact")
    assert "of 2 channels are padding-aware" in text
    assert "impact not measured: it was not asked for" in text
    _, err = run(capsys, "neurons", *arguments[:-1], "0.6", code=2)
    assert "no convolution with a kernel of at least 3x3" in err


@pytest.mark.parametrize("command", ["features", "foveation", "kernels", "neurons"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, command, "--help")
    assert f"Example: shiftlens {command} --model" in out


@pytest.mark.parametrize("command", ["inspect", "features", "foveation", "kernels"])
def test_every_look_at_a_net_takes_the_same_model_options(
    command: str, net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(VGG("vgg6", width=2).state_dict(), tmp_path / "w.pt")
    options = ["--model", f"{net}:make", "--weights", tmp_path / "w.pt", "--mean", "0.5", "--std", "0.25"]
    options += ["--input-size", "24x32", "--device", "cpu"]
    out = ["--out", tmp_path / "f"] if command in ("features", "foveation") else []
    text, err = run(capsys, command, *options, *out, "--json")
    assert err == ""
    values = json.loads(text)
    assert values["model"] == f"{net}:make"
    assert values.get("size", [24, 32]) == [24, 32]
    _, err = run(capsys, command, *options[:2], "--mean", "grey", "--input-size", "32", *out, code=2)
    assert "mean must be one number or one a channel" in err
    _, err = run(capsys, command, *options[:2], "--weights", tmp_path / "no.pt", "--input-size", "32", *out, code=2)
    assert "no.pt does not exist" in err


def test_a_net_a_model_and_a_size_that_either_declares_are_taken() -> None:
    net = VGG("vgg6", width=2).eval()
    net.pretrained_cfg = {"input_size": (3, 24, 32)}  # type: ignore[assignment]  # as timm's nets have it
    wrapped = sl.wrap(VGG("vgg6", width=2), mean=0.5, std=0.5, size=(24, 32))
    for model in (net, wrapped):
        assert sl.inspect(model).size == (24, 32)
        assert sl.features(model).size == (24, 32)
        assert sl.foveation(model).shape == (24, 32)
