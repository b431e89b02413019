"""AP and AP50 of a data set under a shift: held against plain loops, and against pycocotools where it is installed."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reference_coco import data_set_ap, in_view, seen
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.task import NO_OBJECT

SIZE, SHIFTS = (30, 40), [(0, 0), (9, -7), (-30, 0), (0, 40)]


def scene(seed: int, n: int = 12, most: int = 5, spread: float = 0.8) -> tuple[NDArray[Any], NDArray[Any]]:
    """Objects [image, object, 5] and, of the same images unshifted, detections [image, rank, 6] near some of them."""
    draw = np.random.default_rng(seed)
    targets, found = np.full((n, most, 5), NO_OBJECT), np.full((n, 9, 6), NO_OBJECT)
    for k in range(n):
        count = int(draw.integers(0, most + 1))
        low = draw.uniform(0, 0.7, (count, 2)) * (SIZE[1], SIZE[0])
        high = np.minimum(low + draw.uniform(4, 14, (count, 2)), (SIZE[1], SIZE[0]))
        targets[k, :count] = np.concatenate([low, high, draw.choice([1, 3, 90], (count, 1))], axis=1)
        for rank in range(int(draw.integers(0, 9)) if count else 2):
            box = targets[k, draw.integers(max(count, 1)), :4] if count else np.array([1, 1, 9, 9])
            found[k, rank] = [*(box + draw.normal(0, spread, 4)), draw.uniform(0.05, 1), draw.choice([1, 1, 3, 90])]
        if count:  # twice the same object: the second is a false alarm
            found[k, 8] = [*targets[k, 0, :4], 0.04, targets[k, 0, 4]]
    return targets, found


def shifted(found: NDArray[Any], shift: tuple[int, int]) -> NDArray[Any]:
    moved = found.copy()
    moved[..., :4] += (*shift, *shift)
    return moved


def measured(
    targets: NDArray[Any], found: NDArray[Any], shift: tuple[int, int], weights: Any = None
) -> dict[str, float]:
    task = Detection(size=SIZE)
    rows = task.outcome(
        torch.from_numpy(found),
        torch.tensor([shift] * len(found)),
        task.prepare(None, torch.from_numpy(targets)),
    )
    of_dataset = task.of_dataset({name: values.numpy() for name, values in rows.items() if values.ndim})
    return of_dataset(np.ones(len(found)) if weights is None else weights)


@pytest.mark.parametrize("seed", range(4))
def test_ap_is_that_of_plain_loops(seed: int) -> None:
    targets, found = scene(seed)
    for shift in SHIFTS:
        moved = shifted(found, shift)
        images = [([row for row in t if row[4] >= 0], f) for t, f in zip(targets, moved, strict=True)]
        ap, ap50 = data_set_ap(images, SIZE, shift)
        ours = measured(targets, moved, shift)
        np.testing.assert_allclose((ours["ap"], ours["ap50"]), (ap, ap50), atol=1e-12, err_msg=str(shift))


def test_weights_are_images_drawn_more_than_once() -> None:
    targets, found = scene(7)
    weights = np.random.default_rng(0).integers(0, 3, len(found)).astype(float)
    drawn = np.repeat(np.arange(len(found)), weights.astype(int))
    once = measured(targets[drawn], found[drawn], (0, 0))
    again = measured(targets, found, (0, 0), weights)
    # Within an image drawn twice, equal scores stand next to each other in another order: no more than that.
    np.testing.assert_allclose(list(once.values()), list(again.values()), atol=0.02)


def test_perfect_and_empty_detections() -> None:
    targets, _ = scene(1)
    perfect = np.concatenate([targets[..., :4], np.full((*targets.shape[:2], 1), 0.9), targets[..., 4:]], axis=2)
    assert measured(targets, perfect, (0, 0)) == {"ap": 1, "ap50": 1}
    assert measured(targets, np.full((len(targets), 0, 6), NO_OBJECT), (0, 0)) == {"ap": 0, "ap50": 0}
    assert np.isnan(measured(targets, perfect, (0, 40))["ap"]), "no object is in view"


@pytest.mark.parametrize("seed", range(3))
def test_ap_equals_pycocotools(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    targets, found = scene(seed, n=40)
    for shift in SHIFTS[:2]:
        moved = shifted(found, shift)
        boxes: list[dict[str, Any]] = []
        detections: list[dict[str, Any]] = []
        for image, (objects, rows) in enumerate(zip(targets, moved, strict=True)):
            for (left, top, right, bottom), label, ignored in in_view([o for o in objects if o[4] >= 0], shift, SIZE):
                area = (right - left) * (bottom - top)
                box = {"bbox": [left, top, right - left, bottom - top], "area": area, "iscrowd": int(ignored)}
                boxes.append(box | {"id": len(boxes) + 1, "image_id": image, "category_id": int(label)})
            for left, top, right, bottom, score, label in seen(rows, SIZE):
                box = {"bbox": [left, top, right - left, bottom - top], "score": score}
                detections.append(box | {"image_id": image, "category_id": int(label)})
        with contextlib.redirect_stdout(io.StringIO()):
            truth = coco.COCO()
            truth.dataset = {
                "info": {},
                "images": [{"id": k, "height": SIZE[0], "width": SIZE[1]} for k in range(len(targets))],
                "annotations": boxes,
                "categories": [{"id": label} for label in (1, 3, 90)],
            }
            truth.createIndex()
            oracle = evaluation.COCOeval(truth, truth.loadRes(detections), "bbox")
            oracle.evaluate()
            oracle.accumulate()
            oracle.summarize()
        ours = measured(targets, moved, shift)
        np.testing.assert_allclose((ours["ap"], ours["ap50"]), oracle.stats[:2], atol=1e-9)
