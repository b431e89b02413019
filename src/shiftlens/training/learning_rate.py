"""When what happens: steps, learning rate and picture size as pure functions, and the fit to a time budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shiftlens.errors import InputError
from shiftlens.nn.vgg import ARCHITECTURES
from shiftlens.training.recipe import Recipe, TrainSettings

RESERVE = 0.04
"""Share of a time budget that is kept back: the measured steps are a sample, the machine has other work."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Schedule:
    """The whole course of a run, fixed before its first step and stored, so that a resumed run keeps it.

    `batch` is in images; `sizes` are (first step, (h, w)) of each stage, ascending; `warmup` is the share of steps with
    a rising learning rate.
    """

    batch: int
    n_steps: int
    steps_per_epoch: int
    sizes: tuple[tuple[int, Size], ...]
    warmup: float

    @property
    def n_epochs(self) -> int:
        """Epochs, the last of which may be cut short."""
        return math.ceil(self.n_steps / self.steps_per_epoch)

    def steps_of(self, epoch: int) -> range:
        """Steps (from 0) of an epoch (from 0)."""
        return range(epoch * self.steps_per_epoch, min((epoch + 1) * self.steps_per_epoch, self.n_steps))

    def factor(self, step: int) -> float:
        """Learning rate of a step as a share of its peak: a straight line up, then a straight line down to 0."""
        at, rise = step + 0.5, self.warmup * self.n_steps
        return at / rise if at < rise else (self.n_steps - at) / (self.n_steps - rise)

    def size(self, step: int) -> Size:
        """(h, w) of the pictures at a step."""
        return next(size for first, size in reversed(self.sizes) if step >= first)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return vars(self) | {"sizes": [[first, list(size)] for first, size in self.sizes]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Schedule:
        """Read what `to_dict` gives."""
        sizes = tuple((int(first), (int(h), int(w))) for first, (h, w) in plain["sizes"])
        return cls(**{**plain, "sizes": sizes})


def batch_size(recipe: Recipe, n: int) -> int:
    """Images a step for a set of `n`: the recipe's, or less where an epoch would have too few steps."""
    return max(1, min(recipe.batch, n // recipe.min_steps_per_epoch, n))


def stage_sizes(settings: TrainSettings) -> list[tuple[float, Size]]:
    """Share of the steps and (h, w) of each stage, in order."""
    least = 2 ** (ARCHITECTURES[settings.arch])  # so that the last level still sees more than one cell
    full, stages = settings.size, settings.recipe.stages
    whole = sum(stage.share for stage in stages)
    found: list[tuple[float, Size]] = []
    for stage in stages:
        size = (round(full[0] * stage.scale), round(full[1] * stage.scale))
        if min(size) < least or settings.head == "flatten":
            size = full
        found.append((stage.share / whole, size))
    return found


def _pace(settings: TrainSettings, n: int) -> tuple[int, int]:
    """Images a step, and steps an epoch."""
    batch = batch_size(settings.recipe, n)
    return batch, max(1, n // batch)


def plan(settings: TrainSettings, n: int, n_steps: int | None = None) -> Schedule:
    """The schedule for `n` images; `n_steps` where a time budget has decided it."""
    recipe, (batch, per_epoch) = settings.recipe, _pace(settings, n)
    if n_steps is None:
        epochs = settings.epochs
        if epochs is None:
            epochs = max(recipe.default_epochs, math.ceil(recipe.min_steps / per_epoch))
        n_steps = epochs * per_epoch
    sizes: list[tuple[int, Size]] = []
    begin = 0.0
    for share, size in stage_sizes(settings):
        if not sizes or sizes[-1][1] != size:
            sizes.append((round(begin * n_steps), size))
        begin += share
    return Schedule(batch, n_steps, per_epoch, tuple(sizes), recipe.warmup)


def _rounded_up(minutes: float) -> float:
    """To two digits."""
    scale: float = 10.0 ** (1 - math.floor(math.log10(minutes)))
    return math.ceil(minutes * scale) / scale


def steps_within(
    seconds: float, step_seconds: Mapping[Size, float], epoch_seconds: float, settings: TrainSettings, n: int
) -> int:
    """How many steps fit into a time, of which each epoch's look at validation images and checkpoint takes a part.

    `step_seconds` were measured at each size of `stage_sizes`. Refused where not even one epoch fits.
    """
    batch, per_epoch = _pace(settings, n)
    mean_step = sum(share * step_seconds[size] for share, size in stage_sizes(settings))
    n_steps = int((seconds * (1 - RESERVE)) / (mean_step + epoch_seconds / per_epoch))
    if n_steps < per_epoch:
        needed = (per_epoch * mean_step + epoch_seconds) / (1 - RESERVE)
        shortest = _rounded_up(1.1 * (60 * (settings.minutes or 0) - seconds + needed) / 60)
        raise InputError(
            f"a budget of {settings.minutes:g} minutes is too short for one epoch: {per_epoch} steps of {batch} images "
            f"take {needed / 60:.2g} minutes on this machine, {max(seconds, 0) / 60:.2g} are left after preparations. "
            f"The shortest that works is about --minutes {shortest:g}"
        )
    return n_steps
