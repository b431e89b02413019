"""`load_images` with what a notebook has at hand: datasets, loaders, pairs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

from shiftlens.data.images import load_images
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError

RNG = np.random.default_rng(8)
PIXELS = RNG.integers(0, 256, (10, 3, 5, 6), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 2])


class Counting(Dataset):
    """Pillow images with labels, counting how often each is asked for."""

    classes = ("x", "y", "z")

    def __init__(self, *, targets: bool = True, grey: bool = False) -> None:
        self.reads: list[int] = []
        self.grey = grey
        if targets:
            self.targets = LABELS.tolist()

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, k: int) -> tuple[Image.Image, int]:
        self.reads.append(k)
        pixels = PIXELS[k, 0] if self.grey else PIXELS[k].transpose(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(pixels)), int(LABELS[k])


def test_a_dataset_is_taken_whole_and_read_on_demand() -> None:
    dataset = Counting()
    images = load_images(dataset)
    assert max(dataset.reads) < 4  # only the probe for random transforms
    assert (len(images), images.class_names, images.name) == (10, ("x", "y", "z"), "Counting")
    dataset.reads.clear()
    np.testing.assert_array_equal(images.batch([9, 7]), PIXELS[[9, 7]])
    assert dataset.reads == [7, 9]  # storage is read from front to back
    np.testing.assert_array_equal(images.labels, LABELS)
    assert load_images(dataset, split="train", limit=3).labels.tolist() != []
    assert len(load_images(dataset, limit=3)) == 3


def test_without_targets_every_item_is_read_for_its_label() -> None:
    dataset = Counting(targets=False)
    np.testing.assert_array_equal(load_images(dataset).labels, LABELS)
    assert set(dataset.reads) == set(range(10))


def test_targets_that_do_not_agree_with_the_items() -> None:
    dataset = Counting()
    dataset.targets = [2, *LABELS[1:].tolist()]  # seen at once: the items are believed
    np.testing.assert_array_equal(load_images(dataset).labels, LABELS)
    dataset.targets = [*LABELS[:-1].tolist(), 0]  # seen only when read
    images = load_images(dataset)
    with pytest.raises(InputError, match="picture 9 of Counting came with label 2, but label 0 was announced"):
        images.batch([9])


def test_grey_datasets_stay_grey() -> None:
    images = load_images(Counting(grey=True))
    assert images.n_channels == 1
    np.testing.assert_array_equal(images.batch([3]), PIXELS[3:4, :1])


def test_colour_in_a_grey_set_is_refused_and_grey_in_a_colour_set_repeated() -> None:
    grey, colour = np.zeros((4, 4), np.uint8), np.ones((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="picture 1 of the list is in colour"):
        ImageSet([grey, colour], [0, 1]).batch([1])
    assert ImageSet([colour, grey], [0, 1]).batch([0, 1]).shape == (2, 3, 4, 4)


def test_tensor_datasets_subsets_and_chains() -> None:
    dataset = TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    for wrapped, chosen in (
        (dataset, list(range(10))),
        (Subset(dataset, [4, 2, 9]), [4, 2, 9]),
        (Subset(Subset(dataset, [4, 2, 9]), [2, 0]), [9, 4]),
        (ConcatDataset([Subset(dataset, [1]), dataset]), [1, *range(10)]),
    ):
        images = load_images(wrapped)
        np.testing.assert_array_equal(images.batch(slice(None)), PIXELS[chosen])
        np.testing.assert_array_equal(images.labels, LABELS[chosen])
    assert load_images(Subset(Counting(), [1, 0])).class_names == ("x", "y", "z")


def test_to_tensor_gives_the_same_set_and_normalise_is_refused(tmp_path) -> None:
    for k in range(4):
        path = tmp_path / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(PIXELS[k].transpose(1, 2, 0)).save(path)
    to_float = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    plain, floats = load_images(ImageFolder(tmp_path)), load_images(ImageFolder(tmp_path, to_float))
    assert plain.digest == floats.digest
    np.testing.assert_array_equal(floats.batch([0, 1]), PIXELS[[0, 2]])
    assert floats.class_names == ("a", "b")
    normalised = ImageFolder(tmp_path, v2.Compose([to_float, v2.Normalize([0.5] * 3, [0.2] * 3)]))
    with pytest.raises(InputError, match=r"picture 0 of ImageFolder: expected values from 0 to 1, .* drop Normalize"):
        load_images(normalised)


def test_mappings_are_items_too() -> None:
    class Rows(Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, k: int) -> dict:
            return {"image": PIXELS[k], "label": torch.tensor(k)}

    np.testing.assert_array_equal(load_images(Rows()).batch([1, 0]), PIXELS[[1, 0]])


class HuggingFace:
    """What a `Dataset` of Hugging Face's `datasets` is to its reader."""

    column_names: ClassVar = ["img", "label"]
    features: ClassVar = {"img": object(), "label": SimpleNamespace(names=["cat", "dog"])}

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: int | str) -> Any:
        if key == "label":
            return [0, 1] * 4
        self.read.append(key)
        return {"img": PIXELS[key % len(PIXELS)], "label": key % 2}


def test_a_dataset_of_hugging_face_keeps_its_class_names_and_is_not_read_for_its_labels() -> None:
    rows = HuggingFace()
    images = load_images(rows)
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1] * 4
    assert set(rows.read) == {0, 1, 2, 3}  # the first items, to see that they stay the same


def test_random_transforms_are_noticed() -> None:
    dataset = FakeData(size=8, image_size=(3, 16, 16), transform=v2.RandomResizedCrop(16))
    with pytest.raises(InputError, match="picture 0 of FakeData changes from one reading to the next"):
        load_images(dataset)


class Broken(Dataset):
    """One item of any kind, or an error."""

    def __init__(self, item: object) -> None:
        self.item = item

    def __len__(self) -> int:
        return 1

    def __getitem__(self, k: int) -> object:
        if isinstance(self.item, Exception):
            raise self.item
        return self.item


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            ValueError("no such\x1b[31m file\nin it"),
            r"the dataset raised ValueError: no such\\x1b\[31m file$",
        ),
        (np.zeros((2, 2)), r"expected an item \(image, label\), got ndarray; give \(images, labels\)"),
        ((np.zeros((2, 2)),), r"expected an item \(image, label\), got tuple"),
        (({"boxes": 1}, 0), "must be a NumPy array, a tensor or a Pillow image, got dict"),
        ((np.zeros((2, 2)), "cat"), "expected a whole number as label, got str"),
        ((np.zeros((2, 2)), torch.tensor([0, 1])), "expected a whole number as label, got Tensor"),
        ((np.zeros((2, 2)), True), "expected a whole number as label, got bool"),
        ((np.zeros((2, 2, 4)), 0), "1 or 3 channels"),
        ((np.zeros((2, 2), np.int32), 0), "uint8 .* got int32"),
        ((np.zeros((2, 2)), -1), "got -1 for picture 0"),
    ],
)
def test_broken_items_are_named(item: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_images(Broken(item))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_a_set() -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    for spec, message in (
        (Stream(), "cannot be read by position"),
        (7, "int cannot be read by position"),
        (
            np.zeros((4, 8, 8)),
            r"expected a pair \(images, labels\), got ndarray alone; without labels, inspect, foveation",
        ),
        (
            torch.zeros(4, 8, 8),
            r"expected a pair \(images, labels\), got Tensor alone; without labels, inspect, foveation",
        ),
        ((1, 2, 3), "pair .images, labels., got 3"),
        (TensorDataset(torch.zeros(0, 3, 2, 2), torch.zeros(0, dtype=torch.long)), "holds no pictures"),
    ):
        with pytest.raises(InputError, match=message):
            load_images(spec)


def test_pairs_and_sets_pass_through() -> None:
    images = load_images((PIXELS, LABELS))
    np.testing.assert_array_equal(images.batch(slice(None)), PIXELS)
    assert load_images(images) is images
    assert len(load_images(images, limit=4)) == 4


def test_a_loader_gives_its_dataset_in_order() -> None:
    dataset = TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    for loader in (
        DataLoader(dataset, batch_size=4),
        DataLoader(dataset, batch_size=3, shuffle=True),
        DataLoader(dataset, batch_size=None),
    ):
        np.testing.assert_array_equal(load_images(loader).batch(slice(None)), PIXELS)
    assert load_images(DataLoader(ImageSet(PIXELS, LABELS))).name == "images"


def test_what_a_loader_does_itself_is_warned_of() -> None:
    dataset = TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    mixing = DataLoader(dataset, collate_fn=lambda batch: batch)
    with pytest.warns(UserWarning, match="its collate_fn .* is not applied"):
        load_images(mixing)
    for loader in (
        DataLoader(dataset, sampler=SubsetRandomSampler([0, 1])),
        DataLoader(dataset, batch_sampler=[[0, 1], [2]]),
    ):
        with pytest.warns(UserWarning, match="its sampler's choice of pictures is not applied"):
            assert len(load_images(loader)) == 10
