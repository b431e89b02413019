"""A model, a net or a spec, and images or a spec: every public function takes each."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from torch import nn

import shiftlens as sl
from shiftlens.data.images import as_images
from shiftlens.models.loading import as_model
from shiftlens.nn import VGG


@pytest.fixture
def net() -> nn.Module:
    return VGG("vgg6", width=2, in_channels=3, n_classes=10).eval()


def test_a_net_and_a_spec_give_what_a_model_and_images_give(net: nn.Module) -> None:
    images = sl.load_images("digits")
    with pytest.warns(UserWarning, match="VGG declares no preprocessing: images enter with mean 0 and std 1") as warned:
        model = sl.wrap(net)
    assert Path(warned[0].filename) == Path(__file__)
    with pytest.warns(UserWarning, match="declares no preprocessing"):
        found = sl.evaluate(net, "digits")
    assert found == sl.evaluate(model, images)
    with pytest.warns(UserWarning, match="declares no preprocessing"):
        assert sl.consistency(net, images.limit(8)) == sl.consistency(model, images.limit(8))


def test_a_spec_is_loaded_for_the_images_that_it_will_see(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
    )
    with pytest.warns(UserWarning, match="declares no preprocessing"):
        model = as_model(f"{file}:make", sl.load_images("digits", limit=2))
    assert (model.input_size, model.n_classes) == ((32, 32), 10)


def test_a_spec_needs_no_size_where_it_declares_one() -> None:
    assert sl.inspect("torchvision:resnet18").size == (224, 224)
    assert sl.foveation("torchvision:resnet18").shape == (224, 224)


def test_images_of_a_spec_are_those_of_the_split() -> None:
    assert as_images("digits", split="train").digest == sl.load_images("digits", split="train").digest


@pytest.mark.parametrize(
    ("model", "images", "says"),
    [
        (5, "digits", "expected a Model .* or a spec such as 'torchvision:resnet18', got int"),
        ("nothing", "digits", "'nothing' does not exist and is no spec"),
        (nn.Identity(), 5, "expected an ImageSet .* or a spec such as 'digits', got int"),
        (nn.Identity(), ([], []), "expected an ImageSet .* got tuple"),
        (nn.Identity(), "digit", "unknown images 'digit'; did you mean 'digits'"),
    ],
)
def test_anything_else_is_refused(model: object, images: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sl.evaluate(model, images)  # type: ignore[arg-type]


@pytest.mark.parametrize("out", ["", "."])
def test_the_current_directory_is_no_place_for_a_result(
    net: nn.Module, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = sl.wrap(net, mean=0, std=1)
    for work in (lambda: sl.sweep(model, "digits", out=out), lambda: sl.features(net, size=(8, 8), out=out)):
        with pytest.raises(sl.InputError, match=r"out must name the result.*the current directory"):
            work()
    assert list(tmp_path.iterdir()) == []


def test_an_input_error_is_a_value_error_and_travels() -> None:
    error = pickle.loads(pickle.dumps(sl.InputError("said")))
    assert isinstance(error, ValueError)
    assert isinstance(error, sl.ShiftlensError)
    assert str(error) == "said"


def test_results_print_themselves(net: nn.Module) -> None:
    model = sl.wrap(net, size=32, mean=0.5, name="small")
    assert repr(model) == f"<Model small: {model.n_parameters:,} parameters, input 32x32>"
    found = sl.evaluate(model, sl.load_images("digits", limit=5))
    assert repr(found) == f"<Evaluation: {found.lines()[0]}>"
    assert str(found) == "\n".join(found.lines())
    assert repr(sl.kernels(model)) == "<Kernels of small: 6 layers>"
    assert repr(sl.inspect(model)).startswith("<Inspection: small at 32x32:")
