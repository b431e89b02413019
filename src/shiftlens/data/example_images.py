"""Where pixels come from: a lazy sequence of pictures, without labels and without an order of its own.

`ImageSet` is written against `Pictures`; an array, a folder, a parquet file and a user's dataset each are one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image

from shiftlens.data.decode import Pixels, decode, from_pil, read_header
from shiftlens.errors import InputError

WITHOUT_LABELS = (
    "without labels, inspect, foveation, kernels, features --input IMAGE, tiles and the tasks segmentation, "
    "detection, dense and embedding work, with images:DIR; all else needs a class"
)
"""What an error says of images whose classes nobody gives."""

_FLOAT_SLACK = 1e-6  # what rounding in a user's arithmetic may add beyond 0 and 1
_ROWS_AT_ONCE = 256
_MOST_UNNAMED_CLASSES = 100_000  # beyond, a label is rather an identity number by mistake


@dataclass(frozen=True)
class Fact:
    """What one picture's stored form tells: `sha256` of its bytes, `(h, w)`, and whether it is JPEG-compressed."""

    sha256: bytes
    size: tuple[int, int]
    is_jpeg: bool


@runtime_checkable
class Pictures(Protocol):
    """A lazy sequence of 8-bit pictures with 1 or 3 channels.

    `size` is (h, w) where all are known to share it without a look at each; `notes` are facts that a reader must know.
    """

    n_channels: int
    size: tuple[int, int] | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, positions: Iterable[int]) -> Iterator[Pixels]:
        """Pixels at each position, one after the other; ascending positions are the fastest."""
        ...

    def facts(self, positions: Iterable[int]) -> Iterator[Fact]:
        """The stored form at each position, one after the other."""
        ...

    def where(self, position: int) -> str:
        """How an error names a picture."""
        ...


class Source(NamedTuple):
    """What a kind of source opens: pictures of the split that was asked for, of all where it `has_splits` not.

    `labels` are classes, or whatever `ImageSet` takes in their place.
    """

    pictures: Pictures
    labels: Any
    class_names: list[str] | None
    has_splits: bool = False
    natural_flip: bool = True


class EncodedPictures:
    """Pictures that are files' bytes: a kind says only where the bytes are. Always RGB, as a folder may mix both."""

    n_channels = 3
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    def encoded(self, position: int) -> bytes:
        """The bytes of a picture's file."""
        raise NotImplementedError

    def where(self, position: int) -> str:
        """How an error names a picture."""
        raise NotImplementedError

    def read(self, positions: Iterable[int]) -> Iterator[Pixels]:
        """Decoded pixels at each position."""
        return (decode(self.encoded(position), self.where(position)) for position in positions)

    def facts(self, positions: Iterable[int]) -> Iterator[Fact]:
        """Checksum of the file's bytes, size and kind from its header; pixels are not decoded."""
        for position in positions:
            data = self.encoded(position)
            header = read_header(data, self.where(position))
            yield Fact(hashlib.sha256(data).digest(), header.size, header.is_jpeg)


class ArrayPictures:
    """Pictures of one size that are in memory already, or mapped from a file: kept as they are, converted when read.

    `images` is as `ImageSet` takes it; all floating-point values are looked at once.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, images: Any) -> None:
        array = _channels_last(as_array(images, "images"), "images", ("n", "h", "w"))
        self._nhwc = array
        self.size: tuple[int, int] | None = (int(array.shape[1]), int(array.shape[2]))
        self.n_channels = int(array.shape[3])
        for start in range(0, len(array), _ROWS_AT_ONCE):
            check_range(array[start : start + _ROWS_AT_ONCE], "images")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._nhwc)

    def where(self, position: int) -> str:
        """How an error names a picture."""
        return f"picture {position}"

    def read(self, positions: Iterable[int]) -> Iterator[Pixels]:
        """Pixels at each position."""
        return (to_eight_bits(self._nhwc[position]) for position in positions)

    def facts(self, positions: Iterable[int]) -> Iterator[Fact]:
        """Checksum of the 8-bit pixels."""
        return map(pixel_fact, self.read(positions))


def pixel_fact(pixels: Pixels) -> Fact:
    """Checksum of pixels that have no encoded form: their shape, then their bytes row by row."""
    h, w, c = pixels.shape
    return Fact(hashlib.sha256(b"%d,%d,%d:" % (h, w, c) + pixels.tobytes()).digest(), (h, w), is_jpeg=False)


def picture_of(item: Any, where: str) -> Pixels:
    """8-bit pixels of one picture in memory: a Pillow image, or an array or tensor of two or three axes.

    Channels are on the first axis if that has 1 or 3 positions, else on the last. Grey stays one channel.
    """
    if isinstance(item, Image.Image):
        return from_pil(item, where, keep_grey=True)
    array = _channels_last(as_array(item, where), where, ("h", "w"))
    check_range(array, where)
    return to_eight_bits(array)


def _channels_last(
    array: np.ndarray[Any, np.dtype[Any]], where: str, axes: tuple[str, ...]
) -> np.ndarray[Any, np.dtype[Any]]:
    """The same with its channels on the last axis; grey without an axis for them gets one."""
    shape = array.shape
    if array.ndim == len(axes):
        array = array[..., None]
    elif array.ndim == len(axes) + 1 and shape[-3] in (1, 3):
        array = np.moveaxis(array, -3, -1)
    if array.ndim != len(axes) + 1 or array.shape[-1] not in (1, 3) or 0 in array.shape[-3:]:
        forms = (axes, (*axes[:-2], "c", *axes[-2:]), (*axes, "c"))
        first, second, third = (f"({', '.join(form)})" for form in forms)
        raise InputError(f"{where} must be {first}, {second} or {third} with 1 or 3 channels, got shape {shape}")
    return array


def as_array(images: Any, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    """A NumPy view of an array or tensor of uint8 or floating point, on the CPU."""
    if isinstance(images, torch.Tensor):
        tensor = images.detach().cpu()
        # NumPy has no bfloat16; every value of it is exact in float32.
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    elif isinstance(images, np.ndarray):
        array = images
    else:
        raise InputError(f"{where} must be a NumPy array, a tensor or a Pillow image, got {type(images).__name__}")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(f"{where} must be uint8 (0 to 255) or floating point (0 to 1), got {array.dtype}")
    return array


def check_range(array: np.ndarray[Any, np.dtype[Any]], where: str) -> None:
    """Refuse floating-point pixels outside 0 to 1, and say what was probably done to them."""
    if array.dtype == np.uint8 or not array.size:
        return
    lowest, highest = float(array.min()), float(array.max())
    if lowest >= -_FLOAT_SLACK and highest <= 1 + _FLOAT_SLACK:
        return
    if lowest >= 0 and highest <= 255:
        advice = "if they are 0 to 255, convert to uint8 or divide by 255; if resizing overshot 1, clamp to 0..1"
    elif np.isfinite(lowest) and np.isfinite(highest):
        advice = "pictures must come before normalisation: drop Normalize and give the model its mean and std"
    else:
        advice = "there are values that are not finite"
    raise InputError(f"{where}: expected values from 0 to 1, got {lowest:.4g} to {highest:.4g}; {advice}")


def to_eight_bits(array: np.ndarray[Any, np.dtype[Any]]) -> Pixels:
    """uint8 as it is; floating point as the nearest of the 256 levels, halves upwards: floor(255 x + 1/2)."""
    if array.dtype == np.uint8:
        return array
    return np.clip(np.floor(array.astype(np.float64) * 255 + 0.5), 0, 255).astype(np.uint8)


def as_labels(labels: Any, n: int | None, where: str) -> Int64[np.ndarray, " n"]:
    """Class labels as int64; `InputError` unless they are one whole number from 0 up for each of the `n` pictures."""
    if labels is None:
        raise InputError(f"{where} must be one whole number for each picture, got None; {WITHOUT_LABELS}")
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    array = np.asarray(labels)
    if array.ndim != 1:
        raise InputError(f"{where} must be one whole number for each picture, got shape {array.shape}")
    if n is not None and len(array) != n:
        raise InputError(f"{where} must be as many as the pictures: expected {n}, got {len(array)}")
    if len(array) and array.dtype.kind not in "iu":
        raise InputError(f"{where} must be whole numbers (classes counted from 0), got {array.dtype}")
    array = array.astype(np.int64)
    if len(array) and int(array.min()) < 0:
        first = int(np.argmax(array < 0))
        raise InputError(
            f"{where} must be 0 or more, got {array[first]} for picture {first}: is this set "
            f"unlabelled? {WITHOUT_LABELS}"
        )
    return array


def as_class_names(
    names: Sequence[str] | None, labels: Int64[np.ndarray, " n"], where: Callable[[int], str], of: str
) -> tuple[str, ...]:
    """Names of the classes, no two alike; the numbers where none are given. `where` names a picture, `of` the set.

    Raises
    ------
    InputError
        A name for two classes, a label beyond the names, or without any so large a one that it is no class.
    """
    highest = int(labels.max())
    if names is None:
        if highest >= _MOST_UNNAMED_CLASSES:
            raise InputError(
                f"label {highest} of {of} would mean {highest + 1} classes; expected classes counted from 0, "
                f"at most {_MOST_UNNAMED_CLASSES} without names"
            )
        return tuple(str(k) for k in range(highest + 1))
    known = tuple(str(name) for name in names)
    if highest >= len(known):
        first = int(np.argmax(labels >= len(known)))
        raise InputError(f"label {labels[first]} of {where(first)} is beyond the {len(known)} classes of {of}")
    twice = next((name for name, n in Counter(known).items() if n > 1), None)
    if twice is not None:
        places = [k for k, name in enumerate(known) if name == twice]
        shown = ", ".join(map(str, places[:5]))
        raise InputError(f"class names of {of} must differ, got {twice!r} for the classes {shown}")
    return known
