"""The images of the live page: those of the set, and photos of the reader's own."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shiftlens.data.decode import SizeRule, decode, fit, with_channels
from shiftlens.data.images import ImageSet
from shiftlens.data.selection import first_of_each_class
from shiftlens.errors import InputError
from shiftlens.models.wrapping import Model
from shiftlens.reporting.encoding import png_uri

MOST_PHOTOS = 20
MOST_DECODED = 64
MOST_THUMBNAILS = 12
THUMBNAIL = 64
"""px: longest side."""

_T = TypeVar("_T")


class ShownImages:
    """Images of one size by name: a number is a place in the set, any other name a photo that was added.

    Parameters
    ----------
    images
        On the model's input grid.
    model
        Says how a photo is brought to `size`.
    size
        (h, w) in pixels.
    """

    def __init__(self, images: ImageSet, model: Model, size: tuple[int, int]) -> None:
        self.images = images
        rule = model.preprocessing
        self._rule = SizeRule(size, rule.resize, rule.interpolation)
        self._n_channels = model.n_channels
        self._photos: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._decoded: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def add(self, data: bytes) -> str:
        """Take a photo, brought to the model's size as its images are; return its name.

        Raises
        ------
        InputError
            No picture, or one that is damaged or too large to decode safely.
        """
        fitted = fit(decode(data, "the photo"), self._rule, lambda: "the photo")
        name = f"photo-{secrets.token_hex(4)}"
        self._photos[name] = np.ascontiguousarray(with_channels(fitted, self._n_channels).transpose(2, 0, 1))
        while len(self._photos) > MOST_PHOTOS:
            self._photos.popitem(last=False)
        return name

    def pixels(self, image: str) -> NDArray[np.uint8]:
        """Pixels [c, h, w] of an image; `InputError` where there is none of this name."""
        if image in self._photos:
            return self._photos[image]
        if not image.isascii() or not image.isdigit() or len(image) > 9 or int(image) >= len(self.images):
            raise InputError(f"expected an image from 0 to {len(self.images) - 1}, or a photo that was added")
        return remembered(self._decoded, image, lambda: self.images.batch([int(image)])[0], MOST_DECODED)

    def label(self, image: str) -> int | None:
        """The image's class in the set; None for a photo, or without labels."""
        return int(self.images.labels[int(image)]) if image.isdigit() and self.images.labelled else None

    def as_colour(self, image: str) -> NDArray[np.uint8]:
        """Pixels [h, w, 3] as a browser shows them; see `pixels`."""
        pixels = self.pixels(image).transpose(1, 2, 0)
        return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels

    def thumbnails(self) -> list[dict[str, str]]:
        """A few images of as many classes as there are, small: their names, and data URIs."""
        few = map(str, first_of_each_class(self.images.labels, MOST_THUMBNAILS).tolist())
        return [{"image": name, "uri": self._thumbnail(name)} for name in few]

    def _thumbnail(self, image: str) -> str:
        picture = Image.fromarray(self.as_colour(image))
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        return png_uri(np.asarray(picture))


def remembered(store: OrderedDict[Any, _T], key: Any, make: Callable[[], _T], most: int) -> _T:
    """What a store has under a key, made when it is not there; the oldest beyond `most` are forgotten."""
    found = store.get(key)
    if found is None:
        found = store[key] = make()
        while len(store) > most:
            store.popitem(last=False)
    return found
