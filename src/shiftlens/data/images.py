"""The front door for images: `load_images` turns what a user names or holds into an `ImageSet`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch.utils.data import DataLoader, Dataset

from shiftlens.data.digits import open_digits
from shiftlens.data.example_images import Pictures
from shiftlens.data.folders import open_folder
from shiftlens.data.image_items import base_of, dataset_of, open_dataset
from shiftlens.data.imageset import ImageSet
from shiftlens.data.parquet import open_parquet
from shiftlens.data.selection import SPLITS, stratified_split
from shiftlens.data.torchvision_sets import TORCHVISION_SETS, find_cifar10, open_torchvision
from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.paths import kind_of, with_home

__all__ = ["DATA_KINDS", "DataKind", "ImageSet", "Request", "as_images", "load_images"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a kind of source is asked for.

    Attributes
    ----------
    spec
        The whole text, which becomes the set's name.
    argument
        What stands after the colon.
    split
        `train` or `test`.
    data_root
        Where named sets are looked for first.
    say
        Told what takes long or goes over the network.
    """

    spec: str
    argument: str
    split: str
    data_root: Path | None
    say: Callable[[str], None]


@dataclass(frozen=True)
class DataKind:
    """A kind of source: how it is written, and what opens it."""

    usage: str
    open: Callable[[Request], ImageSet]

    @property
    def takes_argument(self) -> bool:
        """Whether something follows the colon."""
        return ":" in self.usage


def _set_of(
    request: Request,
    pictures: Pictures,
    labels: Int64[np.ndarray, " n"],
    class_names: list[str] | None,
    chosen: Int64[np.ndarray, " k"] | None,
    *,
    natural_flip: bool = True,
) -> ImageSet:
    """The part of a source that was asked for: its own split, or ours where it has none."""
    everything = ImageSet.from_pictures(
        pictures, labels, class_names=class_names, name=request.spec, natural_flip=natural_flip
    )
    if chosen is None:
        try:
            chosen = stratified_split(everything.labels, request.split)
        except InputError as error:
            raise InputError(f"{request.spec}: {error}") from error
    return everything if len(chosen) == len(everything) else everything.subset(chosen)


def _digits(request: Request) -> ImageSet:
    pictures, labels, names = open_digits()
    return _set_of(request, pictures, labels, names, None, natural_flip=False)


def _cifar10(request: Request) -> ImageSet:
    found = find_cifar10(request.data_root)
    if found is not None and found[0] == "parquet":
        return _set_of(request, *open_parquet(found[1], request.split))
    return _torchvision_set(request, "CIFAR10", None if found is None else found[1])


def _folder(request: Request) -> ImageSet:
    return _set_of(request, *open_folder(with_home(request.argument), request.split))


def _parquet(request: Request) -> ImageSet:
    return _set_of(request, *open_parquet(with_home(request.argument), request.split))


def _torchvision(request: Request) -> ImageSet:
    return _torchvision_set(request, request.argument, None)


def _torchvision_set(request: Request, name: str, root: Path | None) -> ImageSet:
    pictures, labels, names = open_torchvision(name, request.split, request.data_root, request.say, root=root)
    whole = np.arange(len(labels), dtype=np.int64)
    return _set_of(request, pictures, labels, names, whole, natural_flip=TORCHVISION_SETS[name])


DATA_KINDS: dict[str, DataKind] = {
    "digits": DataKind("digits", _digits),
    "cifar10": DataKind("cifar10", _cifar10),
    "folder": DataKind("folder:PATH", _folder),
    "parquet": DataKind("parquet:PATH", _parquet),
    "torchvision": DataKind("torchvision:NAME", _torchvision),
}
"""Every kind of source that has a name. To add one, add a line."""


def load_images(
    spec: str | ImageSet | Dataset[Any] | DataLoader[Any] | tuple[Any, Any],
    *,
    split: str = "test",
    data_root: str | Path | None = None,
    limit: int | None = None,
    say: Callable[[str], None] | None = None,
) -> ImageSet:
    """Open images with labels.

    Parameters
    ----------
    spec
        `digits`, `cifar10`, `folder:PATH`, `parquet:PATH` or `torchvision:NAME`; or an object that is taken whole: an
        `ImageSet`, a torch `Dataset` of (image, label) without random transforms and before normalisation, a
        `DataLoader` (its dataset is read), or a pair (images, labels) as `ImageSet` takes it.
    split
        `train` or `test`. A named source without splits is split by class, 80 to 20, with seed 0; one without a test
        split gives its validation split. Objects are taken whole: they are the caller's choice already.
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
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if isinstance(spec, str):
        root = None if data_root is None else Path(data_root)
        images = _open_named(spec, split, root, say if say is not None else _log.warning)
    else:
        images = _open_object(spec)
    return images.limit(limit)


def as_images(images: ImageSet | str, *, split: str = "test") -> ImageSet:
    """What a public function takes for images, as an `ImageSet`: a spec is opened by `load_images`.

    Raises
    ------
    InputError
        Something else (`load_images` takes more), or what `load_images` refuses.
    """
    if isinstance(images, str):
        return load_images(images, split=split)
    if not isinstance(images, ImageSet):
        raise InputError(f"expected an ImageSet (load_images) or a spec such as 'digits', got {type(images).__name__}")
    return images


def _open_named(spec: str, split: str, data_root: Path | None, say: Callable[[str], None]) -> ImageSet:
    kind_name, colon, argument = spec.partition(":")
    kind = DATA_KINDS.get(kind_name)
    usages = [k.usage for k in DATA_KINDS.values()]
    if kind is None:
        raise unknown_name("images", spec, usages, hint=_hint(spec, kind_name, usages))
    if kind.takes_argument and not argument:
        raise InputError(f"expected {kind.usage}, got {spec!r}")
    if not kind.takes_argument and colon:
        raise InputError(f"expected {kind.usage} and nothing behind it, got {spec!r}")
    return kind.open(Request(spec, argument, split, data_root, say))


def _hint(spec: str, kind_name: str, usages: list[str]) -> str | None:
    """A bare path, or a wrong kind before a colon: what was probably meant."""
    path = Path(spec)
    with contextlib.suppress(InputError):  # a name that cannot be a path is an unknown name, and is said to be
        if spec and kind_of(with_home(path)) == "folder":
            return f"folder:{spec}"
    if path.suffix == ".parquet":
        return f"parquet:{spec}"
    if spec in TORCHVISION_SETS:
        return f"torchvision:{spec}"
    return next((usage for usage in usages if usage.partition(":")[0] == kind_name.lower()), None)


def _open_object(spec: Any) -> ImageSet:
    if isinstance(spec, ImageSet):
        return spec
    if isinstance(spec, tuple):
        if len(spec) != 2:
            raise InputError(f"expected a pair (images, labels), got {len(spec)} values")
        return ImageSet(*spec)
    if isinstance(spec, Path):
        raise InputError(f"expected folder:PATH or parquet:PATH, got the bare path {spec}")
    dataset = dataset_of(spec) if isinstance(spec, DataLoader) else spec
    if isinstance(dataset, ImageSet):
        return dataset
    kind = type(base_of(dataset)).__name__
    pictures, labels, names = open_dataset(dataset, kind)
    # A set of digits stays one when it comes as an object.
    return ImageSet.from_pictures(
        pictures, labels, class_names=names, name=kind, natural_flip=TORCHVISION_SETS.get(kind, True)
    )
