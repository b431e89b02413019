"""The front door for images: `load_images` turns what a user names or holds into an `ImageSet`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from shiftlens.data.coco import open_coco
from shiftlens.data.decode import PICTURE_SUFFIXES
from shiftlens.data.digits import open_digits
from shiftlens.data.example_images import WITHOUT_LABELS, Source
from shiftlens.data.folders import open_folder
from shiftlens.data.image_items import base_of, dataset_of, open_dataset
from shiftlens.data.imageset import ImageSet
from shiftlens.data.label_folders import open_fiftyone, open_masks, open_unlabelled, open_yolo
from shiftlens.data.parquet import open_parquet
from shiftlens.data.scenes import open_scenes
from shiftlens.data.selection import SPLITS, stratified_split
from shiftlens.data.target_items import has_targets, open_target_dataset
from shiftlens.data.torchvision_sets import TARGET_SETS, TORCHVISION_SETS, Say, find_cifar10, open_torchvision
from shiftlens.errors import InputError
from shiftlens.given import as_given
from shiftlens.naming import unknown_name
from shiftlens.paths import entries_of, kind_of, with_home

__all__ = ["DATA_KINDS", "DataKind", "ImageSet", "as_images", "load_images"]

_log = logging.getLogger(__name__)


class DataKind(NamedTuple):
    """A kind of source: how it is written, and what opens it.

    Where `usage` has a colon, something must follow it unless that `is_optional`. `open` gets what stands after the
    colon, the split, the folder in which named sets are looked for first, and who is told what takes long or goes over
    the network.
    """

    usage: str
    open: Callable[[str, str, Path | None, Say], Source]
    is_optional: bool = False

    @property
    def takes_argument(self) -> bool:
        """Whether something follows the colon."""
        return ":" in self.usage


def _cifar10(_: str, split: str, data_root: Path | None, say: Say) -> Source:
    kind, folder = find_cifar10(data_root) or (None, None)
    if kind == "parquet" and folder is not None:
        return open_parquet(folder, split)
    return open_torchvision("CIFAR10", split, data_root, say, root=folder)


DATA_KINDS: dict[str, DataKind] = {
    "digits": DataKind("digits", lambda *_: open_digits()),
    "cifar10": DataKind("cifar10", _cifar10),
    "folder": DataKind("folder:PATH", lambda path, split, *_: open_folder(with_home(path), split)),
    "parquet": DataKind("parquet:PATH", lambda path, split, *_: open_parquet(with_home(path), split)),
    "torchvision": DataKind("torchvision:NAME", open_torchvision),
    "images": DataKind("images:DIR", lambda path, *_: open_unlabelled(path)),
    "coco": DataKind("coco:IMAGES,ANNOTATIONS.json", lambda spec, *_: open_coco(spec)),
    "yolo": DataKind("yolo:DIR", lambda path, split, *_: open_yolo(path, split)),
    "fiftyone": DataKind("fiftyone:DIR", lambda path, *_: open_fiftyone(path)),
    "masks": DataKind("masks:IMAGES,MASKS", lambda spec, split, *_: open_masks(spec, split)),
    "digits-scenes": DataKind("digits-scenes:HxW", lambda size, split, *_: open_scenes(size, split), is_optional=True),
}
"""Every kind of source that has a name. To add one, add a line."""


def load_images(
    spec: str | ImageSet | Dataset[Any] | DataLoader[Any] | tuple[Any, Any],
    *,
    split: str | None = None,
    data_root: str | Path | None = None,
    limit: int | None = None,
    say: Say | None = None,
) -> ImageSet:
    """Open images with labels, masks or boxes.

    Parameters
    ----------
    spec
        `digits`, `cifar10`, `folder:PATH`, `parquet:PATH`, `torchvision:NAME`; with masks or boxes
        `coco:IMAGES,ANNOTATIONS.json`, `yolo:DIR`, `masks:IMAGES,MASKS`, `digits-scenes` (96 x 96 pixels,
        `digits-scenes:HxW` for others); with classes or boxes `fiftyone:DIR`; without labels `images:DIR`; or an object
        that is taken whole: an `ImageSet`, a torch `Dataset` of (image, label), or of (image, target) in torchvision's
        v2 form, one of Hugging Face's `datasets` (columns `image` or `img`, and `label`), without random transforms and
        before normalisation, a `DataLoader` (its dataset is read), or a pair (images, labels) as `ImageSet` takes it.
    split
        `train`, `test` or `all`. Without: a source that declares splits gives its test split (validation where there is
        no other), and one that declares none is used whole; but a model that was trained on that very source is
        evaluated on the part held out: of every class one fifth, seed 0. `train` and `test` of such a source are these
        parts. Objects are taken whole: they are the caller's choice already.
    data_root
        Folder in which `cifar10` and torchvision's sets are looked for before `$SHIFTLENS_DATA`.
    limit
        At most this many pictures: the first of a fixed class-stratified order (seed 0).
    say
        Told before a download starts; the logger of this module (stderr) if not given.

    Returns
    -------
    ImageSet
        Nothing is decoded yet.

    Raises
    ------
    InputError
        An unknown or unreadable source, no pictures, or labels that are not classes; one line that says which.

    Warns
    -----
    UserWarning
        A `DataLoader` does something to its batches, or picks among the pictures, that is not applied.

    Examples
    --------
    >>> load_images("digits", limit=20).batch([0]).shape
    (1, 3, 32, 32)
    """
    if split is not None and split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if isinstance(spec, str):
        root = None if data_root is None else Path(data_root)
        images = _open_named(spec, split, root, say if say is not None else _log.warning)
        images = images.with_options(as_given(split=split, data_root=data_root, limit=limit))
    else:
        images = _open_object(spec)
    return images.limit(limit)


def as_images(images: ImageSet | str, *, split: str | None = None) -> ImageSet:
    """An `ImageSet` as it is, or a spec opened by `load_images`; `InputError` for anything else.

    Of an `ImageSet` that is a source without splits, of which nobody has asked for a part, `split` takes that part.
    """
    if isinstance(images, str):
        return load_images(images, split=split)
    if not isinstance(images, ImageSet):
        raise InputError(f"expected an ImageSet (load_images) or a spec such as 'digits', got {type(images).__name__}")
    part = None if split is None else images.part(split)
    return images if part is None else part


def _open_named(spec: str, split: str | None, data_root: Path | None, say: Say) -> ImageSet:
    kind_name, colon, argument = spec.partition(":")
    kind = DATA_KINDS.get(kind_name)
    usages = [k.usage for k in DATA_KINDS.values()]
    if kind is None:
        raise unknown_name("images", spec, usages, hint=_hint(spec, kind_name, usages))
    if kind.takes_argument and not argument and (colon or not kind.is_optional):
        raise InputError(f"expected {kind.usage}, got {spec!r}")
    if not kind.takes_argument and colon:
        raise InputError(f"expected {kind.usage} and nothing behind it, got {spec!r}")
    source = kind.open(argument, split or "test", data_root, say)
    images = _set_of(source, spec)
    if source.has_splits or split == "all":
        return images
    if split is None:
        return images.unsplit()
    try:
        return images.subset(stratified_split(images.labels, split), named=True)
    except InputError as error:
        raise InputError(f"{spec}: {error}") from error


def _set_of(source: Source, name: str) -> ImageSet:
    return ImageSet(
        source.pictures, source.labels, class_names=source.class_names, name=name, natural_flip=source.natural_flip
    )


def _hint(spec: str, kind_name: str, usages: list[str]) -> str | None:
    """A bare path, or a wrong kind before a colon: what was probably meant."""
    path = Path(spec)
    with contextlib.suppress(InputError):  # a name that cannot be a path is an unknown name, and is said to be
        if spec and kind_of(with_home(path)) == "folder":
            return f"{'images' if _holds_images_only(with_home(path)) else 'folder'}:{spec}"
    if path.suffix == ".parquet":
        return f"parquet:{spec}"
    if spec in TORCHVISION_SETS or spec in TARGET_SETS:
        return f"torchvision:{spec}"
    return next((usage for usage in usages if usage.partition(":")[0] == kind_name.lower()), None)


def _holds_images_only(folder: Path) -> bool:
    """Whether a folder holds images and no folder that could be a class."""
    entries = entries_of(folder)
    return any(entry.suffix.lower() in PICTURE_SUFFIXES for entry in entries) and not any(e.is_dir() for e in entries)


def _open_object(spec: Any) -> ImageSet:
    if isinstance(spec, ImageSet):
        return spec
    if isinstance(spec, tuple):
        if len(spec) != 2:
            raise InputError(f"expected a pair (images, labels), got {len(spec)} values")
        return ImageSet(*spec)
    if isinstance(spec, Path):
        raise InputError(f"expected folder:PATH or parquet:PATH, got the bare path {spec}")
    if isinstance(spec, np.ndarray | torch.Tensor):
        raise InputError(f"expected a pair (images, labels), got {type(spec).__name__} alone; {WITHOUT_LABELS}")
    dataset = dataset_of(spec) if isinstance(spec, DataLoader) else spec
    if isinstance(dataset, ImageSet):
        return dataset
    kind = type(base_of(dataset)).__name__
    if has_targets(dataset):
        return _set_of(open_target_dataset(dataset, kind), kind)
    # A set of digits stays one when it comes as an object.
    return _set_of(open_dataset(dataset, kind)._replace(natural_flip=TORCHVISION_SETS.get(kind, True)), kind)
