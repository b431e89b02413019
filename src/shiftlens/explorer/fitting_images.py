"""What the live page shows where the reader names no model or no images: never images of other classes unsaid."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from shiftlens.data.images import ImageSet, load_images
from shiftlens.data.torchvision_sets import cache_folder, find_cifar10
from shiftlens.models.wrapping import Model
from shiftlens.paths import kind_of

DIGITS = tuple(map(str, range(10)))
SHIPPED = {"vgg-cifar10": "", "unet-digits": "digits-scenes", "detector-digits": "digits-scenes"}
"""Shipped weights, and the images they are made for; "": see `sample_for`."""

CLASSES = {"unet-digits": ("background", *DIGITS), "detector-digits": DIGITS}
"""Of shipped weights that name none."""

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MOST_NAMED = 12
OWN = "Drop or paste a photo of your own, or start with --data."


def shipped(data_root: Path | None = None) -> list[str]:
    """Names of the shipped models; a classifier whose images are not on this machine comes last."""
    names = list(SHIPPED)
    return names if _cifar10_is_here(data_root) else [*names[1:], names[0]]


def sample_for(model: Model, data_root: Path | None = None) -> tuple[ImageSet, str]:
    """Images that fit a model and are on this machine, and what the page says of them.

    Digits for a model of the ten digits; CIFAR-10 for a model of its classes, where it has been downloaded before;
    else two photos that come with scikit-learn, or digits for a model that declares no input size.
    """
    names = tuple(model.class_names or ())
    if names == DIGITS:
        return load_images("digits"), ""
    if names == CIFAR10 and _cifar10_is_here(data_root):
        return load_images("cifar10", data_root=data_root), ""
    classes = f" ({', '.join(names)})" if 0 < len(names) <= MOST_NAMED else ""
    photos = _photos()
    if model.preprocessing.size is None or photos is None:
        return load_images("digits"), (
            f"These are handwritten digits. They need not show a class of the model{classes}: judge how the answer "
            f"changes, not the answer. {OWN}"
        )
    images = load_images(f"images:{photos}")
    images.name = "two photos of scikit-learn"
    return images, (
        f"These two photos come with scikit-learn. They need not show a class of the model{classes}: judge how the "
        f"answer changes, not the answer. {OWN}"
    )


def _cifar10_is_here(data_root: Path | None) -> bool:
    return (
        find_cifar10(data_root) is not None or kind_of(cache_folder() / "cifar10" / "cifar-10-batches-py") == "folder"
    )


def _photos() -> Path | None:
    """The folder of scikit-learn's photos, found without the second that importing scikit-learn takes."""
    spec = find_spec("sklearn")
    for home in (spec.submodule_search_locations if spec is not None else None) or ():
        folder = Path(home) / "datasets" / "images"
        if kind_of(folder / "flower.jpg") == "file":
            return folder
    return None
