"""What makes a repaired net whole again, cheaply: new batch-norm statistics."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from shiftlens.data.images import ImageSet, as_images
from shiftlens.data.surveying import Progress
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError, NoEffectWarning
from shiftlens.given import CHANGED
from shiftlens.models.loading import Model, as_model
from shiftlens.models.matching import on_input_grid
from shiftlens.models.probing import evaluating
from shiftlens.naming import count_of

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
MAX_PIXELS = 2**18
"""Most pixels in one batch of a re-estimation (256 pictures of 32 x 32)."""


@dataclass(frozen=True)
class Healing:
    """What was done to a net after its repair, as plain facts.

    Attributes
    ----------
    kind
        `batch norm`, `fine-tune` or `distillation`.
    images, digest, n_images
        What it was shown.
    settings
        Every number that decides it.
    losses
        Mean training loss of each epoch; empty for batch norm.
    seconds
        Time that it took.
    """

    kind: str
    images: str
    digest: str
    n_images: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "losses": list(self.losses)}

    @property
    def steps(self) -> int:
        """Steps of the optimiser, over all epochs; 0 for batch norm."""
        return len(self.losses) * -(-self.n_images // self.settings["batch"]) if self.losses else 0

    def __str__(self) -> str:
        """For people."""
        said = [f"{self.kind}: {count_of(self.n_images, 'image')} of {self.images}"]
        if self.losses:
            epochs = count_of(len(self.losses), "epoch")
            said.append(f"{epochs} of {count_of(self.steps // len(self.losses), 'step')}")
        if "flip" in self.settings:
            said.append("no mirror images" if self.settings["flip"] == "none" else "with mirror images")
        if self.losses:
            rose = " (it rose: measure the copy before you use it)" if self.losses[-1] > self.losses[0] else ""
            said.append(f"loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f}{rose}")
        return ", ".join([*said, f"{self.seconds:.1f} s"])


def reestimate(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Model, Healing]:
    """Measure the means and variances of every batch norm again, with the padding that the net has now.

    One pass over the images as they are, without augmentation, in batches of a drawn order; each statistic is the mean
    over the batches. Nothing is learnt: weights, and all other layers, stay as they are.

    Parameters
    ----------
    model
        Not changed.
    images
        Training images; labels are not looked at. A thousand are plenty.
    seed
        Of the order.
    device
        `auto`, `cpu` or `cuda`.
    progress
        Called with (images done, images in all).

    Returns
    -------
    Model, Healing
        A copy, and what was done.

    Raises
    ------
    InputError
        Fewer than 2 images, or a model that is no `nn.Module`.

    Warns
    -----
    NoEffectWarning
        The net has no batch norm that keeps statistics.
    """
    started = time.perf_counter()
    model, images = as_model(model, device=device), as_images(images, split="train")
    healed, module = copied(model)
    pictures, (h, w) = on_input_grid(healed, images)
    if len(pictures) < 2:
        raise InputError(f"batch norm needs at least 2 images to measure a variance, got {len(pictures)}")
    norms: list[Any] = [part for part in module.modules() if isinstance(part, _NORMS) and part.running_mean is not None]
    if not norms:
        warnings.warn(
            "the net has no batch norm that keeps statistics: nothing to estimate", NoEffectWarning, stacklevel=2
        )
    target = resolve_device(device)
    module.to(target)
    order = np.random.default_rng(seed).permutation(len(pictures))
    batch = min(len(order), max(2, MAX_PIXELS // (h * w)))
    starts = range(0, len(order) - batch + 1, batch)
    before = [(norm, norm.momentum, norm.training) for norm in norms]
    with torch.no_grad(), evaluating(module):
        for norm in norms:  # statistics begin anew and are averaged evenly
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for start in starts if norms else ():
            chosen = order[start : start + batch]
            shown = pictures.batch(np.sort(chosen))
            module(healed.preprocessing.normalise(torch.from_numpy(shown).to(target)))
            if progress is not None:
                progress(start + batch, len(order))
        for norm, momentum, training in before:
            norm.momentum, norm.training = momentum, training
    seen = len(starts) * batch if norms else 0
    facts = Healing("batch norm", images.name, images.digest, seen, {"seed": seed, "batch": batch})
    return healed, replace(facts, seconds=time.perf_counter() - started)


def copied(model: Model) -> tuple[Model, nn.Module]:
    """The same model around a copy of its net."""
    if not isinstance(model.module, nn.Module):
        raise InputError(f"{model.name} is a plain callable: it has no weights that could be changed")
    module = copy.deepcopy(model.module)
    return replace(model, module=module, options=CHANGED), module
