"""A short training at a low rate, which lets a net get used to a repair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from shiftlens.data.images import ImageSet, as_images
from shiftlens.data.surveying import Progress
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError
from shiftlens.models.loading import Model, as_model
from shiftlens.models.matching import labelled_for, on_input_grid
from shiftlens.models.probing import scores_of
from shiftlens.naming import one_line, unknown_name
from shiftlens.surgery.healing import Healing, copied
from shiftlens.training.data import Batches, epoch_plan, pixels
from shiftlens.training.machine import compute_dtype, tuned
from shiftlens.training.recipe import DTYPES, Recipe

BATCH = 250
"""Images a step, where a set holds enough of them."""

FEWEST_STEPS = 20
"""An epoch of a smaller set has at least so many steps, ..."""

SMALLEST_BATCH = 16
"""... as long as this many images, enough for batch norm, are left for each."""


@dataclass(frozen=True)
class FineTuning:
    """How a net is fine-tuned: Nesterov SGD at a low rate that falls to 0 in a straight line.

    Attributes
    ----------
    epochs
        Passes over the images, at least 1.
    lr, momentum, weight_decay
        Of every parameter that may be trained; no decay for numbers without a matrix (biases, norms).
    batch
        Images a step. None: 250, and fewer for a set of fewer than 5,000 images, so that an epoch has 20 steps, but
        not fewer than 16.
    shift, flip
        Augmentation: pictures are shifted by up to so many pixels (reflected edges) and mirrored (`alternating`,
        `random` or `none`). None: as the model was trained, where its run says so; else up to the recipe's shift, and
        not mirrored. The net learns these shifts: two nets are compared fairly only when both saw the same.
    label_smoothing
        Share of the target that goes to all classes alike. None: as the model was trained, else 0.
    dtype
        Of the convolutions: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the machine has instructions for
        it. Weights stay as they are.
    """

    epochs: int = 1
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch: int | None = None
    shift: int | None = None
    flip: str | None = None
    label_smoothing: float | None = None
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for what in ("epochs", "batch"):
            value = getattr(self, what)
            if value is not None and value < 1:
                raise InputError(f"{what} must be at least 1, got {value}")
        if self.shift is not None and self.shift < 0:
            raise InputError(f"shift must be at least 0 pixels, got {self.shift}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"lr must be above 0, got {self.lr}")
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)


def check_classes(model: Model, images: ImageSet) -> None:
    """Refuse images of another number of classes than the model's, or of other names; says which."""
    theirs, ours = model.class_names, images.class_names
    if len(ours) != model.n_classes:
        raise InputError(
            f"{images.name} has {len(ours)} classes, {model.name} has {model.n_classes}: not the same task"
        )
    if theirs is not None and images.names_given and tuple(theirs) != tuple(ours):
        k = next(k for k, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        raise InputError(
            f"class {k} is {ours[k]!r} in {images.name} and {theirs[k]!r} in {model.name}: not the same task"
        )
    labelled_for(model, images)


def finetune(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    settings: FineTuning | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Model, Healing]:
    """Train a net a little further on its own classes, at a low rate, so that it gets used to a repair.

    Parameters
    ----------
    model
        Not changed.
    images
        Training images of the model's classes, and in its order.
    settings
        Length, rate, augmentation; `FineTuning()` if not given.
    seed
        Decides order, shifts and mirrors; at least 0.
    device
        `auto`, `cpu` or `cuda`.
    progress
        Called with (steps done, steps in all).

    Returns
    -------
    Model, Healing
        A copy in evaluation mode, and what was done.

    Raises
    ------
    InputError
        Other classes, a model that is no `nn.Module` or has nothing to train, a net that cannot be trained on these
        images, or a loss that is not finite any more.
    """
    started = time.perf_counter()
    settings = settings or FineTuning()
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    model, images = as_model(model, device=device), as_images(images, split="train")
    healed, module = copied(model)
    check_classes(healed, images)
    fitted, size = on_input_grid(healed, images)
    if settings.shift is not None and settings.shift >= min(size):
        raise InputError(
            f"shift must be below the pictures' {min(size)} px, got {settings.shift}: it would leave nothing"
        )
    settings = _as_trained(settings, healed)
    target = resolve_device(device)
    dtype = compute_dtype(settings.dtype, target)
    module.to(target).to(memory_format=torch.channels_last).train()
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise InputError(f"{model.name} has no parameter that may be trained (requires_grad)")
    recipe = replace(Recipe(), crop=settings.shift or 0)
    batches = Batches(pixels(fitted), torch.from_numpy(np.array(fitted.labels)), healed.preprocessing, recipe, target)
    # A last, smaller batch is left out: batch norm cannot learn from one picture.
    batch = min(settings.batch or batch_for(len(fitted)), len(fitted))
    settings = replace(settings, batch=batch)
    per_epoch = len(fitted) // batch
    total = per_epoch * settings.epochs
    matrices: dict[str, Any] = {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay}
    groups = [matrices, {"params": [p for p in trained if p.ndim <= 1]}]
    pace: dict[str, Any] = {"lr": settings.lr, "momentum": settings.momentum, "nesterov": settings.momentum > 0}
    optimiser = torch.optim.SGD(groups, **pace)
    losses = []
    with tuned(target), torch.random.fork_rng(devices=[target] if target.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout and random padding
        for epoch in range(settings.epochs):
            plan = epoch_plan(len(batches), seed, epoch, recipe, settings.flip or "none")
            summed, done = 0.0, epoch * per_epoch
            for k, (x, y) in enumerate(batches.epoch(plan, batch, [size] * per_epoch)):
                for group in optimiser.param_groups:
                    group["lr"] = settings.lr * (1 - (done + k) / total)
                with torch.autocast(target.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                    scores = _tried("the net cannot be trained on these images", lambda x: scores_of(module(x)), x)
                error = F.cross_entropy(scores.float(), y, label_smoothing=settings.label_smoothing or 0.0)
                _tried("the net cannot be trained", error.backward)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                loss = float(error.detach())
                if not math.isfinite(loss):
                    raise InputError(
                        f"fine-tuning diverged at epoch {epoch + 1}, batch {k + 1}: the loss is {loss}; lower lr"
                    )
                summed += loss
                if progress is not None:
                    progress(done + k + 1, total)
            losses.append(summed / per_epoch)
    module.eval()
    facts = Healing("fine-tune", images.name, images.digest, per_epoch * batch, {**asdict(settings), "seed": seed})
    return healed, replace(facts, losses=tuple(losses), seconds=time.perf_counter() - started)


def batch_for(n_images: int) -> int:
    """Images a step for a set of so many images, where nobody says it."""
    return min(BATCH, max(SMALLEST_BATCH, n_images // FEWEST_STEPS))


def _tried(what: str, work: Callable[..., Any], *args: Any) -> Any:
    try:
        return work(*args)
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{what}: {one_line(error)}") from None


def _as_trained(settings: FineTuning, model: Model) -> FineTuning:
    """What is left open, as the model's own training had it."""
    facts, recipe = model.training, Recipe()
    shift, flip = _fact(facts, "augmentation", "shift"), _fact(facts, "augmentation", "mirror")
    smoothing = _fact(facts, "asked", "settings", "recipe", "label_smoothing")
    if settings.shift is None:
        settings = replace(settings, shift=shift if isinstance(shift, int) else recipe.crop)
    if settings.flip is None:
        settings = replace(settings, flip=flip if isinstance(flip, str) else "none")
    if settings.label_smoothing is None:
        settings = replace(settings, label_smoothing=float(smoothing) if isinstance(smoothing, int | float) else 0.0)
    replace(recipe, crop=settings.shift or 0, flip=settings.flip or "none")  # says what is out of range
    return settings


def _fact(found: Any, *keys: str) -> Any:
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
