"""The windows of a chunk, the interface of everything that evaluates them, and what the engine paths share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.devices import resolve_device, tensors_of
from shiftlens.engine.outcomes import Chunk, Outcomes, Places, each_of
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.probing import scores_of
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.task import Task, has_objects, objects_of

Mask = NDArray[np.bool_]
"""Windows [image, shift] of a chunk."""


class WindowEvaluator(ABC):
    """Evaluates windows of a chunk: an engine path, or a pass wrapped around one.

    Attributes
    ----------
    grid
        The shifts.
    controls
        What it can be asked for; None is the sweep itself.
    """

    grid: ShiftGrid
    controls: tuple[str | None, ...] = (None, "occlusion", "flip")

    @abstractmethod
    def prepared(self, chunk: Chunk) -> Chunk:
        """The chunk with what its task prepares for each image, from the outputs on the unshifted images or without."""

    @abstractmethod
    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """Start on the wanted windows of a prepared chunk.

        The returned function waits for the outcomes [image, shift]; those of windows that are not wanted mean nothing.
        """

    def begin_chunk(self, chunk: Chunk) -> Callable[[], ChunkResult]:
        """Start on all windows of a chunk; the returned function waits for the result."""
        if chunk.control not in self.controls:
            known = " or ".join(control for control in self.controls if control)
            raise InputError(f"unknown control {chunk.control!r}; expected {known}")
        finish = self.begin(self.prepared(chunk), np.ones((len(chunk), self.grid.n_shifts), dtype=np.bool_))
        return lambda: finish().on_grid(self.grid.shape)

    def __call__(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[Any],
        control: str | None = None,
        task: Task = CLASSIFICATION,
    ) -> ChunkResult:
        """Evaluate images [n, c, h, w] with targets [n, ...] under every shift of the grid.

        Raises
        ------
        ModelOutputError
            The model raised or gave non-finite scores; `.positions` are the images' places in the chunk.
        """
        return self.begin_chunk(Chunk(images, targets, control, task))()

    def outcomes(self, chunk: Chunk, outputs: Tensor, places: Places) -> Outcomes:
        """Rows of the outputs [window, ...] of the windows at some places (image, shift) of a chunk."""
        image = torch.from_numpy(places[0]).to(outputs.device)
        state = each_of(chunk.state, lambda values: values.to(outputs.device)[image])
        shifts = None
        if chunk.task.needs_shifts:
            shifts = torch.from_numpy(self.shifts()[places[1]]).to(outputs.device)
        return Outcomes.of(chunk, outputs, state, shifts)

    def shifts(self) -> NDArray[np.int64]:
        """The shifts of the grid [shift, (dx, dy)]."""
        dy, dx = np.meshgrid(self.grid.dys, self.grid.dxs, indexing="ij")
        return np.stack([dx.ravel(), dy.ravel()], axis=1)


class Pass(WindowEvaluator):
    """Wrapped around another evaluator, which prepares its chunks."""

    def __init__(self, inside: WindowEvaluator) -> None:
        self._inside, self.grid = inside, inside.grid

    def prepared(self, chunk: Chunk) -> Chunk:
        """See `WindowEvaluator`."""
        return self._inside.prepared(chunk)


class EnginePath(WindowEvaluator):
    """A `WindowEvaluator` that computes with the model by a plan; each engine has one.

    Parameters
    ----------
    model, plan, grid, fill
        What is evaluated, and how.
    tick
        Told how many windows of the current chunk are done.
    """

    def __init__(
        self, model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
    ) -> None:
        self.plan, self.grid, self.fill = plan, grid, fill
        self._preprocessing, self._tick = model.preprocessing, tick
        self.device = tensors_of(resolve_device(plan.device, apple=True))
        self.dtype: torch.dtype = torch.float32 if plan.dtype == "tf32" else getattr(torch, plan.dtype)
        # Nobody knows it of a net for images of any size until it is used.
        self._n_classes = None if model.input_size is None else model.n_classes
        self.values = fill_values(model, fill)

    @abstractmethod
    def alone(self, window: Tensor) -> Float[Tensor, "1 k"]:
        """Scores of one normalised window [1, c, h, w] by itself."""

    def prepared(self, chunk: Chunk) -> Chunk:
        """See `WindowEvaluator`; without a reference, the state stays on the host."""
        task, targets = chunk.task, torch.from_numpy(np.array(chunk.targets))
        if chunk.control == "flip":
            targets = task.mirrored(targets)
        most = int(objects_of(task, chunk.targets).max()) if has_objects(task) else 0
        if not task.needs_reference:
            return replace(chunk, state=task.prepare(None, targets), most_objects=most)
        with torch.no_grad():
            state = task.prepare(self.reference(chunk), targets.to(self.device))
        return replace(chunk, state=state, most_objects=most)

    def reference(self, chunk: Chunk) -> Tensor:
        """The outputs on the unshifted images, each by itself."""
        found = []
        for k, window in enumerate(self.normalised(chunk.images, chunk.control).to(self.device)):
            try:
                found.append(self.alone(window[None]))
            except ModelOutputError as error:
                raise ModelOutputError(str(error), (k,)) from error
        return torch.cat(found)

    def reach(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of canvas on each side: with a constant fill never more than the image's own size."""
        if self.values is None:
            return self.grid.max_y, self.grid.max_x
        return min(self.grid.max_y, h), min(self.grid.max_x, w)

    def starts(self, h: int, w: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First row and first column of the window of each shift in the canvas; beyond the reach all is fill."""
        reach_y, reach_x = self.reach(h, w)
        return reach_y - self.grid.dys.clip(-reach_y, reach_y), reach_x - self.grid.dxs.clip(-reach_x, reach_x)

    def as_input(self, batch: Tensor) -> Tensor:
        """The batch in the plan's number format and layout."""
        layout = torch.channels_last if self.plan.channels_last else torch.contiguous_format
        return batch.to(self.dtype).contiguous(memory_format=layout)

    def normalised(self, images: NDArray[np.uint8], control: str | None = None) -> Tensor:
        """The images as the model takes them, mirrored for the control `flip`."""
        pictures = self._preprocessing.normalise(torch.from_numpy(np.ascontiguousarray(images)))
        return pictures.flip(-1) if control == "flip" else pictures

    def expected_scores(self, net: Callable[..., Any], *inputs: Tensor) -> Float[Tensor, "n k"]:
        """Scores in float32 (float64 nets: float64) of as many windows and classes as expected; perhaps not finite."""
        scores = raw_scores(net, *inputs)
        expected = len(inputs[0]), self._n_classes or scores.shape[1]
        if tuple(scores.shape) != expected:
            raise ModelOutputError(
                f"expected scores {expected} for a batch of {expected[0]}, the model gave {tuple(scores.shape)}"
            )
        return scores if scores.dtype == torch.float64 else scores.float()

    def checked_scores(
        self, net: Callable[..., Any], inputs: tuple[Tensor, ...], image: NDArray[np.int64]
    ) -> Float[Tensor, "n k"]:
        """Finite scores; `image` are the windows' places in the chunk, which an error names."""
        n = len(inputs[0])
        if self.plan.compiled and n < self.plan.batch_size:
            # A compiled net is made for one batch size: fill up rather than compile again for the remainder.
            filled = torch.arange(self.plan.batch_size, device=inputs[0].device) % n
            inputs = tuple(batch[filled] for batch in inputs)
        try:
            scores = self.expected_scores(net, *inputs)[:n]
        except ModelOutputError as error:
            raise ModelOutputError(str(error), tuple(sorted(set(image.tolist())))) from error
        refuse_not_finite(finite(scores).cpu().numpy(), image)
        return scores

    def alone_by(self, net: Callable[..., Any], window: Tensor) -> Float[Tensor, "1 k"]:
        """Scores of one window by itself; beside its own copy for a net that takes no batch of one."""
        window, place = self.as_input(window), np.zeros(1, dtype=np.int64)
        try:
            return self.checked_scores(net, (window,), place)
        except ModelOutputError as error:
            try:
                return self.checked_scores(net, (torch.cat([window, window]),), place.repeat(2))[:1]
            except ModelOutputError:
                raise error from None


def raw_scores(net: Callable[..., Any], *inputs: Tensor) -> Float[Tensor, "n k"]:
    """What a net gives for a batch, without gradients; what its code raises becomes a `ModelOutputError`."""
    try:
        with torch.no_grad():
            out = net(*inputs)
    except (torch.OutOfMemoryError, ModelOutputError):
        raise
    except Exception as error:
        raise ModelOutputError(
            f"the model raised {type(error).__name__} on a batch {tuple(inputs[0].shape)}: {one_line(error)}"
        ) from error
    return scores_of(out)


def fill_values(model: Model, fill: Fill) -> tuple[float, ...] | None:
    """A constant fill in the model's normalised units, one a channel; None for an index rule."""
    return fill.normalised(model.preprocessing.mean, model.preprocessing.std) if fill.is_constant else None


def finite(scores: Tensor) -> Tensor:
    """Which rows of scores [n, k] are finite."""
    return torch.isfinite(scores.amax(dim=1)) & torch.isfinite(scores.amin(dim=1))  # a NaN is both


def refuse_not_finite(good: Mask, image: NDArray[np.int64]) -> None:
    """Name the images whose windows gave scores that are not finite."""
    if not good.all():
        places = tuple(sorted(set(image[~good].tolist())))
        raise ModelOutputError("the model gave scores that are not finite (NaN or infinity)", places)


def in_view(shifts: NDArray[np.int64], n: int) -> Mask:
    """Which source positions [shift, position] are still inside after the shift."""
    moved = np.arange(n)[None, :] + shifts[:, None]
    return np.asarray((moved >= 0) & (moved < n), dtype=np.bool_)
