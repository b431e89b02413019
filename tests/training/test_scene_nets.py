"""Training on scenes: what a detector is taught, how both nets are measured, and a run directory like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.data.images import load_images
from shiftlens.data.targets import Targets, as_targets
from shiftlens.errors import InputError, StoreError
from shiftlens.nn import CenterPoints
from shiftlens.training.scene_lessons import BACKGROUND_WEIGHT, center_lessons, center_loss, mask_loss
from shiftlens.training.scene_nets import SceneRecipe, train_on_scenes
from shiftlens.training.scene_scores import detection_scores, segmentation_scores, with_intervals

RNG = np.random.default_rng(3)


def boxes_of(*images: list[tuple[list[float], int]]) -> Targets:
    tables = [{"boxes": [box for box, _ in each], "labels": [label for _, label in each]} for each in images]
    found = as_targets(tables, len(tables), "images")
    assert found is not None
    return found


# ---- lessons


def test_a_detector_that_gives_its_lessons_finds_every_box() -> None:
    targets = boxes_of([([4, 6, 20, 30], 3), ([40, 8, 55, 24], 3)], [], [([10, 40, 30, 56], 9)])
    heat, sides, near = center_lessons(targets, (64, 96))
    assert (heat.shape, sides.shape, near.shape) == ((3, 10, 16, 24), (3, 4, 16, 24), (3, 1, 16, 24))

    class Taught(CenterPoints):
        def maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.logit(heat.clamp(1e-4, 1 - 1e-4)), sides

    found = Taught(width=1).eval()(torch.zeros(3, 1, 64, 96))
    assert targets.boxes is not None
    for each, truth in zip(found, targets.boxes, strict=True):
        truth = truth[truth[:, 4] >= 0]
        sure = each["scores"] > 0.9
        order = torch.argsort(each["boxes"][sure][:, 0])
        np.testing.assert_allclose(each["boxes"][sure][order].numpy().reshape(-1, 4), truth[:, :4], atol=1e-4)
        assert each["labels"][sure].tolist() == truth[:, 4].tolist()
    assert near.sum() > 0
    assert not near[1].any()


def test_the_loss_of_a_detector_rises_away_from_its_lessons() -> None:
    heat, sides, near = center_lessons(boxes_of([([4, 6, 20, 30], 3)]), (32, 32))
    right = torch.logit(heat.clamp(1e-4, 1 - 1e-4)), sides
    best = float(center_loss(right, heat, sides, near))
    assert best == pytest.approx(float(center_loss((right[0], torch.where(near > 0, sides, 7.0)), heat, sides, near)))
    for wrong in (
        (torch.where(heat == 1, -3.0, right[0]), sides),
        (torch.where(heat < 0.01, 3.0, right[0]), sides),
        (right[0].roll(1, 1), sides),
        (right[0], sides * 1.5),
        (right[0], sides / 1.5),
    ):
        assert float(center_loss(wrong, heat, sides, near)) > best + 0.3


def test_the_background_of_a_mask_counts_less() -> None:
    scores, masks = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    weight = torch.where(masks == 0, BACKGROUND_WEIGHT, 1.0)
    each = nn.functional.cross_entropy(scores, masks, reduction="none")
    assert float(mask_loss(scores, masks)) == pytest.approx(float((each * weight).sum() / weight.sum()), rel=1e-5)


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = SceneRecipe(100)
    factors = [recipe.factor(step) for step in range(100)]
    top = int(np.argmax(factors))
    assert top == 10
    assert factors[0] == pytest.approx(0.05, rel=0.01)
    assert factors[-1] < 1e-3
    assert (np.diff(factors[: top + 1]) > 0).all()
    assert (np.diff(factors[top:]) < 0).all()


# ---- scores


def plain_ap(found: list[list[tuple[float, int, list[float]]]], truth: list[list[tuple[list[float], int]]]) -> float:
    """AP at IoU 0.5 as COCO defines it, one detection and one recall at a time."""

    def iou(a: list[float], b: list[float]) -> float:
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        common = max(w, 0) * max(h, 0)
        return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)

    values = []
    for label in sorted({label for image in truth for _, label in image}):
        n_true, rows = sum(each == label for image in truth for _, each in image), []
        for image, objects in zip(found, truth, strict=True):
            free = [box for box, each in objects if each == label]
            for score, each, box in sorted(image, key=lambda row: -row[0]):
                if each != label:
                    continue
                best = max(free, key=lambda other: iou(box, other), default=None)
                hit = best is not None and iou(box, best) >= 0.5
                if hit:
                    free.remove(best)
                rows.append((score, hit))
        rows.sort(key=lambda row: -row[0])
        curve, right = [], 0
        for k, (_, hit) in enumerate(rows):
            right += hit
            curve.append((right / n_true, right / (k + 1)))
        at = [max((p for r, p in curve if r >= least), default=0.0) for least in np.linspace(0, 1, 101)]
        values.append(sum(at) / 101)
    return sum(values) / len(values)


def some_detections(seed: int) -> tuple[list, list, np.ndarray, Targets]:
    draw = np.random.default_rng(seed)

    def box() -> list[float]:
        x, y, w, h = draw.uniform(15, 55), draw.uniform(15, 55), draw.uniform(8, 20), draw.uniform(8, 20)
        return [x, y, x + w, y + h]

    truth = [[(box(), int(draw.integers(3))) for _ in range(draw.integers(0, 5))] for _ in range(12)]
    found = []
    for objects in truth:
        rows = [
            (float(draw.uniform()), label, (np.array(each) + draw.normal(0, 2, 4)).tolist())
            for each, label in objects
            for _ in range(draw.integers(0, 3))
        ]
        found.append([*rows, *((float(draw.uniform()), int(draw.integers(3)), box()) for _ in range(2))])
    tables = np.full((len(found), 20, 6), -1.0)
    for table, rows in zip(tables, found, strict=True):
        for k, (score, label, each) in enumerate(sorted(rows, key=lambda row: -row[0])):
            table[k] = [*each, score, label]
    return found, truth, tables, boxes_of(*truth)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_that_of_a_plain_loop(seed: int) -> None:
    found, truth, tables, targets = some_detections(seed)
    measured = detection_scores(tables, targets, (96, 96))
    assert measured(np.ones(12))["ap50"] == pytest.approx(plain_ap(found, truth), abs=1e-9)
    weights = np.random.default_rng(seed).integers(0, 3, 12)
    again = [k for k, weight in enumerate(weights) for _ in range(weight)]
    repeated = plain_ap([found[k] for k in again], [truth[k] for k in again])
    assert measured(weights.astype(float))["ap50"] == pytest.approx(repeated, abs=0.02), "ties may be ordered otherwise"


def test_perfect_and_useless_detections() -> None:
    _, truth, tables, targets = some_detections(0)
    tables[:] = -1
    assert detection_scores(tables, targets, (96, 96))(np.ones(12)) == {"ap50": 0}
    for table, objects in zip(tables, truth, strict=True):
        for k, (box, label) in enumerate(objects):
            table[k] = [*box, 0.9 - 0.1 * k, label]
    assert detection_scores(tables, targets, (96, 96))(np.ones(12)) == {"ap50": 1}


def test_scores_of_masks_are_those_of_plain_counts() -> None:
    predicted, masks = RNG.integers(0, 4, (5, 8, 9)), RNG.integers(0, 3, (5, 8, 9)).astype(np.uint8)
    measured = segmentation_scores(predicted, masks, 4)
    for weights in (np.ones(5), np.array([2.0, 0, 1, 0, 3])):
        p, m = (np.repeat(each, weights.astype(int), axis=0) for each in (predicted, masks))
        ious = [((p == c) & (m == c)).sum() / ((p == c) | (m == c)).sum() for c in range(4)]
        assert measured(weights) == pytest.approx({"mean_iou": np.mean(ious), "pixel_accuracy": (p == m).mean()})


def test_intervals_are_those_of_a_mean() -> None:
    values = RNG.normal(5, 2, 400)
    found = with_intervals(lambda weights: {"x": float(weights @ values / weights.sum())}, 400)
    half = 1.96 * values.std() / 20
    assert found["x"] == pytest.approx(values.mean())
    assert found["x_interval"] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.05)


# ---- runs


@pytest.mark.parametrize("net", ["unet", "detector"])
def test_a_run_is_a_model_like_any_other(net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["train-scenes", "--net", net, "--steps", "3", "--limit", "16", "--seed", "5", "--out", str(out)]
    assert main([*command, "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    named = {"unet": {"mean_iou", "pixel_accuracy"}, "detector": {"ap50"}}[net]
    assert result.keys() == {"out", "net", "n_steps", "seconds", "n_validation"} | {
        name + end for name in named for end in ("", "_interval")
    }
    assert (result["n_steps"], result["n_validation"]) == (3, 16)
    for name in named:
        low, high = result[f"{name}_interval"]
        assert 0 <= low <= result[name] <= high <= 1
    model = sl.load_model(out)
    assert (model.n_channels, model.preprocessing.size) == (1, (96, 96))
    asked = model.training["asked"]
    assert asked["images"] == load_images("digits-scenes", split="train", limit=16).digest
    assert asked["validation"] == load_images("digits-scenes", split="test", limit=16).digest

    before = (out / "model.safetensors").read_bytes()
    assert main([*command, "--json", "--quiet"]) == 0, "a finished run is read"
    assert json.loads(capsys.readouterr().out) == result
    train_on_scenes(net, out=tmp_path / "again", seed=5, n_steps=3, limit=16)
    assert sl.load_model(tmp_path / "again").digest == model.digest
    other = train_on_scenes(net, out=tmp_path / "other", seed=6, n_steps=3, limit=16)
    assert sl.load_model(other.out).digest != model.digest
    with pytest.raises(InputError, match="holds another run"):
        train_on_scenes(net, out=out, seed=6, n_steps=3, limit=16)
    assert (out / "model.safetensors").read_bytes() == before


def test_a_few_steps_teach_something(tmp_path: Path) -> None:
    short, long = (
        train_on_scenes("unet", out=tmp_path / str(n), n_steps=n, limit=16).metrics["mean_iou"] for n in (1, 25)
    )
    assert long > short + 0.02


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"net": "unets"}, "did you mean 'unet'"),
        ({"n_steps": 0}, "at least 1 step"),
        ({"seed": -1}, "a seed of at least 0"),
        ({"padding": "full"}, "full padding"),
        ({"padding": "mirror"}, "mirror"),
        ({"limit": 0}, "limit"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_bad_requests_are_refused(arguments: dict, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        train_on_scenes(**{"net": "unet", "out": tmp_path / "r", "limit": 4, "n_steps": 1, **arguments})
    assert not (tmp_path / "r" / "model.json").exists()


def test_what_lies_at_out_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds something else"):
        train_on_scenes("unet", out=tmp_path, limit=4, n_steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
