"""`torchvision:NAME` and `cifar10`: sets that torchvision can read and fetch, and where they are looked for."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
from filelock import FileLock

from shiftlens.data.example_images import ArrayPictures, Source, as_labels
from shiftlens.data.target_items import open_target_dataset
from shiftlens.errors import InputError
from shiftlens.naming import distinct, one_line, unknown_name
from shiftlens.paths import kind_of, with_home

Say = Callable[[str], None]

TORCHVISION_SETS: dict[str, bool] = {
    "CIFAR10": True,
    "CIFAR100": True,
    "FashionMNIST": True,
    "KMNIST": False,
    "MNIST": False,
    "USPS": False,
}
"""Sets that need no more than a root, a split and leave to download, and whether a mirrored picture keeps its class."""

TARGET_SETS = {
    "VOCDetection": ("VOCdevkit/VOC2012", {"train": "train", "test": "val", "all": "trainval"}),
    "VOCSegmentation": ("VOCdevkit/VOC2012", {"train": "train", "test": "val", "all": "trainval"}),
}
"""Sets with boxes or masks: the folder that says that they are there, and their name of each split."""

_CIFAR_FOLDER = "cifar-10-batches-py"


def data_folders(data_root: Path | None) -> list[Path]:
    """Folders in which named sets are looked for: the one given, then `$SHIFTLENS_DATA`."""
    folders = [] if data_root is None else [with_home(data_root)]
    from_environment = os.environ.get("SHIFTLENS_DATA")
    if from_environment:
        folders.append(with_home(from_environment))
    return folders


def cache_folder() -> Path:
    """Where downloads go: the user's cache folder on this platform, and in it `shiftlens`."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return with_home(base) / "shiftlens"


def find_cifar10(data_root: Path | None) -> tuple[str, Path] | None:
    """Where CIFAR-10 lies in the data folders: ("parquet" or "torchvision", folder), None if nowhere."""
    for folder in data_folders(data_root):
        place = folder / "cifar10"
        if kind_of(place) == "folder":
            if kind_of(place / _CIFAR_FOLDER) == "folder":
                return "torchvision", place
            if next(place.rglob("*.parquet"), None) is not None:
                return "parquet", place
    return None


def open_torchvision(name: str, split: str, data_root: Path | None, say: Say, *, root: Path | None = None) -> Source:
    """Open a torchvision set: from a data folder that holds it, else from the cache, downloaded if it is not there.

    In a data folder it may lie directly, as torchvision itself puts it, or in a folder of its name in lower case. With
    `root`, nothing else is tried and nothing is downloaded. `say` is told before a download.
    """
    if name not in TORCHVISION_SETS and name not in TARGET_SETS:
        raise unknown_name("torchvision set", name, (*TORCHVISION_SETS, *TARGET_SETS))
    if root is not None:
        return _read(name, split, root)
    for folder in data_folders(data_root):
        for place in (folder / name.lower(), folder):
            if _is_there(name, split, place):
                return _read(name, split, place)
    return _from_cache(name, split, data_root, say)


def _from_cache(name: str, split: str, data_root: Path | None, say: Say) -> Source:
    place = cache_folder() / name.lower()
    looked = ", ".join(str(folder) for folder in data_folders(data_root)) or "no data folder (--data-root not given)"
    try:
        place.mkdir(parents=True, exist_ok=True)
        # Two commands started together: the second waits, and then finds what the first has fetched.
        with FileLock(place / "download.lock"):
            if not _is_there(name, split, place):
                say(f"downloading {name} with torchvision into {place} (not found in {looked})")
                for part in ("train", "test") if split == "all" and name not in TARGET_SETS else (split,):
                    _construct(name, part, place, download=True)
    except (OSError, RuntimeError, EOFError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it still holds the connection
        raise InputError(
            f"{name} was not found in {looked}, and downloading it into {place} failed: {one_line(error)}"
        ) from error
    return _read(name, split, place)


def _is_there(name: str, split: str, place: Path) -> bool:
    """Whether a folder holds files of the set; says nothing of their health."""
    if name in TARGET_SETS:
        return kind_of(place / TARGET_SETS[name][0]) == "folder"
    if split == "all":
        return _is_there(name, "train", place) and _is_there(name, "test", place)
    if name.startswith("CIFAR"):
        import torchvision

        return kind_of(place / str(getattr(torchvision.datasets, name).base_folder)) == "folder"
    if name == "USPS":
        return kind_of(place / ("usps.bz2" if split == "train" else "usps.t.bz2")) == "file"
    stem = "train" if split == "train" else "t10k"
    raw = place / name / "raw"
    return kind_of(raw) == "folder" and any(raw.glob(f"{stem}-images-idx3-ubyte*"))


def _read(name: str, split: str, place: Path) -> Source:
    if name in TARGET_SETS:
        return _read_targets(name, split, place)
    parts = ("train", "test") if split == "all" else (split,)
    try:
        read = [_construct(name, part, place, download=False) for part in parts]
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"the {name} files in {place} are incomplete or not the published ones and were not read: {one_line(error)}"
        ) from error
    pixels = read[0].data if len(read) == 1 else np.concatenate([np.asarray(each.data) for each in read])
    targets = np.concatenate([np.asarray(each.targets) for each in read])
    labels = as_labels(targets, len(pixels), f"labels of {name}")
    names = getattr(read[0], "classes", None)
    flip = TORCHVISION_SETS[name]
    return Source(ArrayPictures(pixels), labels, None if names is None else distinct(names), True, flip)


def _read_targets(name: str, split: str, place: Path) -> Source:
    """Boxes or masks of a set, in the form of torchvision's v2 transforms."""
    from torchvision.datasets import wrap_dataset_for_transforms_v2

    try:
        dataset = wrap_dataset_for_transforms_v2(_construct(name, split, place, download=False))
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"the {name} files in {place} are incomplete and were not read: {one_line(error)}") from error
    if not len(dataset):
        raise InputError(f"the {name} files in {place} list no images")
    return open_target_dataset(dataset, name)._replace(has_splits=True)


def _construct(name: str, split: str, place: Path, *, download: bool) -> Any:
    # CIFAR's batches are pickles, which can run code when read. They are read by torchvision only, whose constructor
    # compares each file with the published checksum first and refuses what differs; nothing here unpickles anything.
    import torchvision

    with warnings.catch_warnings():
        # Old NumPy dtypes inside these pickles, and archives unpacked without a filter after their checksum was right.
        warnings.filterwarnings("ignore", message=r".*align should be passed as Python or NumPy boolean.*")
        warnings.filterwarnings("ignore", message=r".*filter extracted tar archives.*", category=DeprecationWarning)
        if name in TARGET_SETS:
            part = TARGET_SETS[name][1][split]
            return getattr(torchvision.datasets, name)(str(place), image_set=part, download=download)
        return getattr(torchvision.datasets, name)(str(place), train=split == "train", download=download)
