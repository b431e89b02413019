"""What is kept of the outputs of a window, and the table in which the windows of a chunk meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.engine.plan import ChunkResult
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.task import Task

Places = slice | tuple[NDArray[np.int64], NDArray[np.int64]]
"""Images of a chunk, or windows by image and shift."""

MARGIN = "margin"
"""The row that no task stores: how sure a class is. Only the settling of near ties reads it."""


class Outcomes(dict[str, NDArray[Any]]):
    """For some windows, the rows that the task's `outcome` gives: arrays of one shape, by name."""

    @staticmethod
    def of(outputs: Tensor, state: Tensor, task: Task = CLASSIFICATION, shifts: Tensor | None = None) -> Outcomes:
        """Rows [n] of outputs [n, ...], the state of each window [n] and its shift."""
        types = _row_types(task)
        rows = task.outcome(outputs, shifts, state)
        return Outcomes({name: values.to(types[name]).cpu().numpy() for name, values in rows.items()})

    @staticmethod
    def room(n: int, n_shifts: int, task: Task = CLASSIFICATION) -> Outcomes:
        """Room for the windows [image, shift] of a chunk."""
        return Outcomes({name: torch.zeros(n, n_shifts, dtype=t).numpy() for name, t in _row_types(task).items()})

    @staticmethod
    def joined(parts: Sequence[Outcomes]) -> Outcomes:
        """Parts [n] one after the other."""
        return Outcomes({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def chosen(self, places: Places | NDArray[np.int64]) -> Outcomes:
        """Those at some places."""
        return Outcomes({name: values[places] for name, values in self.items()})

    def put(self, places: Places, part: Outcomes) -> None:
        """Write a part where it belongs."""
        for name, values in part.items():
            self[name][places] = values

    def on_grid(self, shape: tuple[int, int]) -> ChunkResult:
        """Outcomes [image, shift] as the result of a chunk, for a grid of `shape`."""
        return ChunkResult(**{k: v.reshape(len(v), *shape) for k, v in self.items() if k != MARGIN})


def _row_types(task: Task) -> dict[str, torch.dtype]:
    """The types in which rows reach the host: a class number is int64 until it is stored."""
    types = {each.name: np.dtype(each.dtype) for each in task.variables}
    stored = {name: getattr(torch, t.name) if t.kind in "bf" else torch.int64 for name, t in types.items()}
    return stored | {MARGIN: torch.float32}
