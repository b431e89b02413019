"""`probe`: one object at every position, against a plain loop; what it refuses; its command and its picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.errors import InputError, ModelOutputError

RNG = np.random.default_rng(2)
OBJECT = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GROUND = RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8)
MEAN, STD = 0.4, 0.3


class Net(torch.nn.Module):
    """A classifier of 4 classes that depends on the place."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(3 * 20 * 24, 4, generator=generator) / 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight


class Spots(torch.nn.Module):
    """A detector: one box around the brightest place of 5x7, one far away, with the brightness as its score."""

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        bright = torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), (5, 7), 1)
        width = bright.shape[3]
        value, place = bright.flatten(1).max(1)
        found = []
        for score, k in zip(value.sigmoid(), place.tolist(), strict=True):
            left, top = float(k % width), float(k // width)
            boxes = torch.tensor([[left, top, left + 7, top + 5], [0, 0, 2, 2]])
            found.append({"boxes": boxes, "scores": torch.stack([score, score]), "labels": torch.tensor([3, 3])})
        return found


def pasted(x: int, y: int, alpha: np.ndarray) -> torch.Tensor:
    """The input with the object at (x, y), by a plain loop over pixels."""
    scene = GROUND.astype(np.int64)
    for row in range(alpha.shape[0]):
        for column in range(alpha.shape[1]):
            a = int(alpha[row, column])
            for c in range(3):
                ink = (int(OBJECT[row, column, c]) * a + 127) // 255
                behind = (int(scene[y + row, x + column, c]) * (255 - a) + 127) // 255
                scene[y + row, x + column, c] = min(255, ink + behind)
    return ((torch.from_numpy(scene).float() / 255 - MEAN) / STD).permute(2, 0, 1)[None]


@pytest.mark.parametrize("masked", [False, True])
def test_a_classifiers_map_is_that_of_a_plain_loop(masked: bool) -> None:
    net = Net().eval()
    mask = RNG.integers(0, 256, (5, 7), dtype=np.uint8) if masked else None
    model = sl.wrap(net, mean=MEAN, std=STD)
    steps: list[tuple[int, int]] = []
    found = sl.probe(
        model, OBJECT, GROUND, mask=mask, label=2, step=3, batch_size=4, progress=lambda *each: steps.append(each)
    )
    alpha = np.full((5, 7), 255) if mask is None else mask
    assert (found.ys.tolist(), found.xs.tolist()) == ([0, 3, 6, 9, 12, 15], [0, 3, 6, 9, 12, 15])
    for (row, y), (column, x) in ((a, b) for a in enumerate(found.ys.tolist()) for b in enumerate(found.xs.tolist())):
        with torch.no_grad():
            scores = net(pasted(x, y, alpha))[0].double()
        assert found.confidence[row, column] == pytest.approx(float(scores.softmax(0)[2]), abs=1e-6)
        assert bool(found.found[row, column]) == (int(scores.argmax()) == 2)
    assert steps[-1] == (36, 36)
    assert len(steps) == 9


def test_a_detectors_map_is_the_best_score_where_the_object_lies() -> None:
    model = sl.wrap(Spots(), mean=0, std=1, size=(20, 24))
    white = np.full((5, 7, 3), 255, np.uint8)
    found = sl.probe(model, white, "black", task="detection")
    assert (found.label, found.confidence.shape) == (3, (16, 18))  # of what is found in the middle
    np.testing.assert_allclose(found.confidence, 1 / (1 + np.exp(-1)), atol=1e-6)
    assert found.found.all()
    other = sl.probe(model, white, "black", task="detection", label=1)
    assert not other.confidence.any()
    assert other.to_dict()["found"] == 0
    assert found.swing == 0


def test_the_swing_is_that_of_neighbours() -> None:
    model = sl.wrap(Net(), mean=MEAN, std=STD)
    found = sl.probe(model, OBJECT, GROUND, label=2, step=2)
    c, steps = found.confidence, 2  # 4 px are two steps of 2
    pairs = [
        abs(c[a, b] - c[p, q])
        for a in range(c.shape[0])
        for b in range(c.shape[1])
        for p in range(max(0, a - steps), min(c.shape[0], a + steps + 1))
        for q in range(max(0, b - steps), min(c.shape[1], b + steps + 1))
    ]
    assert found.swing == pytest.approx(max(pairs))
    coarse = sl.probe(model, OBJECT, GROUND, label=2, step=5)
    assert coarse.to_dict()["swing"] is None
    assert "no two positions are within 4 px" in str(coarse)


def test_a_transparent_file_is_pasted_without_its_ground(tmp_path: Path) -> None:
    alpha = np.zeros((9, 9), np.uint8)
    alpha[2:7, 1:8] = RNG.integers(1, 256, (5, 7))
    colours = np.zeros((9, 9, 3), np.uint8)
    colours[2:7, 1:8] = OBJECT
    Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "object.png")
    Image.fromarray(GROUND).save(tmp_path / "ground.png")
    model = sl.wrap(Net(), mean=MEAN, std=STD)
    found = sl.probe(model, tmp_path / "object.png", tmp_path / "ground.png", label=0, step=4)
    assert (found.object_size, found.pasted, found.background) == ((5, 7), "object.png", "ground.png")
    own = sl.probe(model, OBJECT, GROUND, mask=alpha[2:7, 1:8], label=0, step=4)
    np.testing.assert_array_equal(found.confidence, own.confidence)
    boxed = sl.probe(model, colours, GROUND, box=(1, 2, 8, 7), label=0, step=4)
    np.testing.assert_array_equal(boxed.confidence, sl.probe(model, OBJECT, GROUND, label=0, step=4).confidence)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pasted": np.zeros((21, 5, 3), np.uint8)}, "the object of 21x5 px is larger than the input of 20x24"),
        ({"mask": np.zeros((5, 7), np.bool_)}, "no visible pixel"),
        ({"mask": np.zeros((4, 7), np.bool_)}, "expected a mask 5x7"),
        ({"mask": np.zeros((5, 7))}, "expected a mask 5x7 of bool or 0 to 255"),
        ({"box": (0, 0, 9, 5)}, r"box \[0, 0, 9, 5\] is none of the object's image of 5x7"),
        ({"label": 4}, "class 4 is none of Net, which has 4"),
        (
            {"label": "cat"},
            "Net knows no class names, got 'cat'; give the class's number, from 0 to 3: .* sorted names",
        ),
        ({"task": "dense"}, "unknown task of probe 'dense'"),
        ({"task": "detection", "label": 1}, "cannot be probed as a detector"),
        ({"step": 0}, "step must be a whole number of at least 1"),
        ({"batch_size": 0}, "a batch holds at least one image"),
        ({"background": "blue"}, "background blue cannot be read"),
        ({"background": np.zeros((3, 3), np.int32)}, "the background must be uint8"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    given = {"pasted": OBJECT, "background": GROUND, "label": 0, **options}
    with pytest.raises(InputError, match=message):
        sl.probe(sl.wrap(Net(), mean=0, std=1), given.pop("pasted"), given.pop("background"), **given)


def test_scores_that_are_not_finite() -> None:
    class Broken(Spots):
        def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            found = super().forward(x)
            for each in found:
                each["scores"] = each["scores"] * torch.nan
            return found

    with pytest.raises(ModelOutputError, match="not finite"):
        sl.probe(sl.wrap(Broken(), mean=0, std=1), OBJECT, GROUND, task="detection", label=3)


def test_the_command_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digit = sl.load_images("digits", limit=1).batch([0])[0].transpose(1, 2, 0)[6:26, 6:26]
    Image.fromarray(digit).save(tmp_path / "digit.png")
    words = ["probe", "--model", "pretrained:detector-digits", "--input-size", "96", "--task", "detection"]
    words += ["--object", str(tmp_path / "digit.png"), "--step", "8", "--picture", str(tmp_path / "map.png")]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows, columns = (len(range(0, 97 - side, 8)) for side in told["object_size"])
    assert (told["n_positions"], told["task"]) == (rows * columns, "detection")
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.size[0] > 500
    assert main(words) == 0
    text = capsys.readouterr().out
    assert re.search(r"class \d .* is found at [\d.]+ % of \d+ positions", text)
    assert "one object on one background" in text
    for box in ("1,2,3", "a,b,c,d"):
        assert main([*words, "--box", box]) == 2


def test_plot_draws_it(tmp_path: Path) -> None:
    found = sl.probe(sl.wrap(Net(), mean=MEAN, std=STD), OBJECT, GROUND, step=5)
    assert [path.name for path in sl.plot(found, out=tmp_path).files] == ["probe.png"]
    assert str(found).splitlines() == found.lines()
