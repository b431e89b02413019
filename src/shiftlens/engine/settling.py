"""Near ties: which windows bfloat16 leaves in doubt, so that `passes.Settled` evaluates them again in float32.

bfloat16 moves every score a little. A prediction is at risk only where the two best scores are about as close as that:
few windows, and nearly all that changed are among them. With these settled, predictions are float32's but for at most
two in ten thousand, for a quarter to a third more time (docs/benchmarks, with other margins); the losses of the other
windows keep their rounding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shiftlens.engine.budget import Budget
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.outcomes import Chunk
from shiftlens.engine.plan import Plan
from shiftlens.engine.trial_windows import spread_shifts
from shiftlens.engine.window_evaluator import WindowEvaluator
from shiftlens.models.wrapping import Model
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.task import MARGIN, Task

DOUBT = 1.5
"""A margin is in doubt below so many root mean squares of what bfloat16 does to margins."""
LARGEST_SHARE = 0.05
"""Of the windows, at most: a net that hardly tells its classes apart would have all of them evaluated twice."""
IMAGES = 4
"""Looked at, if there is time; one in any case."""
WINDOWS = 64
"""Of each, spread over the grid."""


def doubtful_margin(
    model: Model,
    plan: Plan,
    images: NDArray[np.uint8],
    grid: ShiftGrid,
    fill: Fill,
    budget: Budget,
    task: Task = CLASSIFICATION,
) -> float:
    """The margin, in units of the scores, below which a prediction of a bfloat16 plan is in doubt; 0 if none is.

    Measured on windows of some images [n, c, h, w], each on its own in bfloat16 and in float32: a cut moves where
    numbers are rounded, not how much.

    Raises
    ------
    ModelOutputError
        The model raised or gave non-finite scores.
    """
    shift = spread_shifts(grid, (images.shape[2], images.shape[3]), WINDOWS)
    dense = replace(plan.in_float32(), dtype=plan.dtype)
    rounded, exact = (DirectEvaluator(model, path, grid, fill) for path in (dense, plan.in_float32()))
    margins: list[NDArray[np.float32]] = []
    changes: list[NDArray[np.float32]] = []
    for image in images[:IMAGES]:
        if margins and budget.over():
            break
        margins.append(margins_of(exact, image[None], shift, task))
        changes.append(margins_of(rounded, image[None], shift, task) - margins[-1])
    in_doubt = DOUBT * float(np.sqrt(np.mean(np.square(changes))))
    return min(in_doubt, float(np.quantile(margins, LARGEST_SHARE)))


def margins_of(
    evaluator: WindowEvaluator, images: NDArray[np.uint8], shift: NDArray[np.int64], task: Task = CLASSIFICATION
) -> NDArray[np.float32]:
    """Margins [n, shifts] of images [n, c, h, w] under some shifts, by their places in the grid."""
    wanted = np.zeros((len(images), evaluator.grid.n_shifts), dtype=np.bool_)
    wanted[:, shift] = True
    chunk = evaluator.prepared(Chunk(images, np.zeros(len(images), dtype=np.int64), task=task))
    return evaluator.begin(chunk, wanted)()[MARGIN][:, shift]
