"""Every map that the page can show of a sweep: whole, by class, by control, differences; with intervals and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shiftlens.analysis.arrays import IntArray, SweepArrays
from shiftlens.analysis.asymmetry import Asymmetry
from shiftlens.analysis.controls import ControlEffect
from shiftlens.analysis.summary import Metrics
from shiftlens.figures.drawing import COLOURS, DIVERGING, LOSS_COLOURS, balanced, mirrored
from shiftlens.figures.heatmaps import LEAST_POINTS
from shiftlens.narrative.words import plain
from shiftlens.reporting.encoding import Data, coloured, enlarged, finite, packed, png_uri
from shiftlens.stats import FloatArray, Skipped, mean_interval

MOST_CLASSES = 40
"""Maps of more classes would make the file heavy; those with the most images are taken."""

CONTROL_LABELS = {
    "occlusion": "Same pixels lost, the rest left in place",
    "flip": "Mirrored images, drawn mirrored back",
    "canvas": "No padding near the image",
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


def counted(name: str, group: str, label: str, about: str, counts: IntArray, n: int, **words: str) -> Map:
    """A map of shares in per cent, given as counts out of `n`: the page computes the Wilson interval of a cell."""
    data = {"id": name, "group": group, "label": label, "about": about, "unit": "%", "kind": "count", "n": n}
    scale = {"count": packed(counts), "low": 0, "high": 100, "colours": COLOURS}
    return Map(data | scale | words, 100 * counts / max(n, 1))


def measured(
    name: str,
    group: str,
    label: str,
    about: str,
    values: tuple[FloatArray, FloatArray | None, FloatArray | None],
    n: int,
    *,
    unit: str = "points",
    limits: tuple[float, float] | None = None,
    colours: str = DIVERGING,
    **words: str,
) -> Map:
    """A map of means or differences with the interval of each cell; without one where the ends are None.

    A difference has a scale that is the same on both sides of 0, unless `limits` says another.
    """
    low, high = balanced(values[0], LEAST_POINTS) if limits is None else limits
    data: Data = {"id": name, "group": group, "label": label, "about": about, "unit": unit, "kind": "mean", "n": n}
    arrays = {key: packed(each.astype(np.float64)) for key, each in zip(("value", "lo", "hi"), values, strict=True)
              if each is not None}  # fmt: skip
    return Map(data | arrays | {"low": finite(low), "high": finite(high), "colours": colours} | words, values[0])


def offered(metrics: Metrics) -> Offered:
    """Return every map that this sweep has the numbers for; accuracy is the first.

    Parameters
    ----------
    metrics
        See `all_metrics`.
    """
    sweep, whole = metrics.sweep, "Whole set"
    n, right = sweep.n_images, sweep.correct.sum(axis=0)
    maps = [counted("accuracy", whole, "Accuracy", "Share of images predicted right.", right, n)]
    loss, consistency = metrics.loss, metrics.consistency
    if not isinstance(loss, Skipped):
        about = "Mean cross-entropy; Student t over images."
        scale: dict[str, Any] = {"limits": (0.0, max(float(loss.value.max()), 1e-9)), "colours": LOSS_COLOURS}
        maps.append(measured("loss", whole, "Loss", about, (loss.value, loss.lo, loss.hi), n, unit="nats", **scale))
    maps.append(_probability(sweep, whole))
    if not isinstance(consistency, Skipped):
        same = np.rint(consistency.agreement.value * n).astype(np.int64)
        about = "Share of images whose prediction is the same as at (0, 0), right or wrong."
        label = "Agreement with the unshifted prediction"
        maps.append(counted("agreement", whole, label, about, same, n, short="agreement"))
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
    lo, hi = None, None
    if n > 1:
        _, lo, hi, _ = mean_interval(total, squares, n)
        lo, hi = 100 * np.clip(lo, 0, 1), 100 * np.clip(hi, 0, 1)
    about = "Mean of exp(-loss); Student t over images."
    scale: dict[str, Any] = {"unit": "%", "limits": (0.0, 100.0), "colours": COLOURS, "short": "probability"}
    label = "Probability of the true class"
    return measured("probability", group, label, about, (100 * (total / n), lo, hi), n, **scale)


def _classes(metrics: Metrics) -> tuple[list[Map], int]:
    found = metrics.per_class
    if isinstance(found, Skipped):
        return [], 0
    there = [int(k) for k in np.argsort(-found.n, kind="stable") if found.n[k]]
    about, maps = "Accuracy of the images of this class; the line is that of the whole set.", []
    for k in sorted(there[:MOST_CLASSES]):
        name, right = plain(found.names[k]), found.right[k].astype(np.int64)
        said = f"accuracy of class {name}:"
        maps.append(counted(f"class-{k}", "By class", f"Class {name}", about, right, int(found.n[k]), said=said))
    return maps, len(there) - len(maps)


def _controls(metrics: Metrics) -> list[Map]:
    sweep, maps = metrics.sweep, []
    for name, control in sweep.controls.items():
        counts = control.correct.sum(axis=0)
        if name == "flip":
            turned = mirrored(counts, sweep.dxs, axis=1)
            if not np.isfinite(turned).all():
                continue  # a one-sided grid has no mirror image
            counts = turned.astype(np.int64)
        label = f"Control {name}: {CONTROL_LABELS.get(name, '')}".rstrip(": ")
        maps.append(counted(f"control-{name}", "Controls", label, "Accuracy.", counts, control.n_images))
    padding = None if isinstance(metrics.padding, Skipped) else metrics.padding.effect
    for name, made in (("occlusion", metrics.placement), ("canvas", padding)):
        if isinstance(made, ControlEffect):
            label = f"Shifted minus control {name}"
            about = f"{label}; intervals hold for all shifts together. Red: better."
            values = (-made.effect, -made.hi, -made.lo)
            maps.append(measured(f"difference-{name}", "Differences", label, about, values, made.n))
    return maps


def _sides(metrics: Metrics) -> list[Map]:
    made = [
        (f"sides-{found.axis}", label, other, _spread(found, metrics.sweep), found.n)
        for label, other, found in (
            ("Left against right", "(-dx, dy)", metrics.asymmetry_x),
            ("Up against down", "(dx, -dy)", metrics.asymmetry_y),
        )
        if isinstance(found, Asymmetry)
    ]
    limits = balanced(np.stack([values[0] for *_, values, _ in made]), LEAST_POINTS) if made else None
    about = "Accuracy minus that at {}; intervals hold for all pairs together. Red: better."
    words = {"said": "accuracy minus that on the other side:", "missing": "no opposite shift"}
    return [
        measured(name, "Differences", label, about.format(other), values, n, limits=limits, **words)
        for name, label, other, values, n in made
    ]


def _spread(made: Asymmetry, sweep: SweepArrays) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Pairs on both their cells: the value at one, its negative at the other; nan where there is no pair."""
    across = made.axis == "x"
    here = np.searchsorted(sweep.dys, made.dys), np.searchsorted(sweep.dxs, made.dxs)
    there = (
        here[0] if across else np.searchsorted(sweep.dys, -made.dys),
        np.searchsorted(sweep.dxs, -made.dxs) if across else here[1],
    )
    value, lo, hi = (np.full(sweep.shape, np.nan) for _ in range(3))
    for out, plus, minus in ((value, made.effect, made.effect), (lo, made.lo, made.hi), (hi, made.hi, made.lo)):
        out[here], out[there] = plus, -minus
    return value, lo, hi
