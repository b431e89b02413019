"""The stage: images that the reader drags, with what the sweep stored for each of them at every shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import BoolArray, FloatArray, IntArray, SweepArrays, from_sweep
from shiftlens.analysis.comparable import opened, refuse_unlike
from shiftlens.errors import InputError, StoreError
from shiftlens.narrative.finding_parts import Action
from shiftlens.narrative.rendering import action_html
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import capital, plain
from shiftlens.reporting.encoding import Data, deflated, jpeg_uri, png_uri
from shiftlens.reporting.stage_outputs import kind_of, packed_output
from shiftlens.reporting.sweep_part import Part
from shiftlens.reporting.thumbnails import COLUMNS, LARGEST_SIDE, Source, fill_of, pixels_at, sprite_of
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.task import Variable

MOST_IMAGES = 60
A_GROUP = 8
LARGEST_PHOTO = 128
"""px of the longer side of an image on the stage; those of at most `LARGEST_SIDE` px are shown exactly."""
LARGEST_SCENE = 256
"""The same of an image with masks or boxes."""

KEPT_TASKS = ("segmentation", "detection", "detection-consistency")
SHOWN_METRICS = ("confidence", "self_consistency_confidence", "mean_iou", "pixel_agreement")
"""Of an image with masks or boxes, what is followed: the first that its sweep has."""
NO_VALUE = 1001
"""Code of a value that is not defined; others are in thousandths."""
USUAL_KEPT = 8

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
    kept: Sweep | None = None

    def holds(self, positions: IntArray) -> BoolArray:
        """Whether the images at these positions of the source can be shown."""
        there = self.arrays.positions if self.kept is None else self.kept.dataset["index"].values
        return np.isin(positions, there)


def stage_part(sweeps: Sequence[Sweep], names: Sequence[str], source: Source) -> Part | None:
    """Lay out the stage for the first sweep of which it is possible, and the first that can be compared with it.

    None where no sweep predicts classes of images that are at hand, or has kept masks or boxes of them.
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
    common = np.all([each.holds(arrays.positions) for each in shown], axis=0)
    if first.kept is None:
        groups = choose(changing(arrays), arrays.labels, _right(arrays), common)
    else:
        groups = _choose_kept(first, np.flatnonzero(common))
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
        "kind": "classes" if first.kept is None else kind_of(first.kept),
        "position": arrays.positions[rows].tolist(),
        "label": arrays.labels[rows].tolist() if len(arrays.labels) and first.kept is None else None,
        "class_names": [plain(name) for name in arrays.class_names],
        "groups": [{"name": name, "images": [place[int(row)] for row in rows]} for name, rows in groups],
        "sprite": _sprite(pixels, first.sweep, LARGEST_PHOTO if first.kept is None else LARGEST_SCENE),
        "models": [_table(each, arrays.positions[rows]) for each in shown],
    }
    return Part(view | {"kind": data["kind"], "metric": data["models"][0].get("metric")}, data)


def stage_hint(sweeps: Sequence[Sweep]) -> str | None:
    """How masks or boxes get onto the page, as HTML, where a sweep could have kept them and none did."""
    for sweep in sweeps:
        if sweep.header.task.name in KEPT_TASKS and sweep.header.control is None and _kept(sweep) is None:
            what = "mask" if sweep.header.task.name == "segmentation" else "boxes"
            text = f"To drag an image with its {what} here, keep the outputs of some images, then make this page again"
            return action_html(Action(text, Setting.of(sweep).sweep_command(keep=min(USUAL_KEPT, sweep.n_images))))
    return None


def _kept(sweep: Sweep) -> Sweep | None:
    """What is kept of a sweep's outputs, if all of it is there."""
    try:
        return sweep.kept
    except StoreError:
        return None


def _models(able: Sequence[tuple[Sweep, str]]) -> list[_Shown]:
    """The first, and the next one of the same images, shifts, fill and input size."""
    sweep, name = able[0]
    first = _Shown(plain(name), sweep, from_sweep(sweep), _kept(sweep))
    if len(able) == 1:
        return [first]
    base, *others = opened([sweep for sweep, _ in able], None, partial=True)
    for (sweep, name), other in zip(able[1:], others, strict=True):
        try:
            refuse_unlike(base, other, partial=True)
        except InputError:
            continue
        second = _Shown(plain(name), sweep, other.arrays, _kept(sweep))
        common = first.holds(first.arrays.positions) & second.holds(first.arrays.positions)
        if other.header.image_size == base.header.image_size and common.any():
            return [first, second]
    return [first]


def _able(sweep: Sweep) -> bool:
    if sweep.header.task.name in KEPT_TASKS:
        return _kept(sweep) is not None
    needed = {"prediction", "confidence"}
    return needed <= set(sweep.dataset.variables) and (sweep.header.n_classes or 0) < MOST_CLASSES


def _half(arrays: SweepArrays) -> tuple[int, int]:
    """Largest |dy| and |dx| that leave at least half of the image's height and width in view."""
    height, width = arrays.picture_size or (0, 0)
    return height // 2, width // 2


def _near(arrays: SweepArrays) -> tuple[IntArray, IntArray]:
    """Places on both axes of the shifts of at most half the image."""
    down, across = _half(arrays)
    return np.flatnonzero(np.abs(arrays.dys) <= down), np.flatnonzero(np.abs(arrays.dxs) <= across)


def changing(arrays: SweepArrays) -> FloatArray:
    """(image,) share of the shifts of at most half the image at which the predicted class is not the unshifted one."""
    rows, columns = _near(arrays)
    row, column = arrays.origin
    found = np.empty(arrays.n_images)
    for s in arrays.slices():
        prediction = np.asarray(arrays.prediction[s])
        found[s] = (prediction[:, rows[:, None], columns] != prediction[:, row, column, None, None]).mean(axis=(1, 2))
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


def _choose_kept(shown: _Shown, rows: IntArray) -> list[tuple[str, IntArray]]:
    """Groups of rows by name, by how much the metric swings; few images are one group."""
    shares = np.zeros(shown.arrays.n_images)
    shares[rows] = _swings(shown, _values(shown, shown.arrays.positions[rows]))
    among = np.isin(np.arange(len(shares)), rows)
    groups = choose(shares, np.zeros(0, np.int64), np.ones(len(shares), np.bool_), among)
    return groups if len(rows) > A_GROUP else [("Images with outputs, most fragile first", groups[0][1])]


def _metric(sweep: Sweep) -> Variable:
    """What is followed of an image with masks or boxes."""
    known = {each.name: each for each in sweep.metrics}
    found = [known[name] for name in SHOWN_METRICS if name in known]
    return next((each for each in found if sweep.mean_of(each).notnull().any()), found[0])


def _values(shown: _Shown, positions: IntArray) -> FloatArray:
    """The metric of some images (image, dy, dx)."""
    return _read(shown, _metric(shown.sweep).name, positions)


def _swings(shown: _Shown, values: FloatArray) -> FloatArray:
    """Largest less smallest value of each image at shifts of at most half the image; 0 where it has none."""
    rows, columns = _near(shown.arrays)
    near = values[:, rows[:, None], columns]
    low, high = np.nan_to_num(near, nan=np.inf).min(axis=(1, 2)), np.nan_to_num(near, nan=-np.inf).max(axis=(1, 2))
    return np.asarray(np.maximum(high - low, 0.0), np.float64)


def _sprite(pixels: NDArray[np.uint8], sweep: Sweep, largest: int) -> Data:
    small = max(pixels.shape[2:]) <= LARGEST_SIDE
    sprite, size = sprite_of(pixels, LARGEST_SIDE if small else largest)
    return {
        "uri": png_uri(sprite) if small else jpeg_uri(sprite),
        "columns": COLUMNS,
        "size": size,
        "image_size": sweep.header.image_size,
        "fill": fill_of(sweep.header),
    }


def _read(shown: _Shown, name: str, positions: IntArray) -> FloatArray:
    """A stored variable (image, dy, dx) of the images at some positions of the source."""
    dataset = shown.sweep.dataset
    row_of = {int(p): row for row, p in enumerate(dataset["index"].values)}
    # One image after the other: they lie all over the file.
    return np.stack([np.asarray(dataset[name].variable[row_of[int(p)]].values, np.float64) for p in positions])


def _table(shown: _Shown, positions: IntArray) -> Data:
    """What one model says of each image at every shift, as it is displayed."""
    if shown.kept is not None:
        return _kept_table(shown, shown.kept, positions)
    return {
        "name": shown.name,
        "prediction": deflated(_read(shown, "prediction", positions).astype(np.int64), axes=0),
        "confidence": deflated(np.rint(1000 * _read(shown, "confidence", positions)).astype(np.int64), axes=2),
        "loss": deflated(loss_codes(_read(shown, "loss", positions)), axes=2) if len(shown.arrays.labels) else None,
        "median_share": float(np.median(changing(shown.arrays))),
    }


def _kept_table(shown: _Shown, kept: Sweep, positions: IntArray) -> Data:
    """The metric in thousandths, and the masks or boxes of each image by themselves."""
    metric, values = _metric(shown.sweep), _values(shown, positions)
    row_of = {int(p): row for row, p in enumerate(kept.dataset["index"].values)}
    return {
        "name": shown.name,
        "metric": {
            "called": metric.called,
            "title": capital(metric.called),
            "about": metric.long_name.removesuffix(" of a window"),
        },
        "values": deflated(np.where(np.isnan(values), NO_VALUE, np.rint(1000 * values)).astype(np.int64), axes=2),
        "median_swing": float(np.median(_swings(shown, values))),
        "outputs": [packed_output(kept, row_of[int(p)]) for p in positions],
    } | (_boxed(shown, kept, positions) if kind_of(kept) == "boxes" else {})


def _boxed(shown: _Shown, kept: Sweep, positions: IntArray) -> Data:
    """How many objects are in view, which the metric is a mean over, and the score from which on boxes are kept."""
    in_view = np.isfinite(_read(shown, "object_confidence", positions)).sum(axis=1)
    return {"objects": deflated(in_view, axes=2), "score_threshold": kept.header.task.settings["score_threshold"]}


def loss_codes(loss: NDArray[np.float64]) -> IntArray:
    """Losses in nats as they are displayed: thousandths below 0.1, hundredths (from code 100 on) above."""
    small = loss < HUNDREDTHS_FROM
    codes = np.where(small, np.rint(1000 * loss), np.rint(np.minimum(100 * loss, 1e6)) + 90)
    return np.clip(codes, 0, MOST_LOSS_CODE).astype(np.int64)
