"""What a notebook has at hand: a list of pictures, a torch `Dataset`, a `DataLoader`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    default_convert,
)

from shiftlens.data.decode import Pixels
from shiftlens.data.example_images import WITHOUT_LABELS, Fact, Source, as_labels, picture_of, pixel_fact
from shiftlens.errors import InputError
from shiftlens.naming import distinct, one_line

_N_PROBED = 4  # items read twice, to notice a random transform


class ItemPictures:
    """Pictures that a sequence hands out one at a time, alone or, with `labels`, together with its label.

    `items` has a length and can be indexed from 0; `name` is for errors, such as a first item that cannot be read.
    """

    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, items: Any, name: str, labels: Int64[np.ndarray, " n"] | None = None) -> None:
        self._items = items
        self._name = name
        self._labels = labels
        self.n_channels = 3
        if len(items):
            # The first picture decides; colour in a grey set is refused when met, grey in a colour set is repeated.
            self.n_channels = int(self._picture(0).shape[2])

    def __len__(self) -> int:
        """How many there are."""
        return len(self._items)

    def where(self, position: int) -> str:
        """How an error names a picture."""
        return f"picture {position} of {self._name}"

    def read(self, positions: Iterable[int]) -> Iterator[Pixels]:
        """Pixels at each position, as the sequence's own code gives them."""
        for position in positions:
            pixels = self._picture(position)
            if pixels.shape[2] > self.n_channels:
                raise InputError(f"{self.where(position)} is in colour, but the first picture is grey: convert one")
            yield pixels

    def facts(self, positions: Iterable[int]) -> Iterator[Fact]:
        """Checksum of the 8-bit pixels."""
        return map(pixel_fact, self.read(positions))

    def _picture(self, position: int) -> Pixels:
        where = self.where(position)
        if self._labels is None:
            return picture_of(self._items[position], where)
        image, label = read_item(self._items, position, where)
        if label != self._labels[position]:
            raise InputError(
                f"{where} came with label {label}, but label {self._labels[position]} was announced: "
                "the dataset must give the same item each time"
            )
        return picture_of(image, where)


def item_pictures(images: Sequence[Any]) -> ItemPictures:
    """A list of Pillow images, arrays or tensors, of any sizes."""
    return ItemPictures(images, "the list")


def read_item(dataset: Any, position: int, where: str) -> tuple[Any, int]:
    """One item of a dataset as (image, label); `InputError` if its code raises, or gives something else."""
    try:
        item = dataset[position]
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{where}: the dataset raised {type(error).__name__}: {one_line(error)}") from error
    if isinstance(item, Mapping):
        image, label = item.get("image", item.get("img")), item.get("label")
    elif isinstance(item, list | tuple) and len(item) >= 2:
        image, label = item[0], item[1]
    else:
        image = label = None
    if image is None or label is None:
        kind = type(item).__name__
        raise InputError(
            f"{where}: expected an item (image, label), got {kind}; give (images, labels); {WITHOUT_LABELS}"
        )
    if isinstance(label, torch.Tensor | np.ndarray) and label.ndim == 0:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise InputError(f"{where}: expected a whole number as label, got {type(label).__name__}")
    return image, int(label)


def dataset_of(loader: DataLoader[Any]) -> Any:
    """The dataset behind a loader. Its batches are not used: pictures are taken one by one, each once, in order.

    What the loader itself does to pictures, or which ones it picks, is therefore lost, and a warning says so.
    """
    lost = []
    if loader.collate_fn not in (default_collate, default_convert):
        lost.append("its collate_fn (transforms of whole batches)")
    picks_all = isinstance(loader.sampler, SequentialSampler) or (
        isinstance(loader.sampler, RandomSampler)
        and not loader.sampler.replacement
        and loader.sampler.num_samples == len(loader.sampler.data_source)
    )
    if type(loader.batch_sampler) not in (BatchSampler, type(None)) or not (
        picks_all or type(loader.sampler).__name__ == "_InfiniteConstantSampler"
    ):
        lost.append("its sampler's choice of pictures")
    if lost:
        warnings.warn(
            f"the DataLoader's dataset is read directly: {' and '.join(lost)} is not applied", UserWarning, stacklevel=2
        )
    return loader.dataset


def open_dataset(dataset: Any, name: str) -> Source:
    """A map-style dataset of (image, label) as pictures, labels and, where it has them, class names.

    Labels come from its `targets` or `labels` where these agree with the first items, else every item is read once.
    `InputError`: no positions, items of another form, or pictures that change from one reading to the next.
    """
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InputError(f"{name} cannot be read by position; expected a dataset with __len__ and __getitem__")
    n = len(dataset)
    announced = _announced_labels(dataset)
    for position in range(min(n, _N_PROBED)):
        where = f"picture {position} of {name}"
        image, label = read_item(dataset, position, where)
        if not np.array_equal(picture_of(image, where), picture_of(read_item(dataset, position, where)[0], where)):
            raise InputError(f"{where} changes from one reading to the next: use the dataset without random transforms")
        if announced is not None and label != announced[position]:
            announced = None
    if announced is None:
        announced = [read_item(dataset, position, f"picture {position} of {name}")[1] for position in range(n)]
    labels = as_labels(announced, n, f"labels of {name}")
    return Source(ItemPictures(dataset, name, labels), labels, class_names_of(dataset))


def base_of(dataset: Any) -> Any:
    """The dataset itself, under any number of `Subset`s."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def class_names_of(dataset: Any) -> list[str] | None:
    """Names of the classes that a data set, or the one under its subsets, holds as `classes`.

    One of Hugging Face's `datasets` has them in the feature of its column `label`.
    """
    base = base_of(dataset)
    names = getattr(base, "classes", None)
    if names is None and isinstance(getattr(base, "features", None), Mapping):
        names = getattr(base.features.get("label"), "names", None)
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return distinct(names)
    return None


def _announced_labels(dataset: Any) -> Any:
    """Labels that a dataset holds as a list, or None: reading them there saves decoding every picture."""
    if isinstance(dataset, Subset):
        inner = _announced_labels(dataset.dataset)
        return None if inner is None else np.asarray(inner)[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [_announced_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate(parts)
    if isinstance(dataset, TensorDataset):
        return _whole_numbers(dataset.tensors[1]) if len(dataset.tensors) > 1 else None
    if getattr(dataset, "target_transform", None) is not None:
        return None
    columns = getattr(dataset, "column_names", None)  # of Hugging Face's `datasets`
    found = [dataset["label"][:]] if isinstance(columns, list) and "label" in columns else []
    for values in (*found, getattr(dataset, "targets", None), getattr(dataset, "labels", None)):
        labels = _whole_numbers(values)
        if labels is not None and len(labels) == len(dataset):
            return labels
    return None


def _whole_numbers(values: Any) -> np.ndarray[Any, np.dtype[Any]] | None:
    if not isinstance(values, list | tuple | np.ndarray | torch.Tensor):
        return None
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    except ValueError:  # a ragged list
        return None
    return array if array.ndim == 1 and array.dtype.kind in "iu" else None
