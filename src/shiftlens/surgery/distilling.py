"""Self-distillation: a repaired net is trained to give the output of the net that it was made of."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from shiftlens.data.images import ImageSet, as_images
from shiftlens.data.surveying import Progress
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import Model, as_model
from shiftlens.models.matching import on_input_grid
from shiftlens.nn.batch_renorm import BatchRenorm2d
from shiftlens.surgery.healing import Healing, copied
from shiftlens.tasks.outputs import form_of, numbers_of


def distill(
    model: Model | nn.Module | str | Path,
    teacher: Model | nn.Module | str | Path,
    images: ImageSet | str,
    *,
    epochs: int = 1,
    lr: float = 1e-4,
    batch: int = 8,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Model, Healing]:
    """Train a net to give another net's output for whole images; no labels are needed.

    The loss is the mean squared difference over the variance of the teacher's output. Adam, its rate falling to 0 in a
    straight line; a rate of 1e-3 undid more in its first steps than it won back (docs/tiles.md). Batch renorm is in
    training mode; all else is as in inference.

    Parameters
    ----------
    model
        The repaired net; not changed.
    teacher
        The net that it was made of.
    images
        Whole images, at the model's input size.
    epochs, lr, batch
        Passes over the images, rate at the start, images a step.
    seed
        Of the order of the images.
    device
        `auto`, `cpu` or `cuda`.
    progress
        Called with (steps done, steps in all).

    Returns
    -------
    Model, Healing
        A copy in evaluation mode, and what was done; `losses` are shares of the variance of the teacher's output.

    Raises
    ------
    InputError
        Outputs of different shapes or no tensors, nothing that may be trained, or a loss that is not finite any more.

    Examples
    --------
    >>> import shiftlens as sl
    >>> net = sl.wrap(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.InstanceNorm2d(2)), mean=0.5, std=0.25)
    >>> fixed, _ = sl.repair(net, norm="batch-renorm")
    >>> images = ImageSet(np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16), np.uint8), [0] * 8)
    >>> tuned, facts = distill(fixed, net, images, epochs=2)
    >>> facts.kind, len(facts.losses)
    ('distillation', 2)
    """
    started = time.perf_counter()
    if epochs < 1 or batch < 1 or not (math.isfinite(lr) and lr > 0):
        raise InputError(f"expected epochs and batch of at least 1 and lr above 0, got {epochs}, {batch} and {lr}")
    model, teacher = as_model(model, device=device), as_model(teacher, device=device)
    healed, module = copied(model)
    _, truth = copied(teacher)
    images, _ = on_input_grid(healed, as_images(images, split="train"))
    target = resolve_device(device)
    module.to(target).eval()
    truth.to(target).eval()
    for part in module.modules():
        if isinstance(part, BatchRenorm2d):
            part.train()
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise InputError(f"{model.name} has no parameter that may be trained (requires_grad)")
    optimiser = torch.optim.Adam(trained, lr=lr)
    starts = range(0, len(images), batch)
    total, losses, generator = epochs * len(starts), [], np.random.default_rng(seed)
    for epoch in range(epochs):
        order, summed = generator.permutation(len(images)), 0.0
        for k, start in enumerate(starts):
            done = epoch * len(starts) + k
            optimiser.param_groups[0]["lr"] = lr * (1 - done / total)
            shown = torch.from_numpy(images.batch(np.sort(order[start : start + batch]))).to(target)
            x = healed.preprocessing.normalise(shown)
            with torch.no_grad():
                wanted = _output(truth, x, teacher.name)
            made = _output(module, x, model.name)
            if made.shape != wanted.shape:
                raise InputError(f"{model.name} gives {list(made.shape)}, {teacher.name} {list(wanted.shape)}")
            error = (made - wanted).square().mean() / wanted.var().clamp_min(1e-12)
            optimiser.zero_grad(set_to_none=True)
            error.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if not math.isfinite(float(error.detach())):
                raise InputError(f"distillation diverged at epoch {epoch + 1}, batch {k + 1}; lower lr")
            summed += float(error.detach())
            if progress is not None:
                progress(done + 1, total)
        losses.append(summed / len(starts))
    module.eval()
    settings = {"epochs": epochs, "lr": lr, "batch": batch, "seed": seed, "teacher": teacher.name}
    facts = Healing("distillation", images.name, images.digest, len(images), settings, tuple(losses))
    return healed, replace(facts, seconds=time.perf_counter() - started)


def _output(module: nn.Module, x: Tensor, name: str) -> Tensor:
    try:
        raw = module(x)
        return numbers_of(raw, form_of(raw, len(x))).float()
    except ModelOutputError as error:
        raise InputError(f"{name}: {error}") from None
