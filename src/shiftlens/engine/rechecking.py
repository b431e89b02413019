"""One window of every chunk again, by the untouched module on that window alone, while a sweep runs.

A plan is checked before a sweep begins, on few windows. A module that counts its calls, a race between threads, or a
code path that only some images take shows later, and here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.devices import number_format
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.outcomes import Chunk, Outcomes
from shiftlens.engine.plan import Plan
from shiftlens.engine.trial_windows import nudges
from shiftlens.engine.window_evaluator import Mask, Pass, WindowEvaluator
from shiftlens.errors import ModelOutputError
from shiftlens.models.adapting import TaskModel
from shiftlens.models.wrapping import Model
from shiftlens.shifts import Fill

TOLERANCES = {"float32": 1e-3, "float64": 1e-3, "bfloat16": 0.25, "tf32": 0.1}
"""Largest difference of a number, relative to 1 + the number, that the number format explains."""


class Rechecked(Pass):
    """Compares one window of each chunk, drawn by the chunk's content, with the untouched module.

    Finishing a chunk raises `ModelOutputError` where its numbers are not the module's (`Task.disagreement`); it names
    the image, the shift and both answers.
    """

    def __init__(self, inside: WindowEvaluator, model: Model, plan: Plan, fill: Fill) -> None:
        super().__init__(inside)
        self._model, self._plan, self._fill = model, plan, fill

    @cached_property
    def _alone(self) -> DirectEvaluator:
        """The module as it is, a window at a time; made once, so a module that keeps state is met in another state."""
        plain = replace(
            self._plan.in_float32().as_reference(), batch_size=1, channels_last=False, fold_batch_norm=False
        )
        if self._plan.dtype == "float64":
            plain = replace(plain, dtype="float64")
        return DirectEvaluator(self._model, plain, self.grid, self._fill)

    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`."""
        finish = self._inside.begin(chunk, wanted)

        def checked() -> Outcomes:
            found = finish()
            self._check(found, chunk)
            return found

        return checked

    def _rounding_decides(self, chunk: Chunk, shift: int, exact: dict[str, NDArray[Any]]) -> bool:
        """Whether changes of the window as small as rounding change what the module alone answers."""
        window = self._alone.window(chunk, shift)
        for each in nudges(window):
            again = _first(self._alone.outcome_of(chunk, shift, each))
            if chunk.task.disagreement(again, exact, TOLERANCES[self._plan.dtype]) is not None:
                return True
        return False

    def _check(self, found: Outcomes, chunk: Chunk) -> None:
        draw = np.random.default_rng(zlib.crc32(np.ascontiguousarray(chunk.images[0]).tobytes()) + len(chunk))
        image, shift = int(draw.integers(len(chunk))), int(draw.integers(self.grid.n_shifts))
        one = chunk.part(slice(image, image + 1))
        with number_format("float32", self._alone.device):
            prepared = self._alone.prepared(one)
            exact = _first(self._alone.one(prepared, shift))
            rows = {name: found[name][image, shift] for name in exact}
            tolerance = TOLERANCES[self._plan.dtype]
            why = chunk.task.disagreement(rows, exact, tolerance)
            if why is None:
                return
            reorders = isinstance(self._model, TaskModel) and self._model.compared is not None
            if reorders and self._rounding_decides(prepared, shift, exact):
                return
        iy, ix = divmod(shift, self.grid.shape[1])
        raise ModelOutputError(
            f"under the shift ({self.grid.dxs[ix]}, {self.grid.dys[iy]}) the sweep found {why[0]}, the module alone "
            f"{why[1]}: its answer changes from call to call or with the other images of a batch (try --batch-size 1 "
            "at another path), met",
            (image,),
        )


def _first(outcomes: Outcomes) -> dict[str, NDArray[Any]]:
    return {name: values[0] for name, values in outcomes.windows.items()}
