"""One shift: accuracy and loss of a model on images, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.data.images import ImageSet
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import Model, model_and_images
from shiftlens.models.matching import MAX_PIXELS, LabelMap, labelled_for, on_input_grid, scores_for
from shiftlens.models.probing import evaluating
from shiftlens.naming import Printed, of_source
from shiftlens.progress_bar import shows_progress
from shiftlens.shifts import Fill, Shift, translate
from shiftlens.stats import mean_interval, wilson

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
        return [
            f"{self.model} on {self.data}: accuracy {100 * self.accuracy:.2f} % [{low:.2f}, {high:.2f}], "
            f"loss {self.loss:.4f} nats{spread} ({of_source(self.n, self.n_source)} images, "
            f"shift ({self.shift.dx}, {self.shift.dy}), fill {self.fill})",
            f"weakest class: {worst} {100 * seen[worst]:.1f} %",
        ]


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
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
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
    progress
        Called with (images done, images in all).

    Raises
    ------
    InputError
        No images, a label beyond the model's classes, a fill that does not fit the channels, or a model whose answer
        depends on the batch.
    ModelOutputError
        The model raised or gave scores that are not finite; the images are named.
    """
    parsed, target = Fill.parse(fill), resolve_device(device)
    model, images = model_and_images(model, images, device=device)
    images, (h, w) = on_input_grid(model, images)
    model = model.at((h, w))
    images = labelled_for(model, images, label_map)
    losses = np.empty(len(images))
    right = np.empty(len(images), dtype=np.bool_)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"a batch holds at least one image, got batch-size {batch_size}")
    batch = batch_size or max(1, MAX_PIXELS // (h * w))
    if isinstance(model.module, nn.Module):
        model.module.to(target)
    with evaluating(model.module), torch.no_grad():
        for start in range(0, len(images), batch):
            positions = np.arange(start, min(start + batch, len(images)))
            x = model.preprocessing.normalise(torch.from_numpy(images.batch(positions)).to(target))
            scores = scores_for(model, _shifted(x, shift, parsed, model), images.index[positions])
            if start == 0 and len(x) > 1:
                _refuse_batch_dependent(model, _shifted(x, shift, parsed, model), scores, images.index[positions])
            labels = torch.from_numpy(images.labels[positions]).to(target)
            losses[positions] = nn.functional.cross_entropy(scores, labels, reduction="none").cpu().numpy()
            right[positions] = (scores.argmax(1) == labels).cpu().numpy()
            if progress is not None:
                progress(int(positions[-1]) + 1, len(images))
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


def _shifted(x: Tensor, shift: Shift, fill: Fill, model: Model) -> Tensor:
    if not fill.is_constant:
        return translate(x, shift.dx, shift.dy, fill)
    p = model.preprocessing
    return translate(x, shift.dx, shift.dy, fill.normalised(p.mean, p.std))


def _refuse_batch_dependent(model: Model, x: Tensor, scores: Tensor, index: NDArray[np.int64]) -> None:
    """Compare the logits [n, k] of some images of a batch with those of each of them by itself."""
    for k in {0, len(x) // 2, len(x) - 1}:
        # Beside its own copy: some nets take no batch of one.
        alone = scores_for(model, x[[k, k]], index[[k, k]])[0]
        difference = float((scores[k] - alone).abs().max()) / max(float(alone.abs().max()), 1e-12)
        if difference > BATCH_TOLERANCE:
            raise InputError(
                f"the answer of {model.name} for image {index[k]} depends on the other images of its batch (alone its "
                f"logits differ by {difference:.2g} of the largest): evaluate every image by itself (--batch-size 1, "
                "batch_size=1), or make it independent of the batch"
            )
