"""What a training run is asked for: the net, how long, and the recipe. Frozen, plain JSON both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.nn.vgg import check_names

OPTIMISERS = ("muon", "sgd")
FLIPS = ("alternating", "random", "none")
DTYPES = ("auto", "float32", "bfloat16")
_LATER = ("cutout", "cutmix")
"""Numbers that older runs do not know: unsaid where they are off, so that those are gone on with."""


@dataclass(frozen=True)
class Stage:
    """A part of the training at one size of picture: its share of all steps, and the side relative to the full one."""

    share: float
    scale: float


@dataclass(frozen=True)
class Recipe:
    """Every number of the recipe; the defaults were chosen on held-out training images (docs/training.md).

    Attributes
    ----------
    optimiser
        Of the filters from the second convolution on: `muon`, steps with orthogonal matrices (K. Jordan et al., 2024),
        or `sgd`. All else is trained by Nesterov SGD.
    batch
        Images a step; smaller sets take fewer, so that an epoch has at least `min_steps_per_epoch` steps.
    lr, momentum
        Of those filters. Muon keeps each filter bank at a fixed norm, so `lr` is an angle rather than a length.
    lr_first, lr_scale, lr_shift, lr_head
        Peak learning rates of the first convolution, batch-norm weights, batch-norm biases and the linear layer.
    momentum_rest
        Nesterov momentum of these.
    weight_decay
        Decoupled, of filters under `sgd`, of the first convolution and the linear layer: each step takes
        `lr * weight_decay` of them away. Batch norm has none.
    warmup
        Share of the steps in which the rates rise from 0; after it they fall to 0 in a straight line.
    label_smoothing
        Share of the target that goes to all classes alike.
    flip
        `alternating`: each image is mirrored in every second epoch, half of them in the even ones, so that two epochs
        show each image both ways; `random` or `none`. Used only where a mirrored picture keeps its class.
    crop
        Pictures are shifted by up to this many pixels to each side, with reflected edges.
    cutout
        Side in pixels of a square, anywhere, that each picture loses to the mean colour; 0: none.
    cutmix
        Share of the pictures of which a rectangle, of any size and anywhere, shows another picture of the batch; the
        target is shared by area. 0: none.
    stages
        Sizes of picture in the course of training; the last is the full size. A stage too small for the net is
        trained at full size, and so are all when the head ties the net to one size.
    identity_init
        Convolutions start as the identity on their first channels, with PyTorch's own start for the others.
    head_start
        Standard deviation of the scores' weights at the start, times the square root of the number of features.
    norm_momentum
        Of batch norm's running mean and variance: large, since a short training leaves little time to average.
    min_steps, min_steps_per_epoch
        For small sets: the least number of steps in a default run, and of steps in an epoch.
    default_epochs
        Passes over the images when neither epochs nor minutes are given (more if `min_steps` asks for it).
    """

    optimiser: str = "muon"
    batch: int = 500
    lr: float = 0.24
    momentum: float = 0.6
    lr_first: float = 0.01
    lr_scale: float = 0.01
    lr_shift: float = 0.05
    lr_head: float = 0.0006
    momentum_rest: float = 0.9
    weight_decay: float = 0.0
    warmup: float = 0.1
    label_smoothing: float = 0.2
    flip: str = "alternating"
    crop: int = 2
    cutout: int = 0
    cutmix: float = 0.0
    stages: tuple[Stage, ...] = (Stage(0.2, 0.5), Stage(0.3, 0.75), Stage(0.5, 1.0))
    identity_init: bool = True
    head_start: float = 0.11
    norm_momentum: float = 0.4
    min_steps: int = 200
    min_steps_per_epoch: int = 14
    default_epochs: int = 20

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise unknown_name("optimiser", self.optimiser, OPTIMISERS)
        if self.flip not in FLIPS:
            raise unknown_name("flip", self.flip, FLIPS)
        for what in ("batch", "min_steps", "min_steps_per_epoch", "default_epochs"):
            if getattr(self, what) < 1:
                raise InputError(f"{what} must be at least 1, got {getattr(self, what)}")
        for what in ("crop", "cutout"):
            if getattr(self, what) < 0:
                raise InputError(f"{what} must be at least 0 pixels, got {getattr(self, what)}")
        if not 0 <= self.cutmix <= 1:
            raise InputError(f"cutmix must be a share from 0 to 1, got {self.cutmix}")
        for what in ("warmup", "label_smoothing", "momentum", "momentum_rest"):
            if not 0 <= getattr(self, what) < 1:
                raise InputError(f"{what} must be from 0 to below 1, got {getattr(self, what)}")
        if not self.stages or self.stages[-1].scale != 1 or any(s.share <= 0 or s.scale <= 0 for s in self.stages):
            raise InputError(f"stages need shares and scales above 0 and must end at scale 1, got {self.stages}")


@dataclass(frozen=True)
class TrainSettings:
    """What decides a run, beside images and seed.

    Attributes
    ----------
    arch, padding, downsample, head, size, width
        Of the net: see `shiftlens.nn.vgg.VGG`.
    epochs
        Passes over the images; default: the recipe's.
    minutes
        Instead of `epochs`: the schedule is fitted to this time on this machine, from a few measured steps.
    flip
        Whether mirrored pictures may be shown; default: what the images say (`ImageSet.natural_flip`).
    dtype
        `float32`, `bfloat16` (of the convolutions; weights stay float32) or `auto`: bfloat16 where the machine has
        instructions for it.
    glance
        Most validation images looked at after an epoch that is not the last; the last is measured on all of them. 0:
        none, so that a test set is looked at once.
    recipe
        All other numbers.
    """

    arch: str = "vgg8"
    padding: str = "zeros"
    downsample: str = "max"
    head: str = "gap"
    size: tuple[int, int] = (32, 32)
    width: int = 64
    epochs: int | None = None
    minutes: float | None = None
    flip: bool | None = None
    dtype: str = "auto"
    glance: int = 1000
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        check_names(self.arch, self.downsample, self.head, self.padding)
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)
        if self.epochs is not None and self.minutes is not None:
            raise InputError("epochs and minutes exclude each other: a time budget decides the number of epochs")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"epochs must be at least 1, got {self.epochs}")
        if self.glance < 0:
            raise InputError(f"glance must be at least 0 images, got {self.glance}")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise InputError(f"minutes must be above 0, got {self.minutes}")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        plain = asdict(self)
        plain["size"] = list(self.size)
        for name in _LATER:
            if not plain["recipe"][name]:
                del plain["recipe"][name]
        plain["recipe"]["stages"] = [[stage.share, stage.scale] for stage in self.recipe.stages]
        return plain


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say in which settings two runs differ, as `name: stored, asked`; both as `TrainSettings.to_dict` gives them."""
    found: list[str] = []
    for name in [*stored, *(name for name in asked if name not in stored)]:
        a, b = stored.get(name), asked.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name} was {a}, now {b}")
    return found
