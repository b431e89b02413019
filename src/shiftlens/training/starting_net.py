"""The net that a training begins with: the recipe's VGG, or one of the user's own and how it is built again."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shiftlens.data.images import ImageSet
from shiftlens.errors import InputError
from shiftlens.models.digests import structure
from shiftlens.models.named_code import MADE_IN_PYTHON, named_factory, own_net
from shiftlens.models.probing import scores_of
from shiftlens.models.zoo import LIBRARIES
from shiftlens.naming import one_line
from shiftlens.nn.vgg import VGG
from shiftlens.paths import kind_of
from shiftlens.training.optimiser import initialise
from shiftlens.training.recipe import Stage, TrainSettings

NET_SETTINGS = ("arch", "padding", "downsample", "head", "width")
"""Settings that say which VGG is built, and nothing about another net."""


@dataclass(frozen=True)
class OwnNet:
    """A net in place of the recipe's VGG; `build` and `code` are those of `save_run`."""

    module: nn.Module
    name: str
    build: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None

    def asked(self, settings: TrainSettings) -> dict[str, Any]:
        """What a resumed run must agree on: which net it is, and no VGG's settings. The checkpoint has its weights."""
        net = {"name": self.name, "structure": hashlib.sha256(structure(self.module).encode()).hexdigest()}
        kept = {name: value for name, value in settings.to_dict().items() if name not in NET_SETTINGS}
        return {"module": net, "settings": kept}


def fresh_vgg(settings: TrainSettings, seed: int, n_classes: int, n_channels: int) -> VGG:
    """The VGG that the settings name, at the recipe's start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = VGG(
            n_classes=n_classes,
            in_channels=n_channels,
            size=settings.size,
            **{name: getattr(settings, name) for name in NET_SETTINGS},
        )
        initialise(net, settings.recipe)
    return net


def own_net_of(module: nn.Module | str | Path, n_classes: int) -> OwnNet:
    """A copy of a net, or the net of a factory or library, for so many classes.

    A library's net has random weights; a factory's those that the factory sets. `InputError`: a spec of something else.
    """
    if isinstance(module, nn.Module):
        name = type(module).__name__
        try:
            return OwnNet(copy.deepcopy(module), name, {"factory": f"{MADE_IN_PYTHON}{name}"})
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{name} cannot be copied ({one_line(error)}): train an object of its own") from None
    spec = str(module)
    kind, _, rest = spec.partition(":")
    if kind in LIBRARIES and rest:
        net = LIBRARIES[kind].net(rest, n_classes)
        return OwnNet(net, spec, {"factory": spec, "kwargs": {"num_classes": n_classes}})
    where, colon, factory = spec.rpartition(":")
    if not colon or not factory.isidentifier() or kind == "pretrained":
        how = "; train it further with repair --finetune-epochs" if kind_of(spec) == "folder" else ""
        raise InputError(
            f"train: expected file.py:factory, package.module:factory, torchvision:NAME or timm:NAME, got {spec}{how}"
        )
    return OwnNet(own_net(where, factory), spec, {"factory": named_factory(spec)}, where)


def fitting(settings: TrainSettings | None, images: ImageSet) -> TrainSettings:
    """Settings for a net that may be tied to one size: the images' own without settings, and no smaller stages."""
    if settings is None:
        if images.size is None:
            raise InputError(f"the images of {images.name} differ in size: give the net's (TrainSettings(size=))")
        settings = TrainSettings(size=images.size)
    return replace(settings, recipe=replace(settings.recipe, stages=(Stage(1.0, 1.0),)))


def check_scores(net: nn.Module, name: str, size: tuple[int, int], n_channels: int, n_classes: int) -> None:
    """Refuse a net that does not take the images, or gives other than one score a class; on two blank images."""
    net.eval().cpu()
    try:
        with torch.no_grad():
            scores = scores_of(net(torch.zeros(2, n_channels, *size)))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"{name} does not take images of {n_channels} x {size[0]} x {size[1]} (--size, size=): {one_line(error)}"
        ) from None
    if scores.shape[1] != n_classes:
        raise InputError(f"{name} gives {scores.shape[1]} scores, the images have {n_classes} classes")
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise InputError(f"{name} has no parameter that may be trained (requires_grad)")
