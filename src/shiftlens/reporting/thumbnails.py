"""The images behind the cells: 64 of them in one picture, with their predictions under every shift."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shiftlens.analysis.arrays import IntArray
from shiftlens.analysis.summary import Metrics
from shiftlens.data.images import ImageSet, load_images
from shiftlens.errors import InputError
from shiftlens.models.matching import shown_as
from shiftlens.narrative.words import plain
from shiftlens.reporting.encoding import Data, packed, png_uri
from shiftlens.stats import Skipped
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.looks import in_fixed_order
from shiftlens.sweeps.sweep_result import Sweep

MOST_IMAGES = 64
COLUMNS = 8
LARGEST_SIDE = 48
"""px of a thumbnail's longer side; larger pictures are made smaller."""

EMBEDDED = ("digits", "digits-scenes")
"""Image sets that every installation holds: their pictures are shown without being asked for."""

CHOICE = (
    "half of them in even steps from the image that survives most shifts to the one that survives fewest; half those "
    "that are right unshifted and fail most often inside the solid line. The share failing here is not that of the set"
)


@dataclass(frozen=True)
class Source:
    """Where pictures come from: an image set, how one is named on the command line, or neither."""

    images: ImageSet | str | None = None
    data_root: str | Path | None = None
    verified: dict[str, ImageSet | str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.images is not None and not isinstance(self.images, ImageSet | str):
            got = type(self.images).__name__
            raise InputError(f"expected images as an ImageSet or a name such as 'cifar10', got {got}")


def chosen(metrics: Metrics) -> IntArray:
    """Return the rows of the images to show, at most `MOST_IMAGES`, ascending; see `CHOICE`."""
    sweep = metrics.sweep
    n = sweep.n_images
    if n <= MOST_IMAGES:
        return np.arange(n)
    kept = metrics.retained[0]
    strong = np.ones(sweep.shape, np.bool_) if isinstance(kept, Skipped) else kept.region
    survived, lost = np.empty(n, np.int64), np.empty(n, np.int64)
    for s in sweep.slices():
        survived[s] = sweep.correct[s].sum(axis=(1, 2))
        right_at_rest = sweep.correct[s][:, *sweep.origin]
        lost[s] = np.where(right_at_rest, (~sweep.correct[s][:, strong]).sum(axis=1), -1)
    half = MOST_IMAGES // 2
    fragile = np.argsort(-lost, kind="stable")[:half]
    rest = np.setdiff1d(np.argsort(survived, kind="stable"), fragile, assume_unique=True)
    ranked = rest[np.argsort(survived[rest], kind="stable")]
    even = ranked[np.rint(np.linspace(0, len(ranked) - 1, MOST_IMAGES - half)).astype(np.int64)]
    return np.unique(np.concatenate([fragile, even]))


def gallery(sweep: Sweep, metrics: Metrics, source: Source) -> tuple[Data | None, str]:
    """Return the images behind the cells as data for the page, and a sentence on why they have no pictures, or "".

    None where no class is predicted: nothing says then which images fail.
    """
    if "prediction" not in metrics.sweep.variables or not len(metrics.sweep.labels):
        return None, ""
    rows, arrays = chosen(metrics), metrics.sweep
    # A chunk at a time: the rows lie all over the file.
    chunks = ((s, rows[(rows >= s.start) & (rows < s.stop)] - s.start) for s in arrays.slices())
    prediction = np.concatenate([np.asarray(arrays.prediction[s])[inside] for s, inside in chunks if len(inside)])
    data: Data = {
        "n": len(rows),
        "n_all": arrays.n_images,
        "position": [int(p) for p in arrays.positions[rows]],
        "label": [int(k) for k in arrays.labels[rows]],
        "prediction": packed(prediction),
        "class_names": [plain(name) for name in arrays.class_names],
        "sprite": None,
    }
    found = pixels_at(sweep, arrays.positions[rows], source)
    if isinstance(found, str):
        return data, found
    sprite, size = sprite_of(found)
    about = {"size": size, "image_size": sweep.header.image_size, "fill": fill_of(sweep.header)}
    return data | {"sprite": {"uri": png_uri(sprite), "columns": COLUMNS} | about}, ""


def pixels_at(sweep: Sweep, wanted: IntArray, source: Source) -> NDArray[np.uint8] | str:
    """Pixels [k, c, h, w] of the wanted positions as the model was shown them, or why there are none."""
    images = images_of(sweep, source)
    if isinstance(images, str):
        return images
    place = {int(p): k for k, p in enumerate(images.index)}
    return images.batch([place[int(p)] for p in wanted])


def images_of(sweep: Sweep, source: Source) -> ImageSet | str:
    """The images of a sweep as the model was shown them, or why they are not at hand; known by their digest.

    A digest is taken over all of them, so the answer is kept in the source.
    """
    path = str(sweep.path)
    if path not in source.verified:
        source.verified[path] = _verified(sweep, source)
    return source.verified[path]


def _verified(sweep: Sweep, source: Source) -> ImageSet | str:
    header, spec = sweep.header, source.images
    if spec is None:
        if header.data.partition(":")[0] not in EMBEDDED:
            return f"no source of the images was given (--data {plain(header.data)})"
        spec = header.data
    named = load_images(spec, data_root=source.data_root)
    positions = np.asarray(sweep.dataset["index"].values, np.int64)
    # Of a source without splits, the sweep may have had the part that its model was not trained on.
    sources = [each for each in (named, named.part("test")) if each is not None]
    found = (_selected(each, positions, sweep.n_population) for each in sources)
    images = next((each for each in found if np.array_equal(each.index[: len(positions)], positions)), None)
    if images is None:
        return f"{plain(named.name)} does not hold the images of this sweep"
    rule = header.preprocessing
    # One mean may be that of one channel or of all.
    channels = {len(rule.mean), images.n_channels} if len(rule.mean) in (1, 3) else {images.n_channels}
    ways = (shown_as(images, n, rule) for n in sorted(channels))
    same = next((each for each in ways if each.digest == header.data_digest), None)
    if same is None:
        return f"{plain(images.name)} is not what this sweep was made of: the digests differ"
    return same


def _selected(images: ImageSet, positions: IntArray, n_population: int) -> ImageSet:
    """The images at these positions of their source, or other ones where they are not there."""
    if n_population > len(positions):
        # The digest of an adaptive sweep that has stopped is that of all images that it could have taken.
        return in_fixed_order(images.limit(n_population))
    order = np.argsort(images.index, kind="stable")
    return images.subset(order[np.minimum(np.searchsorted(images.index, positions, sorter=order), len(order) - 1)])


def sprite_of(pixels: NDArray[np.uint8], largest: int = LARGEST_SIDE) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Pictures [k, c, h, w] side by side in one (h, w, 3), `COLUMNS` a row, and the size (h, w) of each in it.

    The longer side of each is at most `largest` px.
    """
    k, c, h, w = pixels.shape
    colour = np.repeat(pixels, 3, axis=1) if c == 1 else pixels
    factor = min(1.0, largest / max(h, w))
    th, tw = max(1, round(h * factor)), max(1, round(w * factor))
    sprite = np.zeros((-(-k // COLUMNS) * th, min(k, COLUMNS) * tw, 3), np.uint8)
    for number, picture in enumerate(colour.transpose(0, 2, 3, 1)):
        small = picture
        if factor < 1:
            small = np.asarray(Image.fromarray(picture).resize((tw, th), Image.Resampling.LANCZOS))
        top, left = number // COLUMNS * th, number % COLUMNS * tw
        sprite[top : top + th, left : left + tw] = small
    return sprite, (th, tw)


def fill_of(header: SweepHeader) -> Data:
    """What enters from outside: a colour 0 to 255 for a constant, else the name of the rule."""
    if not header.fill.is_constant:
        return {"rule": header.fill.name, "rgb": None}
    mean, std = np.asarray(header.preprocessing.mean), np.asarray(header.preprocessing.std)
    pixel = np.asarray(header.fill.normalised(tuple(mean), tuple(std))) * std + mean
    rgb = np.clip(np.rint(255 * pixel), 0, 255).astype(int).tolist()
    return {"rule": "constant", "rgb": (rgb * 3)[:3] if len(rgb) == 1 else rgb[:3]}
