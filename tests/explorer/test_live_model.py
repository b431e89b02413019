"""What the live page shows is what the model says: of the shifted image, with each fill and padding."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import shiftlens as sl
from shiftlens.errors import InputError
from shiftlens.explorer.fitting_images import CIFAR10, sample_for, shipped
from shiftlens.explorer.live_model import FILLS, LiveModel
from shiftlens.explorer.readings import Answer, framed, kept_share
from shiftlens.explorer.shown_images import MOST_PHOTOS

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


def test_the_small_images_are_of_every_class_whatever_the_order_of_the_set() -> None:
    images = sl.ImageSet(np.zeros((50, 1, 32, 32), np.uint8), np.repeat(np.arange(5), 10))
    about = LiveModel(sl.wrap(net(), mean=MEAN, std=STD, size=32), images).about()
    assert [each["image"] for each in about["thumbnails"]] == [
        "0", "1", "2", "10", "11", "12", "20", "21", "30", "31", "40", "41"
    ]  # fmt: skip
    assert all(each["uri"].startswith("data:image/png") for each in about["thumbnails"])


def ask(live: LiveModel, image: str, padding: str = "original", **how: Any) -> Answer:
    (answer,) = live.answers(image, paddings=[padding], **how)
    return answer


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
        answer = ask(live, "3", padding, dx=dx, dy=dy, fill=fill)
        found = answer.said
        logits = expected(live, 3, dx, dy, fill, padding)
        best = logits.topk(5).indices.tolist()
        assert [each["number"] for each in found["classes"]] == best
        np.testing.assert_allclose([each["logit"] for each in found["classes"]], logits[best], rtol=1e-4, atol=1e-5)
        shares = logits.double().softmax(0)[best]
        np.testing.assert_allclose([each["probability"] for each in found["classes"]], shares, rtol=1e-4)
        label = int(live.images.labels[3])
        assert found["label"] == str(label)
        assert found["loss"] == pytest.approx(float(-logits.double().log_softmax(0)[label]), rel=1e-4, abs=1e-6)
        assert answer.maps is None
        assert found["padding"] == padding
        assert found["unshifted"]["number"] == int(expected(live, 3, 0, 0, fill, padding).argmax())


def test_the_paddings_differ_and_the_original_stays(live: LiveModel) -> None:
    before = ask(live, "0", dx=4).said
    other = ask(live, "0", "circular", dx=4).said
    assert other["classes"] != before["classes"]
    assert [each.said for each in live.answers("0", dx=4, paddings=["original", "circular"])] == [before, other]
    weight = next(live.with_padding("circular")[0].module.parameters())
    assert weight is next(live.model.module.parameters())
    # The maps grow, and the linear layer does not take them.
    with pytest.raises(InputError, match="this net cannot pad with full: "):
        ask(live, "0", "full")
    for padding in set(live.paddings) - {"full"}:
        assert len(ask(live, "0", padding).said["classes"]) == 5


def parts_of(message: bytes) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]]]:
    """The server's message as the page reads it: JSON, and each column's mask and sheet of maps."""
    n = int.from_bytes(message[:4], "little")
    told, at, found = json.loads(message[4 : 4 + n]), 4 + n, []
    for column in told["columns"]:
        for shape in (column["mask"], column["maps"]):
            if shape is not None:
                size = shape[0] * shape[1]
                found.append(np.frombuffer(message[at : at + size], np.uint8).reshape(shape))
                at += size
    assert at == len(message)
    return told, found


def test_maps_are_those_of_the_layer(live: LiveModel) -> None:
    assert list(live.sites) == ["0", "2"]
    answers = live.answers("1", dx=2, dy=1, layer="2", paddings=["original", "replicate"])
    told, sheets = parts_of(framed({"dx": 2, "dy": 1}, answers))
    assert (told["dx"], told["dy"], len(sheets)) == (2, 1, 2)
    wanted = []
    for padding in ("original", "replicate"):
        model = live.model if padding == "original" else sl.repair(live.model, padding)[0]
        x = model.preprocessing.normalise(torch.from_numpy(live.images.batch([1])))
        x = sl.translate(x, 2, 1, fill=[-m / s for m, s in zip(MEAN, STD, strict=True)])
        with torch.no_grad():
            wanted.append(model.module[:4](x)[0].numpy())
    # One scale for both, so that they can be compared.
    assert (told["low"], told["high"]) == pytest.approx((np.min(wanted), np.max(wanted)), rel=1e-5)
    for column, sheet, maps in zip(told["columns"], sheets, wanted, strict=True):
        assert column["n_filters"] == 8
        assert sheet.shape == (2 * 17 - 1, 4 * 17 - 1)
        assert not sheet[16].any()
        shown = told["low"] + (sheet[17:33, 17:33].astype(float) - 1) / 254 * (told["high"] - told["low"])
        np.testing.assert_allclose(shown, maps[5], atol=(told["high"] - told["low"]) / 250)


def test_maps_without_finite_numbers_are_drawn() -> None:
    odd = np.array([[[np.nan, np.inf], [-1.0, 3.0]]] * 5, np.float32)
    told, (sheet,) = parts_of(framed({}, [Answer({"classes": []}, maps=odd, n_filters=5)]))
    assert (told["low"], told["high"]) == (-1, 3)
    assert sheet[:2, :2].tolist() == [[1, 255], [1, 255]]


def test_a_small_sweep_is_the_answers(live: LiveModel) -> None:
    dys, dxs = live.grid()
    assert (dys[0], dys[-1], dxs[0], dxs[-1]) == (-16, 16, -16, 16)
    rows = list(live.sweep("2", fill="edge", padding="reflect"))
    assert len(rows) == len(dys)
    for row, column in ((0, 0), (5, 20), (16, 16), (32, 1)):
        answer = ask(live, "2", "reflect", dx=dxs[column], dy=dys[row], fill="edge").said
        assert rows[row][column] == answer["classes"][0]["number"]


def test_a_layer_that_the_copy_makes_of_several_has_its_map() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 2, padding=1), nn.Flatten(), nn.Linear(1024, 2))
    live = LiveModel(sl.wrap(net, mean=MEAN, std=STD, size=32), sl.load_images("digits", limit=2))
    first, second = live.answers("0", layer="1", paddings=["original", "symmetric"])
    assert first.maps is not None
    assert second.maps is not None
    assert second.maps.shape == first.maps.shape
    copy = sl.repair(live.model, "symmetric")[0]
    x = live.model.preprocessing.normalise(torch.from_numpy(live.images.batch([0])))
    with torch.no_grad():
        np.testing.assert_array_equal(second.maps, copy.module[:2](x)[0].numpy())


def test_a_large_image_is_swept_in_larger_steps() -> None:
    big = sl.ImageSet(np.zeros((1, 3, 224, 224), np.uint8), [0])
    small = nn.Sequential(nn.AvgPool2d(32), nn.Conv2d(3, 2, 7), nn.Flatten())
    dys, dxs = LiveModel(sl.wrap(small, mean=0, std=1, size=224), big).grid()
    assert len(dys) == len(dxs) == 17
    assert 0 in dys
    assert dxs[-1] <= 112


def as_file(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_a_photo_is_brought_to_the_model_s_size_as_images_are(live: LiveModel) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    name = live.shown.add(as_file(pixels))
    wanted = sl.ImageSet(pixels[None], [0]).fitted((32, 32), None, "bilinear").batch([0])[0]
    np.testing.assert_array_equal(live.shown.pixels(name), wanted)
    answer = ask(live, name).said
    assert answer["label"] is None
    assert answer["loss"] is None
    for _ in range(MOST_PHOTOS):
        last = live.shown.add(as_file(pixels[:40, :40]))
    live.shown.pixels(last)
    with pytest.raises(InputError, match="expected an image from 0 to 11, or a photo"):
        live.shown.pixels(name)


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
        ask(live, **{"image": "0"} | change)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"%PDF-1.4", as_file(np.zeros((4, 4), np.uint8))[:40]])
def test_a_photo_that_is_none_is_refused(live: LiveModel, data: bytes) -> None:
    with pytest.raises(InputError, match="the photo"):
        live.shown.add(data)


def test_a_callable_has_scores_and_one_padding() -> None:
    inner = net()
    live = LiveModel(
        sl.wrap(lambda x: inner(x), mean=0, std=1, size=32, name="mine"), sl.load_images("digits", limit=3)
    )
    assert live.paddings == ("original",)
    assert live.sites == {}
    assert len(ask(live, "1").said["classes"]) == 5


def test_a_task_without_a_live_view_says_so() -> None:
    dense = nn.Conv2d(3, 1, 3, padding=1)
    with pytest.raises(InputError, match=r"has no live view: classifiers, segmenters .* and detectors have one"):
        LiveModel(sl.wrap(dense, mean=0, std=1, size=32), sl.load_images("digits", limit=3))


@pytest.mark.slow
def test_what_takes_memory_and_is_of_no_use_here_is_not_imported() -> None:
    code = (
        "import shiftlens as sl, sys\n"
        "from shiftlens.explorer import serving\n"
        "live = serving._choices('pretrained:vgg-cifar10', 'digits', 'cpu', None).at(0)\n"
        "live.answers('0', dx=1, paddings=['original', 'symmetric'], layer='0.0')\n"
        "live.about(), serving.page([''])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    heavy = {"sklearn", "pandas", "xarray", "zarr", "matplotlib", "scipy.stats", "sympy", "torch._dynamo"}
    assert set(done.stdout.split()) & heavy == set()


class Segmenter(nn.Module):
    """Half the image's size: class 1 where red is above one half, else 0 of 3."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = nn.functional.avg_pool2d(x[:, :1], 2) - 0.5
        return torch.cat([-red, red, torch.full_like(red, -9)], 1)


def test_a_segmenter_s_mask_moves_with_the_image() -> None:
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    pixels[0, 4:8, 4:8] = 255
    live = LiveModel(sl.wrap(Segmenter(), mean=0, std=1, size=16), sl.ImageSet(pixels))
    assert live.task == "segmentation"
    still, moved = ask(live, "0"), ask(live, "0", dx=4, dy=2)
    assert still.mask is not None
    assert moved.mask is not None
    assert still.mask.sum() == 16
    np.testing.assert_array_equal(moved.mask[2:, 4:], still.mask[:-2, :-4])
    assert [(each["number"], each["probability"]) for each in moved.said["classes"]] == [(0, 240 / 256), (1, 16 / 256)]
    assert moved.said["kept"] == 1
    assert parts_of(framed({}, [moved]))[1][0].tolist() == moved.mask.tolist()
    # An odd shift is not a whole one of the map's: the mask changes.
    assert 0.9 < ask(live, "0", dx=1).said["kept"] < 1
    assert ask(live, "0", dx=16).said["kept"] is None
    with pytest.raises(InputError, match="predicts no single class"):
        live.refuse_unknown("0", "black", "original")


def test_the_share_that_is_kept() -> None:
    before = np.arange(12, dtype=np.uint8).reshape(3, 4)
    now = np.zeros_like(before)
    now[1:, :3] = before[:-1, 1:]
    assert kept_share(before, now, -1, 1) == 1
    now[2, 0] = 99
    assert kept_share(before, now, -1, 1) == 5 / 6


class Detector(nn.Module):
    """A box at the brightest pixel, of that score."""

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        found = []
        for each in x[:, 0]:
            y, x_ = divmod(int(each.argmax()), each.shape[1])
            boxes = torch.tensor([[x_, y, x_ + 2, y + 2], [0, 0, 1, 1]], dtype=torch.float32)
            found.append(
                {"boxes": boxes, "scores": torch.stack([each.max(), each.min()]), "labels": torch.tensor([1, 0])}
            )
        return found


def test_a_detector_s_boxes_move_with_the_image() -> None:
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    pixels[0, 5, 6] = 255
    model = sl.wrap(Detector(), mean=0, std=1, size=16, class_names=("cat", "dog"))
    live = LiveModel(model, sl.ImageSet(pixels))
    assert live.task == "detection"
    said = ask(live, "0", dx=3, dy=-2).said
    assert said["boxes"] == [[9, 3, 11, 5, 1, 1]]
    assert (said["classes"][0]["name"], said["n_unshifted"]) == ("dog", 1)
    assert ask(live, "0", dx=16).said["classes"] == []


def named(names: tuple[str, ...] | None, size: int | None) -> sl.Model:
    linear = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, len(names or "12")))
    return sl.wrap(linear, mean=0, std=1, size=size, class_names=names)


def test_images_that_do_not_fit_the_model_are_never_shown_unsaid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SHIFTLENS_DATA", raising=False)
    digits, note = sample_for(named(tuple("0123456789"), 32))
    assert (digits.name, note) == ("digits", "")
    for names, size, data in ((CIFAR10, 32, "photos"), (None, 64, "photos"), (("cat", "dog"), None, "digits")):
        images, note = sample_for(named(names, size))
        assert data in images.name
        assert "need not show a class of the model" in note
        assert all(name in note for name in names or ())
    assert shipped()[-1] == "vgg-cifar10"
    (tmp_path / "data" / "cifar10" / "cifar-10-batches-py").mkdir(parents=True)
    assert shipped(tmp_path / "data")[0] == "vgg-cifar10"
