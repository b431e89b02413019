"""The path that does nothing twice: early layers once for all shifts of an image, the rest on every window.

`states` says what a cell depends on, `tracing` which operations can be served, `cells` computes them, `program` cuts
the net in two. Here the two halves run, one image a core. Results are those of the direct path up to the order of float
additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.engine.direct import DirectEvaluator, prepare_module
from shiftlens.engine.frame import framed
from shiftlens.engine.outcomes import Outcomes
from shiftlens.engine.plan import Plan
from shiftlens.engine.shared.program import Layout, Program, rest_of
from shiftlens.engine.shared.tracing import Trace, trace
from shiftlens.engine.workers import Net, Workers, replicas
from shiftlens.errors import InputError, StoreError
from shiftlens.models.loading import Model
from shiftlens.shifts import Fill, ShiftGrid

CELL_BYTES = 1_200_000_000
"""Most bytes of cells that all workers hold together."""


def n_workers(program: Program, plan: Plan, n_threads: int) -> int:
    """Images that are computed side by side: one a core, fewer where their cells would not fit `CELL_BYTES`."""
    bytes_each = program.n_numbers() * torch.empty(0, dtype=getattr(torch, plan.dtype)).element_size()
    return max(1, min(n_threads, CELL_BYTES // max(1, bytes_each)))


class DedupEvaluator(DirectEvaluator):
    """`plan.Evaluator` by cells; see there for arguments, results and errors."""

    def __init__(
        self, model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
    ) -> None:
        super().__init__(model, plan, grid, fill, tick)
        self._traces: dict[tuple[int, int, int], Trace] = {}
        self._programs: dict[tuple[int, int, int, bool], tuple[Program, Workers]] = {}

    def _nets(self, model: Model, plan: Plan) -> Workers:
        # One copy of the net serves the trace, and the single whole picture that is ever evaluated: the blank one.
        self._module = prepare_module(model, plan)
        return Workers([self._module], plan.n_threads)

    def _program(self, shape: tuple[int, int, int], occluded: bool) -> tuple[Program, Workers]:
        key = (*shape, occluded)
        if key not in self._programs:
            program = self._made(shape, occluded)
            n_threads = torch.get_num_threads() if self._device.type == "cpu" else 1
            rest = rest_of(self._traces[shape], program.n_early)
            nets = replicas(rest, n_workers(program, self._plan, n_threads))
            self._programs[key] = program, Workers(nets, self._plan.n_threads)
        return self._programs[key]

    def _made(self, shape: tuple[int, int, int], occluded: bool) -> Program:
        if shape not in self._traces:
            try:
                self._traces[shape] = trace(self._module, shape)
            except Exception as error:  # torch's tracer raises whatever the model's own code does with a stand-in
                raise StoreError(
                    f"the stored plan runs {self._plan.cut} operations on cells, but this net cannot be traced "
                    f"({type(error).__name__}): its code has changed since; start a new sweep at another path"
                ) from error
        found = self._traces[shape]
        if self._plan.cut > len(found.steps):
            raise StoreError(
                f"the stored plan runs {self._plan.cut} operations on cells, this version serves {len(found.steps)} of "
                "this net; start a new sweep at another path"
            )
        layout = Layout.of(self._grid, shape[1:], self._fill.rule, self._values, occluded=occluded)
        return Program(found, self._plan.cut, layout)

    def _evaluated(
        self, pictures: Tensor, targets: Tensor, blank: NDArray[np.bool_], control: str | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Outcomes]]:
        c, h, w = (int(n) for n in pictures.shape[1:])
        program, workers = self._program((c, h, w), control == "occlusion")

        def evaluate(rest: Net, image: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Outcomes]:
            shift = np.flatnonzero(~blank[image])
            return np.full(len(shift), image), shift, self._image(rest, program, pictures[image], targets, image, shift)

        yield from workers.map(evaluate, [image for image in range(len(pictures)) if not blank[image].all()])

    def _image(
        self, rest: Net, program: Program, picture: Tensor, targets: Tensor, image: int, shift: NDArray[np.int64]
    ) -> Outcomes:
        """All wanted shifts of one picture."""
        return Outcomes.joined(
            [
                Outcomes.of(scores, targets[image].expand(len(scores)))
                for scores in self._scores_of(rest, program, picture, image, shift)
            ]
        )

    def _scores_of(
        self, rest: Net, program: Program, picture: Tensor, image: int, shift: NDArray[np.int64]
    ) -> Iterator[Tensor]:
        with torch.no_grad():
            maps = program.run(picture, self._dtype)
        iy, ix = np.divmod(shift, self._grid.shape[1])
        for start in range(0, len(shift), self._plan.batch_size):
            batch = slice(start, start + self._plan.batch_size)
            inputs = program.windows(maps, iy[batch], ix[batch], channels_last=self._plan.channels_last)
            yield self._scores(rest, inputs, np.full(len(inputs[0]), image))

    def n_side_by_side(self, shape: tuple[int, int, int]) -> int:
        """How many pictures [c, h, w] are computed at a time, each on a core."""
        return self._program(shape, occluded=False)[1].n

    def scores(self, picture: Tensor, shift: NDArray[np.int64]) -> Tensor:
        """Scores [n, classes] of one normalised picture [c, h, w] under some shifts that leave some of it in view."""
        c, h, w = (int(n) for n in picture.shape)
        program, workers = self._program((c, h, w), occluded=False)
        (found,) = workers.map(
            lambda rest, image: torch.cat(list(self._scores_of(rest, program, picture, image, shift))), [0]
        )
        return found


class CanvasEvaluator(DedupEvaluator):
    """The canvas control (`frame`), by cells whatever the plan's path: padding out of sight of the pictures."""

    CONTROLS = ("canvas",)

    def __init__(
        self, model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
    ) -> None:
        # Windows of this canvas are not those that would be evaluated again one by one.
        super().__init__(model, replace(plan, settle=0.0), grid, fill, tick)
        self._name = model.name

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuse a net that has no trunk to be put on a canvas, for pictures [c, h, w], before anything is written."""
        self._program(shape, occluded=False)

    def _made(self, shape: tuple[int, int, int], occluded: bool) -> Program:
        if self._values is None:
            raise InputError("the canvas control needs a constant fill")
        try:
            found = trace(self._module, shape)
        except Exception as error:  # torch's tracer raises whatever the model's own code does with a stand-in
            raise InputError(
                f"the canvas control needs a net that can be traced; {self._name} raises {type(error).__name__}"
            ) from error
        frame = framed(found, self._name)
        self._traces[shape] = frame.trace
        return Program(frame.trace, len(frame.trace.steps), frame.layout(self._grid, shape[1:], self._values))

    def _blank(self, pictures: Tensor) -> NDArray[np.bool_]:
        # An empty picture among fill is not the empty picture among padding: it is computed like any other.
        return np.zeros((len(pictures), self._grid.n_shifts), dtype=np.bool_)
