"""The recipe trains a net of the user's own: an object, a factory's or a library's."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.errors import InputError
from shiftlens.training import TrainSettings
from shiftlens.training.checkpoint import load_checkpoint
from training.test_loop import QUICK, KilledError, bars, stop_at

CODE = """
import torch
from torch import nn


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.place = nn.Parameter(torch.zeros(1, 16, 12))
        self.attend = nn.MultiheadAttention(12, 2, batch_first=True)
        self.inner = nn.Linear(12, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return {"logits": self.head(x + self.inner(x).relu()).mean(1)}


def make():
    return Tokens()
"""


def tiny() -> nn.Sequential:
    torch.manual_seed(3)
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)]
    norm = body[3]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.momentum = 0.3
    return nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2))


def test_a_module_learns_and_its_run_opens_with_a_net_of_its_layers(tmp_path: Path) -> None:
    net, out = tiny(), tmp_path / "run"
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = sl.train(bars(), bars(24, seed=1), out=out, module=net, settings=dataclasses.replace(QUICK, epochs=8))
    assert result.accuracy is not None
    assert result.accuracy > 0.9
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    fresh = tiny()
    model = sl.load_model(out, module=fresh)
    assert sl.evaluate(model, bars(24, seed=1)).accuracy == result.accuracy
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    assert isinstance(model.module, nn.Sequential)
    assert isinstance(model.module[3], nn.BatchNorm2d)
    assert model.module[3].momentum == 0.3
    settings = model.training["asked"]["settings"]
    assert "arch" not in settings
    assert model.training["asked"]["module"]["name"] == "Sequential"
    # No command builds it: findings name it MODEL, and advise no training of a VGG.
    for act in (lambda: sl.load_model(out), lambda: sl.inspect(str(out))):
        with pytest.raises(InputError, match=r"holds weights of Sequential, a net made in Python: .*module=NET"):
            act()
    with pytest.raises(InputError, match="do not fit"):
        sl.load_model(out, module=nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(InputError, match="leave out module="):
        sl.load_model("pretrained:vgg-cifar10", module=net)


def test_a_factory_is_resumed_to_the_same_weights_and_opens_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tokens.py").write_text(CODE)
    again = dataclasses.replace(QUICK, epochs=2)
    sl.train(bars(), out="whole", module="tokens.py:make", settings=again)
    with pytest.raises(KilledError):
        sl.train(bars(), out="run", module="tokens.py:make", settings=again, progress=stop_at(8))
    assert load_checkpoint(Path("run")) is not None
    sl.train(bars(), out="run", module="tokens.py:make", settings=again)
    one, two = (sl.load_model(out, code="tokens.py") for out in ("whole", "run"))
    assert one.digest == two.digest != sl.load_model("tokens.py:make", mean=0.5, std=0.5).digest
    with pytest.raises(InputError, match="holds a run of other settings: module"):
        sl.train(bars(), out="run", module=tiny(), settings=again)
    with pytest.raises(InputError, match=r"--code tokens\.py"):
        sl.load_model("run")


def test_the_command_trains_a_factory_and_a_library_net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    body = "nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)"
    Path("net.py").write_text(f"from torch import nn\n\n\ndef make():\n    return nn.Sequential({body})\n")
    base = ["train", "--data", "digits", "--limit", "40", "--epochs", "1", "--quiet"]
    assert main([*base, "--model", "net.py:make", "--out", "run"]) == 0
    assert sl.load_model("run", code="net.py").input_size == (32, 32)
    few = ["--data", "digits", "--limit", "5", "--quiet"]
    assert main(["evaluate", "--model", "run", "--code", "net.py", *few]) == 0
    small = [*base, "--size", "16", "--out"]
    assert main([*small, "narrow", "--arch", "vgg6", "--width", "4"]) == 0
    assert json.loads(Path("narrow/model.json").read_text())["build"]["kwargs"]["width"] == 4
    capsys.readouterr()
    for words, why in (
        (["--model", "net.py:make", "--width", "8"], "--width is of a VGG: net.py:make builds its own net"),
        (["--model", "narrow"], "expected file.py:factory, .*repair --finetune-epochs"),
        (["--model", "torchvision:resnet19"], "resnet18"),
    ):
        assert main([*small, "no", *words]) == 2

        assert re.search(why, capsys.readouterr().err)


def test_what_cannot_be_trained_is_said_first(tmp_path: Path) -> None:
    for net, why in (
        (nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "gives 3 scores, the images have 2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), "does not take images of 3 x 16 x 16"),
        (tiny().requires_grad_(False), "no parameter that may be trained"),
    ):
        with pytest.raises(InputError, match=why):
            sl.train(bars(), out=tmp_path / "run", module=net)
    assert not (tmp_path / "run").exists()


def test_the_shortest_budget_that_works_is_said() -> None:
    from shiftlens.training.learning_rate import plan, steps_within

    settings = TrainSettings(minutes=0.5)
    # 3,500 images are 14 steps of 250 in an epoch; 29 of the 30 seconds are spent on preparations.
    with pytest.raises(InputError, match=r"The shortest that works is about --minutes 0\.81$"):
        steps_within(1.0, {(16, 16): 1.0, (24, 24): 1.0, (32, 32): 1.0}, 0.5, settings, 3500)
    longer = dataclasses.replace(settings, minutes=0.81)
    n = steps_within(0.81 * 60 - 29, {(16, 16): 1.0, (24, 24): 1.0, (32, 32): 1.0}, 0.5, longer, 3500)
    assert plan(longer, 3500, n).n_epochs >= 1
