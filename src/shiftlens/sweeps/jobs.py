"""One chunk of images with all its shifts is one job: what crosses between the runner and whoever computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shiftlens.engine.plan import ChunkResult
from shiftlens.errors import ModelOutputError
from shiftlens.sweeps.group import SweepGroup


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
"""Takes jobs when it is ready for them, gives checked results in any order; may be called again with more.

The second argument may be told how many evaluations of the present chunk are done."""


def check_result(result: ChunkResult, n_classes: int) -> None:
    """A chunk with a number missing would count as unfinished for ever, so it is refused whatever the engine.

    Raises
    ------
    ModelOutputError
        Names the images' places in the chunk.
    """
    bad = ~(np.isfinite(result.loss) & np.isfinite(result.confidence)).all(axis=(1, 2))
    if bad.any():
        raise ModelOutputError("the loss is not finite", tuple(np.flatnonzero(bad).tolist()))
    if result.prediction.max() >= n_classes:
        raise ModelOutputError(f"expected {n_classes} classes, got a prediction of class {result.prediction.max()}")


def with_sources(error: ModelOutputError, job: Job, name: str) -> ModelOutputError:
    """The same error with the images' positions in their source, the image set called `name`."""
    index: NDArray[np.int64] = job.group.index[job.span]
    sources = tuple(index[list(error.positions)].tolist()) if error.positions else tuple(index.tolist())
    shown = ", ".join(map(str, sources[:10])) + (", ..." if len(sources) > 10 else "")
    which = "at image" if error.positions else "somewhere in images"
    return ModelOutputError(
        f"{error} {which} {shown} of {name}; the chunks finished before stay in {job.group.path}", sources
    )
