"""Detection: every object of an image followed through all shifts, matched as COCO matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.tasks.average_precision import IOUS, average_precision, bits, greedy_matches
from shiftlens.tasks.moving import box_area, box_overlap, clip_boxes, moved_boxes, shaped
from shiftlens.tasks.outputs import MOST_DETECTIONS, OutputForm
from shiftlens.tasks.task import CROWD, NO_OBJECT, OBJECT, RANK, WINDOW, ByPlace, OfDataset, State, Task, Variable

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
OBJECT_CLASS = Variable("object_class", "float32", long_name="class of each object in view", dims=OBJECT, optional=True)
DETECTION_SCORE = Variable(
    "detection_score", "float32", long_name="score of each detection", dims=RANK, optional=True
)  # fmt: skip
DETECTION_CLASS = Variable(
    "detection_class", "float32", long_name="class of each detection", dims=RANK, optional=True
)  # fmt: skip
DETECTION_HITS = Variable(
    "detection_hits", "uint16", long_name="IoUs at which each detection matches an object, as bits", dims=RANK
)
DETECTION_IGNORED = Variable(
    "detection_ignored", "uint16", long_name="IoUs at which each detection lies on an ignored object, as bits",
    dims=RANK,
)  # fmt: skip
FOUND = Variable("found", "float64", long_name="objects that are found, by the place of their centre", dims=("y", "x"))
SHOWN = Variable("shown", "float64", long_name="objects in view, by the place of their centre", dims=("y", "x"))

_FOR_AP = tuple(
    each.name for each in (OBJECT_CLASS, DETECTION_SCORE, DETECTION_CLASS, DETECTION_HITS, DETECTION_IGNORED)
)
AP50 = Variable(
    "ap50", "float64", "share", "higher", "number", "AP of the data set at IoU 0.5", bounds=(0, 1), optional=True,
    needs=_FOR_AP,
)  # fmt: skip
AP = Variable(
    "ap", "float64", "share", "higher", "number", "AP of the data set, mean over IoU 0.5 to 0.95", bounds=(0, 1),
    optional=True, needs=_FOR_AP,
)  # fmt: skip

BY_PLACE = ByPlace("recall of objects centred there", "found", "shown", "share", "higher")


@dataclass(frozen=True)
class Detection(Task):
    """Detections [window, rank, (left, top, right, bottom, score, class)] against boxes that move with the shift.

    Targets are tables [image, object, (left, top, right, bottom, class)]; a class of -1 is no object, and -2 - k a
    crowd of objects of class k. Objects move with the shift and are clipped; crowds and objects with less than half of
    their area left in view are ignored, and so is a detection that lies on one of them; a detection outside the frame
    is none. Each detection, from the best score down, takes the object of its class with the largest IoU of at least
    0.5 that none has taken. The same is done at ten IoUs for the AP of the data set, with all detections.

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

    Examples
    --------
    >>> task = Detection(size=(32, 32))
    >>> state = task.prepare(torch.zeros(1, 0, 6), torch.tensor([[[4.0, 4, 12, 12, 0]]]))  # an object of class 0
    >>> found = torch.tensor([[[5.0, 4, 13, 12, 0.9, 0]]])  # a detection that follows a shift by 1 px to the right
    >>> rows = task.outcome(found, torch.tensor([[1, 0]]), state)
    >>> rows["recall"].item(), rows["center_error"].item()
    (1.0, 0.0)
    """

    size: tuple[int, int] = (0, 0)
    shape: tuple[int, ...] = ()
    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    name: str = "detection"
    uses: Literal["masks", "boxes"] | None = "boxes"
    needs_reference: bool = True
    needs_shifts: bool = True
    controls: tuple[str, ...] = ("occlusion", "flip")
    by_place: ByPlace | None = BY_PLACE
    variables: tuple[Variable, ...] = (
        RECALL, CONFIDENCE, BOX_IOU, CENTER_ERROR, N_UNMATCHED, OBJECT_CONFIDENCE, OBJECT_CLASS, DETECTION_SCORE,
        DETECTION_CLASS, DETECTION_HITS, DETECTION_IGNORED, FOUND, SHOWN,
    )  # fmt: skip
    dataset_metrics: tuple[Variable, ...] = (AP50, AP)

    @property
    def settings(self) -> dict[str, Any]:
        """Both thresholds."""
        return {"score_threshold": self.score_threshold, "iou_threshold": self.iou_threshold}

    @property
    def axes(self) -> dict[str, int]:
        """Detections of a window that are stored."""
        return {"rank": MOST_DETECTIONS}

    def fitted(self, form: OutputForm, size: tuple[int, int]) -> Detection:
        """For a model that returns boxes, scores and labels."""
        if not form.is_detections:
            raise InputError(
                f"detection needs lists of boxes, scores and labels, the model gives {form.said}; put a module around "
                'it that returns [{"boxes": [k, 4], "scores": [k], "labels": [k]}, ...], one for each image'
            )
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

    def of_dataset(self, rows: Mapping[str, NDArray[Any]]) -> OfDataset:
        """AP and AP50."""
        return average_precision(rows)

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
        thresholds = iou.new_tensor((self.iou_threshold, *IOUS))
        matches = greedy_matches(torch.where(same & shown[:, None], iou, -1.0), scores, thresholds)
        # What has a better score is matched before, whether or not it counts.
        places = torch.arange(objects.shape[1], device=iou.device)
        taken = (matches[:, 0, :, None] == places) & counted[:, :, None]
        lies_on = torch.where(same & ignored[:, None], covered, -1.0)
        lies_on = lies_on.amax(2) if objects.shape[1] else scores - scores - 1
        excuses = lies_on[:, None] >= thresholds[:, None]
        excused = excuses[:, 0]
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
            "object_class": torch.where(shown, objects[:, :, 4], torch.nan),
            **_ranked(scores, classes, matches[:, 1:] >= 0, excuses[:, 1:]),
            "found": self._by_place(boxes, hit & shown),
            "shown": self._by_place(boxes, shown),
        }

    def occluded(self, outputs: Tensor, shifts: Tensor, state: State) -> dict[str, Tensor]:
        """Rows of the boxes moved along as the shift would: what it would push out is blank, and is not compared."""
        moved = shaped(outputs, self.shape).clone()
        moved[:, :, :4] = clip_boxes(moved[:, :, :4], self.size) + shifts[:, None, [0, 1, 0, 1]]
        return self.outcome(moved, shifts, state)

    def _by_place(self, boxes: Tensor, chosen: Tensor) -> Tensor:
        """How many of the chosen boxes [n, k, 4] have their centre in each pixel (y, x)."""
        h, w = self.size
        x, y = _centers(boxes)[chosen].floor().long().unbind(-1)
        places = boxes.new_zeros(h * w)
        places.index_add_(0, y.clamp(0, h - 1) * w + x.clamp(0, w - 1), boxes.new_ones(len(x)))
        return places.reshape(h, w)


_OWN = "self_consistency_"
OWN_BY_PLACE = replace(BY_PLACE, name=f"self-consistency {BY_PLACE.name}")


def _own(each: Variable) -> Variable:
    """The same measured against the model's own detections: its name says so."""
    return replace(each, name=f"{_OWN}{each.name}", long_name=f"{each.long_name} (self-consistency)")


@dataclass(frozen=True)
class DetectionConsistency(Detection):
    """Detection without boxes: the model's detections in the unshifted image stand in for the objects.

    Those of a score of at least `score_threshold` are followed. What is measured is called self-consistency: whether
    they are right is not known.
    """

    name: str = "detection-consistency"
    variables: tuple[Variable, ...] = tuple(
        _own(each) if each.dims == WINDOW else each for each in Detection().variables
    )
    dataset_metrics: tuple[Variable, ...] = (_own(AP50), _own(AP))
    by_place: ByPlace | None = OWN_BY_PLACE

    def followed(self, found: Tensor) -> list[NDArray[np.float64]]:
        """The detections [k, (left, top, right, bottom, class)] that stand in for the objects of each image.

        Parameters
        ----------
        found
            Outputs for the unshifted images, as `outcome` takes them.
        """
        tables = shaped(found, self.shape).double()
        boxes = clip_boxes(tables[:, :, :4], self.size)
        chosen = (tables[:, :, 4] >= self.score_threshold) & (box_area(boxes) > 0) & (tables[:, :, 5] >= 0)
        rows = np.concatenate([boxes.cpu().numpy(), tables[:, :, 5:].cpu().numpy()], axis=2)
        return [table[mine] for table, mine in zip(rows, chosen.cpu().numpy(), strict=True)]

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
        """Rows of a batch of detections; see `Detection`."""
        windows = {each.name for each in Detection().variables if each.dims == WINDOW}
        rows = super().outcome(outputs, shifts, state)
        return {f"{_OWN}{name}" if name in windows else name: values for name, values in rows.items()}

    def of_dataset(self, rows: Mapping[str, NDArray[Any]]) -> OfDataset:
        """AP and AP50 against the model's own detections."""
        measured = super().of_dataset(rows)
        return lambda weights: {f"{_OWN}{name}": value for name, value in measured(weights).items()}


def _ranked(scores: Tensor, classes: Tensor, hits: Tensor, ignored: Tensor) -> dict[str, Tensor]:
    """The rows over ranks [window, rank] of detections [window, detection] and flags [window, threshold, detection]."""
    import torch

    there = classes != NO_OBJECT
    rows = {
        "detection_score": torch.where(there, scores, torch.nan),
        "detection_class": torch.where(there, classes, torch.nan),
        "detection_hits": bits(hits),
        "detection_ignored": bits(ignored & ~hits),
    }
    fills = (torch.nan, torch.nan, 0, 0)
    return {
        name: torch.nn.functional.pad(values, (0, MOST_DETECTIONS - values.shape[1]), value=fill)
        for (name, values), fill in zip(rows.items(), fills, strict=True)
    }


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2
