"""One window of every chunk again, by the untouched module on that window alone, while a sweep runs.

A plan is checked before a sweep begins, on few windows. A module that counts its calls, a race between threads, or a
code path that only some images take shows later, and here.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shiftlens.devices import number_format
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.errors import ModelOutputError
from shiftlens.models.loading import Model
from shiftlens.shifts import Fill, ShiftGrid

TOLERANCES = {"float32": 1e-3, "float64": 1e-3, "bfloat16": 0.25, "tf32": 0.1}
"""Largest difference of a loss, relative to 1 + the loss, that the number format explains."""


class Recheck:
    """Compares one window of a chunk, drawn by the chunk's content, with the untouched module; see `engine.prepare`."""

    def __init__(self, model: Model, plan: Plan, grid: ShiftGrid, fill: Fill) -> None:
        self._model, self._plan, self._grid, self._fill = model, plan, grid, fill

    @cached_property
    def _alone(self) -> DirectEvaluator:
        """The module as it is, a window at a time; made once, so a module that keeps state is met in another state."""
        plain = replace(self._plan.in_float32(), batch_size=1, channels_last=False, fold_batch_norm=False)
        if self._plan.dtype == "float64":
            plain = replace(plain, dtype="float64")
        return DirectEvaluator(self._model, plain, self._grid, self._fill)

    def __call__(
        self, result: ChunkResult, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None
    ) -> None:
        """Raise where the chunk's numbers are not those of the module.

        Raises
        ------
        ModelOutputError
            Names the image, the shift and both losses.
        """
        draw = np.random.default_rng(zlib.crc32(np.ascontiguousarray(images[0]).tobytes()) + len(images))
        image, shift = int(draw.integers(len(images))), int(draw.integers(self._grid.n_shifts))
        with number_format("float32", self._alone.device):
            exact = self._alone.one(images[image], int(labels[image]), shift, control)
        iy, ix = divmod(shift, self._grid.shape[1])
        found = result.loss[image, iy, ix], int(result.prediction[image, iy, ix])
        allowed = TOLERANCES[self._plan.dtype] * (1 + float(exact.loss[0]))
        same_class = found[1] == exact.prediction[0] or exact.margin[0] <= 2 * allowed
        if abs(float(found[0]) - float(exact.loss[0])) <= allowed and same_class:
            return
        raise ModelOutputError(
            f"under the shift ({self._grid.dxs[ix]}, {self._grid.dys[iy]}) the sweep found class {found[1]} and a loss "
            f"of {found[0]:.4f}, the module alone class {exact.prediction[0]} and {exact.loss[0]:.4f}: its answer "
            "changes from call to call or with the other images of a batch (try --batch-size 1 at another path), met",
            (image,),
        )
