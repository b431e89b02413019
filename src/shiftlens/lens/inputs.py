"""What the net is shown: pictures without content, noise, or one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from shiftlens.arithmetic import net_of
from shiftlens.data.decode import decode
from shiftlens.data.images import ImageSet
from shiftlens.devices import input_dtype
from shiftlens.errors import InputError
from shiftlens.models.matching import on_input_grid
from shiftlens.models.wrapping import Model
from shiftlens.naming import nearest, printable
from shiftlens.paths import kind_of, read_file, with_home

EMPTY = ("zeros", "mean", "black")
"""Pictures without content: 0 after normalisation (`zeros`, or by the fill's name `mean`), and pixel value 0."""

NAMED = (*EMPTY, "noise")


def shown(model: Model, name: str, seed: int) -> Float[Tensor, "1 c h w"]:
    """The normalised picture, at the input size, that a name of `NAMED` or a path stands for.

    Noise is normal, mean 0 and spread 1. Refuses an unknown name, a file that is no picture, and a model without size.
    """
    if name not in NAMED:
        pixels = decode(read_file(_file(name), printable(name)), printable(name))
        images, _ = on_input_grid(model, ImageSet([pixels.transpose(2, 0, 1)], [0], name=name))
        return model.preprocessing.normalise(torch.from_numpy(images.batch([0])))
    if model.input_size is None:
        raise InputError(f"{model.name} declares no input size: give one (--input-size, or size= in Python)")
    shape = (1, model.n_channels, *model.input_size)
    if name == "noise":
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if name == "black":
        return model.preprocessing.normalise(torch.zeros(shape, dtype=torch.uint8))
    return torch.zeros(shape)


def batches(
    model: Model, images: ImageSet, max_pixels: int, device: torch.device, n: int | None = None
) -> Iterator[Float[Tensor, "n c h w"]]:
    """The images, normalised, `n` at a time or as many as have at most `max_pixels` pixels; refuses mixed sizes."""
    if images.size is None:
        raise InputError(f"{images.name}: the images are of mixed sizes; give one (size=)")
    n, dtype = n or max(1, max_pixels // (images.size[0] * images.size[1])), input_dtype(net_of(model))
    for start in range(0, len(images), n):
        pixels = torch.from_numpy(images.batch(slice(start, start + n)))
        yield model.preprocessing.normalise(pixels.to(device)).to(dtype)


def rolled(x: Float[Tensor, "n c h w"], draws: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Each image moved round by a random distance along both axes, so that content is everywhere alike."""
    n, _, h, w = x.shape
    dy = torch.randint(h, (n, 1), generator=draws).to(x.device)
    dx = torch.randint(w, (n, 1), generator=draws).to(x.device)
    rows = (torch.arange(h, device=x.device) - dy) % h
    columns = (torch.arange(w, device=x.device) - dx) % w
    image = torch.arange(n, device=x.device)[:, None, None]
    # Indices at both ends put the indexed axes first: [n, h, w, c].
    return x[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _file(name: str) -> Path:
    path = with_home(name)
    if kind_of(path) == "file":
        return path
    best = nearest(name, NAMED)
    hint = f"; did you mean {best!r}?" if best else ""
    what = "is a folder" if kind_of(path) == "folder" else "is no file"
    raise InputError(f"input {printable(name)!r} {what}; expected {', '.join(NAMED)} or an image file{hint}")
