"""Every map that the page can show of a sweep: whole, by class, by control, differences; with intervals and ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shiftlens.analysis.arrays import IntArray, SweepArrays
from shiftlens.analysis.asymmetry import Asymmetry
from shiftlens.analysis.controls import ControlEffect
from shiftlens.analysis.estimated_maps import right_counts
from shiftlens.analysis.summary import Metrics
from shiftlens.figures.drawing import balanced
from shiftlens.figures.heatmaps import LEAST_POINTS
from shiftlens.narrative.words import plain
from shiftlens.reporting.encoding import Data, coloured, enlarged, finite, packed, png_uri
from shiftlens.stats import FloatArray, Skipped, mean_interval

MOST_CLASSES = 40
"""Maps of more classes would make the file heavy; those with the most images are taken."""

CONTROL_LABELS = {
    "occlusion": "Same pixels lost, the rest left in place",
    "flip": "Mirrored pictures, drawn mirrored back",
    "canvas": "No padding near the picture",
}


@dataclass(frozen=True, eq=False)
class Map:
    """One map: what the page's script reads, and its values (dy, dx) in the unit that is shown."""

    data: Data
    values: FloatArray

    def still(self) -> Data:
        """The map as a small picture, one pixel a shift or a whole number of them, with its range in words."""
        low, high, unit = self.data["low"], self.data["high"], self.data["unit"]
        pixels = coloured(self.values, low, high, self.data["colours"])
        text = f"{low:.3g} to {high:.3g} {unit}"
        return {"label": self.data["label"], "uri": png_uri(enlarged(pixels)), "range": text}


@dataclass(frozen=True)
class Offered:
    """The maps of a sweep, and how many classes were left out."""

    maps: list[Map]
    n_classes_left_out: int


def counted(name: str, group: str, label: str, counts: IntArray, n: int, about: str = "") -> Map:
    """A map of shares in per cent, given as counts out of `n`: the page computes the Wilson interval of a cell."""
    data = {
        "id": name,
        "group": group,
        "label": label,
        "about": about,
        "unit": "%",
        "kind": "count",
        "n": n,
        "count": packed(counts),
        "low": 0,
        "high": 100,
        "colours": "viridis",
    }
    return Map(data, 100 * counts / max(n, 1))


def measured(
    name: str,
    group: str,
    label: str,
    values: tuple[FloatArray, FloatArray | None, FloatArray | None],
    *,
    unit: str,
    n: int,
    limits: tuple[float, float],
    colours: str,
    about: str = "",
) -> Map:
    """A map of means or differences with the interval of each cell; without one where the ends are None."""
    value, lo, hi = values
    out: Data = {
        "id": name,
        "group": group,
        "label": label,
        "about": about,
        "unit": unit,
        "kind": "mean",
        "n": n,
        "value": packed(value.astype(np.float64)),
        "low": finite(limits[0]),
        "high": finite(limits[1]),
        "colours": colours,
    }
    if lo is not None and hi is not None:
        out |= {"lo": packed(lo.astype(np.float64)), "hi": packed(hi.astype(np.float64))}
    return Map(out, value)


def offered(metrics: Metrics) -> Offered:
    """Return every map that this sweep has the numbers for; accuracy is the first.

    Parameters
    ----------
    metrics
        See `all_metrics`.
    """
    sweep = metrics.sweep
    n = sweep.n_images
    whole = "Whole set"
    maps = [counted("accuracy", whole, "Accuracy", right_counts(sweep.correct), n, "Share of images predicted right.")]
    if not isinstance(metrics.loss, Skipped):
        made = metrics.loss
        top = max(float(made.value.max()), 1e-9)
        about = "Mean cross-entropy; Student t over images."
        maps.append(
            measured(
                "loss",
                whole,
                "Loss",
                (made.value, made.lo, made.hi),
                unit="nats",
                n=n,
                limits=(0.0, top),
                colours="magma",
                about=about,
            )
        )
    maps.append(_probability(sweep, whole))
    if not isinstance(metrics.consistency, Skipped):
        same = np.rint(metrics.consistency.agreement.value * n).astype(np.int64)
        about = "Share of images whose prediction is the same as at (0, 0), right or wrong."
        made_same = counted("agreement", whole, "Agreement with the unshifted prediction", same, n, about)
        maps.append(Map(made_same.data | {"short": "agreement"}, made_same.values))
    classes, left_out = _classes(metrics)
    return Offered([*maps, *classes, *_controls(metrics), *_sides(metrics)], left_out)


def _probability(sweep: SweepArrays, group: str) -> Map:
    """Mean of exp(-loss): the probability that the model gives to the true class."""
    n, shape = sweep.n_images, sweep.shape
    total, squares = np.zeros(shape), np.zeros(shape)
    for s in sweep.slices():
        p = np.exp(-np.asarray(sweep.loss[s], np.float32))
        total += p.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ijk,ijk->jk", p, p, dtype=np.float64)
    mean, lo, hi = total / n, None, None
    if n > 1:
        _, lo, hi, _ = mean_interval(total, squares, n)
        lo, hi = 100 * np.clip(lo, 0, 1), 100 * np.clip(hi, 0, 1)
    made = measured(
        "probability",
        group,
        "Probability of the true class",
        (100 * mean, lo, hi),
        unit="%",
        n=n,
        limits=(0.0, 100.0),
        colours="viridis",
        about="Mean of exp(-loss); Student t over images.",
    )
    return Map(made.data | {"short": "probability"}, made.values)


def _classes(metrics: Metrics) -> tuple[list[Map], int]:
    found = metrics.per_class
    if isinstance(found, Skipped):
        return [], 0
    there = [int(k) for k in np.argsort(-found.n, kind="stable") if found.n[k]]
    chosen = sorted(there[:MOST_CLASSES])
    maps = []
    for k in chosen:
        name, n = plain(found.names[k]), int(found.n[k])
        about = "Accuracy of the images of this class; the line is that of the whole set."
        made = counted(f"class-{k}", "By class", f"Class {name}", found.right[k].astype(np.int64), n, about)
        maps.append(Map(made.data | {"said": f"accuracy of class {name}:"}, made.values))
    return maps, len(there) - len(chosen)


def _controls(metrics: Metrics) -> list[Map]:
    sweep = metrics.sweep
    maps = []
    for name, control in sweep.controls.items():
        counts = right_counts(control.correct)
        if name == "flip":
            turned = mirrored(counts.astype(np.float64), sweep.dxs)
            if not np.isfinite(turned).all():
                continue  # a one-sided grid has no mirror image
            counts = turned.astype(np.int64)
        label = f"Control {name}: {CONTROL_LABELS.get(name, '')}".rstrip(": ")
        maps.append(counted(f"control-{name}", "Controls", label, counts, control.n_images, "Accuracy."))
    padding = None if isinstance(metrics.padding, Skipped) else metrics.padding.effect
    effects = (("occlusion", metrics.placement), ("canvas", padding))
    return [*maps, *(_effect(name, made) for name, made in effects if isinstance(made, ControlEffect))]


def _effect(name: str, made: ControlEffect) -> Map:
    values = (-made.effect, -made.hi, -made.lo)
    about = f"Shifted minus control {name}; intervals hold for all shifts together. Red: better."
    return _difference(
        f"difference-{name}", f"Shifted minus control {name}", values, made.n, about, balanced(values[0], LEAST_POINTS)
    )


def _difference(
    name: str,
    label: str,
    values: tuple[FloatArray, FloatArray | None, FloatArray | None],
    n: int,
    about: str,
    limits: tuple[float, float],
) -> Map:
    return measured(
        name, "Differences", label, values, unit="points", n=n, limits=limits, colours="RdBu_r", about=about
    )


def _sides(metrics: Metrics) -> list[Map]:
    sweep = metrics.sweep
    made = []
    for name, label, found, axis in (
        ("sides-x", "Left against right", metrics.asymmetry_x, 1),
        ("sides-y", "Up against down", metrics.asymmetry_y, 0),
    ):
        if isinstance(found, Asymmetry):
            made.append((name, label, found.n, _spread(found, sweep, axis)))
    limits = balanced(np.stack([values[0] for *_, values in made]), LEAST_POINTS) if made else (-1.0, 1.0)
    other = {"sides-x": "(-dx, dy)", "sides-y": "(dx, -dy)"}
    about = "Accuracy minus that at {}; intervals hold for all pairs together. Red: better."
    maps = [_difference(name, label, values, n, about.format(other[name]), limits) for name, label, n, values in made]
    words = {"said": "accuracy minus that on the other side:", "missing": "no opposite shift"}
    return [Map(each.data | words, each.values) for each in maps]


def _spread(made: Asymmetry, sweep: SweepArrays, axis: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Pairs on both their cells: the value at one, its negative at the other; nan where there is no pair."""
    value, lo, hi = (np.full(sweep.shape, np.nan) for _ in range(3))
    rows = np.searchsorted(sweep.dys, made.dys)
    columns = np.searchsorted(sweep.dxs, made.dxs)
    other_rows = np.searchsorted(sweep.dys, -made.dys) if axis == 0 else rows
    other_columns = np.searchsorted(sweep.dxs, -made.dxs) if axis == 1 else columns
    value[rows, columns], value[other_rows, other_columns] = made.effect, -made.effect
    lo[rows, columns], lo[other_rows, other_columns] = made.lo, -made.hi
    hi[rows, columns], hi[other_rows, other_columns] = made.hi, -made.lo
    return value, lo, hi


def mirrored(values: FloatArray, dxs: IntArray) -> FloatArray:
    """The map whose cell dx holds the value at -dx; nan where -dx is not on the grid."""
    place = {int(d): k for k, d in enumerate(dxs)}
    partner = np.array([place.get(-int(d), -1) for d in dxs])
    out: FloatArray = values[:, np.maximum(partner, 0)].astype(np.float64)
    out[:, partner < 0] = np.nan
    return out
