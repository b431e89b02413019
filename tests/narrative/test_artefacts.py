"""Sentences about features and layer arithmetic, on nets whose answer is known."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from narrative.commands import parse
from shiftlens.arithmetic import inspect
from shiftlens.data.images import ImageSet, load_images
from shiftlens.lens.feature_maps import features
from shiftlens.models.loading import wrap
from shiftlens.narrative.artefacts import artefacts
from shiftlens.nn import conv2d
from shiftlens.nn.vgg import VGG


def stack(mode: str) -> nn.Sequential:
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for k in range(4):
        layers += [conv2d(3 if k == 0 else 6, 6, 3, padding=1, padding_mode=mode), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def test_zeros_are_named_with_layer_reach_and_side() -> None:
    run = features(stack("zeros"), size=(20, 20))
    found = artefacts(run)
    start = found.named("artefact-start")
    assert start.statement.endswith(
        "at layer 2 (conv); a first layer that pads these zeros with zeros cannot show one."
    )
    assert start.quantity.layer == "2"
    reach = found.named("artefact-reach")
    assert reach.value == 3
    assert "3 px into the image, at layer 6" in reach.statement
    energy = found.named("artefact-energy")
    assert energy.value == max(layer.scores.artefact_energy for layer in run)
    assert f"{100 * energy.value:.1f} %" in energy.statement
    side = found.named("artefact-sides-x")
    assert " of their variation changes sign when the map is mirrored (compared with the net without" in side.statement
    assert re.search(r"left (excited|suppressed) by [0-9.]+ %, right (excited|suppressed) by", side.statement)
    assert all(each.question == "B" and each.severity != "warn" for each in found)
    assert parse(start.action.command)[0] == "inspect"


def test_marks_that_cover_everything_are_said_to() -> None:
    torch.manual_seed(0)
    found = artefacts(features(VGG("vgg6", width=4), size=(16, 16)))
    assert found.named("artefact-reach").statement.startswith("From layer ")
    assert "border artefacts cover the whole feature map" in found.named("artefact-reach").statement


def test_a_symmetric_net_has_the_same_marks_on_both_sides() -> None:
    net = stack("zeros")
    for part in net:
        if isinstance(part, nn.Conv2d):
            part.weight.data = (part.weight.data + part.weight.data.flip(3)) / 2
    found = artefacts(features(net, size=(20, 20)))
    assert found.named("artefact-sides-x").statement == "Border artefacts are equal at left and right, at every layer."
    assert found.named("artefact-sides-y").value > 0.01


def test_no_marks_and_no_claim() -> None:
    found = artefacts(features(stack("symmetric"), size=(20, 20)))
    assert [each.id for each in found] == ["artefact-start"]
    assert "No layer shows border artefacts" in found[0].statement
    assert "average over images" in found[0].evidence
    assert artefacts(features(stack("zeros"), "noise", size=(20, 20))) == []


def test_maps_that_are_zero_everywhere_reassure_nobody() -> None:
    net = stack("zeros")
    for part in net:
        if isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.bias)
    run = features(net, size=(20, 20))
    [only] = artefacts(run)
    assert only.statement.startswith("Border artefacts cannot be judged: every map of the blank input is zero")
    assert only.severity == "note"
    assert any(line.startswith("border artefacts cannot be judged") for line in run.lines())
    assert "no border artefacts" not in str(run)
    nn.init.ones_(net[4].bias)
    some = features(net, size=(20, 20))
    silent = "2 layers whose maps are zero everywhere cannot be judged"
    assert silent in some.lines()
    assert silent in artefacts(some).named("artefact-start").evidence


@pytest.fixture(scope="module")
def many() -> ImageSet:
    pixels = load_images("digits", limit=40).batch(np.arange(40))
    return ImageSet(np.concatenate([pixels] * 6), np.zeros(240, dtype=np.int64), name="six times")


def test_averages_are_held_against_chance(many: ImageSet) -> None:
    marked = artefacts(features(wrap(stack("zeros"), mean=0.2, std=0.5), average=many))
    said = marked.named("average-energy")
    assert said.severity == "note"
    assert "times what chance gives" in said.statement
    start = marked.named("artefact-start").statement
    assert start.endswith(", and on the average of 240 rolled images they start at layer 0.")
    clean = artefacts(features(wrap(stack("circular"), mean=0.2, std=0.5), average=many))
    assert "beyond chance" in clean.named("average-energy").statement
    assert clean.named("average-energy").severity == "info"
    bare = artefacts(features(wrap(stack("circular"), mean=0.2, std=0.5), average=many, controls=()))
    assert bare.named("average-energy") is None
    assert "photographs are centred" in bare.named("average-content").statement


def test_arithmetic_in_a_sentence() -> None:
    net = VGG("vgg6", width=2, downsample="stride")
    uneven, even = artefacts(inspect(net, 32)), artefacts(inspect(net, 33))
    assert "At 32x32, 3 of 10 layers use different padding on opposite sides: 0.6, 1.6, 2.6." in uneven[0].statement
    assert uneven[0].value == 3
    assert "33x33" in uneven[0].remedy
    assert even[0].severity == "info"
    assert "all 10 layers" in even[0].statement
    [known] = artefacts(inspect(net, 32, name="torchvision:resnet18"))
    assert parse(known.action.command)[1]["model"] == "torchvision:resnet18"


def patches(attends: bool) -> nn.Module:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 4, 4)
            self.places = nn.Parameter(torch.zeros(1, 16, 8))
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x)
            if not attends:
                return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]
            x = x.flatten(2).transpose(1, 2) + self.places
            x = self.attention(x, x, x, need_weights=False)[0].roll(1, 1)
            return self.head(x).mean(1)  # type: ignore[no-any-return]

    return Attending().eval()


def test_a_transformer_gets_no_all_clear() -> None:
    net = patches(attends=True)
    even, *rest = artefacts(inspect(net, 16))
    assert even.statement == (
        "At 16x16, the layers that were looked at (1 conv) use the same padding on opposite sides. "
        "The rest of the net is not judged."
    )
    said = " ".join(each.statement for each in rest)
    for what in ("attention in attention:", "position embeddings in places:", "tokens in head:", "calls in roll()"):
        assert what in said
    assert all(each.severity == "note" for each in rest)
    assert "all 1 layers" not in "\n".join(inspect(net, 16).lines())
    run = artefacts(features(net, size=(16, 16)))
    assert run.named("artefact-start").statement.startswith("The one layer that was judged shows no border")
    assert run.named("unseen-1").statement.startswith("Not looked at: attention in attention")
    # A net whose every layer has a window is judged whole.
    assert [each.id for each in artefacts(inspect(patches(attends=False), 16))] == ["uneven-padding"]


def test_remedies_act_on_the_users_net_and_fit_the_cause(many: ImageSet) -> None:
    strided = wrap(VGG("vgg6", width=2), mean=0.2, std=0.5, name="net.py:make")
    found = artefacts(features(strided, average=many))
    actions = [each.action for each in found if each.action is not None]
    name, options = parse(actions[1].command)
    assert (name, options["model"], options["downsample"]) == ("repair", "net.py:make", "blur")
    assert (options["finetune_epochs"], options["finetune_shift"], options["data"]) == (2, 4, "DATA")
    # Other padding comes after it, as an experiment.
    assert parse(actions[2].command)[1]["padding"] == "reflect"
    assert actions[2].text.startswith("As an experiment")
    # So is a run directory.
    named = wrap(VGG("vgg6", width=2), mean=0.2, std=0.5, name="runs/vgg")
    found = artefacts(features(named, average=many))
    of_run = [parse(each.action.command) for each in found if each.action is not None]
    assert [name for name, _ in of_run] == ["inspect", "repair", "repair"]
    options = of_run[1][1]
    assert options["model"] == "runs/vgg"
    assert (options["downsample"], options["padding"]) == ("blur", None)
    assert (options["finetune_epochs"], options["finetune_shift"], options["data"]) == (2, 4, "DATA")
    assert of_run[2][1]["padding"] == "reflect"
    # A net without strides has nothing to blur; a net that was only an object is not called by its class.
    dense = artefacts(features(stack("zeros"), size=(20, 20))).named("artefact-energy")
    assert "--downsample" not in dense.action.command
    assert parse(dense.action.command)[1]["model"] == "MODEL"
    # Nothing is advised where there are no artefacts, and nothing about padding where all layers are even.
    assert all(each.action is None for each in artefacts(features(stack("symmetric"), size=(20, 20))))
    assert all(each.action is None for each in artefacts(inspect(VGG("vgg6", width=2), 32)))
    assert not any("train" in each.command for each in actions)


def test_what_could_not_be_seen_is_a_note() -> None:
    class Tokens(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, c, h, w = x.shape
            return x.flatten(2).softmax(-1).view(n, c, h, w)

    found = artefacts(features(nn.Sequential(nn.Conv2d(3, 4, 3), Tokens(), nn.Conv2d(4, 4, 3)), size=(16, 16)))
    assert found.named("unseen-1").statement.startswith("Rows and columns cannot be followed past")
