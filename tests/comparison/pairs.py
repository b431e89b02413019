"""Synthetic arms on the same images: they share each image's luck, and differ in what is planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from analysis.planted import Field, arrays, margins, trend
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.comparable import Source
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.shifts import Fill
from sweeps.small_sweeps import header

SHARED = 0.8
"""Correlation of two arms' margins on one image, about that of two trainings of one net."""


def axis(reach: int) -> Field:
    return np.arange(-reach, reach + 1).astype(np.float64)


def plateau(reach: int, **how: Any) -> Field:
    return trend(axis(reach), axis(reach), **how)


def pair_of(rng: np.random.Generator, n: int, means: list[Field], *, shared: float = SHARED) -> list[SweepArrays]:
    """One sweep for each mean margin, of the same images."""
    zero = np.zeros_like(means[0])
    luck = margins(rng, n, zero)
    made = [
        arrays(mean + shared * luck + np.sqrt(1 - shared**2) * margins(rng, n, zero), np.random.default_rng(5))
        for mean in means
    ]
    # The same seed draws the same labels; a grid wider than the picture would be blank at its rim.
    return [replace(each, picture_size=(64, 64)) for each in made]


PLAIN: dict[str, Any] = {
    "model": "MODEL",
    "model_digest": "",
    "data": "DATA",
    "data_digest": "",
    "n_classes": 5,
    "image_size": (64, 64),
    "fill": Fill("black"),
    "preprocessing": Preprocessing(),
    "training": {},
    "n_parameters": None,
}


def sources(made: list[SweepArrays], names: str = "abcdefgh", **known: Any) -> list[Source]:
    """Sweeps to compare; `known` is what their headers say."""
    said = header(**(PLAIN | known))
    return [
        Source(name, each, said, "SWEEP.zarr", each.n_images, each.n_images)
        for name, each in zip(names, made, strict=False)
    ]


def with_header(source: Source, **changes: Any) -> Source:
    """The same sweep, whose header says something else."""
    return replace(source, header=source.header.model_copy(update=changes))
