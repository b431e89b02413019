"""One window of every chunk again, by the untouched module on that window alone, while a sweep runs.

A plan is checked before a sweep begins, on few windows. A module that counts its calls, a race between threads, or a
code path that only some images take shows later, and here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shiftlens.devices import number_format
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.outcomes import Outcomes
from shiftlens.engine.plan import Plan
from shiftlens.engine.window_evaluator import Mask, WindowEvaluator
from shiftlens.errors import ModelOutputError
from shiftlens.models.wrapping import Model
from shiftlens.shifts import Fill

TOLERANCES = {"float32": 1e-3, "float64": 1e-3, "bfloat16": 0.25, "tf32": 0.1}
"""Largest difference of a loss, relative to 1 + the loss, that the number format explains."""


class Rechecked(WindowEvaluator):
    """Compares one window of each chunk, drawn by the chunk's content, with the untouched module.

    Finishing a chunk raises `ModelOutputError` where its numbers are not the module's; it names the image, the shift
    and both losses.
    """

    def __init__(self, inside: WindowEvaluator, model: Model, plan: Plan, fill: Fill) -> None:
        self._inside, self._model, self._plan, self._fill, self.grid = inside, model, plan, fill, inside.grid

    @cached_property
    def _alone(self) -> DirectEvaluator:
        """The module as it is, a window at a time; made once, so a module that keeps state is met in another state."""
        plain = replace(self._plan.in_float32(), batch_size=1, channels_last=False, fold_batch_norm=False)
        if self._plan.dtype == "float64":
            plain = replace(plain, dtype="float64")
        return DirectEvaluator(self._model, plain, self.grid, self._fill)

    def begin(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None, wanted: Mask
    ) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`."""
        finish = self._inside.begin(images, labels, control, wanted)

        def checked() -> Outcomes:
            found = finish()
            self._check(found, images, labels, control)
            return found

        return checked

    def _check(
        self, found: Outcomes, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None
    ) -> None:
        draw = np.random.default_rng(zlib.crc32(np.ascontiguousarray(images[0]).tobytes()) + len(images))
        image, shift = int(draw.integers(len(images))), int(draw.integers(self.grid.n_shifts))
        with number_format("float32", self._alone.device):
            exact = self._alone.one(images[image], int(labels[image]), shift, control)
        loss, prediction = float(found["loss"][image, shift]), int(found["prediction"][image, shift])
        allowed = TOLERANCES[self._plan.dtype] * (1 + float(exact["loss"][0]))
        same_class = prediction == exact["prediction"][0] or exact["margin"][0] <= 2 * allowed
        if abs(loss - float(exact["loss"][0])) <= allowed and same_class:
            return
        iy, ix = divmod(shift, self.grid.shape[1])
        raise ModelOutputError(
            f"under the shift ({self.grid.dxs[ix]}, {self.grid.dys[iy]}) the sweep found class {prediction} and a loss "
            f"of {loss:.4f}, the module alone class {exact['prediction'][0]} and {exact['loss'][0]:.4f}: its answer "
            "changes from call to call or with the other images of a batch (try --batch-size 1 at another path), met",
            (image,),
        )
