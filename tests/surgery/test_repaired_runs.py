"""A repaired model saves, loads and is measured like any other, and its JSON cannot do harm."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from shiftlens.data.images import load_images
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError
from shiftlens.models.loading import load_model
from shiftlens.models.runs import load_run, save_run
from shiftlens.models.wrapping import build_model
from shiftlens.nn import VGG
from shiftlens.nn.padding import PADDING_MODES
from shiftlens.nn.repair_mark import MARK, without_mark
from shiftlens.shifts import ShiftGrid
from shiftlens.surgery import repair
from shiftlens.sweeping import sweep

PREPROCESSING = Preprocessing((0.1,) * 3, (0.5,) * 3, (32, 32), None, "bilinear", True)


def saved(path: Path, net: VGG, **how: str) -> nn.Module:
    fixed, edits = repair(net, **how)  # type: ignore[call-overload]
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": net.config}
    told = [edit.to_dict() for edit in edits]
    save_run(path, fixed, build=build, preprocessing=PREPROCESSING, edits=told, parents=["sha256:parent"])
    return fixed


@pytest.mark.parametrize("padding", [mode for mode in PADDING_MODES if mode != "zeros"])
def test_a_repaired_run_loads_again_without_code(padding: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = VGG("vgg6", n_classes=3, width=2, downsample="max3").eval()
    fixed = saved(tmp_path / "run", net, padding=padding, downsample="polyphase")
    model = load_run(tmp_path / "run")
    assert model.digest == build_model(fixed, PREPROCESSING, "fixed").digest
    assert model.digest != build_model(net, PREPROCESSING, "net").digest
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.scores(x), fixed(x))
    spec = json.loads((tmp_path / "run" / "model.json").read_text())
    assert spec["parents"] == ["sha256:parent"]
    assert set(spec["edits"][0]) >= {"path", "what", "before", "after"}


def test_a_repaired_torchvision_net_loads_again(tmp_path: Path) -> None:
    import torchvision.models as zoo

    torch.manual_seed(0)
    net = zoo.shufflenet_v2_x0_5(num_classes=3).eval()
    fixed, edits = repair(net, padding="reflect", downsample="polyphase", size=64)
    build = {"factory": "torchvision:shufflenet_v2_x0_5", "kwargs": {"num_classes": 3}}
    told = [edit.to_dict() for edit in edits]
    save_run(tmp_path / "run", fixed, build=build, preprocessing=replace(PREPROCESSING, size=(64, 64)), edits=told)
    model = load_run(tmp_path / "run")
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.scores(x), fixed(x))


def test_a_repaired_run_is_swept_like_any_other(tmp_path: Path) -> None:
    saved(tmp_path / "run", VGG("vgg6", n_classes=10, width=2).eval(), padding="reflect", downsample="blur")
    images = load_images("digits", limit=4)
    result = sweep(load_model(tmp_path / "run"), images, ShiftGrid(1), out=tmp_path / "s.zarr", engine="direct")
    assert result.complete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["edits"].pop(), "another structure|of another shape|unexpected|missing"),
        (lambda s: s["edits"][0].update(path="7.7"), "has no layer '7.7'"),
        (lambda s: s["edits"][0].update(what="os.system"), "unknown edit 'os.system'"),
        (lambda s: s["edits"][0].update(after="__import__"), "unknown padding mode"),
        (lambda s: s["edits"][0].pop("path"), "needs a path"),
        (
            lambda s: s.update(
                edits=[{"path": "", "what": "input padding", "after": "zeros", "sides": [1] * 4}] * 5000
            ),
            "padded already",
        ),
    ],
)
def test_edits_of_a_run_from_a_stranger(tmp_path: Path, change, message: str) -> None:
    net = VGG("vgg6", n_classes=3, width=2, downsample="stride").eval()
    saved(tmp_path / "run", net, padding="reflect", downsample="blur")
    file = tmp_path / "run" / "model.json"
    spec = json.loads(file.read_text())
    change(spec)
    file.write_text(json.dumps(spec))
    with pytest.raises(InputError, match=message) as caught:
        load_run(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_edits_that_do_not_lead_to_the_net_are_not_saved(tmp_path: Path) -> None:
    net = VGG("vgg6", n_classes=3, width=2).eval()
    fixed, edits = repair(net, padding="reflect")
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": net.config}
    told = [edit.to_dict() for edit in edits[1:]]
    with pytest.raises(InputError, match="and 5 edits gives another net"):
        save_run(tmp_path / "run", fixed, build=build, preprocessing=PREPROCESSING, edits=told)
    assert not (tmp_path / "run").exists()


def test_repaired_weights_do_not_load_into_the_net_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = VGG("vgg6", n_classes=3, width=2).eval()
    fixed = saved(tmp_path / "run", plain, padding="reflect")
    x = torch.randn(2, 3, 32, 32)
    # From memory, from the run's file, and as a part of another net.
    weights = load_file(tmp_path / "run" / "model.safetensors")
    for net, state in (
        (plain, fixed.state_dict()),
        (plain, weights),
        (nn.Sequential(plain), nn.Sequential(fixed).state_dict()),
    ):
        with pytest.raises(RuntimeError, match=re.escape(MARK)):
            net.load_state_dict(state)
    file = tmp_path / "net.py"
    file.write_text("from shiftlens.nn import VGG\ndef make():\n    return VGG('vgg6', n_classes=3, width=2)\n")
    with pytest.raises(InputError, match="repaired by shiftlens"):
        load_model(f"{file}:make", weights=tmp_path / "run" / "model.safetensors")
    # The repaired net, a copy of it and the same repair again take them, with the mark and without.
    for again in (copy.deepcopy(fixed), repair(plain, padding="reflect")[0], pickle.loads(pickle.dumps(fixed))):
        for state in (weights, without_mark(weights)):
            for value in again.parameters():
                nn.init.zeros_(value)
            again.load_state_dict(state)
            assert torch.equal(again(x), fixed(x))
        assert sum(name.endswith(MARK) for name in again.state_dict()) == 1


def test_a_repaired_run_written_before_the_mark_is_read(tmp_path: Path) -> None:
    fixed = saved(tmp_path / "run", VGG("vgg6", n_classes=3, width=2).eval(), padding="reflect")
    new = load_run(tmp_path / "run")
    file = tmp_path / "run" / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    save_file(without_mark(load_file(file)), file, about)
    old = load_run(tmp_path / "run")
    assert old.digest == new.digest
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(old.scores(x), fixed(x))
