"""A task's metrics of some images under one shift, each with its interval over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.stats import mean_estimate, resample_weights
from shiftlens.tasks.task import Task, Variable

N_RESAMPLES = 1_000


@dataclass(frozen=True)
class Score:
    """One metric.

    Attributes
    ----------
    metric
        What.
    value
        Mean over images, or the metric of the data set; NaN where no image has it.
    interval
        95 % over images: Student's t of a mean, the bootstrap's percentiles of a metric of the data set. None of fewer
        than two images, where the value is not finite, and where these images do not differ: then neither says
        anything of others.
    n
        Images that have it: those without an object in view have no recall.
    """

    metric: Variable
    value: float
    interval: tuple[float, float] | None
    n: int

    def line(self, n_images: int) -> str:
        """`recall 98.21 % [97.50, 98.92]: share of the objects in view that are found`, for people."""
        metric = self.metric
        unit = "" if metric.shown_unit in ("", metric.called) else f" {metric.shown_unit}"
        interval = "" if self.interval is None else " [{}, {}]".format(*map(self._number, self.interval))
        if self.interval is None and self.n > 1 and np.isfinite(self.value):
            interval = " (no interval: these images do not differ)"
        what = "" if metric.long_name.lower() == metric.called.lower() else f": {metric.long_name}"
        if np.isnan(self.value):
            return f"{metric.called} is not defined for any of these images{what}"
        n_without = n_images - self.n
        images = "image that does" if n_without == 1 else "images that do"
        without = f" (without {n_without:,} {images} not have it)" if n_without else ""
        return f"{metric.called} {self._number(self.value)}{unit}{interval}{what}{without}"

    def _number(self, value: float) -> str:
        if np.isinf(value):
            return "infinite"
        return f"{100 * value:.2f}" if self.metric.unit == "share" else f"{value:.4g}"


def scores_of(
    task: Task, rows: Mapping[str, NDArray[Any]], index: NDArray[np.int64], *, labelled: bool
) -> dict[str, Score]:
    """Metrics of the data set, then means of the metrics of windows, by name.

    Parameters
    ----------
    task
        What was measured.
    rows
        Its variables of each image [n], or [n, k] where they have an axis.
    index
        Positions of the images in their source [n]: the same images have the same resamples.
    labelled
        Whether the images have what the task measures against; without, only metrics that need none.
    """
    n = len(index)
    found: dict[str, Score] = {}
    if labelled and task.dataset_metrics:
        measured = task.of_dataset(rows)
        values = measured(np.ones(n))
        draws = [measured(weights) for weights in resample_weights(index, N_RESAMPLES).astype(np.float64)]
        for metric in task.dataset_metrics:
            drawn = np.array([draw[metric.name] for draw in draws])
            drawn, value = drawn[np.isfinite(drawn)], values[metric.name]
            interval = None
            if n > 1 and np.isfinite(value) and len(drawn):
                low, high = np.percentile(drawn, [2.5, 97.5])
                interval = _of_some_width(float(low), float(high))
            found[metric.name] = Score(metric, value, interval, n)
    for metric in task.metrics(labelled=labelled):
        of_images = np.asarray(rows[metric.name], np.float64)
        there = of_images[~np.isnan(of_images)]
        interval = None
        if len(there) > 1:
            estimate = mean_estimate(there, metric.unit, bounds=metric.bounds)
            interval = _of_some_width(estimate.lo, estimate.hi)
        found[metric.name] = Score(metric, float(there.mean()) if len(there) else float("nan"), interval, len(there))
    return found


def _of_some_width(low: float, high: float) -> tuple[float, float] | None:
    return (low, high) if high > low else None
