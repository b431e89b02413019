"""The path that does nothing twice: early layers once for all shifts of an image, the rest on every window.

`states` says what a cell depends on, `tracing` which operations can be served, `cells` computes them, `program` cuts
the net in two. Here the two halves run, one image a core. Results are those of the direct path up to the order of float
additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.devices import number_format
from shiftlens.engine.direct import prepare_module
from shiftlens.engine.frame import framed
from shiftlens.engine.outcomes import Chunk, Outcomes, Places, each_of
from shiftlens.engine.plan import Plan
from shiftlens.engine.shared.by_plan import by_plan
from shiftlens.engine.shared.program import Program, rest_of
from shiftlens.engine.shared.tracing import Trace, trace
from shiftlens.engine.window_evaluator import EnginePath, Mask, WindowEvaluator
from shiftlens.engine.workers import Net, Workers, replicas
from shiftlens.errors import InputError
from shiftlens.models.wrapping import Model
from shiftlens.shifts import Fill, ShiftGrid

CELL_BYTES = 1_200_000_000
"""Most bytes of cells that all workers hold together."""


def n_workers(program: Program, plan: Plan, n_threads: int) -> int:
    """Images that are computed side by side: one a core, fewer where their cells would not fit `CELL_BYTES`."""
    bytes_each = program.n_numbers() * torch.empty(0, dtype=getattr(torch, plan.by_tensors().dtype)).element_size()
    return max(1, min(n_threads, CELL_BYTES // max(1, bytes_each)))


ProgramOf = Callable[[nn.Module, tuple[int, int, int], bool], tuple[Trace, Program]]
"""The trace of a net on images [c, h, w], and what runs once for all shifts; the last argument: occluded windows."""


class DedupEvaluator(EnginePath):
    """Evaluates windows by cells; see `WindowEvaluator`.

    Parameters
    ----------
    model, plan, grid, fill, tick
        As for every path.
    program_of
        Makes the program; by default that of the plan's cut.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        grid: ShiftGrid,
        fill: Fill,
        tick: Callable[[int], None] | None = None,
        *,
        program_of: ProgramOf | None = None,
    ) -> None:
        super().__init__(model, plan, grid, fill, tick)
        # One copy of the net serves the trace, and the single whole image that is ever evaluated: the blank one.
        self._module = prepare_module(model, plan.by_tensors())
        self._program_of = program_of or self._cut
        self._programs: dict[tuple[int, int, int, bool], tuple[Program, Workers]] = {}

    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`; all is done when the results are asked for."""
        return partial(self._in_format, chunk, wanted)

    def _in_format(self, chunk: Chunk, wanted: Mask) -> Outcomes:
        with number_format(self.plan.dtype, self.device):
            return self._evaluated(chunk, wanted)

    def _evaluated(self, chunk: Chunk, wanted: Mask) -> Outcomes:
        c, h, w = chunk.images.shape[1:]
        program, workers = self._program((c, h, w), chunk.control == "occlusion")
        pictures = self.normalised(chunk.images, chunk.control).to(self.device)
        found = chunk.room(self.grid.n_shifts)
        chunk = replace(chunk, state=each_of(chunk.state, lambda values: values.to(self.device)))
        n_done = 0

        def evaluate(rest: Net, image: int) -> tuple[Places, Outcomes]:
            shift = np.flatnonzero(wanted[image])
            places = np.full(len(shift), image), shift
            parts, done = [], 0
            for scores in self._scores_of(rest, program, pictures[image], image, shift):
                batch = slice(done, done + len(scores))
                parts.append(self.outcomes(chunk, scores, (places[0][batch], shift[batch])))
                done = batch.stop
            return places, Outcomes.joined(parts)

        for places, outcomes in workers.map(evaluate, np.flatnonzero(wanted.any(axis=1)).tolist()):
            found.put(places, outcomes)
            n_done += len(places[0])
            if self._tick is not None:
                self._tick(n_done)
        return found

    def reference(self, chunk: Chunk) -> Tensor:
        """See `EnginePath`; on a canvas, an unshifted image lies among fill and not among padding."""
        if self._program_of == self._cut:
            return super().reference(chunk)
        unshifted = np.array([self.grid.n_shifts // 2])
        pictures = self.normalised(chunk.images, chunk.control).to(self.device)
        return torch.cat([self.scores_under(picture, unshifted, k) for k, picture in enumerate(pictures)])

    def _program(self, shape: tuple[int, int, int], occluded: bool) -> tuple[Program, Workers]:
        key = (*shape, occluded)
        if key not in self._programs:
            found, program = self._program_of(self._module, shape, occluded)
            n_threads = torch.get_num_threads() if self.device.type == "cpu" else 1
            nets = replicas(rest_of(found, program.n_early), n_workers(program, self.plan, n_threads))
            self._programs[key] = program, Workers(nets, self.plan.n_threads)
        return self._programs[key]

    def _cut(self, module: nn.Module, shape: tuple[int, int, int], occluded: bool) -> tuple[Trace, Program]:
        """The plan's cut."""
        return by_plan(self, module, shape, occluded=occluded)

    def _scores_of(
        self, rest: Net, program: Program, picture: Tensor, image: int, shift: NDArray[np.int64]
    ) -> Iterator[Tensor]:
        with torch.no_grad():
            maps = program.run(picture, self.dtype)
        iy, ix = (torch.from_numpy(places).to(self.device) for places in np.divmod(shift, self.grid.shape[1]))
        for start in range(0, len(shift), self.plan.batch_size):
            batch = slice(start, start + self.plan.batch_size)
            inputs = program.windows(maps, iy[batch], ix[batch], channels_last=self.plan.channels_last)
            yield self.checked_scores(rest, inputs, np.full(len(inputs[0]), image))

    def alone(self, window: Tensor) -> Float[Tensor, "1 k"]:
        """Scores of one normalised window [1, c, h, w] by itself, through the whole net."""
        (scores,) = Workers([self._module], self.plan.n_threads).map(self.alone_by, [window])
        return scores

    def n_side_by_side(self, shape: tuple[int, int, int]) -> int:
        """How many images [c, h, w] are computed at a time, each on a core."""
        return self._program(shape, occluded=False)[1].n

    def scores_under(self, picture: Tensor, shift: NDArray[np.int64], image: int = 0) -> Tensor:
        """Scores [n, classes] of one normalised image [c, h, w] under some shifts that leave some of it in view.

        `image` is what an error calls it.
        """
        c, h, w = (int(n) for n in picture.shape)
        program, workers = self._program((c, h, w), occluded=False)
        (found,) = workers.map(
            lambda rest, image: torch.cat(list(self._scores_of(rest, program, picture, image, shift))), [image]
        )
        return found


class CanvasEvaluator(WindowEvaluator):
    """The canvas control (`frame`), by cells whatever the plan's path: padding out of sight of the images."""

    controls = ("canvas",)

    def __init__(
        self, model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
    ) -> None:
        self._name, self.grid = model.name, grid
        self._path = DedupEvaluator(model, plan, grid, fill, tick, program_of=self._framed)

    def prepared(self, chunk: Chunk) -> Chunk:
        """See `WindowEvaluator`."""
        return self._path.prepared(chunk)

    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`; an empty image among fill is not the empty image among padding."""
        return self._path.begin(chunk, wanted)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuse a net that has no trunk to be put on a canvas, for images [c, h, w], before anything is written."""
        self._path.n_side_by_side(shape)

    def _framed(self, module: nn.Module, shape: tuple[int, int, int], occluded: bool) -> tuple[Trace, Program]:
        if self._path.values is None:
            raise InputError("the canvas control needs a constant fill")
        try:
            found = trace(module, shape)
        except Exception as error:  # torch's tracer raises whatever the model's own code does with a stand-in
            raise InputError(
                f"the canvas control needs a net that can be traced; {self._name} raises {type(error).__name__}"
            ) from error
        frame = framed(found, self._name)
        layout = frame.layout(self.grid, shape[1:], self._path.values)
        return frame.trace, Program(frame.trace, len(frame.trace.steps), layout, self._path.device)
