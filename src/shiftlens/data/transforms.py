"""A torchvision transform, as a list of plain steps, read as `Preprocessing`; what has no equal there is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from shiftlens.data.preprocessing import Preprocessing, Size, parse_numbers, parse_size
from shiftlens.errors import InputError
from shiftlens.naming import one_line

_TO_FLOATS = ("ToTensor", "MaybeToTensor", "ConvertImageDtype", "ToDtype")
_TO_TENSORS = ("PILToTensor", "MaybePILToTensor", "ToImage", "ToPureTensor")
_ORDER = ("Resize", "CenterCrop", "Grayscale", "ToTensor", "Normalize")


def preprocessing_of(transform: Any) -> Preprocessing:
    """Read a transform of torchvision (or timm): `Resize`, `CenterCrop`, conversion to a tensor, `Normalize`.

    A `Compose` or `Sequential` of these in this order, each at most once, or a preset of torchvision's weights. Just
    before the conversion `Grayscale(1)` may stand: see `turns_grey`.

    Raises
    ------
    InputError
        Another step, another order, or a step whose result depends on the images' shapes in another way than here.

    Examples
    --------
    >>> from torchvision import transforms as t
    >>> preprocessing_of(t.Compose([t.Resize(40), t.CenterCrop(32), t.ToTensor()])).resize
    40
    """
    if hasattr(transform, "crop_size") and hasattr(transform, "resize_size"):
        return preset_of(transform)
    found: dict[str, Any] = {}
    is_tensor = False
    for step in _steps(transform):
        name = type(step).__name__
        is_tensor |= name in _TO_TENSORS
        if name in ("Identity", *_TO_TENSORS):
            continue
        name = "ToTensor" if name in _TO_FLOATS else name
        # Of a tensor, torchvision rounds grey down: it is another level of nearly every image.
        if name not in _ORDER or (name == "Grayscale" and (is_tensor or not _is_one_grey(step))):
            random = "; name the transform of validation" if name.startswith(("Random", "Auto", "TrivialA")) else ""
            raise InputError(f"transform: {one_line(ValueError(repr(step)))} has no equal here{random}; {_KNOWN}")
        if [*found, name] != sorted({*found, name}, key=_ORDER.index):
            raise InputError(f"transform: {name} comes after {', '.join(found)}; {_KNOWN}")
        if name == "ToTensor" and (getattr(step, "scale", True) is False or _dtype_of(step) is not torch.float32):
            raise InputError(f"transform: {one_line(ValueError(repr(step)))} does not scale to 0 ... 1; {_KNOWN}")
        found[name] = step
    resize, crop = (_sides(found.get(name)) for name in ("Resize", "CenterCrop"))
    if getattr(found.get("Resize"), "max_size", None) is not None:
        raise InputError(
            f"transform: {found['Resize']!r} limits the longer side; expected Resize(n) or Resize((h, w)), or resize "
            "the images yourself"
        )
    if crop and not resize:
        raise InputError("transform: CenterCrop without Resize has no equal here; crop the images yourself")
    normalize = found.get("Normalize")
    return Preprocessing(
        mean=(0.0,) if normalize is None else parse_numbers("mean", normalize.mean),
        std=(1.0,) if normalize is None else parse_numbers("std", normalize.std),
        size=parse_size(crop or resize) if resize else None,
        resize=None if not resize else resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        interpolation=_name_of(found["Resize"].interpolation) if resize else "bilinear",
        declared=True,
    )


_KNOWN = "expected Resize(n) or Resize((h, w)), CenterCrop, Grayscale(1), ToTensor and Normalize, in this order"


def turns_grey(transform: Any) -> bool:
    """Whether a transform gives one channel of grey, as images in colour are turned grey for a net of one channel.

    Of images in colour, a few pixels are another 8-bit level than Pillow's, by one.
    """
    return any(_is_one_grey(step) for step in _steps(transform))


def _is_one_grey(step: Any) -> bool:
    return type(step).__name__ == "Grayscale" and getattr(step, "num_output_channels", None) == 1


def preset_of(preset: Any) -> Preprocessing:
    """The transforms that belong to weights of torchvision."""
    return Preprocessing(
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        size=parse_size(_sides_of(preset.crop_size)),
        resize=_sides_of(preset.resize_size)[0],
        interpolation=_name_of(preset.interpolation),
        declared=True,
    )


def _steps(transform: Any) -> Iterator[Any]:
    inner = getattr(transform, "transforms", None)
    if inner is None and isinstance(transform, torch.nn.Sequential):
        inner = [*transform]
    if inner is None:
        yield transform
        return
    for step in inner:
        yield from _steps(step)


def _dtype_of(step: Any) -> Any:
    dtype = getattr(step, "dtype", torch.float32)
    return dtype.get("others", dtype.get(torch.Tensor)) if isinstance(dtype, dict) else dtype


def _name_of(interpolation: Any) -> str:
    return str(getattr(interpolation, "value", interpolation))


def _sides(step: Any) -> tuple[int, ...]:
    return () if step is None else _sides_of(step.size)


def _sides_of(size: Size) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(int(side) for side in size)
