"""Scenes: handwritten digits scattered over a canvas, with a mask and boxes, drawn from a seed.

They are the embedded data for segmentation and detection: small, real handwriting, and every digit visits every place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from shiftlens.data.digits import stored_digits
from shiftlens.data.example_images import ArrayPictures, Source
from shiftlens.data.selection import stratified_split
from shiftlens.errors import InputError

N_SCENES = {"train": 2_000, "test": 400}
"""Scenes of each split of `digits-scenes`."""
SIZE = (96, 96)
_SEEDS = {"train": 1, "test": 2}
_SMALLEST_SIDE, _LONGEST_SIDE = 32, 512

SIDES = (14, 24)
"""Smallest and largest side of a digit's box in a scene, pixels."""
MOST_DIGITS = 8
_TRIES = 200
_BACKGROUND = 40
"""Brightest background, of 255."""


@dataclass(frozen=True)
class Objects:
    """What is in one scene: boxes (left, top, right, bottom) in pixels, and classes 0 to 9."""

    boxes: Float32[np.ndarray, "k 4"]
    labels: Int64[np.ndarray, " k"]


@dataclass(frozen=True)
class Scenes:
    """Scenes with what is in them.

    Attributes
    ----------
    images
        Grey, 0 to 255.
    masks
        0 for background, class + 1 where a digit is.
    objects
        One entry a scene.
    """

    images: UInt8[np.ndarray, "n h w"]
    masks: UInt8[np.ndarray, "n h w"]
    objects: tuple[Objects, ...]


def open_scenes(size: str, split: str) -> Source:
    """`digits-scenes`: 2,000 scenes of the digits' train split, or 400 of their test split, with masks and boxes.

    Parameters
    ----------
    size
        `HxW` in pixels, each side 32 to 512; "" for 96x96.
    split
        train, test or all (train, then test).

    Raises
    ------
    InputError
        Another size.
    """
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", size or "x".join(map(str, SIZE)))
    h, w = (int(match[1]), int(match[2])) if match else (0, 0)
    if not _SMALLEST_SIDE <= min(h, w) <= max(h, w) <= _LONGEST_SIDE:
        raise InputError(
            f"expected digits-scenes:HxW with sides of {_SMALLEST_SIDE} to {_LONGEST_SIDE} pixels, got {size!r}"
        )
    parts = [_scenes_of(part, (h, w)) for part in (N_SCENES if split == "all" else (split,))]
    targets = [
        {"boxes": each.boxes, "labels": each.labels, "mask": mask}
        for part in parts
        for each, mask in zip(part.objects, part.masks, strict=True)
    ]
    images = np.concatenate([part.images for part in parts])
    return Source(ArrayPictures(images), targets, None, has_splits=True, natural_flip=False)


@lru_cache(maxsize=4)
def _scenes_of(split: str, size: tuple[int, int]) -> Scenes:
    """Drawn once a process."""
    levels, labels = stored_digits()
    chosen = stratified_split(labels, split)
    digits = np.clip(levels[chosen] * 255 / 16, 0, 255).astype(np.uint8)
    return draw_scenes(digits, labels[chosen], N_SCENES[split], size, _SEEDS[split])


def draw_scenes(
    digits: UInt8[np.ndarray, "m 8 8"],
    labels: Int64[np.ndarray, " m"],
    n: int,
    size: tuple[int, int] = (96, 96),
    seed: int = 0,
) -> Scenes:
    """Draw `n` scenes of (h, w) pixels; each depends on the seed and its own position only.

    Parameters
    ----------
    digits, labels
        Grey digits, 0 to 255, and their classes.
    n, size, seed
        At least 1; at least 32 pixels each side; at least 0.

    Raises
    ------
    InputError
        A number below its least.
    """
    if n < 1 or min(size) < _SMALLEST_SIDE or seed < 0:
        raise InputError(f"scenes need n >= 1, sides >= {_SMALLEST_SIDE} and a seed >= 0, got {n}, {size} and {seed}")
    drawn = [_scene(digits, labels, size, np.random.default_rng((seed, place))) for place in range(n)]
    images, masks, objects = zip(*drawn, strict=True)
    return Scenes(np.stack(images), np.stack(masks), tuple(objects))


def _scene(
    digits: UInt8[np.ndarray, "m 8 8"],
    labels: Int64[np.ndarray, " m"],
    size: tuple[int, int],
    draw: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"], Objects]:
    h, w = size
    canvas, mask = _background(size, draw), np.zeros(size, np.uint8)
    taken = np.zeros(size, np.bool_)
    boxes: list[tuple[int, int, int, int]] = []
    classes: list[int] = []
    for _ in range(int(draw.integers(2, MOST_DIGITS + 1))):
        which, side = int(draw.integers(len(digits))), int(draw.integers(SIDES[0], SIDES[1] + 1))
        ink = np.asarray(Image.fromarray(digits[which]).resize((side, side), Image.Resampling.BICUBIC))
        rows, columns = (np.flatnonzero((ink > 64).any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            continue
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        dh, dw = ink.shape
        for _ in range(_TRIES):
            y, x = int(draw.integers(h - dh + 1)), int(draw.integers(w - dw + 1))
            if not taken[max(0, y - 1) : y + dh + 1, max(0, x - 1) : x + dw + 1].any():
                break
        else:
            continue
        place = (slice(y, y + dh), slice(x, x + dw))
        canvas[place] = np.maximum(canvas[place], ink)
        mask[place] = np.where(ink > 64, labels[which] + 1, mask[place])
        taken[place] = True
        boxes.append((x, y, x + dw, y + dh))
        classes.append(int(labels[which]))
    return canvas, mask, Objects(np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def _background(size: tuple[int, int], draw: np.random.Generator) -> UInt8[np.ndarray, "h w"]:
    """A soft gradient with grain: alike everywhere on average, so that no place is told by its background."""
    coarse = draw.integers(0, _BACKGROUND, (4, 4)).astype(np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float64)
    return np.clip(soft + draw.normal(0, 4, size), 0, 255).astype(np.uint8)
