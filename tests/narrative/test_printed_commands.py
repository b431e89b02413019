"""Every command that a finding or a report prints is run, and measures the model that the result was made of."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from html import unescape
from pathlib import Path
from re import findall, sub
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import shiftlens as sl
from narrative.commands import parse
from shiftlens.cli import main
from shiftlens.data.digits import open_digits
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.models import loading
from shiftlens.models.runs import save_run
from shiftlens.models.zoo import LIBRARIES
from shiftlens.narrative.findings import findings
from shiftlens.narrative.setting import Command, Setting
from shiftlens.nn.vgg import VGG
from shiftlens.reporting.given_items import given
from shiftlens.reporting.questions import questions
from shiftlens.sweeps.header import read_header

DIGITS = ("digits", "--split", "test", "--limit", "10")
MEASURING = ("sweep", "evaluate", "features")


def run_directory() -> list[str]:
    torch.manual_seed(0)
    net = VGG("vgg6", width=2, size=32).eval()
    save_run(
        "runs/vgg",
        net,
        build={"factory": "shiftlens.nn.vgg:VGG", "kwargs": net.config},
        preprocessing=Preprocessing((0.1,) * 3, (0.3,) * 3, (32, 32), None, "bilinear", True),
        class_names=open_digits().class_names,
        training={"asked": {"settings": {"arch": "vgg6"}}},
    )
    return ["--model", "runs/vgg"]


def pretrained() -> list[str]:
    return ["--model", "pretrained:vgg-cifar10"]


def library(kind: str, name: str) -> Callable[[], list[str]]:
    def make() -> list[str]:
        torch.manual_seed(0)
        torch.save(LIBRARIES[kind].net(name, 10).state_dict(), "weights of mine.pt")
        weights = ("--weights", "weights of mine.pt", "--input-size", "28x29")
        return ["--model", f"{kind}:{name}", *weights, "--mean", "0.123456789", "--std", "0.2,0.3,0.4"]

    return make


def factory() -> list[str]:
    code = "from shiftlens.nn import VGG\n\n\ndef make():\n    return VGG('vgg6', width=2)\n"
    Path("printed_net.py").write_text(code)
    torch.manual_seed(0)
    tables = {name: VGG("vgg6", width=2).state_dict() for name in ("plain", "ema")}
    torch.save(tables, "tables.pt")
    given = "--weights tables.pt --weights-key ema --mean 0.123456789 --std 0.5 --resize 20 --crop 16"
    return ["--model", "printed_net.py:make", *given.split(), "--interpolation", "bicubic"]


NAMED = {
    "run directory": run_directory,
    "pretrained": pretrained,
    "torchvision": library("torchvision", "resnet18"),
    "factory": factory,
    "timm": library("timm", "test_resnet"),
}


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the models that are loaded, in order."""
    monkeypatch.chdir(tmp_path)
    found: list[str] = []
    load = loading.load_model

    def spy(*args: Any, **options: Any) -> Any:
        model = load(*args, **options)
        found.append(model.digest)
        return model

    monkeypatch.setattr(loading, "load_model", spy)
    monkeypatch.setattr(sl, "load_model", spy)
    return found


def printed(sweep: sl.Sweep, run: sl.FeatureRun) -> list[Command]:
    """All commands of findings and of the questions of a report, and all that a finding may print of this sweep."""
    said = [each.action for each in (*findings(sweep), *findings(run)) if each.action is not None]
    setting = Setting.of(sweep)
    variants: list[dict[str, Any]] = [{}, {"control": "flip"}, {"fill": "mean"}, {"step": 2}, {"wider": True}]
    commands = [setting.sweep_command(**each) for each in variants]
    commands += [setting.evaluate_command(1, 0), setting.plot_command(), setting.train_command()]
    commands += [action.command for action in said]
    for asked in ([sweep], [sweep, run], [run]):
        lines = [line for each in questions(given(asked), [], []) for line in each["answer"]]
        codes = [code for line in lines for code in findall("<code>.*?</code>", line)]
        found = [tuple(shlex.split(unescape(sub("<[^>]*>", "", code)))) for code in codes]
        # Without a sweep, what a repair is compared with is another sweep than this one.
        commands += [each for each in found if sweep in asked or not {"REPAIRED", "SWEEP.zarr"} & {*each}]
    return [command for command in dict.fromkeys(commands) if command]


def check(command: Command, digests: list[str], first: sl.Sweep) -> None:
    """Run a command, and hold the model that it loads, and what it writes, against the sweep that it came from."""
    digests.clear()
    few = ["--limit", "20"] if command[1] == "repair" and "--data" in command else []
    if command[1] == "sweep" and "--max-shift" not in command:  # printed to be filled in; all shifts take minutes
        few = ["--max-shift", "2"]
    assert main([*command[1:], *few, "--quiet"]) == 0, command
    if "REPAIRED" not in command[:4] and command[1] not in ("inspect", "plot", "findings", "report"):
        assert digests[:1] == [first.header.model_digest], command
    out = Path(command[-1])
    if command[1] == "sweep" and "REPAIRED" not in command[:4]:
        made = read_header(out)
        assert made.model_digest == first.header.model_digest
        # A feature run needs no labels, and knows of no label map.
        assert made.data_digest == first.header.data_digest or out.name == "S.zarr", command


def photos() -> tuple[str, ...]:
    """A folder of CIFAR-10's classes, at a path with a space."""
    rng = np.random.default_rng(0)
    for name in loading.load_model("pretrained:vgg-cifar10").class_names or ():
        for k in range(2):
            file = Path(f"my photos/{name}/{k}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (36, 40, 3), np.uint8)).save(file)
    return ("folder:my photos", "--split", "all", "--limit", "10")


def swept(words: list[str], data: tuple[str, ...] = DIGITS, *more: str) -> tuple[sl.Sweep, sl.FeatureRun]:
    assert main(["sweep", *words, "--data", *data, *more, "--max-shift", "2", "--out", "one.zarr", "--quiet"]) == 0
    assert main(["features", *words, "--average", *data, "--out", "f.zarr", "--quiet"]) == 0
    return sl.open_sweep("one.zarr"), sl.open_features("f.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMED)
def test_every_command_measures_the_same_model(kind: str, digests: list[str]) -> None:
    first, run = swept(NAMED[kind](), photos() if kind == "pretrained" else DIGITS)
    commands = printed(first, run)
    assert {parse(command)[0] for command in commands} >= {*MEASURING, "inspect", "report", "plot"}
    assert ("train" in {command[1] for command in commands}) == (kind in ("run directory", "pretrained"))
    # What compares comes last: it needs what the others write. Training a net from nothing takes minutes.
    ordered = sorted(commands, key=lambda command: (command[1] == "report", "REPAIRED" in command[:4]))
    for command in ordered:
        if command[1] != "train":
            check(command, digests, first)


def test_a_factory_with_weights_mean_and_std_is_measured_again(digests: list[str]) -> None:
    Path("labels.json").write_text(json.dumps({str(k): (k + 1) % 10 for k in range(10)}))
    first, run = swept(factory(), DIGITS, "--label-map", "labels.json")
    again = [words for words in printed(first, run) if words[1] in MEASURING and "REPAIRED" not in words]
    assert len(again) >= 8
    for command in again:
        check(command, digests, first)
    # Fine-tuning takes no label map: nothing is advised that would be refused.
    told = [line for each in questions(given([first]), [], []) for line in each["answer"]]
    told += [str(each.action) for each in findings(first)]
    assert not any("--finetune-epochs" in line or "shiftlens train" in line for line in told)
    # The spy is not blind: without its weights the model is another one.
    words = list(again[0])
    at = words.index("--weights")
    assert main([*words[1:at], *words[at + 4 : -1], "other.zarr", "--quiet"]) == 0
    assert read_header(Path("other.zarr")).model_digest != first.header.model_digest
    said = sl.compare(["one.zarr", "other.zarr"]).findings.named("other-model")
    assert said is not None
    assert "they were given one --weights tables.pt --weights-key ema --mean" in said.statement.replace("'", "")


def test_a_run_of_own_code_is_inspected_again_by_the_command_of_its_finding(
    digests: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())\n"
    Path("own_net.py").write_text(code)
    made = "repair --model own_net.py:make --input-size 32 --mean 0 --std 1 --padding reflect --out runs/own --quiet"
    assert main(made.split()) == 0
    capsys.readouterr()
    assert main(["inspect", "--model", "runs/own", "--code", "own_net.py", "--json"]) == 0
    Path("i.json").write_text(capsys.readouterr().out)
    [read] = given(["i.json"]).inspections
    for found in (read, sl.inspect(sl.load_model("runs/own", code="own_net.py"))):
        action = findings(found)[0].action
        assert action is not None
        assert action.command[2:6] == ("--model", "runs/own", "--code", "own_net.py")
        assert main([*action.command[1:], "--quiet"]) == 0


def test_a_wrapped_module_is_said_to_be_made_in_python(tmp_path: Path) -> None:
    images = sl.load_images("digits", split="test", limit=10)
    model = sl.wrap(VGG("vgg6", width=2), mean=0.5, std=0.25)
    sweep = sl.sweep(model, images, sl.ShiftGrid(2), out=tmp_path / "one.zarr")
    sl.features(model, average=images, out=tmp_path / "f.zarr")
    run = sl.open_features(tmp_path / "f.zarr")
    assert run.data_options == sweep.header.data_options == {"split": "test", "limit": 10}
    for place in ("one.zarr", "f.zarr"):
        assert "model_options" not in json.loads((tmp_path / place / "zarr.json").read_text())["attributes"]
    assert (sweep.header.model_options, run.model_options) == ({}, {})
    for found in (findings(sweep), findings(run)):
        actions = [each.action for each in found if each.action is not None and "--model" in each.action.command]
        assert actions
        for action in actions:
            assert parse(action.command)[1]["model"] == "MODEL"
            assert "a model made in Python has none" in action.text
    # So is one that was loaded and then changed.
    words = factory_in(tmp_path)
    changed, _ = sl.repair(words, padding="reflect")
    again = sl.sweep(changed, images, sl.ShiftGrid(2), out=tmp_path / "two.zarr")
    assert "MODEL" in Setting.of(again).sweep_command()


def test_images_chosen_in_python_are_not_named_by_a_command(tmp_path: Path) -> None:
    images = sl.load_images("digits", split="test", limit=20)
    assert (images.options, images.limit(5).options) == ({"split": "test", "limit": 20}, images.options)
    chosen = images.subset([1, 5, 7])
    sweep = sl.sweep(factory_in(tmp_path), chosen, sl.ShiftGrid(2), out=tmp_path / "one.zarr")
    said = Setting.of(sweep)
    words = said.sweep_command(control="flip")
    assert words[words.index("--data") + 1] == "DATA"
    assert not {"--limit", "--split"} & {*words}
    actions = [each.action for each in findings(sweep) if each.action is not None and "DATA" in each.action.command]
    assert actions
    assert all("DATA: the spec of your images" in action.text for action in actions)
    # The part of a source, and an adaptive order of it, are what the options say.
    whole = sl.load_images("digits")
    part = whole.part("test")
    assert part is not None
    assert part.options == whole.options == {}


def factory_in(folder: Path) -> sl.Model:
    code = folder / "changed_net.py"
    code.write_text("from shiftlens.nn import VGG\n\n\ndef make():\n    return VGG('vgg6', width=2)\n")
    return sl.load_model(f"{code}:make", mean=0.5, std=0.5)
