"""A chunk of images as a task sees it, and the table in which the rows of its windows meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.engine.plan import ChunkResult
from shiftlens.errors import ModelOutputError
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.task import MARGIN, OBJECT, State, Task, row_types

Places = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Windows by image and shift."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Images [n, c, h, w] that are evaluated under every shift.

    `targets` [n] are what the task measures against, `control` is how the images are changed beforehand. Of a prepared
    chunk (`WindowEvaluator.prepared`), `state` is what the task has prepared for each image, and there is room for
    `most_objects` an image.
    """

    images: NDArray[np.uint8]
    targets: NDArray[Any]
    control: str | None = None
    task: Task = CLASSIFICATION
    state: State = None
    most_objects: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def part(self, images: slice) -> Chunk:
        """Some of the images."""
        state = each_of(self.state, lambda values: values[images])
        return replace(self, images=self.images[images], targets=self.targets[images], state=state)

    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each row: nothing for a window, the length of its axis, or the axes of an accumulator."""
        h, w = self.images.shape[2:]
        sizes = {"y": h, "x": w, OBJECT[0]: self.most_objects, **self.task.axes}
        shapes: dict[str, tuple[int, ...]] = {}
        for each in self.task.variables:
            axes = each.dims if each.is_accumulator else (each.axis,) if each.axis else ()
            shapes[each.name] = tuple(sizes[axis] for axis in axes)
        return shapes | ({MARGIN: ()} if self.task.has_margin else {})

    def room(self, n_shifts: int) -> Outcomes:
        """Room for the windows [image, shift]."""
        room, shapes = Outcomes(self.task), self.row_shapes()
        for name, dtype in row_types(self.task).items():
            room[name] = np.zeros(shapes[name] if name in room.sums else (len(self), n_shifts, *shapes[name]), dtype)
        return room


class Outcomes(dict[str, NDArray[Any]]):
    """Rows of some windows by name: [window] or [image, shift], perhaps with one more axis; accumulators as sums."""

    def __init__(self, task: Task, rows: Mapping[str, NDArray[Any]] | None = None) -> None:
        super().__init__(rows or {})
        self.task = task
        self.sums = {each.name for each in task.variables if each.is_accumulator}

    @staticmethod
    def of(chunk: Chunk, outputs: Tensor, state: State, shifts: Tensor | None = None) -> Outcomes:
        """Rows [n] of outputs [n, ...], the state of each window [n] and its shift."""
        rows = rows_of(chunk.task, chunk.control, chunk.row_shapes(), outputs, state, shifts)
        types = row_types(chunk.task)
        host = {name: rows[name].to(getattr(torch, dtype.name)).cpu().numpy() for name, dtype in types.items()}
        return Outcomes(chunk.task, host)

    @staticmethod
    def joined(parts: Sequence[Outcomes]) -> Outcomes:
        """Parts [n] one after the other."""
        first = parts[0]
        join = {name: np.sum if name in first.sums else np.concatenate for name in first}
        return Outcomes(first.task, {name: join[name]([part[name] for part in parts], axis=0) for name in first})

    @property
    def windows(self) -> dict[str, NDArray[Any]]:
        """The rows without the accumulators."""
        return {name: values for name, values in self.items() if name not in self.sums}

    def chosen(self, places: Places | NDArray[np.int64]) -> Outcomes:
        """Those at some places, without accumulators."""
        return Outcomes(self.task, {name: values[places] for name, values in self.windows.items()})

    def put(self, places: Places, part: Outcomes) -> None:
        """Write a part where it belongs, and add its sums."""
        for name, values in part.items():
            if name in self.sums:
                self[name] += values
            else:
                self[name][places] = values

    def on_grid(self, shape: tuple[int, int]) -> ChunkResult:
        """Outcomes [image, shift] as the result of a chunk, for a grid of `shape`."""
        result = {}
        for each in self.task.variables:
            values = self[each.name]
            if each.axis is not None:
                values = np.ascontiguousarray(np.moveaxis(values, 2, 1))
            result[each.name] = values if each.is_accumulator else values.reshape(*values.shape[:-1], *shape)
        return result


def rows_of(
    task: Task,
    control: str | None,
    shapes: Mapping[str, tuple[int, ...]],
    outputs: Tensor,
    state: State,
    shifts: Tensor | None,
) -> Mapping[str, Tensor]:
    """The rows that a task makes, if they are those that it declares."""
    if control == "occlusion" and shifts is not None:
        rows = task.occluded(outputs, shifts, state)
    else:
        rows = task.outcome(outputs, shifts, state)
    sums = {each.name for each in task.variables if each.is_accumulator}
    expected = {name: shape if name in sums else (len(outputs), *shape) for name, shape in shapes.items()}
    found = {name: tuple(values.shape) for name, values in rows.items()}
    if found != expected:
        raise ModelOutputError(f"expected rows {expected} of task {task.name}, got {found}")
    return rows


def each_of(state: State, function: Callable[[Tensor], Tensor]) -> State:
    """The same state with a function applied to each of its tensors."""
    if isinstance(state, Mapping):
        return {name: function(values) for name, values in state.items()}
    return state if state is None else function(state)


def tensors_of(state: State) -> list[Tensor]:
    """The tensors of a state, in a fixed order."""
    if isinstance(state, Mapping):
        return list(state.values())
    return [] if state is None else [state]
