"""Detection: every object of an image followed through all shifts, matched as COCO matches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.tasks.moving import box_area, box_overlap, clip_boxes, moved_boxes, shaped
from shiftlens.tasks.outputs import OutputForm
from shiftlens.tasks.task import CROWD, NO_OBJECT, OBJECT, ByPlace, State, Task, Variable

if TYPE_CHECKING:
    from torch import Tensor

LEFT_IN_VIEW = 0.5
"""Share of an object's area below which it is ignored: neither missed, nor is what matches it a false alarm."""


def _share(name: str, long_name: str) -> Variable:
    return Variable(name, "float32", "share", "higher", "number", long_name, bounds=(0, 1), optional=True)


RECALL = _share("recall", "share of the objects in view that are found")
CONFIDENCE = _share("confidence", "mean confidence of the objects in view")
BOX_IOU = _share("box_iou", "mean IoU of the boxes that match")
CENTER_ERROR = Variable(
    "center_error", "float32", "px", "lower", "number", "distance of the centres of boxes that match",
    bounds=(0, np.inf), optional=True,
)  # fmt: skip
N_UNMATCHED = Variable(
    "n_unmatched", "float32", "detections", "lower", "number", "detections that match no object", bounds=(0, np.inf)
)
OBJECT_CONFIDENCE = Variable(
    "object_confidence", "float32", "share", "higher", "number", "best score of the same class at IoU 0.5", OBJECT,
    (0, 1), optional=True,
)  # fmt: skip
FOUND = Variable("found", "float64", long_name="objects that are found, by the place of their centre", dims=("y", "x"))
SHOWN = Variable("shown", "float64", long_name="objects in view, by the place of their centre", dims=("y", "x"))

BY_PLACE = ByPlace("recall of objects centred there", "found", "shown", "share", "higher")


@dataclass(frozen=True)
class Detection(Task):
    """Detections [window, rank, (left, top, right, bottom, score, class)] against boxes that move with the shift.

    Targets are tables [image, object, (left, top, right, bottom, class)]; a class of -1 is no object, and -2 - k a
    crowd of objects of class k. Objects move with the shift and are clipped; crowds and objects with less than half of
    their area left in view are ignored, and so is a detection that lies on one of them; a detection outside the frame
    is none. Each detection, from the best score down, takes the object of its class with the largest IoU of at least
    0.5 that none has taken.

    Attributes
    ----------
    score_threshold
        Detections that count for all but `confidence` and `object_confidence`.
    iou_threshold
        From which a detection matches.
    size
        (h, w) of the frame in pixels.
    shape
        Of a window's table, which the engine hands over as one row; () where it comes as it is.
    """

    size: tuple[int, int] = (0, 0)
    shape: tuple[int, ...] = ()
    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    name: str = "detection"
    uses: Literal["masks", "boxes"] | None = "boxes"
    needs_reference: bool = True
    needs_shifts: bool = True
    controls: tuple[str, ...] = ("flip",)
    by_place: ByPlace | None = BY_PLACE
    variables: tuple[Variable, ...] = (
        RECALL, CONFIDENCE, BOX_IOU, CENTER_ERROR, N_UNMATCHED, OBJECT_CONFIDENCE, FOUND, SHOWN,
    )  # fmt: skip

    @property
    def settings(self) -> dict[str, Any]:
        """Both thresholds."""
        return {"score_threshold": self.score_threshold, "iou_threshold": self.iou_threshold}

    def fitted(self, form: OutputForm, size: tuple[int, int]) -> Detection:
        """For a model that returns boxes, scores and labels."""
        if not form.is_detections:
            raise InputError(f"detection needs lists of boxes, scores and labels, the model gives {form.said}")
        return replace(self, shape=form.shape, size=size)

    def compared(self, outputs: Tensor) -> Tensor:
        """Sums over the detections, weighted by their scores: no order counts, and the faintest count least."""
        import torch

        found = shaped(outputs, self.shape).double()
        score = torch.where(found[:, :, 5] == NO_OBJECT, 0.0, found[:, :, 4])
        label = found[:, :, 5:] + 1
        numbers = torch.cat([torch.ones_like(label), label, found[:, :, :4], found[:, :, :4] * label], 2)
        return (score[:, :, None] * numbers).sum(1)

    def targets(self, labels: NDArray[np.int64], values: NDArray[Any] | None) -> NDArray[Any]:
        """The tables of boxes."""
        if values is None:
            raise InputError("detection needs images with boxes")
        return values

    def mirrored(self, targets: Tensor) -> Tensor:
        """The boxes, mirrored."""
        turned = targets.clone()
        turned[..., [0, 2]] = self.size[1] - targets[..., [2, 0]]
        return turned

    def n_objects(self, targets: NDArray[Any]) -> NDArray[np.int64]:
        """Rows of each table that hold a box."""
        return np.asarray((targets[:, :, 4] != NO_OBJECT).sum(axis=1), dtype=np.int64)

    def prepare(self, reference: Tensor, targets: Tensor) -> State:
        """The tables of boxes, with as many rows as the fullest of these images needs."""
        most = int((targets[:, :, 4] != NO_OBJECT).sum(1).max())
        return {"objects": targets[:, :most].double()}

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
        """Rows of a batch of detections; see the class."""
        import torch

        assert shifts is not None
        objects = state["objects"]
        crowd = objects[:, :, 4] <= CROWD
        label = torch.where(crowd, CROWD - objects[:, :, 4], objects[:, :, 4])
        there = (objects[:, :, 4] != NO_OBJECT) & ~crowd
        boxes, left = moved_boxes(objects[:, :, :4], shifts, self.size)
        shown, ignored = there & (left >= LEFT_IN_VIEW), (crowd | there & (left < LEFT_IN_VIEW)) & (left > 0)
        found = shaped(outputs, self.shape).double()
        detected = clip_boxes(found[:, :, :4], self.size)
        # A detection of which nothing is in the frame is none.
        scores, classes = found[:, :, 4], torch.where(box_area(detected) > 0, found[:, :, 5], NO_OBJECT)
        # [window, detection, object]
        iou, covered = box_overlap(detected[:, :, None], boxes[:, None])
        same = (classes[:, :, None] == label[:, None]) & (classes != NO_OBJECT)[:, :, None]
        reaching = same & (iou >= self.iou_threshold) & shown[:, None]
        confidence = torch.where(reaching, scores[:, :, None], 0.0).amax(1) if found.shape[1] else shown.double() * 0
        counted = (scores >= self.score_threshold) & (classes != NO_OBJECT)
        taken = _matched(torch.where(same & shown[:, None], iou, -1.0), scores, counted, self.iou_threshold)
        excused = (same & (covered >= self.iou_threshold) & ignored[:, None]).any(2)
        n_shown, hit = shown.sum(1), taken.any(1)
        overlap = torch.where(taken, iou, 0.0).sum((1, 2)) / hit.sum(1)
        off = (_centers(detected)[:, :, None] - _centers(boxes)[:, None]).norm(dim=-1)
        distance = torch.where(taken, off, 0.0).sum((1, 2)) / hit.sum(1)
        return {
            "recall": (hit & shown).sum(1) / n_shown,
            "confidence": (confidence * shown).sum(1) / n_shown,
            "box_iou": overlap,
            "center_error": distance,
            "n_unmatched": (counted & ~taken.any(2) & ~excused).sum(1).double(),
            "object_confidence": torch.where(shown, confidence, torch.nan),
            "found": self._by_place(boxes, hit & shown),
            "shown": self._by_place(boxes, shown),
        }

    def _by_place(self, boxes: Tensor, chosen: Tensor) -> Tensor:
        """How many of the chosen boxes [n, k, 4] have their centre in each pixel (y, x)."""
        h, w = self.size
        x, y = _centers(boxes)[chosen].floor().long().unbind(-1)
        places = boxes.new_zeros(h * w)
        places.index_add_(0, y.clamp(0, h - 1) * w + x.clamp(0, w - 1), boxes.new_ones(len(x)))
        return places.reshape(h, w)


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _matched(iou: Tensor, scores: Tensor, counted: Tensor, least: float) -> Tensor:
    """Which detection takes which object [n, detection, object]; `iou` is below 0 where they cannot match."""
    import torch

    taken = torch.zeros(iou.shape, dtype=torch.bool, device=iou.device)
    if 0 in iou.shape[1:]:
        return taken
    free = torch.ones(iou.shape[0], iou.shape[2], dtype=torch.bool, device=iou.device)
    window = torch.arange(len(iou), device=iou.device)
    for rank in torch.argsort(scores, dim=1, descending=True, stable=True).T:
        best, which = torch.where(free, iou[window, rank], -1.0).max(1)
        matches = counted[window, rank] & (best >= least)
        taken[window[matches], rank[matches], which[matches]] = True
        free[window[matches], which[matches]] = False
    return taken
