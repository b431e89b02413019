"""The passes around an engine path: blank windows are evaluated once, near ties are settled in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.on_device import DeviceEvaluator
from shiftlens.engine.outcomes import Chunk, Outcomes, Places
from shiftlens.engine.plan import Plan
from shiftlens.engine.shared.dedup import DedupEvaluator
from shiftlens.engine.window_evaluator import EnginePath, Mask, Pass, WindowEvaluator, in_view
from shiftlens.errors import ModelOutputError
from shiftlens.models.wrapping import Model
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.tasks.task import MARGIN, has_sums

SETTLING_BATCH = 256
"""Windows in a float32 batch that settles near ties on a GPU; given fewer at a time, it is mostly idle."""


class BlankOnce(Pass):
    """Evaluates the blank image once for each image size; all other windows go to the evaluator inside.

    Parameters
    ----------
    inside
        Evaluates windows with content.
    path
        Evaluates the blank image, by itself.
    """

    def __init__(self, inside: WindowEvaluator, path: EnginePath) -> None:
        if path.values is None:
            raise ValueError(f"fill {path.fill.name} is no constant: no window is blank")
        super().__init__(inside)
        self._path = path
        self._values = torch.tensor(path.values)[:, None, None]
        self._scores: dict[tuple[int, int], Tensor] = {}

    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`."""
        blank = wanted & np.stack([self._blank(image, chunk.control) for image in chunk.images])
        finish = self._inside.begin(chunk, wanted & ~blank)

        def finished() -> Outcomes:
            found = finish()
            if blank.any():
                image, shift = np.nonzero(blank)
                self._put(found, chunk, (image, shift))
            return found

        return finished

    def _put(self, found: Outcomes, chunk: Chunk, places: Places) -> None:
        """Rows of the blank windows: one an image where they depend on nothing else."""
        scores, (image, shift) = self._blank_scores(chunk.images.shape[1:]), places
        if not (chunk.task.needs_shifts or has_sums(chunk.task)):
            every = np.arange(len(chunk))
            found.put(places, self.outcomes(chunk, scores.expand(len(chunk), -1), (every, every * 0)).chosen(image))
            return
        for start in range(0, len(image), self._path.plan.batch_size):
            batch = slice(start, start + self._path.plan.batch_size)
            part = image[batch], shift[batch]
            found.put(part, self.outcomes(chunk, scores.expand(len(part[0]), -1), part))

    def _blank(self, image: NDArray[np.uint8], control: str | None) -> Mask:
        """Which windows [shift] show nothing but fill: no row, or no column, that differs from it is in view."""
        content = (self._path.normalised(image[None], control)[0] != self._values).any(dim=0).numpy()
        rows, columns = (
            in_view(shifts, content.shape[axis]).astype(np.int64) @ content.any(axis=1 - axis).astype(np.int64) > 0
            for axis, shifts in enumerate((self.grid.dys, self.grid.dxs))
        )
        return np.asarray(~(rows[:, None] & columns[None, :]).ravel(), dtype=np.bool_)

    def _blank_scores(self, shape: tuple[int, ...]) -> Tensor:
        c, h, w = shape
        if (h, w) not in self._scores:
            try:
                scores = self._path.alone(self._values.expand(c, h, w)[None].to(self._path.device))
            except ModelOutputError as error:
                # No image is at fault, so none is named.
                raise ModelOutputError(
                    f"{error}: on the empty picture (nothing but fill) that is left when a shift pushes all "
                    "content out; a smaller max-shift or an index rule as fill avoids it; met"
                ) from error
            self._scores[h, w] = scores.cpu()
        return self._scores[h, w]


class Settled(Pass):
    """Evaluates windows by one evaluator, and those whose margin is below `doubt` by an exact one as well."""

    def __init__(self, rounded: WindowEvaluator, exact: WindowEvaluator, doubt: float) -> None:
        super().__init__(rounded)
        self._exact, self._doubt = exact, doubt

    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`."""
        finish = self._inside.begin(chunk, wanted)

        def settled() -> Outcomes:
            found = finish()
            near = wanted & (found[MARGIN] < self._doubt)
            if near.any():
                image, shift = np.nonzero(near)
                found.put((image, shift), self._exact.begin(chunk, near)().chosen((image, shift)))
            return found

        return settled


SharedPath = DedupEvaluator | DeviceEvaluator
"""A path that can share computation across shifts."""


def shared_path(
    model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
) -> SharedPath:
    """What evaluates windows by cells, on the plan's device."""
    return (DeviceEvaluator if _on_cuda(plan) else DedupEvaluator)(model, plan, grid, fill, tick)


def _on_cuda(plan: Plan) -> bool:
    """Whether a plan's windows are on an NVIDIA GPU."""
    return torch.device(plan.device).type == "cuda"


def evaluator_for(
    model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
) -> WindowEvaluator:
    """The plan's engine path, with the passes that the plan and the fill ask for."""
    if plan.engine == "dedup":
        return with_passes(shared_path(model, plan, grid, fill, tick), model)
    return with_passes((DeviceEvaluator if _on_cuda(plan) else DirectEvaluator)(model, plan, grid, fill, tick), model)


def with_passes(path: EnginePath, model: Model) -> WindowEvaluator:
    """A path with its passes."""
    plan, exact = path.plan, path
    evaluator: WindowEvaluator = path
    if plan.settle:
        plain = plan.in_float32()
        if isinstance(path, DeviceEvaluator):
            plain = replace(plain, batch_size=min(SETTLING_BATCH, plan.batch_size))
            exact = DeviceEvaluator(model, plain, path.grid, path.fill, record=path.record)
        else:
            exact = DirectEvaluator(model, plain, path.grid, path.fill, by_image=True)
        evaluator = Settled(path, exact, plan.settle)
    return BlankOnce(evaluator, exact) if path.fill.is_constant else evaluator
