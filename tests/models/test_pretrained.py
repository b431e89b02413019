"""The weights that ship with the package: small, what their card says, and rebuilt without running code."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

import shiftlens as sl
from shiftlens.models.loading import SHIPPED
from shiftlens.training.scene_nets import measure_on_scenes

NAMES = sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir())


def test_the_reference_case_is_there() -> None:
    assert {"vgg-cifar10", "unet-digits", "detector-digits"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_are_what_their_card_says(name: str) -> None:
    folder = SHIPPED / name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10_000_000
    with safe_open(folder / "model.safetensors", "pt") as file:
        kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118 - not a dict
    assert kinds <= {torch.float16, torch.int64}
    card = (folder / "CARD.md").read_text()
    model = sl.load_model(f"pretrained:{name}")
    assert model.digest in card
    stored = json.loads((folder / "model.json").read_text())
    named = {name for name in stored["metrics"] if f"{name}_interval" in stored["metrics"]}
    assert named
    for name in named:
        assert f"{100 * stored['metrics'][name]:.1f}" in card
    for heading in ("Accuracy", "Measured on", "Trained on", "Command", "must not be used for"):
        assert heading in card


def test_the_reference_case_sees() -> None:
    model = sl.load_model("pretrained:vgg-cifar10")
    assert model.class_names is not None
    assert model.class_names[0] == "airplane"
    assert model.training["augmentation"] == {"shift": 2, "shift_fill": "reflect", "mirror": "alternating"}
    assert isinstance(model.module, torch.nn.Module)
    assert all(parameter.dtype == torch.float32 for parameter in model.module.parameters())
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(8, 3, 1, 1, generator=generator).expand(8, 3, 32, 32)
    with torch.no_grad():
        scores = model.module(pictures)
    # A net of random weights hardly tells one plain colour from another.
    assert scores.std(dim=1).min() > 0.3
    assert len(set(scores.argmax(1).tolist())) > 1


@pytest.mark.parametrize(("net", "metric"), [("unet", "mean_iou"), ("detector", "ap50")])
def test_nets_of_scenes_are_as_good_as_their_card_says(net: str, metric: str) -> None:
    model = sl.load_model(f"pretrained:{net}-digits")
    stored = json.loads((SHIPPED / f"{net}-digits" / "model.json").read_text())
    scenes = sl.load_images("digits-scenes", split="test")
    assert stored["training"]["asked"]["validation"] == scenes.digest
    assert isinstance(model.module, torch.nn.Module)
    few = scenes.limit(40)
    assert measure_on_scenes(net, model.module, model.preprocessing, few)[metric] > stored["metrics"][metric] - 0.05
