"""A sweep in a logger: its numbers as scalars, its map as an image. TensorBoard, W&B, MLflow."""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shiftlens.analysis.arms import NEAR
from shiftlens.errors import InputError
from shiftlens.figures.drawing import png_bytes
from shiftlens.figures.heatmaps import metric_matrix
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.task import Variable

KNOWN = "a TensorBoard SummaryWriter, a W&B run, the module mlflow"


def scalars_of(sweep: Sweep, metric: str | None = None, prefix: str = "shift") -> dict[str, float]:
    """What the map of a metric comes to.

    Parameters
    ----------
    sweep
        Of any task.
    metric
        The task's default by default.
    prefix
        Of the names.

    Returns
    -------
    dict
        `unshifted`, `near` (mean within 8 px) and `worst` (at the worst shift) in the metric's unit, `drop` (from the
        unshifted to the worst) and `side_difference` (the larger of left/right and up/down) in points of a share, else
        in the metric's unit. What the grid cannot give is left out.

    Raises
    ------
    InputError
        The sweep has no such metric.
    """
    of = _metric(sweep, metric)
    values = np.asarray(sweep.mean_of(of), np.float64)
    dys, dxs = sweep.grid.dys, sweep.grid.dxs
    unshifted = values[np.flatnonzero(dys == 0)[0], np.flatnonzero(dxs == 0)[0]]
    near = np.hypot(dys[:, None], dxs[None, :]) <= NEAR
    worst = of.sign * np.nanmin(of.sign * values)
    found = {"unshifted": unshifted, "near": np.nanmean(values[near]), "worst": worst}
    found["drop"] = of.factor * of.sign * (unshifted - worst)
    sides = [
        abs(np.nanmean(values.compress(axis > 0, k)) - np.nanmean(values.compress(axis < 0, k)))
        for k, axis in enumerate((dys, dxs))
        if len(axis) > 1
    ]
    found["side_difference"] = of.factor * max(sides)
    return {f"{prefix}/{of.name}_{name}": float(value) for name, value in found.items() if np.isfinite(value)}


def picture_of(sweep: Sweep, metric: str | None = None) -> NDArray[np.uint8]:
    """The map of a metric as an image, (row, column, RGB)."""
    png = png_bytes(metric_matrix(sweep, _metric(sweep, metric)), 80)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.uint8)


def log_sweep(logger: Any, sweep: Sweep, step: int = 0, metric: str | None = None, prefix: str = "shift") -> None:
    """Log a sweep's scalars and the map of its metric.

    Parameters
    ----------
    logger
        A TensorBoard `SummaryWriter`, a W&B run (also offline), or the module `mlflow` with an active run.
    sweep, metric, prefix
        See `scalars_of`.
    step
        Of the training.

    Raises
    ------
    InputError
        Another logger, or a metric that the sweep lacks.

    Examples
    --------
    >>> class Printer:  # what it uses of a SummaryWriter
    ...     def add_scalar(self, name, value, step):
    ...         print(f"{name} of step {step}")
    ...     def add_image(self, name, image, step, dataformats):
    ...         print(f"{name} of step {step}")
    >>> log_sweep(Printer(), sl.open_sweep("vgg.zarr"), step=3)
    shift/accuracy_unshifted of step 3
    shift/accuracy_near of step 3
    shift/accuracy_worst of step 3
    shift/accuracy_drop of step 3
    shift/accuracy_side_difference of step 3
    shift/map of step 3
    """
    scalars, picture = scalars_of(sweep, metric, prefix), picture_of(sweep, metric)
    name = f"{prefix}/map"
    if hasattr(logger, "add_scalar") and hasattr(logger, "add_image"):
        for key, value in scalars.items():
            logger.add_scalar(key, value, step)
        logger.add_image(name, picture, step, dataformats="HWC")
    elif type(logger).__module__.partition(".")[0] == "wandb":
        import wandb

        logger.log({**scalars, name: wandb.Image(picture)}, step=step)
    elif isinstance(logger, ModuleType) and logger.__name__ == "mlflow":
        logger.log_metrics(scalars, step=step)
        logger.log_image(picture, key=name.replace("/", "_"), step=step)
    else:
        raise InputError(f"expected {KNOWN} to log to, got {type(logger).__module__}.{type(logger).__name__}")


def _metric(sweep: Sweep, metric: str | None) -> Variable:
    if metric is None:
        return sweep.metrics[0]
    sweep.mean_of(metric)  # refuses a metric that the sweep lacks
    return next(each for each in sweep.metrics if each.name == metric)
