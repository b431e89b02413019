"""A model and images brought together: the right size and channels, and labels that mean the same to both."""

from __future__ import annotations

import importlib
import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.data.imageset import ImageSet
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.given import as_given
from shiftlens.models.probing import scores_of
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line, printable, unknown_name

_log = logging.getLogger(__name__)

MOST_CLASSES = 10_000
"""Class numbers below this, where a model does not say how many it has."""

N_LOOKED_AT = 16
"""Images that are looked at to tell whether a set is in colour."""

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
    if images.n_channels != model.n_channels and model.n_channels == 1 and _in_colour(images):
        warnings.warn(  # of this line, so that the same images are warned of once
            f"the images of {images.name} are in colour, the model takes one channel: they are turned grey",
            stacklevel=1,
        )
    images, wanted = shown_as(images, model.n_channels, model.preprocessing), model.preprocessing.size
    if wanted is not None:
        return images, wanted
    if images.size is None:
        raise InputError(
            f"{images.name}: the images are of mixed sizes and the model names no input size; give one (--input-size)"
        )
    return images, images.size


def _in_colour(images: ImageSet) -> bool:
    """Whether any of a few images, spread over the set, has a pixel with other than three equal channels."""
    few = np.unique(np.linspace(0, len(images) - 1, N_LOOKED_AT).astype(np.int64))
    pictures = (images.batch([k]) for k in few)
    return any(bool((pixels != pixels[:, :1]).any()) for pixels in pictures)


def shown_as(images: ImageSet, n_channels: int, rule: Preprocessing) -> ImageSet:
    """The images as a model with this preprocessing sees them: its channels, its size where it names one."""
    if images.n_channels != n_channels:
        images = images.with_channels(n_channels)
    if rule.size is None or (images.size == rule.size and rule.resize in (None, min(rule.size), rule.size)):
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


LabelMap = Mapping[str, str | int]
"""From each class of the images, by name, to the model's class, by name or number."""


def targets_for(
    model: Model, images: ImageSet, kind: str | None, label_map: LabelMap | str | Path | None = None
) -> ImageSet:
    """The images with the model's class numbers in their "masks" or "boxes".

    Without a map, the classes of boxes are matched by name where both sides have names and the model knows the name of
    every class that has a box. Otherwise class k is the model's class k.

    Raises
    ------
    InputError
        A class that is none of the model's, where its number of classes is known; a map without one of the classes; a
        map where the task reads no classes of these images.

    Warns
    -----
    UserWarning
        Classes were matched by name, to other numbers.
    """
    targets = None if images.targets is None or kind is None else images.targets.only(kind)
    if targets is None:
        if label_map is not None:
            why = "this task uses no classes of the images" if kind is None else f"{images.name} has no {kind}"
            raise InputError(f"a label map (--label-map) has nothing to map: {why}; leave it out")
        return images
    known = tuple(model.class_names or ())
    known = () if known == _numbers(len(known)) else known
    there = sorted(targets.classes) if label_map is not None or (known and kind == "boxes") else []
    names = {k: images.class_names[k] if k < len(images.class_names) else str(k) for k in there}
    if label_map is not None:
        table = _mapped_numbers(names, _read_map(label_map), known, model.name, len(known) or None)
        return images.renumbered(table).with_options(as_given(label_map=label_map))
    if known and images.names_given and there:
        places = {k: _places(name, known) for k, name in names.items()}
        unique = {k: found[0] for k, found in places.items() if len(found) == 1}
        if len(unique) == len(there):
            if all(k == place for k, place in unique.items()):
                return images
            shown = ", ".join(f"{names[k]} is class {unique[k]}" for k in there[:3])
            warnings.warn(
                printable(f"{images.name}: classes are matched by name: {shown}{', ...' if len(there) > 3 else ''}"),
                stacklevel=3,
            )
            return images.renumbered(unique)
    if known and kind == "boxes":
        targets.refuse_classes_beyond(len(known), images.name, model.name)
    return images


def labelled_for(model: Model, images: ImageSet, label_map: LabelMap | str | Path | None = None) -> ImageSet:
    """The images with the model's class numbers as labels.

    Without a map, classes are matched by name where both sides have names and the model knows every name that images
    have (upper and lower case, `_` and `-` do not matter; one of several names with commas between is enough; a folder
    may bear an ImageNet synset such as n01440764 where timm is installed). Otherwise label k is the model's class k.

    Parameters
    ----------
    model, images
        Brought together by `on_input_grid`.
    label_map
        From each class name of the images to a class of the model, by name or number; or a JSON file of such an object.

    Raises
    ------
    InputError
        A label that is no class of the model; class names of which the model knows some under other numbers and some
        not at all; a map without one of the classes, or with something that is no class of the model.

    Warns
    -----
    UserWarning
        Labels were matched by name. Or both sides were given names and have none in common, or fewer classes than the
        model, without names to match: nothing then says that the labels mean the same to both. Names of a model that
        are only the classes' numbers say nothing, and do not count as given.
    """
    if not images.labelled:
        kind = None if images.targets is None else images.targets.kind
        but = "" if kind is None else f" but {kind}"
        which = "; name the task, such as --task detection" if kind == "boxes" else ""
        which = "; name the task, such as --task segmentation" if kind == "masks" else which
        raise InputError(
            f"{images.name} has no class labels{but}: classification needs one for each image, other tasks none{which}"
        )
    known = tuple(model.class_names or ())
    known = () if known == _numbers(len(known)) else known
    if label_map is not None:
        mapped = _mapped(images, _read_map(label_map), known, model)
        return mapped.with_options(as_given(label_map=label_map))
    if known and images.names_given:
        there = [images.class_names[k] for k in np.unique(images.labels)]
        places = {name: _places(name, known) for name in there}
        unique = {name: found[0] for name, found in places.items() if len(found) == 1}
        if len(unique) == len(there):
            if all(images.class_names.index(name) == k for name, k in unique.items()):
                return images
            shown = ", ".join(f"{name} is class {unique[name]} ({known[unique[name]]})" for name in there[:3])
            warnings.warn(
                printable(f"{images.name}: classes are matched by name: {shown}{', ...' if len(there) > 3 else ''}"),
                stacklevel=3,
            )
            return images.relabelled([unique[images.class_names[k]] for k in images.labels], known)
    _check_labels(model, images)
    return images


def _places(name: str, known: tuple[str, ...]) -> list[int]:
    """The model's classes of that name: by the whole name if there is one, else by one of several."""
    wanted = _plain(name)
    whole = [k for k, each in enumerate(known) if _plain(each) == wanted]
    if whole or re.fullmatch(r"n\d{8}", name) is None:
        return whole or [k for k, each in enumerate(known) if wanted in map(_plain, each.split(","))]
    synsets = _imagenet_synsets()
    return [synsets.index(name)] if len(known) == len(synsets) and name in synsets else []


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _imagenet_synsets() -> list[str]:
    try:
        data: Any = importlib.import_module("timm.data")
    except ImportError:
        return []
    return [str(name) for name in data.ImageNetInfo().label_names()]


def _read_map(given: LabelMap | str | Path) -> LabelMap:
    if isinstance(given, Mapping):
        return given
    try:
        content = json.loads(Path(given).read_bytes())
    except OSError as error:
        raise InputError(f"label map {given} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"label map {given} is no readable JSON: {one_line(error)}") from None
    if not isinstance(content, dict) or not all(isinstance(v, str | int) for v in content.values()):
        raise InputError(f'label map {given} must be a JSON object such as {{"cat": "tabby cat", "dog": 207}}')
    return content


def _mapped(images: ImageSet, label_map: LabelMap, known: tuple[str, ...], model: Model) -> ImageSet:
    there = {label: images.class_names[label] for label in np.unique(images.labels).tolist()}
    numbers = _mapped_numbers(there, label_map, known, model.name, model.n_classes)
    names = known or _numbers(model.n_classes)
    return images.relabelled([numbers[label] for label in images.labels.tolist()], names)


def _mapped_numbers(
    there: Mapping[int, str], label_map: LabelMap, known: tuple[str, ...], model: str, n_classes: int | None
) -> dict[int, int]:
    """The model's class number of each class of the images, which are named in `there`."""
    numbers: dict[int, int] = {}
    for label, name in there.items():
        if name not in label_map:
            raise unknown_name("class in the label map", name, list(label_map))
        target = label_map[name]
        found = _places(target, known) if isinstance(target, str) else [target]
        if len(found) != 1 or isinstance(target, bool) or found[0] < 0 or not found[0] < (n_classes or MOST_CLASSES):
            why = "several of its classes" if len(found) > 1 else "no class"
            of = "" if n_classes is None else f", of {n_classes}"
            raise InputError(f"label map: {target!r} (for {name!r}) is {why} of {model}{of}")
        numbers[label] = found[0]
    return numbers


def _check_labels(model: Model, images: ImageSet) -> None:
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
                "score would be wrong; put the images' classes in the model's order, or give a label map (--label-map)"
            )
    if not images.names_given:
        return
    n_named = len(images.class_names)
    if known and known != _numbers(len(known)) and not set(known) & set(images.class_names):
        warnings.warn(
            f"{images.name} ({_some(images.class_names)}) and {model.name} ({_some(known)}) share no class name: "
            "label k is taken as the model's class k; a label map says otherwise (--label-map)",
            stacklevel=4,
        )
    elif not known and n_named < n_classes // 2 and images.class_names != _numbers(n_named):
        warnings.warn(
            f"{images.name} has {n_named} classes and {model.name} {n_classes} without names: label k is "
            "taken as the model's class k; a label map says otherwise (--label-map)",
            stacklevel=4,
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


def _numbers(n: int) -> tuple[str, ...]:
    return tuple(str(k) for k in range(n))


def _some(names: tuple[str, ...]) -> str:
    return printable(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))
