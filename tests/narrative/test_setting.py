"""What a printed command of a sweep says, word by word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from narrative.commands import parse
from shiftlens.narrative.setting import Named, Setting
from shiftlens.shifts import Fill
from shiftlens.tasks.stored_form import KNOWN_TASKS
from sweeps.small_sweeps import header


def setting(**changes: Any) -> Setting:
    plain = {"training": {}, "fill": Fill("black")}
    return Setting(header(**plain | changes), Path("s.zarr"), n_images=7)


def test_options_of_model_and_images_are_repeated() -> None:
    said = {"weights": "my net.pt", "weights_key": "ema", "mean": [0.1, 0.25], "std": 0.5, "input_size": [6, 7]}
    shown = {"split": "all", "data_root": "/data", "limit": 9, "label_map": "labels.json"}
    command = setting(model_options=said, data_options=shown, data="digits-scenes:x").sweep_command()
    assert command[:12] == (
        *("shiftlens", "sweep", "--model", "net.py:factory", "--weights", "my net.pt", "--weights-key", "ema"),
        *("--mean", "0.1,0.25", "--std", "0.5"),
    )
    assert command[12:24] == (
        *("--input-size", "6x7", "--data", "digits-scenes:x", "--data-root", "/data", "--split", "all"),
        *("--limit", "7", "--label-map", "labels.json"),
    )


def test_a_sweep_of_an_older_version_names_the_preprocessing_of_a_factory() -> None:
    command = setting(model_options={}).evaluate_command(1, 2)
    assert command[2:8] == ("--model", "net.py:factory", "--mean", "0.5", "--std", "0.25")
    assert "--mean" not in setting(model="timm:resnet10t").evaluate_command(1, 2)


def test_a_fill_keeps_all_its_digits() -> None:
    words = setting(fill=Fill.parse((0.123456789, 1.0, 0.5))).sweep_command()
    assert words[words.index("--fill") + 1] == "0.123456789,1.0,0.5"


def test_other_tasks_are_named_and_not_evaluated_as_classification() -> None:
    made = setting(task=KNOWN_TASKS["segmentation"])
    words = made.sweep_command()
    assert parse(words)[1]["task"] == "segmentation"
    assert made.evaluate_command(0, 1) == ()
    assert "--task" not in setting().sweep_command()


@pytest.mark.parametrize("arch", ["vgg8", "vgg6"])
def test_training_is_advised_for_nets_that_train_makes(arch: str) -> None:
    training = {"asked": {"settings": {"arch": arch, "padding": "reflect"}}}
    said = setting(training=training, model="vgg", data_options={"data_root": "/data", "split": "test"})
    assert said.train_command() == (
        *("shiftlens", "train", "--data", "digits", "--data-root", "/data", "--arch", arch, "--padding", "circular"),
        *("--out", "runs/circular"),
    )
    assert setting().train_command() == ()
    assert setting(training={"asked": {"settings": {"arch": "unet"}}}).train_command() == ()


def test_a_users_own_code_is_named_for_the_repaired_run() -> None:
    named = Named("src/net.py:make", {"weights": "a's.pt"}, "folder:p", {"split": "all", "data_root": "/d"}, 5)
    assert named.repair_command("runs/new", blur=True, shift=4) == (
        *("shiftlens", "repair", "--model", "src/net.py:make", "--weights", "a's.pt", "--downsample", "blur"),
        *("--finetune-epochs", "2", "--finetune-shift", "4", "--data", "folder:p", "--data-root", "/d"),
        *("--out", "runs/new"),
    )
    assert named.code_words == ("--code", "src/net.py")
    again = Named("runs/new", {"code": "src/net.py"}, "folder:p")
    assert again.code_words == named.code_words
    assert again.repair_command("o", padding="reflect")[:6] == (
        *("shiftlens", "repair", "--model", "runs/new", "--code", "src/net.py"),
    )
    assert again.inspect_command((8, 9))[2:6] == ("--model", "runs/new", "--code", "src/net.py")
    assert Named("torchvision:resnet18").code_words == Named("MODEL", {"code": "x"}).code_words == ()
