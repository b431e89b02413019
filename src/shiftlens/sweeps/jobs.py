"""One chunk of images with all its shifts is one job: what the runner hands to the process or cluster that computes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.data.imageset import ImageSet
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.errors import ModelOutputError
from shiftlens.models.wrapping import Model
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.header import SweepHeader
from shiftlens.tasks.task import OBJECT, Task, beyond, objects_of


@dataclass(frozen=True, eq=False)
class Job:
    """A chunk of a group that is to be computed."""

    group: SweepGroup
    chunk: int

    @property
    def span(self) -> slice:
        """The images."""
        return self.group.span(self.chunk)

    @property
    def n_images(self) -> int:
        """How many they are."""
        return len(self.labels)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their classes."""
        return self.group.labels[self.span]

    @property
    def control(self) -> str | None:
        """The control that the group is of."""
        return self.group.header.control

    def __str__(self) -> str:
        of = f" of control {self.control}" if self.control else ""
        return f"chunk {self.chunk}{of} (images {self.span.start} to {self.span.stop - 1})"


Compute = Callable[[Iterable[Job], Callable[[int], None]], Iterator[tuple[Job, ChunkResult]]]
"""Takes jobs when it is ready for them and yields checked results in any order; may be called again with more jobs.

The second argument may be told how many evaluations of the current chunk are done."""


class Computer(AbstractContextManager["Computer"]):
    """Where chunks are computed: this process (`runner.ThisProcess`) or a cluster. Never touches the store."""

    rate: float | None = None
    """Evaluations a second, where a plan was measured."""

    def __exit__(self, *error: object) -> None:
        """Let go of what was taken for the sweep."""

    @abstractmethod
    def device(self, asked: str) -> str:
        """The device that computes, `cpu` or `cuda...`, where `asked` was requested."""

    @abstractmethod
    def check(self, plan: Plan) -> None:
        """Refuse a plan whose results cannot be reproduced here, where that is known before the first job."""

    @abstractmethod
    def make_plan(self, model: Model, images: NDArray[np.uint8], grid: ShiftGrid, fill: Fill, **options: Any) -> Plan:
        """`engine.evaluators.make_plan` where the chunks will be computed."""

    @abstractmethod
    def evaluator(self, model: Model, images: ImageSet, header: SweepHeader) -> Compute:
        """The function that computes the jobs of a sweep."""


def check_result(result: ChunkResult, task: Task, n_classes: int, targets: NDArray[Any]) -> None:
    """Refuse a chunk of images with targets [n] that misses a number, which would count as unfinished for ever.

    Raises
    ------
    ModelOutputError
        Names the images' places in the chunk.
    """
    for each in task.variables:
        values = result[each.name]
        if np.dtype(each.dtype).kind != "f":
            if each.name == "prediction" and values.max() >= n_classes:
                raise ModelOutputError(f"expected {n_classes} classes, got a prediction of class {values.max()}")
            continue
        good = np.isfinite(values) | (each.optional & np.isnan(values))
        if each.dims == OBJECT:
            good[beyond(objects_of(task, targets), values.shape[1])] = True
        bad = () if each.is_accumulator else tuple(np.flatnonzero(~good.reshape(len(good), -1).all(axis=1)).tolist())
        if not good.all():
            raise ModelOutputError(f"the {each.name} is not finite", bad)


def with_sources(error: ModelOutputError, job: Job, name: str) -> ModelOutputError:
    """The same error with the images' positions in their source, the image set called `name`."""
    index: NDArray[np.int64] = job.group.index[job.span]
    sources = tuple(index[list(error.positions)].tolist()) if error.positions else tuple(index.tolist())
    shown = ", ".join(map(str, sources[:10])) + (", ..." if len(sources) > 10 else "")
    which = "at image" if error.positions else "somewhere in images"
    return ModelOutputError(
        f"{error} {which} {shown} of {name}; the chunks finished before stay in {job.group.path}", sources
    )
