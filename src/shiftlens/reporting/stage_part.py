"""The stage: images that the reader drags, with what the sweep stored for each of them at every shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import BoolArray, FloatArray, IntArray, SweepArrays, from_sweep
from shiftlens.analysis.comparable import opened, refuse_unlike
from shiftlens.errors import InputError
from shiftlens.narrative.words import plain
from shiftlens.reporting.encoding import Data, deflated, jpeg_uri, png_uri
from shiftlens.reporting.sweep_part import Part
from shiftlens.reporting.thumbnails import COLUMNS, LARGEST_SIDE, Source, fill_of, pixels_at, sprite_of
from shiftlens.sweeps.sweep_result import Sweep

MOST_IMAGES = 60
A_GROUP = 8
LARGEST_PHOTO = 128
"""px of the longer side of an image on the stage; those of at most `LARGEST_SIDE` px are shown exactly."""

MOST_CLASSES = 2**16

HUNDREDTHS_FROM = 0.1
"""nats: smaller losses are shown with three decimals, larger ones with two."""

MOST_LOSS_CODE = 2**16 - 1


@dataclass(frozen=True)
class _Shown:
    """One model on the stage."""

    name: str
    sweep: Sweep
    arrays: SweepArrays


def stage_part(sweeps: Sequence[Sweep], names: Sequence[str], source: Source) -> Part | None:
    """Lay out the stage for the first sweep of which it is possible, and the first that can be compared with it.

    None where no sweep predicts classes of images that are at hand.
    """
    able = [(sweep, name) for sweep, name in zip(sweeps, names, strict=True) if _able(sweep)]
    for k in range(len(able)):
        part = _stage_of(_models(able[k:]), source)
        if part is not None:
            return part
    return None


def _stage_of(shown: Sequence[_Shown], source: Source) -> Part | None:
    first = shown[0]
    arrays = first.arrays
    common = np.ones(arrays.n_images, np.bool_)
    for other in shown[1:]:
        common &= np.isin(arrays.positions, other.arrays.positions)
    shares = changing(arrays)
    groups = choose(shares, arrays.labels, _right(arrays), common)
    rows = np.unique(np.concatenate([rows for _, rows in groups]))
    pixels = pixels_at(first.sweep, arrays.positions[rows], source)
    if isinstance(pixels, str):
        return None
    place = {int(row): k for k, row in enumerate(rows)}
    view: Data = {"models": [each.name for each in shown], "n": len(rows), "n_all": arrays.n_images}
    data: Data = {
        "dys": arrays.dys.tolist(),
        "dxs": arrays.dxs.tolist(),
        "half": list(_half(arrays)),
        "position": arrays.positions[rows].tolist(),
        "label": arrays.labels[rows].tolist() if len(arrays.labels) else None,
        "class_names": [plain(name) for name in arrays.class_names],
        "groups": [{"name": name, "images": [place[int(row)] for row in rows]} for name, rows in groups],
        "sprite": _sprite(pixels, first.sweep),
        "models": [_table(each, arrays.positions[rows], changing(each.arrays)) for each in shown],
    }
    return Part(view, data)


def _models(able: Sequence[tuple[Sweep, str]]) -> list[_Shown]:
    """The first, and the next one of the same images, shifts, fill and input size."""
    sweep, name = able[0]
    first = _Shown(plain(name), sweep, from_sweep(sweep))
    if len(able) == 1:
        return [first]
    base, *others = opened([sweep for sweep, _ in able], None, partial=True)
    for (sweep, name), other in zip(able[1:], others, strict=True):
        try:
            refuse_unlike(base, other, partial=True)
        except InputError:
            continue
        if other.header.image_size == base.header.image_size:
            return [first, _Shown(plain(name), sweep, other.arrays)]
    return [first]


def _able(sweep: Sweep) -> bool:
    needed = {"prediction", "confidence"}
    return needed <= set(sweep.dataset.variables) and (sweep.header.n_classes or 0) < MOST_CLASSES


def _half(arrays: SweepArrays) -> tuple[int, int]:
    """Largest |dy| and |dx| that leave at least half of the image's height and width in view."""
    height, width = arrays.picture_size or (0, 0)
    return height // 2, width // 2


def changing(arrays: SweepArrays) -> FloatArray:
    """(image,) share of the shifts of at most half the image at which the predicted class is not the unshifted one."""
    down, across = _half(arrays)
    near = (np.abs(arrays.dys) <= down)[:, None] & (np.abs(arrays.dxs) <= across)[None, :]
    row, column = arrays.origin
    found = np.empty(arrays.n_images)
    for s in arrays.slices():
        prediction = np.asarray(arrays.prediction[s])
        found[s] = (prediction[:, near] != prediction[:, row, column, None]).mean(axis=1)
    return found


def _right(arrays: SweepArrays) -> BoolArray:
    """(image,) right when unshifted; without labels, all of them."""
    if not len(arrays.labels):
        return np.ones(arrays.n_images, np.bool_)
    row, column = arrays.origin
    found = [np.asarray(arrays.prediction[s])[:, row, column] == arrays.labels[s] for s in arrays.slices()]
    return np.concatenate(found)


def choose(shares: FloatArray, labels: IntArray, right: BoolArray, among: BoolArray) -> list[tuple[str, IntArray]]:
    """Choose the images of the stage, at most `MOST_IMAGES`, by the shares of shifts at which their class changes.

    Parameters
    ----------
    shares
        (image,) see `changing`.
    labels
        (image,) true classes; (0,) where there are none.
    right
        (image,) right when unshifted. Only such images are chosen, as long as there are any.
    among
        (image,) may be chosen.

    Returns
    -------
    list
        Groups of rows by name; an image may be in several. Ties are broken by the order of the images.
    """
    usable = np.flatnonzero(among & right)
    if not len(usable):
        usable = np.flatnonzero(among)
    ranked = usable[np.argsort(shares[usable], kind="stable")]
    groups = [
        ("Most fragile", usable[np.argsort(-shares[usable], kind="stable")][:A_GROUP]),
        ("Typical", _nearest_to_median(shares, usable)[:A_GROUP]),
        ("Most robust", ranked[:A_GROUP]),
    ]
    if not len(labels):
        return groups
    classes = np.unique(labels[usable])
    most = MOST_IMAGES - 3 * A_GROUP
    if len(classes) > most:
        classes = classes[np.linspace(0, len(classes) - 1, most).astype(np.int64)]
    typical = [_nearest_to_median(shares, usable[labels[usable] == each])[0] for each in classes]
    return [*groups, ("One per class", np.array(typical, np.int64))]


def _nearest_to_median(shares: FloatArray, rows: IntArray) -> IntArray:
    away = np.abs(shares[rows] - np.median(shares[rows]))
    return rows[np.argsort(away, kind="stable")]


def _sprite(pixels: NDArray[np.uint8], sweep: Sweep) -> Data:
    small = max(pixels.shape[2:]) <= LARGEST_SIDE
    sprite, size = sprite_of(pixels, LARGEST_SIDE if small else LARGEST_PHOTO)
    return {
        "uri": png_uri(sprite) if small else jpeg_uri(sprite),
        "columns": COLUMNS,
        "size": size,
        "image_size": sweep.header.image_size,
        "fill": fill_of(sweep.header),
    }


def _table(shown: _Shown, positions: IntArray, shares: FloatArray) -> Data:
    """What one model says of each image at every shift, as it is displayed."""
    dataset = shown.sweep.dataset
    row_of = {int(p): row for row, p in enumerate(dataset["index"].values)}
    rows = np.array([row_of[int(p)] for p in positions])

    def read(name: str) -> NDArray[np.float64]:
        # One image after the other: they lie all over the file.
        return np.stack([np.asarray(dataset[name].variable[int(row)].values, np.float64) for row in rows])

    return {
        "name": shown.name,
        "prediction": deflated(read("prediction").astype(np.int64)),
        "confidence": deflated(np.rint(1000 * read("confidence")).astype(np.int64)),
        "loss": deflated(loss_codes(read("loss"))) if len(shown.arrays.labels) else None,
        "median_share": float(np.median(shares)),
    }


def loss_codes(loss: NDArray[np.float64]) -> IntArray:
    """Losses in nats as they are displayed: thousandths below 0.1, hundredths (from code 100 on) above."""
    small = loss < HUNDREDTHS_FROM
    codes = np.where(small, np.rint(1000 * loss), np.rint(np.minimum(100 * loss, 1e6)) + 90)
    return np.clip(codes, 0, MOST_LOSS_CODE).astype(np.int64)
