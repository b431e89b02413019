"""What is kept of a model's outputs for some images, to be looked at: class maps and boxes, in whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftlens.errors import InputError, ModelOutputError
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.moving import box_area, clip_boxes, shaped
from shiftlens.tasks.outputs import MOST_DETECTIONS
from shiftlens.tasks.segmentation import Segmentation, classes_of
from shiftlens.tasks.task import PLACE, RANK, State, Task, Variable

if TYPE_CHECKING:
    from torch import Tensor

MOST_KEPT = 60
"""Images; the page shows no more."""
MOST_BYTES = 2**30
"""Of all kept outputs together, before they are compressed."""
LARGEST_MAP = 128
"""Cells along the longer side of a class map; of a larger one every second, third, ... pixel is kept."""
MOST_CLASSES = 2**15
"""Of a mask."""
NO_BOX = 2**16 - 2
"""`kept_class` where a window has no more detections."""
BOX_PARTS = 10
"""Parts of a pixel in which the sides of boxes are stored."""
SCORE_PARTS = 1000

_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class KeptClasses(Task):
    """The class of each cell of a segmentation's map [window, row * columns + column].

    Attributes
    ----------
    shape
        [class, h, w] of a window's logits.
    every
        A cell is the pixel in the middle of a square of so many pixels each way.
    """

    shape: tuple[int, ...]
    every: int
    variables: tuple[Variable, ...]
    name: str = "kept-classes"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return -(-self.shape[1] // self.every), -(-self.shape[2] // self.every)

    @property
    def settings(self) -> dict[str, Any]:
        """What a reader needs to put the cells in their places."""
        rows, columns = self.grid
        return {"rows": rows, "columns": columns, "every": self.every}

    @property
    def axes(self) -> dict[str, int]:
        """Cells of a map."""
        return {PLACE[0]: self.grid[0] * self.grid[1]}

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> Mapping[str, Tensor]:
        """The class maps of a batch of logits."""
        first = (self.every - 1) // 2
        rows, columns = (
            [min(first + self.every * k, side - 1) for k in range(n)]
            for n, side in zip(self.grid, self.shape[1:], strict=True)
        )
        classes = classes_of(shaped(outputs, self.shape))
        return {"class_map": classes[:, rows][:, :, columns].flatten(1)}


@dataclass(frozen=True)
class KeptBoxes(Task):
    """The detections of a score of at least `score_threshold`, the best first, clipped to the frame of (h, w) pixels.

    Sides are stored in tenths of a pixel, scores in thousandths.
    """

    size: tuple[int, int]
    shape: tuple[int, ...]
    score_threshold: float
    name: str = "kept-boxes"
    variables: tuple[Variable, ...] = (
        *(
            Variable(f"kept_{side}", "uint16", f"1/{BOX_PARTS} px", long_name=f"{side} side of each box", dims=RANK)
            for side in _SIDES
        ),
        Variable("kept_score", "uint16", f"1/{SCORE_PARTS}", long_name="score of each box", dims=RANK),
        Variable("kept_class", "uint16", long_name=f"class of each box, {NO_BOX} where there is none", dims=RANK),
    )

    @property
    def settings(self) -> dict[str, Any]:
        """The threshold."""
        return {"score_threshold": self.score_threshold}

    @property
    def axes(self) -> dict[str, int]:
        """Detections of a window."""
        return {RANK[0]: MOST_DETECTIONS}

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> Mapping[str, Tensor]:
        """The boxes of a batch of detections."""
        import torch

        found = shaped(outputs, self.shape).double()
        boxes = clip_boxes(found[:, :, :4], self.size)
        there = (found[:, :, 4] >= self.score_threshold) & (box_area(boxes) > 0) & (found[:, :, 5] >= 0)
        # What is kept comes first, in the order that it had.
        order = torch.argsort(there.int(), dim=1, descending=True, stable=True)
        classes = torch.where(there, found[:, :, 5], NO_BOX)
        if (classes > NO_BOX).any():
            raise ModelOutputError(f"outputs are kept of classes up to {NO_BOX - 1}, got class {int(classes.max())}")
        sides = torch.where(there[:, :, None], boxes * BOX_PARTS, 0.0)
        scores = torch.where(there, found[:, :, 4] * SCORE_PARTS, 0.0).clamp(0, NO_BOX)
        table = torch.cat([sides, scores[:, :, None], classes[:, :, None]], 2).round()
        table = torch.take_along_dim(table, order[:, :, None], 1)
        return dict(zip((each.name for each in self.variables), table.unbind(2), strict=True))


def kept_task(task: Task) -> Task:
    """What is kept of the outputs of a fitted task.

    Raises
    ------
    InputError
        Of this task nothing can be kept, and why.
    """
    if isinstance(task, Segmentation):
        n_classes = task.shape[0]
        if n_classes > MOST_CLASSES:
            raise InputError(f"masks of {n_classes:,} classes cannot be kept: at most {MOST_CLASSES:,} fit")
        dtype = np.min_scalar_type(n_classes).name
        every = -(-max(task.shape[1:]) // LARGEST_MAP)
        return KeptClasses(
            task.shape, every, (Variable("class_map", dtype, long_name="class of each cell", dims=PLACE),)
        )
    if isinstance(task, Detection):
        if BOX_PARTS * max(task.size) >= NO_BOX:
            most = (NO_BOX - 1) // BOX_PARTS
            raise InputError(
                f"boxes are kept in images of at most {most:,} px, these are {task.size[0]} x {task.size[1]}"
            )
        return KeptBoxes(task.size, task.shape, task.score_threshold)
    why = "masks (segmentation) and boxes (detection) are kept"
    if task.name == CLASSIFICATION.name:
        why = "the page can drag every image of classification without them"
    raise InputError(f"keep-outputs keeps nothing of the task {task.name}: {why}")


def bytes_of_window(kept: Task) -> int:
    """Bytes that are kept of a window, before they are compressed."""
    return sum(np.dtype(each.dtype).itemsize * kept.axes[each.dims[0]] for each in kept.variables)
