"""`shiftlens inspect` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.models import skeletons


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(["inspect", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_json_keeps_its_contract(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said(capsys, "--model", "torchvision:resnet18", "--size", "224x225", "--json")
    values = json.loads(out)
    assert err == ""
    assert values["model"] == "torchvision:resnet18"
    assert values["size"] == [224, 225]
    assert values["even_sizes"] == {"h": [161, 193, 225, 257], "w": [161, 193, 225, 257, 289]}
    stem = values["layers"][0]
    assert stem["path"] == "conv1"
    assert stem["kernel"] == [7, 7]
    assert stem["unused"] == [1, 0]
    assert stem["used"] == {"left": 3, "right": 3, "top": 3, "bottom": 2}
    assert stem["receptive_field"] == [7, 7]


def test_the_declared_size_and_the_short_table(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "--model", "torchvision:resnet18", "--uneven")
    assert "torchvision:resnet18 at 224x224: 8 of 22 layers are uneven" in out
    assert "layer1.0.conv1" not in out
    assert out.count("<- uneven") == 8


def test_weights_are_neither_drawn_nor_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = skeletons.load_skeleton("torchvision:vgg16").module
    assert isinstance(module, torch.nn.Module)
    assert all(tensor.is_meta for tensor in module.parameters())
    from shiftlens.data.preprocessing import Preprocessing
    from shiftlens.models.runs import save_run
    from shiftlens.nn.vgg import VGG

    net = VGG("vgg6", width=2, downsample="stride")
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": net.config}
    save_run(tmp_path / "run", net, build=build, preprocessing=Preprocessing(size=(33, 33), declared=True))
    (tmp_path / "run" / "model.safetensors").unlink()
    out, _ = said(capsys, "--model", str(tmp_path / "run"))
    assert "at 33x33: all" in out


def test_your_own_net_and_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1))\n")
    _, err = said(capsys, "--model", f"{path}:make", code=2)
    assert err.strip().endswith("declares no input size: give one (--size)")
    out, _ = said(capsys, "--model", f"{path}:make", "--size", "28")
    assert "uneven: 0" in out
    assert sl.inspect(torch.nn.Conv2d(1, 2, 3, 2, 1), 28).even_sizes["h"][-1] == 33


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "torchvision:resnet19"], "did you mean 'resnet"),
        (["--model", "nowhere"], "is no run directory and no spec"),
        (["--model", "torchvision:resnet18", "--size", "big"], "--size must be H or HxW"),
        (["--model", "torchvision:vgg11", "--size", "8"], "layer features."),
    ],
)
def test_bad_use_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    out, err = said(capsys, *arguments, code=2)
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert text in err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, "--help")
    assert "Example: shiftlens inspect --model torchvision:resnet18" in out
