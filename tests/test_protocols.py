"""Consistency protocols against slow loops, on nets whose answer is known, and with requests that make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats as sps
from torch import nn

import reference
import shiftlens as sl
from shiftlens import protocols
from shiftlens.cli import main
from shiftlens.errors import InputError, ModelOutputError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
N = 24


@pytest.fixture(scope="module")
def images() -> sl.ImageSet:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (N, 3, 4, 4)).repeat(4, axis=2).repeat(4, axis=3)
    pixels = np.clip(blocks + rng.integers(-40, 40, (N, 3, 16, 16)), 0, 255).astype(np.uint8)
    return sl.ImageSet(pixels, rng.integers(0, 5, N))


def net(padding: str = "zeros", stride: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=stride, padding=1, padding_mode=padding),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode=padding),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


class Corner(nn.Module):
    """Looks at one place only: it changes its mind under nearly every shift."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 2:7, 3]


def wrapped(module: nn.Module) -> sl.Model:
    return sl.wrap(module, mean=MEAN, std=STD, size=16)


def balanced(module: nn.Module, head: nn.Linear, images: sl.ImageSet) -> nn.Module:
    """The same net with a bias by which every class is predicted: a constant net is always consistent."""
    with torch.no_grad():
        scores = module(torch.from_numpy(normalised(images.batch(slice(None)))))
        head.bias -= scores.mean(0)
        head.weight /= scores.std(0)[:, None]
        head.bias /= scores.std(0)
        chosen = module(torch.from_numpy(normalised(images.batch(slice(None))))).argmax(1)
    assert len(chosen.unique()) == 5
    return module


def draws(low: int, high: int, n: int, n_passes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, (n, n_passes, 2, 2))


def expected(views: np.ndarray, labels: np.ndarray, module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Same and right of views [n, passes, 2, c, h, w], a picture at a time."""
    same, right = [], []
    for image, label in zip(views, labels, strict=True):
        for pair in image:
            with torch.no_grad():
                top = [int(module(torch.from_numpy(view)[None]).argmax()) for view in pair]
            same.append(top[0] == top[1])
            right += [t == label for t in top]
    return np.array(same).reshape(len(views), -1), np.array(right).reshape(len(views), -1)


def normalised(pixels: np.ndarray) -> np.ndarray:
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))
    return ((pixels.astype(np.float32) / 255 - mean) / std).astype(np.float32)


def check(found: protocols.PairConsistency, same: np.ndarray, right: np.ndarray) -> None:
    assert 0.1 < same.mean() < 0.95
    assert found.passes == pytest.approx(tuple(same.mean(axis=0)))
    assert found.consistency.value == pytest.approx(same.mean())
    assert found.accuracy.value == pytest.approx(right.mean())
    shares = same.mean(axis=1)
    half = sps.t.ppf(0.975, N - 1) * shares.std(ddof=1) / np.sqrt(N)
    assert found.consistency.lo == pytest.approx(max(shares.mean() - half, 0))
    assert found.consistency.hi == pytest.approx(min(shares.mean() + half, 1))


@pytest.mark.parametrize("module", [net(), Corner()], ids=["net", "corner"])
def test_roll(images: sl.ImageSet, module: nn.Module) -> None:
    found = sl.consistency(wrapped(module), images, "roll", seed=3)
    shifts = draws(-3, 2, N, 5, 3)
    assert (shifts.min(), shifts.max()) == (-3, 2)
    pixels = normalised(images.batch(slice(None)))
    views = np.array(
        [[[np.roll(p, (dy, dx), (1, 2)) for dy, dx in pair] for pair in s] for p, s in zip(pixels, shifts, strict=True)]
    )
    check(found, *expected(views, images.labels, module))
    assert (found.offsets, found.fill) == ((-3, 2), None)


@pytest.mark.parametrize(("fill", "values"), [("black", None), ("mean", [0, 0, 0]), (0.25, None)])
def test_zero_pad(images: sl.ImageSet, fill: str | float, values: list[float] | None) -> None:
    module = Corner()
    found = sl.consistency(wrapped(module), images, "zero-pad", fill=fill, seed=1, n_passes=3)
    number = 0.0 if fill == "black" else fill
    constants = values or [(number - m) / s for m, s in zip(MEAN, STD, strict=True)]
    shifts = draws(-3, 2, N, 3, 1)
    pixels = normalised(images.batch(slice(None)))
    views = np.array(
        [
            [[reference.translated(p, dx, dy, "constant", constants) for dy, dx in pair] for pair in s]
            for p, s in zip(pixels, shifts, strict=True)
        ]
    )
    check(found, *expected(views, images.labels, module))
    assert found.fill == str(fill)


def test_zero_pad_is_padding_by_three_and_cropping(images: sl.ImageSet) -> None:
    module = Corner()
    pixels = images.batch(slice(None))
    shifts = draws(-3, 2, N, 5, 0)
    padded = np.pad(pixels, ((0, 0), (0, 0), (3, 3), (3, 3)))
    views = np.array(
        [
            [[p[:, 3 - dy : 19 - dy, 3 - dx : 19 - dx] for dy, dx in pair] for pair in s]
            for p, s in zip(padded, shifts, strict=True)
        ]
    )
    check(sl.consistency(wrapped(module), images, "zero-pad"), *expected(normalised(views), images.labels, module))


def test_crop(images: sl.ImageSet) -> None:
    module = Corner()
    found = sl.consistency(wrapped(module), images, "crop", seed=2)
    # 16 * 8 / 7 = 18.3: 18 px leave 2 offsets, 0 and 1, on each axis.
    assert found.offsets == (0, 1)
    larger = images.fitted((18, 18), 18, "bilinear").batch(slice(None))
    starts = draws(0, 1, N, 5, 2)
    views = np.array(
        [
            [[p[:, y : y + 16, x : x + 16] for y, x in pair] for pair in s]
            for p, s in zip(normalised(larger), starts, strict=True)
        ]
    )
    check(found, *expected(views, images.labels, module))


def test_crop_has_the_numbers_of_imagenet_at_224() -> None:
    seen = []

    class Looking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(x.shape[-2:]))
            return x.mean((2, 3))

    big = sl.ImageSet(np.random.default_rng(0).integers(0, 256, (2, 3, 300, 280), np.uint8), [0, 1])
    found = sl.consistency(sl.wrap(Looking(), mean=0, std=1, size=224), big, "crop", n_passes=1)
    assert found.offsets == (0, 31)
    assert set(seen) == {(224, 224)}


@pytest.mark.parametrize("seed", range(3))
def test_a_circular_net_without_strides_is_consistent_in_exactly_every_pair(images: sl.ImageSet, seed: int) -> None:
    module = net("circular", stride=1, seed=seed)
    found = sl.consistency(wrapped(balanced(module, module[-1], images)), images, "roll")
    assert found.consistency.value == 1.0
    assert found.passes == (1.0,) * 5
    # All images alike: 24 of 24 do not prove 100 %.
    assert found.consistency.lo == pytest.approx(0.8620, abs=1e-4)
    assert found.consistency.hi == 1.0
    strided = net("circular", stride=3, seed=seed)
    assert sl.consistency(wrapped(balanced(strided, strided[-1], images)), images, "roll").consistency.value < 1


def test_a_net_that_takes_the_strongest_phase_is_consistent_in_every_pair(images: sl.ImageSet) -> None:
    """Adaptive polyphase down-sampling (arXiv 2011.14214) in its plainest form."""

    class Polyphase(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(4)
            self.one = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")
            self.two = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
            self.head = nn.Linear(8, 5)

        def down(self, x: torch.Tensor) -> torch.Tensor:
            phases = torch.stack([x[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)], 1)
            best = phases.square().sum((2, 3, 4)).argmax(1)
            return phases[torch.arange(len(x)), best]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.down(self.one(x).relu())
            return self.head(self.down(self.two(x).relu()).mean((2, 3)))

    module = Polyphase()
    model = wrapped(balanced(module, module.head, images))
    assert sl.consistency(model, images, "roll").consistency.value == 1.0
    assert sl.consistency(model, images, "zero-pad").consistency.value < 1.0


def test_draws_belong_to_the_image_and_batches_change_nothing(
    images: sl.ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wrapped(Corner())
    found = sl.consistency(model, images, seed=5)
    mixed = images.subset(np.random.default_rng(1).permutation(N))
    assert sl.consistency(model, mixed, seed=5).consistency.value == pytest.approx(found.consistency.value)
    monkeypatch.setattr(protocols, "MAX_PIXELS", 16 * 16 * 5)
    called: list[tuple[int, int]] = []
    again = sl.consistency(model, images, seed=5, progress=lambda done, total: called.append((done, total)))
    assert again == found
    assert called == [(5, N), (10, N), (15, N), (20, N), (24, N)]
    assert sl.consistency(model, images, seed=6) != found


def test_the_net_keeps_its_mode(images: sl.ImageSet) -> None:
    module = nn.Sequential(net(), nn.BatchNorm1d(5)).train()
    found = sl.consistency(wrapped(module), images)
    assert module.training
    assert found == sl.consistency(wrapped(module.eval()), images)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"protocol": "rol"}, "unknown protocol 'rol'; did you mean 'roll'?"),
        ({"protocol": "roll", "fill": "mean"}, "only the protocol zero-pad has a fill, got fill 'mean' for roll"),
        ({"protocol": "zero-pad", "fill": "reflect"}, "the protocol zero-pad pads with a constant, got fill 'reflect'"),
        ({"n_passes": 0}, "expected at least 1 pass, got 0"),
        ({"n_passes": True}, "expected at least 1 pass, got True"),
        ({"protocol": "zero-pad", "fill": "0.1,0.2"}, "2 values, the model's input has 3 channels"),
    ],
)
def test_bad_requests(images: sl.ImageSet, how: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        sl.consistency(wrapped(net()), images, **how)
    assert said in str(caught.value)


def test_bad_images_and_models(images: sl.ImageSet) -> None:
    with pytest.raises(InputError, match="at least 2 of them, got 1"):
        sl.consistency(wrapped(net()), images.subset([0]))
    tiny = sl.ImageSet(np.zeros((4, 3, 8, 8), np.uint8), [0, 1, 0, 1])
    with pytest.raises(InputError, match="8x8 px is too small for the protocol crop"):
        sl.consistency(sl.wrap(net(), mean=0, std=1), tiny, "crop")

    class Breaking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = torch.ones(len(x), 5)
            scores[x.std((1, 2, 3)) > 0.1] = torch.nan
            return scores

    with pytest.raises(ModelOutputError, match=r"not finite for images 0, 1, 2, .* \(position in the source\)"):
        sl.consistency(wrapped(Breaking()), images)
    with pytest.raises(ModelOutputError, match="the model raised RuntimeError on images 0 to 23"):
        sl.consistency(wrapped(Raising()), images)


class Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise RuntimeError("no licence")
        return torch.ones(len(x), 5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "net.py"
    source.write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    command = ["consistency", "--model", f"{source}:make", "--mean", "0", "--std", "1", "--limit", "40", "-q"]
    assert main([*command, "--protocol", "zero-pad", "--passes", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {
        *("protocol", "consistency", "consistency_interval", "accuracy", "accuracy_interval", "passes", "offsets"),
        *("fill", "n", "seed", "model", "data"),
    }
    assert (said["n"], said["fill"], len(said["passes"]), said["offsets"]) == (40, "black", 2, [-3, 2])
    assert said["consistency_interval"][0] <= said["consistency"] <= said["consistency_interval"][1]
    assert main([*command, "--protocol", "roll"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{source}:make on digits: consistency ")
    assert lines[1].startswith("protocol roll: two circular shifts by -3 to 2 px")
    assert main([*command, "--protocol", "rol"]) == 2
    assert capsys.readouterr().err == (
        "shiftlens: unknown protocol 'rol'; did you mean 'roll'? (known: roll, zero-pad, crop)\n"
    )
