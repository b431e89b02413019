"""A transform of torchvision as preprocessing: the same pixels, or a refusal."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms as t
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

import shiftlens as sl
from shiftlens.data.imageset import ImageSet
from shiftlens.data.transforms import preprocessing_of
from shiftlens.errors import InputError
from shiftlens.given import MODEL_OPTIONS, as_given, option_words
from shiftlens.models.loading import load_model, wrap
from shiftlens.models.matching import on_input_grid
from shiftlens.models.runs import save_run

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
BICUBIC = t.InterpolationMode.BICUBIC


def net() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()


@pytest.mark.parametrize("shape", [(40, 40), (40, 57), (65, 41), (16, 24)])
@pytest.mark.parametrize(
    "transform",
    [
        t.Compose([t.Resize(36), t.CenterCrop(32), t.ToTensor(), t.Normalize(MEAN, STD)]),
        t.Compose([t.Resize(36, BICUBIC), t.CenterCrop((32, 30)), t.ToTensor(), t.Normalize(0.5, 0.25)]),
        t.Compose([t.Compose([t.Resize([32]), t.CenterCrop(32)]), t.PILToTensor(), t.ConvertImageDtype(torch.float32)]),
        v2.Compose([v2.ToImage(), v2.Resize(36), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True)]),
        ResNet18_Weights.IMAGENET1K_V1.transforms(crop_size=32, resize_size=36),
        t.Compose([t.Resize((32, 48)), t.ToTensor(), t.Normalize(MEAN, STD)]),
        t.Compose([t.Resize((36, 40)), t.CenterCrop((32, 30)), t.ToTensor()]),
    ],
)
def test_the_model_sees_what_the_transform_gives(transform: object, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    wanted = transform(Image.fromarray(pixels))
    model = wrap(net(), transform=transform)
    shown, size = on_input_grid(model, ImageSet([pixels], [0]))
    assert size == tuple(wanted.shape[-2:])
    seen = model.preprocessing.normalise(torch.from_numpy(shown.batch([0])))[0]
    # Images as tensors are resized by another kernel, which rounds once more.
    close = 1.01 / 255 if isinstance(transform, v2.Compose) else 1e-6
    assert (seen - torch.as_tensor(wanted)).abs().max() <= close
    assert model.notes == ()


@pytest.mark.parametrize("colour", [False, True])
def test_a_transform_to_grey_is_that_of_a_net_of_one_channel(colour: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 57, 3 if colour else 1), dtype=np.uint8)
    pixels = np.broadcast_to(pixels, (40, 57, 3))
    grey = t.Compose([t.Resize(36), t.CenterCrop(32), t.Grayscale(), t.ToTensor(), t.Normalize(0.5, 0.25)])
    model = wrap(nn.Sequential(nn.Conv2d(1, 2, 3), *net()[:2]), transform=grey)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # colour that is turned grey, which was asked for
        shown, _ = on_input_grid(model, ImageSet([pixels], [0]))
    seen = model.preprocessing.normalise(torch.from_numpy(shown.batch([0])))[0]
    wanted = torch.as_tensor(grey(Image.fromarray(pixels)))
    assert seen.shape == wanted.shape
    assert (seen - wanted).abs().max() <= (1.01 / 255 / 0.25 if colour else 1e-6)
    with pytest.raises(InputError, match="Grayscale gives 1 channel, Sequential takes 3"):
        wrap(nn.Sequential(nn.Conv2d(3, 2, 3), *net()[:2]), transform=grey)


def test_what_is_given_beside_a_transform_comes_first() -> None:
    transform = t.Compose([t.Resize(40), t.CenterCrop(32), t.ToTensor(), t.Normalize(MEAN, STD)])
    p = wrap(net(), transform=transform, mean=0.25, size=64).preprocessing
    assert (p.mean, p.std, p.size, p.resize) == ((0.25,) * 3, STD, (64, 64), 80)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([t.Resize(32, max_size=64), t.ToTensor()], "limits the longer side"),
        ([t.CenterCrop(32), t.ToTensor()], "CenterCrop without Resize"),
        ([t.CenterCrop(32), t.Resize(40)], "Resize comes after CenterCrop"),
        ([t.ToTensor(), t.ToTensor()], "ToTensor comes after ToTensor"),
        (
            [t.RandomHorizontalFlip(), t.ToTensor()],
            "RandomHorizontalFlip.* has no equal here; name the transform of",
        ),
        ([t.Grayscale(3), t.ToTensor()], "Grayscale.* has no equal here; expected Resize"),
        ([v2.ToImage(), v2.Grayscale()], "Grayscale.* has no equal here; .* Grayscale"),
        ([t.Grayscale(), t.Resize(36)], "Resize comes after Grayscale"),
        ([t.Lambda(lambda x: x), t.ToTensor()], "Lambda.* has no equal here"),
        ([v2.ToDtype(torch.float32, scale=False)], "does not scale to 0 ... 1"),
        ([t.ConvertImageDtype(torch.float64)], "does not scale to 0 ... 1"),
    ],
)
def test_what_has_no_equal_is_refused(steps: list, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        preprocessing_of(t.Compose(steps))
    assert "\n" not in str(caught.value)


def test_a_function_is_no_transform_that_could_be_read() -> None:
    with pytest.raises(InputError, match=r"transform: .*has no equal here; expected Resize\(n\) or Resize"):
        wrap(net(), transform=lambda image: image)


def test_stretching_is_kept_by_a_run_and_by_a_command(tmp_path) -> None:
    spec = {"weights": "random", "crop": 64, "resize": "70x80"}
    model = load_model("torchvision:squeezenet1_1", **spec)
    assert (model.preprocessing.size, model.preprocessing.resize) == ((64, 64), (70, 80))
    for resize in ("70x80", (70, 80), [70, 80]):
        words = option_words(as_given(resize=resize, crop=64), MODEL_OPTIONS)
        assert words == ("--resize", "70x80", "--crop", "64")
    assert option_words(as_given(resize=70), MODEL_OPTIONS) == ("--resize", "70")
    # Another input size scales both sides.
    assert model.preprocessing.overridden(size=(32, 128)).resize == (35, 160)
    with pytest.raises(InputError, match="resize must be at least 64"):
        load_model("torchvision:squeezenet1_1", **(spec | {"resize": (70, 60)}))
    for wrong in ("70x", 0, (1, 2, 3), "axb"):
        with pytest.raises(InputError, match="resize lies between 1 and 16384 pixels, H or HxW"):
            load_model("torchvision:squeezenet1_1", **(spec | {"resize": wrong}))
    build = {"factory": "torchvision:squeezenet1_1", "kwargs": {"num_classes": 1000}}
    save_run(tmp_path / "run", model.module, build=build, preprocessing=model.preprocessing)
    again = load_model(tmp_path / "run")
    assert (again.preprocessing, again.digest) == (model.preprocessing, model.digest)


def test_a_sweep_of_stretched_images_is_resumed(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    images = ImageSet(pixels, [0, 1, 2])
    model = wrap(net(), transform=t.Compose([t.Resize((24, 28)), t.CenterCrop(24), t.ToTensor()]))
    made = [sl.sweep(model, images, sl.ShiftGrid(1), out=tmp_path / "s.zarr", engine="direct") for _ in range(2)]
    assert made[1].header.preprocessing.resize == (24, 28)
    assert made[0].header == made[1].header


def test_resize_crop_and_interpolation_of_a_spec() -> None:
    spec = {"weights": "random", "crop": 64, "resize": 70, "interpolation": "bicubic"}
    p = load_model("torchvision:squeezenet1_1", **spec).preprocessing
    assert (p.size, p.resize, p.interpolation, p.mean) == ((64, 64), 70, "bicubic", (0.485, 0.456, 0.406))
    for change, says in (
        ({"resize": 60}, "resize must be at least 64, the side that is cut out; got 60"),
        ({"input_size": 32}, "the input is what is cropped: got input size 32 and crop 64, give one"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic'; did you mean 'bicubic'"),
    ):
        with pytest.raises(InputError, match=says):
            load_model("torchvision:squeezenet1_1", **(spec | change))


def test_resize_needs_to_know_what_is_cut_out(tmp_path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef make():\n    return nn.Flatten()\n")
    with pytest.raises(InputError, match=r"resize 40 needs an input size \(crop\)"):
        load_model(f"{tmp_path / 'net.py'}:make", resize=40)
