"""A model's digest sees the settings that layers do not print, and nothing that is no setting."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.models.digests import structure
from shiftlens.models.loading import wrap
from shiftlens.models.runs import load_run, save_run
from shiftlens.models.wrapping import build_model
from shiftlens.models.zoo import torchvision_net
from shiftlens.nn import VGG

pytestmark = pytest.mark.filterwarnings("ignore:.* declares no preprocessing")


class Scale(nn.Module):
    def __init__(self, by: Any) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.by


class Attending(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).mean(1).reshape(len(x), -1, 8)
        return self.attention(tokens, tokens, tokens)[0].mean(1)


def scaled(by: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Scale(by), nn.Flatten(), nn.Linear(3 * 8 * 8, 2))


SETTINGS = [1.0, -1.0, 1, True, None, "1", "a", (1, 2), (2, 1), ((1,), 2), ()]


def test_settings_that_only_forward_uses_tell_models_apart() -> None:
    digests = [build_model(scaled(by), Preprocessing(), "net").digest for by in SETTINGS]
    assert len(set(digests)) == len(SETTINGS)
    assert digests == [build_model(scaled(by), Preprocessing(), "net").digest for by in SETTINGS]
    x = torch.ones(1, 3, 8, 8)
    assert not torch.equal(scaled(1.0)(x), scaled(-1.0)(x))  # they do differ


def test_the_heads_of_an_attention_tell_models_apart() -> None:
    two, four = Attending(2), Attending(4)
    assert repr(two) == repr(four)
    assert wrap(two, size=8).digest != wrap(four, size=8).digest


@pytest.mark.parametrize("name", ["training", "_cache", "found", "where"])
def test_what_is_no_setting_does_not_count(name: str) -> None:
    one, other = scaled(2.0), scaled(2.0)
    value = {"training": False, "_cache": 3, "found": [1, object()], "where": {"a": 1}}[name]
    setattr(other[0], name, value)
    assert structure(one) == structure(other)


def test_addresses_in_texts_do_not_count() -> None:
    assert structure(scaled("<function f at 0x7f00>")) == structure(scaled("<function f at 0x7f11>"))


def test_mode_copies_and_forward_passes_do_not_count() -> None:
    for net in (scaled(0.5), Attending(2), torchvision_net("mobilenet_v3_small", 3), torchvision_net("swin_t", 3)):
        digest = build_model(net.eval(), Preprocessing(), "net").digest
        with torch.no_grad():
            net(torch.zeros(1, 3, *((8, 8) if len(list(net.modules())) < 5 else (64, 64))))
        assert build_model(net.train(), Preprocessing(), "net").digest == digest
        assert build_model(copy.deepcopy(net), Preprocessing(), "net").digest == digest
        assert build_model(net.to("cpu"), Preprocessing(), "net").digest == digest


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from test_digests import Attending
from shiftlens.models.loading import wrap
print(wrap(Attending(4), size=8).digest)
"""


def test_the_digest_is_the_same_in_another_process() -> None:
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.strip() == wrap(Attending(4), size=8).digest


@pytest.mark.parametrize("padding", ["zeros", "symmetric"])
def test_a_run_has_the_digest_of_the_net_that_was_saved(tmp_path: Path, padding: str) -> None:
    net = VGG("vgg6", n_classes=3, width=2, padding=padding, size=(32, 48), head="flatten")
    preprocessing = Preprocessing((0.5,), (0.25,), (32, 48))
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": net.config}
    before = build_model(net, preprocessing, "net").digest
    save_run(tmp_path / "run", net, build=build, preprocessing=preprocessing)
    assert load_run(tmp_path / "run").digest == before


def test_a_single_number_of_any_stride_has_a_digest() -> None:
    net = nn.BatchNorm2d(1)
    before = wrap(net, mean=0.5, std=0.25).digest
    net.weight = nn.Parameter(torch.as_strided(torch.ones(1), (1,), (0,)))
    assert net.weight.stride() == (0,)
    assert wrap(net, mean=0.5, std=0.25).digest == before
