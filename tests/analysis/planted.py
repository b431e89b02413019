"""Synthetic sweeps of known truth: every image has its own tolerance, its own offset and a smooth field of luck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from shiftlens.analysis.arrays import SweepArrays

Field = NDArray[np.float64]
N_CLASSES = 5


def trend(
    dys: Field, dxs: Field, *, edge: float = 8.0, soft: float = 2.0, centre: tuple[float, float] = (0, 0)
) -> Field:
    """A plateau with a soft cliff at `edge` px around `centre` (x, y): monotone along every ray, no side."""
    r = np.hypot(dys[:, None] - centre[1], dxs[None, :] - centre[0])
    return 1.8 - 2.6 / (1 + np.exp(-(r - edge) / soft))


def margins(rng: np.random.Generator, n: int, mean: Field, *, offset: float = 1.5, smooth: float = 1.2) -> Field:
    """(image, dy, dx) margin of the true class: mean map + image's level + tilt + smooth noise; no side."""
    ny, nx = mean.shape
    y, x = np.arange(ny) - ny // 2, np.arange(nx) - nx // 2
    level = rng.normal(size=(n, 1, 1))
    tilt_x, tilt_y = rng.normal(size=(2, n, 1, 1)) * offset / 30
    noise = gaussian_filter(rng.normal(size=(n, ny, nx)), (0, smooth, smooth), mode="wrap")
    noise *= 0.7 / noise.std()
    luck = level + tilt_x * x[None, None, :] + tilt_y * y[None, :, None] + noise
    # The same spread everywhere: were it to grow outward, the accuracy of a hopeless region would truly rise again.
    return mean + luck / np.sqrt(1.49 + (offset / 30) ** 2 * (x[None, :] ** 2 + y[:, None] ** 2))


def arrays(
    margin: Field, rng: np.random.Generator, *, strides: tuple[int, ...] = (2, 4), control: bool = False
) -> SweepArrays:
    """A sweep whose images are right where the margin is positive."""
    n, ny, nx = margin.shape
    labels = rng.integers(0, N_CLASSES, n)
    wrong = (labels + rng.integers(1, N_CLASSES, n)) % N_CLASSES
    prediction = np.where(margin > 0, labels[:, None, None], wrong[:, None, None]).astype(np.uint8)
    loss = np.logaddexp(0, -2 * margin).astype(np.float32)
    dys, dxs = np.arange(ny) - ny // 2, np.arange(nx) - nx // 2
    out = SweepArrays(
        {"prediction": prediction, "loss": loss},
        labels,
        dys,
        dxs,
        tuple(f"class {k}" for k in range(N_CLASSES)),
        picture_size=(ny // 2 + 1, nx // 2 + 1),
        strides=strides,
    )
    return replace(out, controls={"occlusion": out}) if control else out


def sweep(
    seed: int,
    n: int,
    reach: int,
    *,
    mean: Callable[[Field, Field], Field] = trend,
    strides: tuple[int, ...] = (2, 4),
    edge: float | None = None,
) -> SweepArrays:
    """A sweep with max_shift `reach` and the given mean margin."""
    rng = np.random.default_rng(seed)
    d = np.arange(-reach, reach + 1).astype(np.float64)
    field = mean(d, d) if edge is None else trend(d, d, edge=edge)
    return arrays(margins(rng, n, field), rng, strides=strides)


def predicting(made: SweepArrays, prediction: Any, **more: Any) -> SweepArrays:
    """The same sweep with other predicted classes."""
    return replace(made, variables={**made.variables, "prediction": prediction}, **more)
