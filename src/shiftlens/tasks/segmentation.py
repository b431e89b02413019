"""Segmentation: class maps of windows against the true mask, and against the unshifted class map moved along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.tasks.moving import FROM_NET, inner_margin, interior, map_shape, mean_where, moved_maps, shaped
from shiftlens.tasks.outputs import OutputForm
from shiftlens.tasks.task import CLASS, IGNORED_PIXEL, ByPlace, OfDataset, State, Task, Variable, Weights

if TYPE_CHECKING:
    from torch import Tensor


def _share(name: str, long_name: str) -> Variable:
    return Variable(name, "float32", "share", "higher", "number", long_name, bounds=(0, 1), optional=True)


MEAN_IOU = _share("mean_iou", "mean IoU over the classes of a window")
PIXEL_ACCURACY = _share("pixel_accuracy", "share of pixels of the right class")
MASK_AGREEMENT = _share("pixel_agreement", "share of pixels of the class that the unshifted image has there")
INTERIOR_AGREEMENT = _share("interior_agreement", "agreement away from every border")
INTERSECTION = Variable("intersection", "uint32", "pixels", long_name="pixels of a class that are right", dims=CLASS)
UNION = Variable("union", "uint32", "pixels", long_name="pixels of a class in the mask or the prediction", dims=CLASS)
DATASET_IOU = Variable(
    "dataset_mean_iou", "float64", "share", "higher", "number", "mean IoU over the classes of the data set",
    bounds=(0, 1), optional=True, needs=("intersection", "union"),
)  # fmt: skip
CHANGED = Variable("changed", "float64", long_name="windows whose class differs from the reference", dims=("y", "x"))
SEEN = Variable("seen", "float64", long_name="windows with content from inside the frame", dims=("y", "x"))

BY_PLACE = ByPlace("share of pixels whose class changes", "changed", "seen", "share", "lower")


@dataclass(frozen=True)
class Segmentation(Task):
    """Logits [window, class, h, w] to shares of pixels.

    Compared is what shows content that is in the frame before and after the shift. Masks hold class numbers, 255 where
    a pixel counts for nothing; without masks the measures that need them are NaN.

    Attributes
    ----------
    margin
        Pixels from every border of either frame beyond which `interior_agreement` begins; by default as far as the
        receptive field reaches to a side. Never more than a quarter of the frame: the interior of a net that sees
        further is not free of the border.
    shape
        [class, h, w] of a window's logits, which the engine hands over as one row; () where they come as they are.

    Examples
    --------
    >>> mask = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]])
    >>> logits = nn.functional.one_hot(mask).permute(0, 3, 1, 2).float()  # right everywhere
    >>> task = Segmentation()
    >>> rows = task.outcome(logits, torch.tensor([[0, 0]]), task.prepare(logits, mask))
    >>> rows["mean_iou"].item(), rows["pixel_agreement"].item()
    (1.0, 1.0)
    """

    margin: int = FROM_NET
    shape: tuple[int, ...] = ()
    name: str = "segmentation"
    uses: Literal["masks", "boxes"] | None = "masks"
    needs_reference: bool = True
    needs_shifts: bool = True
    by_place: ByPlace | None = BY_PLACE
    variables: tuple[Variable, ...] = (
        MEAN_IOU, PIXEL_ACCURACY, MASK_AGREEMENT, INTERIOR_AGREEMENT, INTERSECTION, UNION, CHANGED, SEEN,
    )  # fmt: skip
    dataset_metrics: tuple[Variable, ...] = (DATASET_IOU,)

    @property
    def settings(self) -> dict[str, Any]:
        """The margin."""
        return {"margin": self.margin}

    @property
    def axes(self) -> dict[str, int]:
        """The model's classes."""
        return {"class": self.shape[0]} if self.shape else {}

    def fitted(self, form: OutputForm, size: tuple[int, int]) -> Segmentation:
        """For a model with a map of logits of at least two classes."""
        n_classes, *grid = map_shape(form, size, self.name)
        if n_classes < 2:
            raise InputError("segmentation needs logits of at least 2 classes, the model gives a single map of numbers")
        return replace(self, shape=(n_classes, *grid), margin=inner_margin(self.margin, size))

    def targets(self, labels: NDArray[np.int64], values: NDArray[Any] | None) -> NDArray[Any]:
        """The masks; without any, masks of which no pixel counts."""
        if values is not None:
            return values
        return np.full((len(labels), *self.shape[1:]), IGNORED_PIXEL, dtype=np.uint8)

    def refuse_unfit(self, highest: NDArray[np.int64], name: str) -> None:
        """Refuse masks with a class that the model does not have."""
        n_classes = self.shape[0]
        if (highest >= n_classes).any():
            image = int(np.argmax(highest >= n_classes))
            raise InputError(
                f"the mask of image {image} of {name} has class {highest[image]}, the model "
                f"has the classes 0 to {n_classes - 1}; {IGNORED_PIXEL} marks pixels that count for nothing"
            )

    def of_dataset(self, rows: Mapping[str, NDArray[Any]]) -> OfDataset:
        """Mean over the classes of the IoU over all pixels of all images."""
        common, union = (rows[name].astype(np.float64) for name in ("intersection", "union"))

        def measured(weights: Weights) -> dict[str, float]:
            pixels = weights @ union
            there = pixels > 0
            shares = (weights @ common)[there] / pixels[there]
            return {"dataset_mean_iou": float(shares.mean()) if there.any() else float("nan")}

        return measured

    def mirrored(self, targets: Tensor) -> Tensor:
        """The masks, mirrored."""
        return targets.flip(-1)

    def metrics(self, *, labelled: bool) -> tuple[Variable, ...]:
        """Mean IoU first where there are masks, else agreement with the unshifted image."""
        without = (MASK_AGREEMENT, INTERIOR_AGREEMENT)
        return (MEAN_IOU, PIXEL_ACCURACY, *without) if labelled else without

    def prepare(self, reference: Tensor, targets: Tensor) -> State:
        """The reference's class maps and the masks, both [image, h, w]."""
        import torch

        # Whole numbers of two bytes: these maps are copied for every window.
        reference = shaped(reference, self.shape)
        return {"reference": classes_of(reference), "mask": targets.to(torch.int16)}

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
        """Rows of a batch of logits; see the class."""
        assert shifts is not None
        outputs = shaped(outputs, self.shape)
        predicted = classes_of(outputs)
        reference, valid = moved_maps(state["reference"], shifts)
        mask, _ = moved_maps(state["mask"], shifts)
        same, judged = predicted == reference, valid & (mask != IGNORED_PIXEL)
        n_classes = outputs.shape[1]
        common, union = class_pixels(predicted, mask, judged, n_classes)
        return {
            "mean_iou": mean_iou(common, union),
            "pixel_accuracy": mean_where(predicted == mask, judged),
            "pixel_agreement": mean_where(same, valid),
            "interior_agreement": mean_where(same, interior(valid, shifts, self.margin)),
            "intersection": common[:, :n_classes],
            "union": union[:, :n_classes],
            "changed": (valid & ~same).sum(0).double(),
            "seen": valid.sum(0).double(),
        }

    def occluded(self, outputs: Tensor, shifts: Tensor, state: State) -> dict[str, Tensor]:
        """Rows of the maps moved along as the shift would: what it would push out is blank, and is not compared."""
        return self.outcome(moved_maps(shaped(outputs, self.shape), shifts)[0], shifts, state)


def class_pixels(predicted: Tensor, mask: Tensor, judged: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Pixels [n, class] that have a class in mask and prediction of a window, and in one of the two.

    Parameters
    ----------
    predicted, mask
        Classes [n, h, w].
    judged
        Pixels [n, h, w] that count.
    n_classes
        Of the prediction; a mask's class beyond them is never predicted.
    """
    import torch

    n = len(predicted)
    n_all = max(n_classes, int(torch.where(judged, mask, 0).max()) + 1 if mask.numel() else 0)
    # One class more, in which falls what does not count.
    first = (torch.arange(n, dtype=torch.int32, device=mask.device) * (n_all + 1))[:, None, None]

    def counts(classes: Tensor, chosen: Tensor) -> Tensor:
        codes = torch.where(chosen, classes, n_all) + first
        return torch.bincount(codes.flatten(), minlength=n * (n_all + 1)).reshape(n, n_all + 1)[:, :n_all]

    common = counts(mask, judged & (mask == predicted))
    return common, counts(mask, judged) + counts(predicted, judged) - common


def mean_iou(common: Tensor, union: Tensor) -> Tensor:
    """Mean IoU [n] over the classes that have pixels in `union` [n, class]; NaN where none has."""
    import torch

    there = union > 0
    return torch.where(there, common.double() / union.clamp(min=1), 0.0).sum(1) / there.sum(1)


def classes_of(logits: Tensor) -> Tensor:
    """The best class [n, h, w] of logits [n, class, h, w], in whole numbers of two bytes."""
    import torch

    # `max` finds the place several times faster than `argmax` does.
    return logits.max(1).indices.to(torch.int16)
