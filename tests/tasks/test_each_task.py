"""Segmentation, dense outputs, embeddings and detection: each held against plain loops over pixels and boxes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.tasks.dense import Dense, psnr
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.embedding import Embedding
from shiftlens.tasks.moving import moved_maps
from shiftlens.tasks.segmentation import Segmentation
from shiftlens.tasks.task import IGNORED_PIXEL, NO_OBJECT

H, W = 9, 12
SHIFTS = [(0, 0), (3, 0), (0, -4), (-5, 2), (11, 8), (-11, -8), (12, 0), (0, 9), (30, -30)]


def for_windows(state: dict[str, Tensor], image: list[int]) -> dict[str, Tensor]:
    return {name: values[image] for name, values in state.items()}


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_segmentation_counts_pixels(seed: int) -> None:
    draw = np.random.default_rng(seed)
    k, task = 4, Segmentation(margin=2)
    reference = torch.from_numpy(draw.normal(size=(2, k, H, W)))
    masks = draw.integers(0, k + 1, (2, H, W))  # a class that the model does not know, too
    masks[draw.random(masks.shape) < 0.2] = IGNORED_PIXEL
    image = [int(draw.integers(2)) for _ in SHIFTS]
    outputs = torch.from_numpy(draw.normal(size=(len(SHIFTS), k, H, W)))
    state = for_windows(task.prepare(reference, torch.from_numpy(masks)), image)
    rows = task.outcome(outputs, torch.tensor(SHIFTS), state)
    changed, seen = np.zeros((H, W)), np.zeros((H, W))
    for n, (dx, dy) in enumerate(SHIFTS):
        same, inner, right, classes = [], [], [], {c: [0, 0] for c in range(k + 1)}
        for y in range(H):
            for x in range(W):
                sy, sx = y - dy, x - dx
                if not (0 <= sy < H and 0 <= sx < W):
                    continue
                guess = int(outputs[n, :, y, x].argmax())
                agrees = guess == int(reference[image[n], :, sy, sx].argmax())
                same.append(agrees)
                seen[y, x] += 1
                changed[y, x] += not agrees
                if all(2 <= p < size - 2 for p, size in ((y, H), (sy, H), (x, W), (sx, W))):
                    inner.append(agrees)
                truth = masks[image[n], sy, sx]
                if truth != IGNORED_PIXEL:
                    right.append(guess == truth)
                    for c in {guess, truth}:
                        classes[c][0] += guess == truth
                        classes[c][1] += 1
        shares = [common / union for common, union in classes.values() if union]
        for name, values in (("pixel_agreement", same), ("interior_agreement", inner), ("pixel_accuracy", right)):
            close(rows[name][n], np.mean(values) if values else math.nan)
        close(rows["mean_iou"][n], np.mean(shares) if shares else math.nan)
    close(rows["changed"], changed)
    close(rows["seen"], seen)


def test_a_segmenter_that_moves_along_agrees_everywhere() -> None:
    reference = torch.randn(1, 3, H, W)
    task = Segmentation(margin=0)
    moved, _ = moved_maps(reference.expand(len(SHIFTS), -1, -1, -1), torch.tensor(SHIFTS))
    state = for_windows(task.prepare(reference, torch.full((1, H, W), IGNORED_PIXEL)), [0] * len(SHIFTS))
    rows = task.outcome(moved, torch.tensor(SHIFTS), state)
    assert rows["pixel_agreement"][:6].tolist() == [1.0] * 6
    assert rows["pixel_agreement"][6:].isnan().all(), "nothing is left in view"
    assert rows["mean_iou"].isnan().all(), "without a mask there is nothing to compare with"
    assert not rows["changed"].any()


@pytest.mark.parametrize("seed", range(3))
def test_dense_errors_are_means_over_pixels_in_view(seed: int) -> None:
    draw = np.random.default_rng(seed)
    task = Dense(margin=3)
    reference = torch.from_numpy(draw.normal(size=(1, 2, H, W)).astype(np.float32))
    outputs = torch.from_numpy(draw.normal(size=(len(SHIFTS), 2, H, W)).astype(np.float32))
    state = for_windows(task.prepare(reference, torch.zeros(1)), [0] * len(SHIFTS))
    rows = task.outcome(outputs, torch.tensor(SHIFTS), state)
    error = np.zeros((H, W))
    for n, (dx, dy) in enumerate(SHIFTS):
        off, inner = [], []
        for y in range(H):
            for x in range(W):
                sy, sx = y - dy, x - dx
                if 0 <= sy < H and 0 <= sx < W:
                    both = [abs(float(outputs[n, c, y, x]) - float(reference[0, c, sy, sx])) for c in range(2)]
                    off += both
                    error[y, x] += sum(both) / 2
                    if all(3 <= p < size - 3 for p, size in ((y, H), (sy, H), (x, W), (sx, W))):
                        inner += both
        np.testing.assert_allclose(rows["mae"][n], np.mean(off) if off else math.nan, rtol=1e-6)
        np.testing.assert_allclose(rows["mse"][n], np.mean(np.square(off)) if off else math.nan, rtol=1e-6)
        np.testing.assert_allclose(rows["interior_mae"][n], np.mean(inner) if inner else math.nan, rtol=1e-6)
    np.testing.assert_allclose(rows["error"], error, rtol=1e-6)
    assert float(rows["reference_lowest"][0]) == float(reference.min())
    assert float(rows["reference_highest"][0]) == float(reference.max())


def test_psnr_is_of_the_mean_error_and_the_range() -> None:
    assert psnr(0.25, -1.0, 1.0) == pytest.approx(10 * math.log10(4 / 0.25))
    assert psnr(0.0, 0.0, 1.0) == math.inf


def test_cosine_is_of_the_angle_alone() -> None:
    task = Embedding()
    reference = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    state = for_windows(task.prepare(reference, torch.zeros(2)), [0, 0, 0, 0, 1])
    outputs = torch.tensor([[6.0, 8.0], [-3.0, -4.0], [4.0, -3.0], [3.0, 0.0], [1.0, 1.0]])
    rows = task.outcome(outputs, None, state)
    close(rows["cosine"], [1, -1, 0, 0.6, 0])
    close(rows["rank"], [1] * 5)  # without a gallery there is no other image


def test_the_rank_counts_the_images_of_the_gallery_that_are_more_similar() -> None:
    draw = np.random.default_rng(5)
    gallery = draw.normal(size=(7, 3))
    gallery[6] = 2 * gallery[5]  # the same direction: a tie, which puts nobody before
    reference = np.concatenate([gallery, draw.normal(size=(2, 3))])  # two images that are not in the gallery
    task = Embedding().with_gallery(torch.from_numpy(gallery))
    assert task.settings == {"n_gallery": 7}
    image = [k for k in range(9) for _ in range(5)]
    state = for_windows(task.prepare(torch.from_numpy(reference), torch.arange(9)), image)
    outputs = reference[image] + draw.normal(size=(45, 3))
    outputs[::5] = reference  # a window that is the unshifted image itself
    ranks = []
    for output, own in zip(outputs, image, strict=True):

        def angle(vector: Any, output: Any = output) -> float:
            return float(np.arccos(np.clip(vector @ output / np.linalg.norm(vector) / np.linalg.norm(output), -1, 1)))

        nearer = [k for k in range(7) if k != own and angle(gallery[k]) < angle(reference[own]) - 1e-7]
        ranks.append(1 + len(nearer))
    rows = task.outcome(torch.from_numpy(outputs), None, state)
    close(rows["rank"], ranks)
    assert ranks[::5] == [1] * 9
    assert max(ranks) > 2


# ---- detection


def boxes_in(draw: np.random.Generator, n: int) -> NDArray[np.float64]:
    low = draw.uniform(0, 0.7, (n, 2)) * (W, H)
    high = np.minimum(low + draw.uniform(1, 5, (n, 2)), (W, H))
    return np.concatenate([low, high], axis=1)


def overlap(a: Any, b: Any, *, of_first: bool = False) -> float:
    """Intersection over union of two boxes, or over the area of the first."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / areas[0] if of_first else common / (sum(areas) - common)


def clipped(box: Any) -> list[float]:
    limits = (W, H, W, H)
    return [min(max(float(value), 0.0), limit) for value, limit in zip(box, limits, strict=True)]


def by_hand(objects: Any, found: Any, shift: tuple[int, int]) -> dict[str, Any]:
    """One window, matched one detection after the other."""
    dx, dy = shift
    rows: list[dict[str, Any]] = []
    for left, top, right, bottom, label in objects:
        box = clipped((left + dx, top + dy, right + dx, bottom + dy))
        seen = max(box[2] - box[0], 0) * max(box[3] - box[1], 0) / ((right - left) * (bottom - top))
        rows.append({"box": box, "label": label, "left": seen, "by": None, "best": 0.0})
    false_alarms = 0
    for *box, score, label in sorted(found, key=lambda row: -row[4]):
        box = clipped(box)
        if label == NO_OBJECT or box[2] <= box[0] or box[3] <= box[1]:
            continue
        alike = [row for row in rows if row["label"] == label]
        for row in alike:
            if row["left"] >= 0.5 and overlap(box, row["box"]) >= 0.5:
                row["best"] = max(row["best"], score)
        if score < 0.5:
            continue
        free = [row for row in alike if row["left"] >= 0.5 and row["by"] is None]
        best = max(free, key=lambda row: overlap(box, row["box"]), default=None)
        if best is not None and overlap(box, best["box"]) >= 0.5:
            best["by"] = box
        elif not any(0 < row["left"] < 0.5 and overlap(box, row["box"], of_first=True) >= 0.5 for row in alike):
            false_alarms += 1
    shown = [row for row in rows if row["left"] >= 0.5]
    hits = [row for row in shown if row["by"] is not None]

    def center(box: Any) -> NDArray[np.float64]:
        return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])

    return {
        "recall": len(hits) / len(shown) if shown else math.nan,
        "confidence": np.mean([row["best"] for row in shown]) if shown else math.nan,
        "box_iou": np.mean([overlap(row["by"], row["box"]) for row in hits]) if hits else math.nan,
        "center_error": np.mean([np.linalg.norm(center(row["by"]) - center(row["box"])) for row in hits])
        if hits
        else math.nan,
        "n_unmatched": false_alarms,
        "object_confidence": [row["best"] if row["left"] >= 0.5 else math.nan for row in rows],
        "found": [center(row["box"]) for row in hits],
        "shown": [center(row["box"]) for row in shown],
    }


@pytest.mark.parametrize("seed", range(12))
def test_detections_are_matched_as_by_hand(seed: int) -> None:
    draw = np.random.default_rng(seed)
    task, most = Detection(size=(H, W)), 4
    counts = [int(draw.integers(0, most + 1)), most]
    targets = np.full((2, most, 5), NO_OBJECT)
    for k, count in enumerate(counts):
        targets[k, :count, :4], targets[k, :count, 4] = boxes_in(draw, count), draw.integers(0, 2, count)
    image = [int(draw.integers(2)) for _ in SHIFTS]
    outputs = np.full((len(SHIFTS), 7, 6), NO_OBJECT)
    for n, (dx, dy) in enumerate(SHIFTS):
        near = targets[image[n]][: counts[image[n]]]
        some = near[draw.integers(0, max(len(near), 1), 5 if len(near) else 0)]
        outputs[n, : len(some), :4] = some[:, :4] + (dx, dy, dx, dy) + draw.normal(0, 0.4, (len(some), 4))
        outputs[n, : len(some), 4] = draw.uniform(0.2, 1, len(some))
        outputs[n, : len(some), 5] = some[:, 4]
        outputs[n, 5, :4], outputs[n, 5, 4:] = boxes_in(draw, 1)[0], (draw.uniform(0.2, 1), 1)
    state = for_windows(task.prepare(None, torch.from_numpy(targets)), image)
    rows = task.outcome(torch.from_numpy(outputs), torch.tensor(SHIFTS), state)
    places = {"found": np.zeros((H, W)), "shown": np.zeros((H, W))}
    for n, shift in enumerate(SHIFTS):
        expected = by_hand(targets[image[n]][: counts[image[n]]], outputs[n], shift)
        for name in ("recall", "confidence", "box_iou", "center_error", "n_unmatched"):
            close(rows[name][n], expected[name])
        close(rows["object_confidence"][n, : counts[image[n]]], expected["object_confidence"])
        for name, place in places.items():
            for x, y in expected[name]:
                place[min(int(y), H - 1), min(int(x), W - 1)] += 1
    for name, place in places.items():
        close(rows[name], place)


def test_an_object_out_of_view_is_neither_missed_nor_a_false_alarm() -> None:
    task = Detection(size=(H, W))
    targets = torch.tensor([[[2.0, 2.0, 6.0, 6.0, 1.0]]], dtype=torch.float64)
    state = for_windows(task.prepare(None, targets), [0, 0, 0])
    seen = torch.tensor([[[0.0, 2.0, 1.0, 6.0, 0.9, 1.0]], [[0.0, 2.0, 3.0, 6.0, 0.9, 1.0]], [[5, 5, 9, 9, 0.9, 1]]])
    rows = task.outcome(seen, torch.tensor([(-5, 0), (-3, 0), (-9, 0)]), state)
    assert rows["recall"].isnan().tolist() == [True, False, True]
    assert rows["n_unmatched"].tolist() == [0, 0, 1]


def test_no_detection_at_all_misses_everything() -> None:
    task = Detection(size=(H, W))
    targets = torch.tensor([[[2.0, 2.0, 6.0, 6.0, 1.0]]], dtype=torch.float64)
    rows = task.outcome(torch.zeros(1, 0, 6), torch.zeros(1, 2, dtype=torch.long), task.prepare(None, targets))
    assert (rows["recall"].item(), rows["confidence"].item(), rows["n_unmatched"].item()) == (0, 0, 0)
