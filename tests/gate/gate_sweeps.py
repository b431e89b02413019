"""Sweeps on disk whose performance is planted, for the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from analysis.planted import Field
from comparison.pairs import pair_of, plateau
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from shiftlens.sweeps.sweep_store import SweepStore
from sweeps.small_sweeps import header

REACH = 6


def written(path: Path, made: SweepArrays, *, complete: bool = True, first: int = 0, **known: Any) -> Sweep:
    """The arrays as a sweep on disk, of images `first`, `first` + 1, ... of its source."""
    n, size = made.n_images, 25
    facts = {"grid": ShiftGrid(REACH), "image_size": (32, 32), "n_classes": 5, "strides": (), "training": {}}
    said = header(**(facts | {"class_names": made.class_names} | known))
    store = SweepStore.create(path, said, made.labels, np.arange(first, first + n), chunk_size=size)
    group = store.group(None)
    for chunk in range(group.n_chunks - (0 if complete else 1)):
        span = group.span(chunk)
        loss = np.asarray(made.loss)[span]
        confidence = np.exp(-loss).astype(np.float16)
        prediction = np.asarray(made.prediction)[span]
        group.write(chunk, {"prediction": prediction, "loss": loss, "confidence": confidence})
    if complete:
        group.finish()
    return open_sweep(path, partial=not complete)


def drawn_pair(n: int, *, seed: int = 0, means: list[Field] | None = None) -> list[SweepArrays]:
    """A sweep and one that is like it, of the same `n` images; or of other mean margins."""
    means = means or [plateau(REACH, edge=5.0)] * 2
    return pair_of(np.random.default_rng(seed), n, means)


def worse_on_one_side(mean: Field, by: float = 0.8) -> Field:
    """The mean margins of a repair that has made shifts to the right worse."""
    dx = np.arange(mean.shape[1]) - mean.shape[1] // 2
    return mean - by * (dx[None, :] > 0)
