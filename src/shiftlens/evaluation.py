"""One shift: accuracy and loss of a model on images, or the metrics of another task, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.data.images import ImageSet
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.adapting import (
    TaskModel,
    adapted,
    refuse_unfit_targets,
    targets_of,
    task_for,
    with_gallery,
    with_own_detections,
)
from shiftlens.models.loading import Model, model_and_images
from shiftlens.models.matching import MAX_PIXELS, LabelMap, labelled_for, on_input_grid, scores_for, targets_for
from shiftlens.models.probing import evaluating
from shiftlens.naming import Printed, of_source
from shiftlens.progress_bar import shows_progress
from shiftlens.shifts import Fill, Shift, translate
from shiftlens.stats import mean_interval, wilson
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.scores import Score, scores_of
from shiftlens.tasks.stored_form import known_task
from shiftlens.tasks.task import Task

MAX_OUTPUTS = 2**26
"""Most numbers in the outputs of a batch: maps of many classes are large."""
BATCH_TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest, between an image in a batch and by itself."""


@dataclass(frozen=True, repr=False)
class Evaluation(Printed):
    """A model's accuracy and loss on `n` images under one shift.

    `accuracy` and `per_class` are shares from 0 to 1 (None for a class without images), intervals are 95 % (Wilson for
    shares, Student's t for the loss; None for one image), `loss` is the mean cross-entropy in nats; `model` and `data`
    name what was evaluated, `n_source` is how many images the source holds of which these are `n`.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    loss: float
    loss_interval: tuple[float, float] | None
    n: int
    per_class: dict[str, float | None]
    shift: Shift
    fill: str
    model: str
    data: str
    n_source: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens evaluate --json`."""
        facts = {name: value for name, value in vars(self).items() if name != "n_source"}
        return facts | {
            "accuracy_interval": list(self.accuracy_interval),
            "loss_interval": None if self.loss_interval is None else list(self.loss_interval),
            "shift": [self.shift.dx, self.shift.dy],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        low, high = (100 * v for v in self.accuracy_interval)
        spread = "" if self.loss_interval is None else " [{:.4f}, {:.4f}]".format(*self.loss_interval)
        seen = {name: share for name, share in self.per_class.items() if share is not None}
        worst = min(seen, key=lambda name: seen[name])
        which = f"weakest class: {worst}" if seen[worst] < max(seen.values()) else "every class:"
        return [
            f"{self.model} on {self.data}: accuracy {100 * self.accuracy:.2f} % [{low:.2f}, {high:.2f}], "
            f"loss {self.loss:.4f} nats{spread} ({of_source(self.n, self.n_source)}, "
            f"shift ({self.shift.dx}, {self.shift.dy}), fill {self.fill})",
            f"{which} {100 * seen[worst]:.1f} %",
        ]


@dataclass(frozen=True, repr=False)
class TaskEvaluation(Printed):
    """A model's metrics of a task on `n` images under one shift.

    `scores` are by the metric's name, each with its 95 % interval over images; those that need masks are left out where
    there are none. `shift`, `fill`, `model`, `data` and `n_source` are as in `Evaluation`.
    """

    task: str
    scores: dict[str, Score]
    n: int
    shift: Shift
    fill: str
    model: str
    data: str
    n_source: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens evaluate --json`."""
        facts: dict[str, Any] = {"task": self.task}
        for name, score in self.scores.items():
            interval = None if score.interval is None else list(score.interval)
            value = score.value if np.isfinite(score.value) else None
            facts |= {name: value, f"{name}_interval": interval, f"{name}_n": score.n}
        shift = [self.shift.dx, self.shift.dy]
        return facts | {"n": self.n, "shift": shift, "fill": self.fill, "model": self.model, "data": self.data}

    def lines(self) -> list[str]:
        """The same for people."""
        shift = f"shift ({self.shift.dx}, {self.shift.dy}), fill {self.fill}"
        head = f"{self.model} on {self.data}, {self.task} ({of_source(self.n, self.n_source)}, {shift}):"
        return [head, *(score.line(self.n) for score in self.scores.values())]


@overload
def evaluate(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    *,
    shift: Shift = ...,
    fill: str | float | Fill = ...,
    device: str = ...,
    batch_size: int | None = ...,
    label_map: LabelMap | str | Path | None = ...,
    task: Literal["classification"] = ...,
    progress: Callable[[int, int], None] | None = ...,
) -> Evaluation: ...


@overload
def evaluate(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    *,
    shift: Shift = ...,
    fill: str | float | Fill = ...,
    device: str = ...,
    batch_size: int | None = ...,
    label_map: LabelMap | str | Path | None = ...,
    task: Task | str,
    progress: Callable[[int, int], None] | None = ...,
) -> Evaluation | TaskEvaluation: ...


@shows_progress("evaluating", "images")
def evaluate(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    *,
    shift: Shift = Shift(0, 0),  # noqa: B008 - frozen
    fill: str | float | Fill = "black",
    device: str = "auto",
    batch_size: int | None = None,
    label_map: LabelMap | str | Path | None = None,
    task: Task | str = "classification",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation | TaskEvaluation:
    """Evaluate every image under one shift, in float32.

    Parameters
    ----------
    model, images
        A `Model`, an `nn.Module` or a spec, and an `ImageSet` or a spec; images of another size are resized and
        cropped to the model's.
    shift
        Pixels on the model's input grid: dx right, dy down.
    fill
        What enters; see `shifts.Fill`.
    device
        `auto`, `cpu` or `cuda`.
    batch_size
        Images in a forward pass; by default as many as fit. A model whose answer depends on the other images of its
        batch is refused, unless every image is evaluated by itself: 1.
    label_map
        From the images' classes to the model's; see `models.matching.labelled_for`.
    task
        What is measured: the name of a task, or a `Task`. Of all but classification the result is a `TaskEvaluation`.
    progress
        Called with (images done, images in all).

    Raises
    ------
    InputError
        No images, a label beyond the model's classes, a fill that does not fit the channels, or a model whose answer
        depends on the batch; a model or images that the task has no use for.
    ModelOutputError
        The model raised or gave scores that are not finite; the images are named.

    Examples
    --------
    >>> found = evaluate("runs/vgg", sl.load_images("digits", limit=20), shift=Shift(dx=4, dy=0))
    >>> found.n, found.shift, len(found.per_class)
    (20, Shift(dx=4, dy=0), 10)
    >>> low, high = found.accuracy_interval
    >>> low <= found.accuracy <= high
    True
    """
    parsed, target, task = Fill.parse(fill), resolve_device(device), known_task(task)
    model, images = model_and_images(model, images, device=device)
    images, size = on_input_grid(model, images)
    model = model.at(size)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"a batch holds at least one image, got batch-size {batch_size}")
    if task.name == CLASSIFICATION.name:
        images = labelled_for(model, images, label_map)
    else:
        images = targets_for(model, images, task.uses, label_map)
        model, task = adapted(model, task_for(task, images), size)
        refuse_unfit_targets(task, images)
        images = with_own_detections(model, images, task)
    batch = batch_size or max(1, min(MAX_PIXELS // (size[0] * size[1]), MAX_OUTPUTS // model.n_classes))
    if isinstance(model.module, nn.Module):
        model.module.to(target)
    with evaluating(model.module), torch.no_grad():
        batches = _batches(model, images, shift, parsed, target, batch, progress)
        if task.name != CLASSIFICATION.name:
            task = with_gallery(model, task, images, size)
            rows = _task_rows(model, images, shift, task, batches)
            labelled = task.uses is None or (images.targets is not None and task.uses in images.targets.kind)
            scores = scores_of(task, rows, images.index, labelled=labelled)
            facts = (len(images), shift, parsed.name, model.name, images.name, images.n_source)
            return TaskEvaluation(task.name, scores, *facts)
        losses = np.empty(len(images))
        right = np.empty(len(images), dtype=np.bool_)
        for positions, _, logits in batches:
            labels = torch.from_numpy(images.labels[positions]).to(target)
            losses[positions] = nn.functional.cross_entropy(logits, labels, reduction="none").cpu().numpy()
            right[positions] = (logits.argmax(1) == labels).cpu().numpy()
    odd = images.index[~np.isfinite(losses)]
    if len(odd):
        named = ", ".join(str(i) for i in odd[:10].tolist())
        raise ModelOutputError(f"the loss is not finite for images {named} (position in the source)")
    n = len(losses)
    low, high = wilson(right.sum(), n)
    interval = None
    if n > 1:
        _, lower, upper, _ = mean_interval(losses.sum(), np.square(losses).sum(), n)
        interval = (max(float(lower), 0.0), float(upper))
    class_names = model.class_names or images.class_names
    of_class = {name: right[images.labels == k] for k, name in enumerate(class_names)}
    per_class = {name: float(values.mean()) if len(values) else None for name, values in of_class.items()}
    return Evaluation(
        accuracy=float(right.mean()),
        accuracy_interval=(float(low), float(high)),
        loss=float(losses.mean()),
        loss_interval=interval,
        n=n,
        per_class=per_class,
        shift=shift,
        fill=parsed.name,
        model=model.name,
        data=images.name,
        n_source=images.n_source,
    )


def _batches(
    model: Model,
    images: ImageSet,
    shift: Shift,
    fill: Fill,
    device: torch.device,
    batch: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Yield places [n], normalised pixels [n, c, h, w] and outputs [n, k] of the shifted pixels, a batch at a time."""
    for start in range(0, len(images), batch):
        positions = np.arange(start, min(start + batch, len(images)))
        x = model.preprocessing.normalise(torch.from_numpy(images.batch(positions)).to(device))
        shifted = _shifted(x, shift, fill, model)
        outputs = scores_for(model, shifted, images.index[positions])
        if start == 0 and len(x) > 1:
            _refuse_batch_dependent(model, shifted, outputs, images.index[positions])
        yield positions, x, outputs
        if progress is not None:
            progress(int(positions[-1]) + 1, len(images))


def _task_rows(
    model: Model,
    images: ImageSet,
    shift: Shift,
    task: Task,
    batches: Iterator[tuple[NDArray[np.int64], Tensor, Tensor]],
) -> dict[str, NDArray[Any]]:
    """The task's variables of every image [n], or [n, k] where they have an axis."""
    parts: dict[str, list[NDArray[Any]]] = {each.name: [] for each in task.variables if not each.is_accumulator}
    for positions, x, outputs in batches:
        reference = scores_for(model, x, images.index[positions]) if task.needs_reference else None
        targets = np.array(targets_of(images, task, slice(positions[0], positions[-1] + 1)))
        state = task.prepare(reference, torch.from_numpy(targets).to(x.device))
        rows = task.outcome(outputs, torch.tensor([(shift.dx, shift.dy)], device=x.device).expand(len(x), 2), state)
        for name, values in parts.items():
            values.append(rows[name].cpu().numpy())
    return {name: _joined(values) for name, values in parts.items()}


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Rows of batches together; where batches have different numbers of objects, NaN fills up."""
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    most = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, most - part.shape[1])), constant_values=np.nan) for part in parts])


def _shifted(x: Tensor, shift: Shift, fill: Fill, model: Model) -> Tensor:
    if not fill.is_constant:
        return translate(x, shift.dx, shift.dy, fill)
    p = model.preprocessing
    return translate(x, shift.dx, shift.dy, fill.normalised(p.mean, p.std))


def _refuse_batch_dependent(model: Model, x: Tensor, scores: Tensor, index: NDArray[np.int64]) -> None:
    """Compare the logits [n, k] of some images of a batch with those of each of them by itself."""
    # Detections of nearly the same score may stand in another order.
    compared = (model.compared if isinstance(model, TaskModel) else None) or (lambda values: values)
    for k in {0, len(x) // 2, len(x) - 1}:
        # Beside its own copy: some nets take no batch of one.
        alone = scores_for(model, x[[k, k]], index[[k, k]])[0]
        found, own = (compared(values[None]) for values in (scores[k], alone))
        difference = float((found - own).abs().max()) / max(float(own.abs().max()), 1e-12)
        if difference > BATCH_TOLERANCE:
            raise InputError(
                f"the answer of {model.name} for image {index[k]} depends on the other images of its batch (alone its "
                f"logits differ by {difference:.2g} of the largest): evaluate every image by itself (--batch-size 1, "
                "batch_size=1), or make it independent of the batch"
            )
