"""What the live page shows is what the model says: of the shifted image, with each fill and padding."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import shiftlens as sl
from shiftlens.errors import InputError
from shiftlens.explorer.live_model import FILLS, MOST_PHOTOS, MOST_SHIFTS, LiveModel

MEAN, STD = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 256, 10),
    ).eval()


@pytest.fixture(scope="module")
def live() -> LiveModel:
    return LiveModel(sl.wrap(net(), mean=MEAN, std=STD, size=32), sl.load_images("digits", limit=12))


def expected(live: LiveModel, image: int, dx: int, dy: int, fill: str, padding: str) -> torch.Tensor:
    """Logits by another way: the normalised image translated, through a net that is repaired here."""
    model = live.model if padding == "original" else sl.repair(live.model, padding)[0]
    x = model.preprocessing.normalise(torch.from_numpy(live.images.batch([image])))
    numbers = {"black": [-m / s for m, s in zip(MEAN, STD, strict=True)], "mean": [0.0, 0.0, 0.0]}
    return model.scores(sl.translate(x, dx, dy, fill=numbers.get(fill, fill)))[0]


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("padding", ["original", "symmetric"])
def test_an_answer_is_the_model_s_own(live: LiveModel, fill: str, padding: str) -> None:
    for dx, dy in ((0, 0), (5, -3), (-32, 32), (-1, 0)):
        found = live.answer("3", dx=dx, dy=dy, fill=fill, padding=padding)
        logits = expected(live, 3, dx, dy, fill, padding)
        best = logits.topk(5).indices.tolist()
        assert [each["number"] for each in found["classes"]] == best
        np.testing.assert_allclose([each["logit"] for each in found["classes"]], logits[best], rtol=1e-4, atol=1e-5)
        shares = logits.double().softmax(0)[best]
        np.testing.assert_allclose([each["probability"] for each in found["classes"]], shares, rtol=1e-4)
        label = int(live.images.labels[3])
        assert found["label"] == str(label)
        assert found["loss"] == pytest.approx(float(-logits.double().log_softmax(0)[label]), rel=1e-4, abs=1e-6)
        assert found["maps"] is None


def test_the_paddings_differ_and_the_original_stays(live: LiveModel) -> None:
    before = live.answer("0", dx=4)
    assert live.answer("0", dx=4, padding="circular")["classes"] != before["classes"]
    assert live.answer("0", dx=4) == before
    # The maps grow, and the linear layer does not take them.
    with pytest.raises(InputError, match="this net cannot pad with full: "):
        live.answer("0", padding="full")
    for padding in set(live.paddings) - {"full"}:
        assert len(live.answer("0", padding=padding)["classes"]) == 5


def test_maps_are_those_of_the_layer(live: LiveModel) -> None:
    assert list(live.sites) == ["0", "2"]
    for padding in ("original", "replicate"):
        found = live.answer("1", dx=2, dy=1, layer="2", padding=padding)["maps"]
        model = live.model if padding == "original" else sl.repair(live.model, padding)[0]
        x = model.preprocessing.normalise(torch.from_numpy(live.images.batch([1])))
        x = sl.translate(x, 2, 1, fill=[-m / s for m, s in zip(MEAN, STD, strict=True)])
        with torch.no_grad():
            maps = model.module[:4](x)[0].numpy()
        assert (found["low"], found["high"]) == pytest.approx((float(maps.min()), float(maps.max())), rel=1e-5)
        assert found["n_filters"] == 8
        sheet = np.frombuffer(base64.b64decode(found["cells"]["data"]), np.uint8).reshape(found["cells"]["shape"])
        assert sheet.shape == (2 * 17 - 1, 4 * 17 - 1)
        assert not sheet[16].any()
        shown = found["low"] + (sheet[17:33, 17:33].astype(float) - 1) / 254 * (found["high"] - found["low"])
        np.testing.assert_allclose(shown, maps[5], atol=(found["high"] - found["low"]) / 250)


def test_a_small_sweep_is_the_answers(live: LiveModel) -> None:
    dys, dxs = live.grid()
    assert (dys[0], dys[-1], dxs[0], dxs[-1]) == (-16, 16, -16, 16)
    rows = list(live.sweep("2", fill="edge", padding="reflect"))
    assert len(rows) == len(dys)
    for row, column in ((0, 0), (5, 20), (16, 16), (32, 1)):
        answer = live.answer("2", dx=dxs[column], dy=dys[row], fill="edge", padding="reflect")
        assert rows[row][column] == answer["classes"][0]["number"]


def test_a_large_image_is_swept_in_larger_steps() -> None:
    big = sl.ImageSet(np.zeros((1, 3, 224, 224), np.uint8), [0])
    small = nn.Sequential(nn.AvgPool2d(32), nn.Conv2d(3, 2, 7), nn.Flatten())
    dys, dxs = LiveModel(sl.wrap(small, mean=0, std=1, size=224), big).grid()
    assert len(dys) * len(dxs) <= MOST_SHIFTS
    assert 0 in dys
    assert 0 in dxs


def as_file(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_a_photo_is_brought_to_the_model_s_size_as_images_are(live: LiveModel) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    name = live.add(as_file(pixels))
    wanted = sl.ImageSet(pixels[None], [0]).fitted((32, 32), None, "bilinear").batch([0])[0]
    np.testing.assert_array_equal(live.pixels(name), wanted)
    answer = live.answer(name)
    assert answer["label"] is None
    assert answer["loss"] is None
    for _ in range(MOST_PHOTOS):
        last = live.add(as_file(pixels[:40, :40]))
    live.pixels(last)
    with pytest.raises(InputError, match="expected an image from 0 to 11, or a photo"):
        live.pixels(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "12"}, "from 0 to 11"),
        ({"image": "-1"}, "from 0 to 11"),
        ({"image": "../../etc/passwd"}, "from 0 to 11"),
        ({"image": "٣"}, "from 0 to 11"),
        ({"dx": 33}, "at most 32 px"),
        ({"dy": -33}, "at most 32 px"),
        ({"fill": "blakc"}, "black"),
        ({"padding": "symetric"}, "symmetric"),
        ({"layer": "9"}, "layer"),
    ],
)
def test_what_there_is_not_is_refused(live: LiveModel, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        live.answer(**{"image": "0"} | change)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"%PDF-1.4", as_file(np.zeros((4, 4), np.uint8))[:40]])
def test_a_photo_that_is_none_is_refused(live: LiveModel, data: bytes) -> None:
    with pytest.raises(InputError, match="the photo"):
        live.add(data)


def test_a_callable_has_scores_and_one_padding() -> None:
    inner = net()
    live = LiveModel(
        sl.wrap(lambda x: inner(x), mean=0, std=1, size=32, name="mine"), sl.load_images("digits", limit=3)
    )
    assert live.paddings == ("original",)
    assert live.sites == {}
    assert len(live.answer("1")["classes"]) == 5


def test_what_is_no_classifier_is_refused() -> None:
    with pytest.raises(InputError):
        LiveModel(sl.wrap(nn.Conv2d(3, 4, 3), mean=0, std=1, size=32), sl.load_images("digits", limit=3))
