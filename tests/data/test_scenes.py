"""`digits-scenes`: what is drawn is where the masks and boxes say, and nothing of the test digits is in training."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from shiftlens.data import scenes
from shiftlens.data.images import load_images
from shiftlens.data.scenes import MOST_DIGITS, N_SCENES, draw_scenes
from shiftlens.errors import InputError

DIGITS = (load_digits().images * 255 / 16).astype(np.uint8)
LABELS = load_digits().target.astype(np.int64)


def test_scenes_depend_on_the_seed_and_their_place_only() -> None:
    few, many = (draw_scenes(DIGITS, LABELS, n, (64, 48), seed=5) for n in (3, 6))
    np.testing.assert_array_equal(few.images, many.images[:3])
    np.testing.assert_array_equal(few.masks, many.masks[:3])
    for a, b in zip(few.objects, many.objects, strict=False):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.labels, b.labels)
    other = draw_scenes(DIGITS, LABELS, 3, (64, 48), seed=6)
    assert not np.array_equal(few.images, other.images)
    assert not np.array_equal(few.images[0], few.images[1])


@pytest.mark.parametrize("size", [(96, 96), (40, 120)])
def test_boxes_are_tight_around_the_digits_and_no_two_touch(size: tuple[int, int]) -> None:
    drawn = draw_scenes(DIGITS, LABELS, 60, size, seed=1)
    assert drawn.images.shape == drawn.masks.shape == (60, *size)
    counts = [len(objects.labels) for objects in drawn.objects]
    assert min(counts) >= 1
    assert 4 <= max(counts) <= MOST_DIGITS
    for image, mask, objects in zip(drawn.images, drawn.masks, drawn.objects, strict=True):
        left_over = mask.copy()
        claimed = np.zeros(size, int)
        for (left, top, right, bottom), label in zip(objects.boxes.astype(int), objects.labels, strict=True):
            inside = mask[top:bottom, left:right]
            assert set(np.unique(inside)) <= {0, label + 1}
            for axis in (0, 1):
                edge = (inside > 0).any(axis=axis)
                assert edge[0]
                assert edge[-1]
            left_over[top:bottom, left:right] = 0
            claimed[max(0, top - 1) : bottom, max(0, left - 1) : right] += 1
            assert image[top:bottom, left:right][inside > 0].min() > 64
        assert not left_over.any()
        assert claimed.max() <= 1, "a pixel of background lies between any two boxes"
        n_parts = ndimage.label(mask, np.ones((3, 3)))[1]
        assert n_parts >= len(objects.labels)


def test_the_split_is_that_of_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {}

    def drawn(digits: np.ndarray, labels: np.ndarray, n: int, size: tuple[int, int], seed: int) -> scenes.Scenes:
        taken[n] = (digits, labels, seed)
        return draw_scenes(digits, labels, 1, size, seed)

    monkeypatch.setattr(scenes, "draw_scenes", drawn)
    for split in ("train", "test"):
        load_images("digits-scenes:33x40", split=split)
        index = load_images("digits", split=split).index
        digits, labels, _ = taken[N_SCENES[split]]
        np.testing.assert_array_equal(digits, DIGITS[index])
        np.testing.assert_array_equal(labels, LABELS[index])
    assert N_SCENES == {"train": 2_000, "test": 400}
    assert taken[2_000][2] != taken[400][2]


def test_the_spec_gives_masks_and_boxes_and_is_split() -> None:
    test = load_images("digits-scenes")
    assert (len(test), test.size, test.n_channels, test.natural_flip, test.labelled) == (400, (96, 96), 1, False, False)
    assert test.targets is not None
    assert test.targets.masks is not None
    assert test.targets.boxes is not None
    assert test.targets.kind == "masks and boxes"
    test.targets.refuse_other_size(test.size, test.name)
    few = load_images("digits-scenes", split="test", limit=5)
    assert few.targets is not None
    np.testing.assert_array_equal(few.targets.masks, test.targets.masks[few.index])
    assert load_images("digits-scenes:40x56", limit=2).size == (40, 56)


@pytest.mark.parametrize("size", ["", "96", "31x96", "96x513", "0x0", "-96x96", "96x96x3", "9999999999x96"])
def test_other_sizes_are_refused(size: str) -> None:
    with pytest.raises(InputError, match="expected digits-scenes:HxW") as caught:
        load_images(f"digits-scenes:{size}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("n", "size", "seed"), [(0, (96, 96), 0), (1, (31, 96), 0), (1, (96, 96), -1)])
def test_what_cannot_be_drawn_is_refused(n: int, size: tuple[int, int], seed: int) -> None:
    with pytest.raises(InputError, match="scenes need n >= 1, sides >= 32 and a seed >= 0"):
        draw_scenes(DIGITS, LABELS, n, size, seed)
