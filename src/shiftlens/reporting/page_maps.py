"""Every map that the page can show of a sweep: whole, by class, by control, differences; with intervals and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shiftlens.analysis.arrays import IntArray, SweepArrays, Values
from shiftlens.analysis.asymmetry import Asymmetry
from shiftlens.analysis.differences import Effects, sums_of
from shiftlens.analysis.summary import Metrics
from shiftlens.figures.drawing import COLOURS, balanced, colours_of, diverging, least_of, limits_of, mirrored
from shiftlens.narrative.performance import chosen_first
from shiftlens.narrative.words import capital, plain
from shiftlens.reporting.encoding import Data, coloured, enlarged, finite, packed, png_uri
from shiftlens.stats import FloatArray, Skipped, mean_interval, wilson, z_value
from shiftlens.tasks.classification import LOSS
from shiftlens.tasks.task import Variable

MOST_CLASSES = 40
"""Maps of more classes would make the file heavy; those with the most images are taken."""

WHOLE = "Whole set"
"""Group of the maps of all images."""

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


Ends = tuple[FloatArray, FloatArray, FloatArray]
"""Values (dy, dx), and the lower and upper ends of their intervals; nan where there is none."""


def counted(name: str, group: str, label: str, about: str, counts: IntArray, n: int, **words: str) -> Map:
    """A map of shares in per cent, given as counts out of `n`: the page computes the Wilson interval of a cell."""
    data = {"id": name, "group": group, "label": label, "about": about, "unit": "%", "kind": "count", "n": n}
    scale = {"count": packed(counts), "low": 0, "high": 100, "colours": COLOURS}
    return Map(data | scale | words, 100 * counts / max(n, 1))


def measured(
    name: str, group: str, label: str, about: str, ends: Ends, n: int, *, unit: str, limits: tuple[float, float],
    colours: str, **words: str,
) -> Map:  # fmt: skip
    """A map of means or differences with the interval of each cell."""
    data: Data = {"id": name, "group": group, "label": label, "about": about, "unit": unit, "kind": "mean", "n": n}
    arrays = {key: packed(np.asarray(each, np.float64)) for key, each in zip(("value", "lo", "hi"), ends, strict=True)}
    scale = {"low": finite(limits[0]), "high": finite(limits[1]), "colours": colours}
    return Map(data | arrays | scale | words, ends[0])


def of_metric(metric: Variable, name: str, group: str, label: str, about: str, ends: Ends, n: int) -> Map:
    """A map of a metric, in its unit: of a share as counts, else as means within its bounds."""
    if metric.is_share:
        counts = np.rint(ends[0] * n).astype(np.int64)
        return counted(name, group, label, about, counts, n, short=metric.called)
    value, lo, hi = (metric.factor * each for each in ends)
    scale: dict[str, Any] = {"unit": metric.shown_unit, "colours": colours_of(metric), "short": metric.called}
    return measured(name, group, label, about, (value, lo, hi), n, limits=limits_of(metric, value), **scale)


def difference(
    metric: Variable, name: str, label: str, about: str, ends: Ends, n: int,
    *, limits: tuple[float, float] | None = None, **words: str,
) -> Map:  # fmt: skip
    """A map of differences of a metric, by default on a range of its own; red is better."""
    limits = limits or balanced(ends[0], least_of(metric))
    scale: dict[str, Any] = {"unit": metric.difference_unit, "colours": diverging(metric), "short": "difference"}
    return measured(name, "Differences", label, about, ends, n, limits=limits, **scale, **words)


def mean_with_ends(values: Values) -> Ends:
    """Mean of each cell with its own interval: Wilson for a share, else Student's."""
    n, shape = values.sweep.n_images, values.sweep.shape
    sums = sums_of(values)
    if values.metric.is_share:
        lo, hi = wilson(sums.total, n)
    else:
        lo, hi = (np.clip(end, *values.metric.bounds) for end in sums.interval_of_mean(z_value()))
    return sums.mean.reshape(shape), lo.reshape(shape), hi.reshape(shape)


def offered(metrics: Metrics) -> tuple[list[Map], int]:
    """Return every map that this sweep has the numbers for, the chosen metric first, and how many classes have none."""
    sweep, consistency = metrics.sweep, metrics.consistency
    maps = []
    for each in chosen_first(metrics):
        metric = each.metric
        if isinstance(each.map, Skipped) and metric != metrics.metric:
            continue
        what = "share of images; Wilson." if metric.is_share else "mean over images; Student t over images."
        better = "" if metric.sign > 0 else " Lower is better."
        about = f"{capital(metric.long_name or metric.called)}: {what}{better}"
        ends = mean_with_ends(sweep.values(metric))
        maps.append(of_metric(metric, metric.name, WHOLE, capital(metric.called), about, ends, sweep.n_images))
    if LOSS in sweep.metrics:
        maps.append(_probability(sweep))
    if not isinstance(consistency, Skipped):
        same = np.rint(consistency.agreement.value * sweep.n_images).astype(np.int64)
        about = (
            "Share of images whose prediction is the same as at (0, 0), right or wrong. More of it is neither better "
            "performance nor robustness."
        )
        label = "Agreement with the unshifted prediction"
        maps.append(counted("agreement", WHOLE, label, about, same, sweep.n_images, short="agreement"))
    classes, left_out = _classes(metrics)
    return [*maps, *classes, *_controls(metrics), *_sides(metrics)], left_out


def _probability(sweep: SweepArrays) -> Map:
    """Mean of exp(-loss): the probability that the model gives to the true class."""
    total, squares, n = np.zeros(sweep.shape), np.zeros(sweep.shape), sweep.n_images
    for s in sweep.slices():
        p = np.exp(-np.asarray(sweep.loss[s], np.float32))
        total += p.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ijk,ijk->jk", p, p, dtype=np.float64)
    _, lo, hi, _ = mean_interval(total, squares, np.full(sweep.shape, n))
    ends = 100 * (total / n), 100 * np.clip(lo, 0, 1), 100 * np.clip(hi, 0, 1)
    about, label = "Mean of exp(-loss); Student t over images.", "Probability of the true class"
    scale: dict[str, Any] = {"unit": "%", "limits": (0.0, 100.0), "colours": COLOURS, "short": "probability"}
    return measured("probability", WHOLE, label, about, ends, n, **scale)


def _classes(metrics: Metrics) -> tuple[list[Map], int]:
    found, what = metrics.per_class, metrics.metric.called
    if isinstance(found, Skipped):
        return [], 0
    there = [int(k) for k in np.argsort(-found.n, kind="stable") if found.n[k]]
    about, maps = f"{capital(what)} of the images of this class; the line is that of the whole set.", []
    for k in sorted(there[:MOST_CLASSES]):
        name, right = plain(found.names[k]), found.right[k].astype(np.int64)
        words = {"said": f"{what} of class {name}:", "short": what}
        maps.append(counted(f"class-{k}", "By class", f"Class {name}", about, right, int(found.n[k]), **words))
    return maps, len(there) - len(maps)


def _controls(metrics: Metrics) -> list[Map]:
    sweep, metric, maps = metrics.sweep, metrics.metric, []
    for name, control in sweep.controls.items():
        ends = mean_with_ends(control.values(metric))
        if name == "flip":
            value, lo, hi = (mirrored(each, sweep.dxs, axis=1) for each in ends)
            ends = value, lo, hi
            if not np.isfinite(value).all():
                continue  # a one-sided grid has no mirror image
        label = f"Control {name}: {CONTROL_LABELS.get(name, '')}".rstrip(": ")
        about = f"{capital(metric.called)}."
        maps.append(of_metric(metric, f"control-{name}", "Controls", label, about, ends, control.n_images))
    padding = None if isinstance(metrics.padding, Skipped) else metrics.padding.effect
    for name, found in (("occlusion", metrics.placement), ("canvas", padding)):
        if isinstance(found, Effects):
            label = f"Shifted minus control {name}"
            about = f"{label}; intervals hold for all shifts together. Red: better."
            # An effect is a cost: how much worse the shift is.
            ends = (-found.effect, -found.hi, -found.lo) if metric.sign > 0 else (found.effect, found.lo, found.hi)
            maps.append(difference(metric, f"difference-{name}", label, about, ends, found.n))
    return maps


def _sides(metrics: Metrics) -> list[Map]:
    metric = metrics.metric
    made = [
        (f"sides-{found.axis}", label, other, _spread(found, metrics.sweep), found.n)
        for label, other, found in (
            ("Left against right", "(-dx, dy)", metrics.asymmetry_x),
            ("Up against down", "(dx, -dy)", metrics.asymmetry_y),
        )
        if isinstance(found, Asymmetry)
    ]
    limits = balanced(np.stack([values[0] for *_, values, _ in made]), least_of(metric)) if made else None
    about = f"{capital(metric.called)} minus that at {{}}; intervals hold for all pairs together. Red: better."
    words = {"said": f"{metric.called} minus that on the other side:", "missing": "no opposite shift"}
    return [
        difference(metric, name, label, about.format(other), values, n, limits=limits, **words)
        for name, label, other, values, n in made
    ]


def _spread(made: Asymmetry, sweep: SweepArrays) -> Ends:
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
