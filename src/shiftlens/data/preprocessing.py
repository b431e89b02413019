"""What a model does to a picture before it looks: size, resizing, normalisation, and where these numbers come from."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from shiftlens.errors import InputError
from shiftlens.naming import unknown_name

INTERPOLATIONS: tuple[str, ...] = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
"""Ways to resize a picture, by Pillow's names in lower case."""

MAX_SIDE = 16_384
"""Longest side of an input, in pixels; above it a number is a typing error, not a size."""

Numbers = str | int | float | Sequence[float]
Size = str | int | Sequence[int]
Resize = int | tuple[int, int] | None
"""Pixels of the shorter side, or (h, w), to which a picture is stretched."""


def parse_size(size: Size) -> tuple[int, int]:
    """Read a size as a user writes it: `32`, `(32, 48)`, `"32"` or `"32x48"` are (h, w) in pixels.

    Raises
    ------
    InputError
        Anything else, or a side outside 1 to `MAX_SIDE`.

    Examples
    --------
    >>> parse_size("32x48")
    (32, 48)
    """
    given = size
    if isinstance(size, str):
        if not re.fullmatch(r"\d{1,6}(x\d{1,6})?", size.strip().lower()):
            raise InputError(f"a size is H or HxW in whole pixels, got {given!r}")
        size = [int(part) for part in size.strip().lower().split("x")]
    sides = (size,) if isinstance(size, int) else tuple(size)
    if len(sides) == 1:
        sides *= 2
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
        raise InputError(f"a size is H or HxW in whole pixels, got {given!r}")
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise InputError(f"a size lies between 1 and {MAX_SIDE} pixels, got {given!r}")
    return sides[0], sides[1]


def parse_resize(resize: Size) -> int | tuple[int, int]:
    """Read `32` or `"32"`, the shorter side, or `(32, 48)` or `"32x48"`, to which a picture is stretched; in pixels.

    Examples
    --------
    >>> parse_resize("32"), parse_resize("32x32")
    (32, (32, 32))
    """
    one = isinstance(resize, int) or (len(resize.lower().split("x")) if isinstance(resize, str) else len(resize)) == 1
    try:
        h, w = parse_size(resize)
    except InputError:
        raise InputError(f"resize lies between 1 and {MAX_SIDE} pixels, H or HxW; got {resize}") from None
    return h if one else (h, w)


def is_too_small(resize: Resize, size: tuple[int, int]) -> bool:
    """Whether a piece of a size (h, w) cannot be cut out of every picture that was resized."""
    if resize is None:
        return False
    return resize < min(size) if isinstance(resize, int) else resize[0] < size[0] or resize[1] < size[1]


def parse_numbers(what: str, numbers: Numbers) -> tuple[float, ...]:
    """Read `--mean` or `--std`: one number, or one a channel (`0.5`, `"0.5"`, `"0.48,0.45,0.41"`)."""
    parts: Sequence[object]
    if isinstance(numbers, str):
        parts = numbers.split(",")
    else:
        parts = [numbers] if isinstance(numbers, int | float) else list(numbers)
    try:
        values = tuple(float(part) for part in parts)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        values = ()
    if not values:
        raise InputError(f"{what} must be one number or one a channel, between 0 and 1; got {numbers!r}")
    return values


@dataclass(frozen=True)
class Preprocessing:
    """From a uint8 picture to the input of a model: resize, crop to `size`, divide by 255, (x - `mean`) / `std`.

    Parameters
    ----------
    mean, std
        Pixel range 0 to 1, one number for all channels or one a channel; `std` above 0. Made equally long.
    size
        (h, w) in pixels of the model's input; None: the picture's own.
    resize
        Length that the shorter side gets before the centre crop to `size`, in pixels; None: the shorter side of `size`;
        (h, w): the picture is stretched to this, whatever its shape, and cropped.
    interpolation
        A name of `INTERPOLATIONS`.
    declared
        True when the model or the user said so; False when mean 0 and std 1 are a guess that wants a warning.

    Raises
    ------
    InputError
        Numbers outside these ranges (a mean in 0 ... 255 is the usual one) or an unknown interpolation.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    resize: Resize = None
    interpolation: str = "bilinear"
    declared: bool = False

    def __post_init__(self) -> None:
        for what, values, low_is_allowed in (("mean", self.mean, True), ("std", self.std, False)):
            for value in values:
                if not math.isfinite(value) or value < 0 or value > 1 or (value == 0 and not low_is_allowed):
                    hint = "; divide numbers of the range 0 to 255 by 255" if value > 1 else ""
                    raise InputError(
                        f"{what} must lie {'from' if low_is_allowed else 'above'} 0 to 1, got {value}{hint}"
                    )
        lengths = {len(self.mean), len(self.std)}
        if 0 in lengths or len(lengths - {1}) > 1:
            raise InputError(
                f"mean and std need one number each, or one a channel; got {len(self.mean)}, {len(self.std)}"
            )
        longest = max(lengths)
        object.__setattr__(self, "mean", self.mean * (longest // len(self.mean)))
        object.__setattr__(self, "std", self.std * (longest // len(self.std)))
        if self.size is not None:
            object.__setattr__(self, "size", parse_size(self.size))
        if self.resize is not None:
            object.__setattr__(self, "resize", parse_resize(self.resize))
        if self.interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", self.interpolation, INTERPOLATIONS)

    def for_channels(self, n_channels: int) -> Preprocessing:
        """The same with one mean and one std for each channel; `InputError` where it has another number of them."""
        if len(self.mean) == n_channels:
            return self
        if len(self.mean) != 1:
            raise InputError(f"mean and std have {len(self.mean)} numbers, the model's input has {n_channels} channels")
        return replace(self, mean=self.mean * n_channels, std=self.std * n_channels)

    def overridden(
        self,
        *,
        mean: Numbers | None = None,
        std: Numbers | None = None,
        size: Size | None = None,
        resize: Size | None = None,
        crop: Size | None = None,
        interpolation: str | None = None,
    ) -> Preprocessing:
        """The same with what a user said in place of what the model declares; `crop` is another word for `size`.

        Another size keeps the declared ratio of resized side to cropped side, so that the picture's content stays the
        same, unless `resize` is given. With `mean` alone or `std` alone the other keeps its value.
        """
        if all(given is None for given in (mean, std, size, resize, crop, interpolation)):
            return self
        if size is not None and crop is not None and parse_size(size) != parse_size(crop):
            raise InputError(f"the input is what is cropped: got input size {size!r} and crop {crop!r}, give one")
        size = crop if size is None else size
        new_size = self.size if size is None else parse_size(size)
        if resize is not None and new_size is None:
            raise InputError(f"resize {resize} needs an input size (crop): what is cut out of the resized image")
        resized = self.resize if resize is None else parse_resize(resize)
        if resize is not None and new_size is not None and is_too_small(resized, new_size):
            raise InputError(f"resize must be at least {min(new_size)}, the side that is cut out; got {resize}")
        if resize is None and size is not None and resized is not None and self.size is not None and new_size:
            if isinstance(resized, int):
                resized = round(resized * min(new_size) / min(self.size))
            else:
                (h, w), (new_h, new_w) = self.size, new_size
                resized = round(resized[0] * new_h / h), round(resized[1] * new_w / w)
        new_mean = self.mean if mean is None else parse_numbers("mean", mean)
        new_std = self.std if std is None else parse_numbers("std", std)
        # One side of a pair given with other channels replaces a declared pair that is one number repeated.
        if len(new_mean) != len(new_std):
            new_mean = new_mean[:1] if len(set(new_mean)) == 1 else new_mean
            new_std = new_std[:1] if len(set(new_std)) == 1 else new_std
        declared = self.declared or mean is not None or std is not None
        kind = interpolation or self.interpolation
        return replace(
            self, mean=new_mean, std=new_std, size=new_size, resize=resized, interpolation=kind, declared=declared
        )

    def normalise(self, images: Shaped[Tensor, "*axes"]) -> Float[Tensor, "n c h w"]:
        """Turn uint8 images [n, c, h, w] into the model's input, `(images / 255 - mean) / std`, float32, same device.

        `InputError`: not uint8 [n, c, h, w], or another number of channels than `mean` has.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise InputError(f"expected uint8 pictures [n, c, h, w], got {images.dtype} {list(images.shape)}")
        n_channels = images.shape[1]
        if len(self.mean) not in (1, n_channels):
            raise InputError(f"pictures have {n_channels} channels, mean and std have {len(self.mean)} numbers")
        shape = (1, len(self.mean), 1, 1)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=images.device).view(shape)
        std = torch.tensor(self.std, dtype=torch.float32, device=images.device).view(shape)
        return images.to(torch.float32).div_(255).sub_(mean).div_(std)
