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
from shiftlens.tasks.task import MARGIN, OBJECT, State, Task, Variable, row_types

Places = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Windows by image and shift."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Images [n, c, h, w] that are evaluated under every shift.

    `targets` [n] are what the task measures against, `control` is how the images are changed beforehand, `state` is
    what the task has prepared for each image (`WindowEvaluator.prepared`).
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    control: str | None = None
    task: Task = CLASSIFICATION
    state: State = None

    def __len__(self) -> int:
        return len(self.images)

    def part(self, images: slice) -> Chunk:
        """Some of the images."""
        state = each_of(self.state, lambda values: values[images])
        return replace(self, images=self.images[images], targets=self.targets[images], state=state)

    def row_shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of one row: nothing for a window, most objects of an image, or the axes of an accumulator."""
        if variable.dims == OBJECT:
            return (int(self.task.n_objects(self.targets).max(initial=0)),)
        sizes = dict(zip(("y", "x"), self.images.shape[2:], strict=True))
        return tuple(sizes[axis] for axis in variable.dims) if variable.is_accumulator else ()

    def room(self, n_shifts: int) -> Outcomes:
        """Room for the windows [image, shift]."""
        types, room = row_types(self.task), Outcomes(self.task)
        for each in self.task.variables:
            before = () if each.is_accumulator else (len(self), n_shifts)
            room[each.name] = np.zeros((*before, *self.row_shape(each)), types[each.name])
        if self.task.has_margin:
            room[MARGIN] = np.zeros((len(self), n_shifts), types[MARGIN])
        return room


class Outcomes(dict[str, NDArray[Any]]):
    """Rows of some windows by name: [window] or [image, shift], of objects with one more axis; accumulators as sums."""

    def __init__(self, task: Task, rows: Mapping[str, NDArray[Any]] | None = None) -> None:
        super().__init__(rows or {})
        self.task = task
        self._sums = {each.name for each in task.variables if each.is_accumulator}

    @staticmethod
    def of(outputs: Tensor, state: State, task: Task = CLASSIFICATION, shifts: Tensor | None = None) -> Outcomes:
        """Rows [n] of outputs [n, ...], the state of each window [n] and its shift."""
        types, rows = row_types(task), checked_rows(task, task.outcome(outputs, shifts, state))
        host = {name: rows[name].to(getattr(torch, dtype.name)).cpu().numpy() for name, dtype in types.items()}
        return Outcomes(task, host)

    @staticmethod
    def joined(parts: Sequence[Outcomes]) -> Outcomes:
        """Parts [n] one after the other."""
        first = parts[0]
        join = {name: np.sum if name in first._sums else np.concatenate for name in first}
        return Outcomes(first.task, {name: join[name]([part[name] for part in parts], axis=0) for name in first})

    @property
    def windows(self) -> dict[str, NDArray[Any]]:
        """The rows without the accumulators."""
        return {name: values for name, values in self.items() if name not in self._sums}

    def chosen(self, places: Places | NDArray[np.int64]) -> Outcomes:
        """Those at some places, without accumulators."""
        return Outcomes(self.task, {name: values[places] for name, values in self.windows.items()})

    def put(self, places: Places, part: Outcomes) -> None:
        """Write a part where it belongs, and add its sums."""
        for name, values in part.items():
            if name in self._sums:
                self[name] += values
            else:
                self[name][places] = values

    def on_grid(self, shape: tuple[int, int]) -> ChunkResult:
        """Outcomes [image, shift] as the result of a chunk, for a grid of `shape`."""
        result = {}
        for each in self.task.variables:
            values = self[each.name]
            if each.dims == OBJECT:
                values = np.ascontiguousarray(np.moveaxis(values, 2, 1))
            result[each.name] = values if each.is_accumulator else values.reshape(*values.shape[:-1], *shape)
        return result


def checked_rows(task: Task, rows: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The rows that a task has made, if they are those that it declares."""
    expected = row_types(task)
    if rows.keys() != expected.keys():
        raise ModelOutputError(f"expected rows {', '.join(expected)} of task {task.name}, got {', '.join(rows)}")
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
