"""A model and images brought together: the right size and channels, and labels that mean the same to both."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.data.imageset import ImageSet
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.probing import scores_of
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line, printable

_log = logging.getLogger(__name__)

MAX_PIXELS = 2**18
"""Most pixels in one batch (256 pictures of 32 x 32)."""


def on_input_grid(model: Model, images: ImageSet) -> tuple[ImageSet, tuple[int, int]]:
    """The images with the model's channels and input size, and that size `(h, w)` in pixels.

    `InputError`: no images, images of mixed sizes without a size to bring them to, or no model or image set. Colour
    that is turned grey for a model of one channel is a warning.
    """
    if not isinstance(model, Model):
        raise InputError(f"expected a Model (load_model, wrap), got {type(model).__name__}")
    if not isinstance(images, ImageSet):
        raise InputError(f"expected an ImageSet (load_images), got {type(images).__name__}")
    if len(images) == 0:
        raise InputError(f"{images.name}: expected at least one image, got none")
    if images.n_channels != model.n_channels and model.n_channels == 1:
        warnings.warn(
            f"{images.name} is in colour and {model.name} takes 1 channel: the images are turned grey", stacklevel=2
        )
    images, wanted = shown_as(images, model.n_channels, model.preprocessing), model.preprocessing.size
    if wanted is not None:
        return images, wanted
    if images.size is None:
        raise InputError(
            f"{images.name}: the images are of mixed sizes and the model names no input size; give one (--input-size)"
        )
    return images, images.size


def shown_as(images: ImageSet, n_channels: int, rule: Preprocessing) -> ImageSet:
    """The images as a model with this preprocessing sees them: its channels, its size where it names one."""
    if images.n_channels != n_channels:
        images = images.with_channels(n_channels)
    if rule.size is None or (images.size == rule.size and rule.resize in (None, min(rule.size))):
        return images  # untouched, and with the same digest as for a model that names no size
    return images.fitted(rule.size, rule.resize, rule.interpolation)


def held_out(model: Model, images: ImageSet) -> ImageSet:
    """The part of a source without splits that was left out when this model was trained on it; else the same images."""
    asked, healed = model.training.get("asked"), model.training.get("healed")
    tables = [asked, *(healed if isinstance(healed, list | tuple) else ())]
    keys = ("images", "validation", "digest")
    learnt = {str(table[key]) for table in tables if isinstance(table, Mapping) for key in keys if key in table}
    test = None
    with suppress(InputError):  # no class twice: nobody can have trained on a part of them
        parts = [images.part(split, limited=False) for split in ("train", "test")] if learnt else []
        if learnt & {images.name, *(part.digest for part in parts if part is not None)}:
            test = images.part("test")
    if test is None:
        return images
    _log.info(
        f"{model.name} was trained on a part of {images.name}: {len(test):,} of {images.n_source:,} images, those that "
        "were held out then are used (--split all for all)"
    )
    return test


def check_labels(model: Model, images: ImageSet) -> None:
    """Refuse images whose labels mean nothing to the model.

    `InputError`: a label that is no class of the model, or class names that both sides know under different numbers. A
    warning: both sides were given names of their classes and have none in common, so nothing says that the labels mean
    the same to both. Names of a model that are only the classes' numbers do not count as given.
    """
    labels, n_classes = images.labels, model.n_classes
    beyond = np.unique(labels[(labels < 0) | (labels >= n_classes)]).tolist()
    if beyond:
        names = images.class_names or ()
        shown = ", ".join(f"{b} ({names[b]})" if 0 <= b < len(names) else str(b) for b in beyond[:5])
        raise InputError(
            f"{images.name}: expected labels from 0 to {n_classes - 1} (the classes of {model.name}), "
            f"got {shown}{', ...' if len(beyond) > 5 else ''}"
        )
    known = model.class_names or ()
    times = Counter(known)
    places = {name: place for place, name in enumerate(known) if times[name] == 1}
    for place, name in enumerate(images.class_names or ()):
        if places.get(name, place) != place:
            raise InputError(
                f"class {name!r} has number {place} in {images.name} and number {places[name]} in {model.name}: every "
                "score would be wrong; put the images' classes in the model's order"
            )
    numbers = tuple(str(k) for k in range(len(known)))
    if known and known != numbers and images.names_given and not set(known) & set(images.class_names):
        warnings.warn(
            f"{images.name} ({_some(images.class_names)}) and {model.name} ({_some(known)}) share no class name "
            "(upper and lower case differ): label k is taken as the model's class k",
            stacklevel=3,
        )


def scores_for(model: Model, x: Tensor, index: NDArray[np.int64]) -> Tensor:
    """Finite float32 scores [n, k] of normalised images [n, c, h, w], whose positions in the source are `index` [n].

    `ModelOutputError` names the images: the model raised, or gave scores that are not finite.
    """
    try:
        scores = scores_of(model.module(x)).float()
    except ModelOutputError:
        raise
    except Exception as error:
        raise ModelOutputError(
            f"the model raised {type(error).__name__} on images {index[0]} to {index[-1]}: {one_line(error)}"
        ) from error
    bad = index[~torch.isfinite(scores).all(dim=1).cpu().numpy()]
    if len(bad):
        named = ", ".join(str(i) for i in bad[:10].tolist())
        raise ModelOutputError(f"the model gave scores that are not finite for images {named} (position in the source)")
    return scores


def _some(names: tuple[str, ...]) -> str:
    return printable(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))
