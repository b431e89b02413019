"""A model and images remember what they were asked for with, and what was changed in Python is known to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from shiftlens.data.images import load_images
from shiftlens.given import CHANGED, MODEL_OPTIONS, as_given, option_words
from shiftlens.models.adapting import adapted
from shiftlens.models.loading import load_model, wrap
from shiftlens.models.matching import labelled_for
from shiftlens.nn.vgg import VGG
from shiftlens.surgery import repair, with_input_size
from shiftlens.surgery.healing import copied
from shiftlens.tasks.stored_form import known_task


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    code = "from shiftlens.nn import VGG\n\n\ndef make():\n    return VGG('vgg6', width=2)\n"
    Path("options_net.py").write_text(code)
    return "options_net.py:make"


def test_what_was_given_is_remembered_and_nothing_else(factory: str) -> None:
    assert load_model(factory).options == {}
    given = {"weights": "random", "mean": (0.5, 0.25, 0.125), "std": "0.5", "input_size": 32, "interpolation": "box"}
    model = load_model(factory, device="cpu", **given)
    assert model.options == given | {"mean": [0.5, 0.25, 0.125]}
    assert model.at((16, 16)).options == model.options
    assert adapted(model, known_task("classification"), (32, 32))[0].options == model.options
    assert wrap(VGG("vgg6", width=2), mean=0.5, std=0.5).options == {}
    words = option_words(model.options, MODEL_OPTIONS)
    assert words[:6] == ("--weights", "random", "--mean", "0.5,0.25,0.125", "--std", "0.5")
    again = load_model(factory, **{words[k].strip("-").replace("-", "_"): words[k + 1] for k in range(0, 10, 2)})
    assert again.preprocessing == model.preprocessing


def test_a_model_that_was_changed_in_python_is_known_to_be(factory: str) -> None:
    model = load_model(factory, mean=0.5, std=0.5, input_size=32)
    assert repair(model, padding="reflect")[0].options == CHANGED
    assert with_input_size(model, (33, 33))[0].options == CHANGED
    assert with_input_size(model, (34, 34), pad="reflect")[0].options == CHANGED
    assert copied(model)[0].options == CHANGED


def test_images_remember_too() -> None:
    images = load_images("digits", split="all", limit=30)
    assert images.options == {"split": "all", "limit": 30}
    for made in (images.limit(3), images.fitted((8, 8)), images.with_channels(1)):
        assert made.options == images.options
    # No option names pictures that were chosen by their positions.
    assert images.subset([1, 2]).options == CHANGED
    names = {str(k): k for k in range(10)}
    mapped = labelled_for(wrap(nn.Flatten(), mean=0.5, std=0.5, size=32), images, names)
    assert mapped.options == images.options | {"label_map": names}
    assert load_images((np.zeros((2, 3, 4, 4), np.uint8), [0, 1])).options == {}


def test_values_are_plain() -> None:
    found = as_given(weights=Path("a") / "b.pt", mean=np.array([0.5, 0.25]), std=np.float32(0.5), crop=None)
    assert found == {"weights": str(Path("a/b.pt")), "mean": [0.5, 0.25], "std": 0.5}
    assert [type(v) for v in (*found["mean"], found["std"])] == [float] * 3
