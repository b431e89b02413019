"""A run of a user's own net: its code is named, compared, and run only then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.errors import InputError
from shiftlens.models.named_code import code_of

NET = """
from pathlib import Path

import torch
from torch import nn

from blocks import Block

Path("ran").write_text("yes")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(Block(3, 4), Block(4, 4))
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def make():
    return Net()
"""
BLOCKS = """
from torch import nn


class Block(nn.Sequential):
    def __init__(self, n, m):
        super().__init__(nn.Conv2d(n, m, 3, stride=2, padding=1), nn.ReLU())
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repaired run `runs/new` of a factory with weights, and no trace of the code having run."""
    monkeypatch.chdir(tmp_path)
    Path("code").mkdir()
    Path("code/net.py").write_text(NET)
    Path("code/blocks.py").write_text(BLOCKS)
    net = sl.load_model("code/net.py:make", mean=0, std=1).module
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(net.state_dict(), "w.pt")
    words = "--model code/net.py:make --weights w.pt --mean 0.5 --std 0.25 --input-size 16 --padding reflect"
    assert main(["repair", *words.split(), "--out", "runs/new", "--quiet"]) == 0
    Path("ran").unlink()
    return tmp_path


def test_a_repaired_run_opens_with_its_code_wherever_that_lies(place: Path) -> None:
    plain = sl.load_model("code/net.py:make", weights="w.pt", mean=0.5, std=0.25, input_size=16)
    repaired, _ = sl.repair(plain, padding="reflect")
    digests = repaired.digest, plain.digest
    Path("code").rename("moved")
    model = sl.load_model("runs/new", code="moved/net.py")
    assert model.digest == digests[0] != digests[1]
    assert model.input_size == (16, 16)
    assert model.options["code"] == "moved/net.py"
    told = json.loads(Path("runs/new/model.json").read_text())
    assert told["build"]["factory"] == "net.py:make"
    assert list(told["code"]["imports"]) == ["blocks.py"]
    assert str(place) not in json.dumps(told)
    # Repaired again, it still knows its code; every command that takes a model takes it.
    again = ["--model", "runs/new", "--code", "moved/net.py"]
    assert main(["repair", *again, "--downsample", "blur", "--out", "runs/blur", "--quiet"]) == 0
    assert main(["inspect", "--model", "runs/blur", *again[2:], "--quiet"]) == 0
    assert main(["report", "--model", "runs/blur", *again[2:], "--out", "r.html", "--quiet"]) == 0
    assert len(json.loads(Path("runs/blur/model.json").read_text())["edits"]) == 4


def test_without_its_name_the_code_is_not_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for act in (lambda: sl.load_model("runs/new"), lambda: sl.inspect("runs/new")):
        with pytest.raises(InputError, match=r"^runs/new needs the code of net.py:make.*--code net.py.*code='net.py'"):
            act()
    assert main(["evaluate", "--model", "runs/new"]) == 2
    assert "--code net.py" in capsys.readouterr().err
    assert not Path("ran").exists()


@pytest.mark.parametrize("changed", ["net.py", "blocks.py", "new.py"])
def test_changed_code_is_named_and_not_run(place: Path, changed: str) -> None:
    """A changed file, a changed import, and a file that is imported now."""
    file = Path("code") / changed
    if changed == "new.py":
        file.write_text("")
        file = Path("code/net.py")
        file.write_text(NET + "\nimport new\n")
    else:
        file.write_text(file.read_text() + "\nX = 1\n")
    for act in (
        lambda: sl.load_model("runs/new", code="code/net.py"),
        lambda: sl.load_model("runs/new", code=str(place / "code" / "net.py")),
    ):
        with pytest.raises(InputError, match=rf"made with other code, so nothing was run: .*{changed} changed since"):
            act()
    assert not Path("ran").exists()


def test_line_ends_are_no_change(place: Path) -> None:
    Path("code/net.py").write_bytes(NET.replace("\n", "\r\n").encode())
    assert sl.load_model("runs/new", code="code/net.py").input_size == (16, 16)


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        ("net.py:Path", "raised|returned|expected"),
        ("net.py:__import__", "no '__import__'|needs arguments"),
        ("net.py:a.b", "names no factory"),
        ("net.py", "names no factory"),
        ("/etc/passwd\x1b[2J:make", "changed since|no 'make'|made with"),
    ],
)
def test_a_run_cannot_choose_what_is_run(place: Path, factory: str, why: str) -> None:
    file = Path("runs/new/model.json")
    told = json.loads(file.read_text())
    told["build"]["factory"] = factory
    file.write_text(json.dumps(told))
    if "passwd" in factory:
        with pytest.raises(InputError) as said:
            sl.load_model("runs/new")
        assert "\x1b" not in str(said.value)
        return
    with pytest.raises(InputError, match=why):
        sl.load_model("runs/new", code="code/net.py")


def test_code_belongs_to_runs_that_need_it(place: Path) -> None:
    with pytest.raises(InputError, match="--code belongs to a run directory"):
        sl.load_model("torchvision:resnet18", weights="random", code="code/net.py")
    with pytest.raises(InputError, match="needs no code of yours"):
        sl.load_model("pretrained:vgg-cifar10", code="code/net.py")
    with pytest.raises(InputError, match=r"nothing\.py does not exist"):
        sl.load_model("runs/new", code="code/nothing.py")
    with pytest.raises(InputError, match=r"expected file\.py or package.module, got 'a b'"):
        sl.load_model("runs/new", code="a b")


def test_a_module_is_found_without_running_its_package(place: Path) -> None:
    Path("code").rename("mine")
    Path("mine/__init__.py").write_text("raise SystemExit('run')")
    Path("mine/net.py").write_text(NET.replace("from blocks", "from .blocks"))
    found = code_of("mine.net")
    assert set(found.imports) == {"mine/blocks.py"}
    with pytest.raises(InputError, match=r"no module 'mine\.other'"):
        code_of("mine.other")
    Path("mine/__init__.py").write_text("")
    words = ["--model", "mine.net:make", "--mean", "0", "--std", "1", "--padding", "reflect"]
    assert main(["repair", *words, "--out", "runs/module", "--quiet"]) == 0
    assert sl.load_model("runs/module", code="mine.net").module.training is False
