"""Which objects, or which images, swing most: each as a strip of pictures under the shifts along one axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shiftlens.analysis.arrays import IntArray, Values
from shiftlens.analysis.object_curves import OBJECT_RADIUS, ObjectCurves, swings
from shiftlens.data.images import ImageSet
from shiftlens.figures.strips import Strip
from shiftlens.narrative.words import number_text
from shiftlens.reporting.thumbnails import fill_of
from shiftlens.shifts import translate
from shiftlens.stats import FloatArray
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.task import Variable

N_STRIPS = 5
MOST_PICTURES = 9
"""In a strip."""
LONGEST_SIDE = 128
"""px of a picture in a strip; larger ones are made smaller."""
AROUND = 10
"""px around an object's box, beyond what the shifts move it by."""

Shifts = list[tuple[int, int]]


def worst_objects(sweep: Sweep, curves: ObjectCurves, images: ImageSet) -> list[Strip]:
    """The objects that swing most, each in a cut-out that holds it under every shift shown; none without boxes."""
    tables = None if images.targets is None else images.targets.boxes
    chosen = _largest(curves.swing)
    if tables is None or not chosen:
        return []
    rows = np.flatnonzero(sweep.written)[curves.image[chosen]]
    objects = tables[rows, curves.place[chosen]]
    h, w = sweep.header.image_size
    longest = int(np.ceil((objects[:, 2:4] - objects[:, :2]).max()))
    side = min(h, w, longest + 2 * int(OBJECT_RADIUS) + 2 * AROUND)
    made = []
    for k, row, (*box, label) in zip(chosen, rows, objects.tolist(), strict=True):
        values, shifts = _along(curves.across[k], curves.down[k], curves.dxs, curves.dys)
        x, y = _start(box[0], box[2], side, w), _start(box[1], box[3], side, h)
        pictures = _shown(sweep, images, int(row), shifts)[:, y : y + side, x : x + side]
        moved = np.array([(dx, dy, dx, dy) for dx, dy in shifts]) + box - (x, y, x, y)
        captions = ["out of view" if np.isnan(value) else f"{value:.2f}" for value in values]
        name = f"image {images.index[row]}\nclass {label:.0f}"
        made.append(_strip(name, pictures, shifts, captions, np.clip(moved, 0, side), int(np.nanargmin(values))))
    return made


def worst_images(sweep: Sweep, values: Values, images: ImageSet) -> list[Strip]:
    """The images whose metric swings most, whole."""
    arrays, metric = values.sweep, values.metric
    swing = np.concatenate(
        [swings(_cells(values, s), arrays.dys, arrays.dxs) for s in arrays.slices()] or [np.zeros(0)]
    )
    (row0, column0), made = arrays.origin, []
    place = {int(position): k for k, position in enumerate(images.index)}
    for k in _largest(swing):
        cells = _cells(values, slice(k, k + 1))[0]
        along, shifts = _along(cells[row0], cells[:, column0], arrays.dxs, arrays.dys)
        position = int(arrays.positions[k])
        pictures = _shown(sweep, images, place[position], shifts)
        captions = ["no number" if np.isnan(value) else _number(metric, value) for value in along]
        worst = int(np.nanargmin(metric.sign * along))
        made.append(_strip(f"image {position}", pictures, shifts, captions, None, worst))
    return made


def _cells(values: Values, images: slice) -> FloatArray:
    return np.asarray(values[images], np.float64).reshape(-1, *values.sweep.shape)


def _number(metric: Variable, value: float) -> str:
    return number_text(value, metric.unit)


def _largest(swing: FloatArray) -> list[int]:
    """Places of the largest swings, first the largest; what does not swing at all is left out."""
    order = np.argsort(-np.nan_to_num(swing, nan=0.0), kind="stable")[:N_STRIPS]
    return [int(k) for k in order if swing[k] > 0]


def _along(across: FloatArray, down: FloatArray, dxs: IntArray, dys: IntArray) -> tuple[FloatArray, Shifts]:
    """The values near (0, 0) along that axis on which they swing more, and their shifts."""
    x, y = _near(dxs), _near(dys)
    if _spread(across[x]) >= _spread(down[y]):
        return across[x], [(int(dx), 0) for dx in dxs[x]]
    return down[y], [(0, int(dy)) for dy in dys[y]]


def _near(shifts: IntArray) -> IntArray:
    """Places on an axis within the radius, thinned out evenly to at most `MOST_PICTURES`."""
    near = np.flatnonzero(np.abs(shifts) <= OBJECT_RADIUS)
    every = -(-len(near) // MOST_PICTURES)
    chosen: IntArray = near[(near - int(np.flatnonzero(shifts == 0)[0])) % every == 0]
    return chosen


def _spread(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(np.ptp(known)) if len(known) > 1 else -1.0


def _start(low: float, high: float, side: int, whole: int) -> int:
    """Where a cut-out of `side` px around the middle of a box begins, inside a frame of `whole` px."""
    return int(np.clip(round((low + high - side) / 2), 0, whole - side))


def _shown(sweep: Sweep, images: ImageSet, row: int, shifts: Shifts) -> NDArray[np.uint8]:
    """One image as the model saw it under some shifts, [k, h, w, 3]."""
    pixels = images.batch([row])[0]
    colour = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
    rule = fill_of(sweep.header)
    fill = rule["rule"] if rule["rgb"] is None else rule["rgb"]
    return np.stack([translate(colour, dx, dy, fill=fill).transpose(1, 2, 0) for dx, dy in shifts])


def _strip(
    name: str,
    pictures: NDArray[np.uint8],
    shifts: Shifts,
    captions: list[str],
    boxes: FloatArray | None,
    worst: int,
) -> Strip:
    """A strip with pictures of at most `LONGEST_SIDE` px, and the shift above each caption."""
    h, w = pictures.shape[1:3]
    factor = min(1.0, LONGEST_SIDE / max(h, w))
    if factor < 1:
        size = (max(1, round(w * factor)), max(1, round(h * factor)))
        small = [Image.fromarray(each).resize(size, Image.Resampling.LANCZOS) for each in pictures]
        pictures = np.stack([np.asarray(each) for each in small])
    down = any(dy for _, dy in shifts)
    places = [f"dy {dy:+d}" if down else f"dx {dx:+d}" for dx, dy in shifts]
    under = [f"{place.replace('+0', '0')}\n{caption}" for place, caption in zip(places, captions, strict=True)]
    return Strip(name, pictures, under, None if boxes is None else boxes * factor, worst)
