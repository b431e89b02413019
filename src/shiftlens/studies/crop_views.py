"""Views of an image that differ by one pixel: what a net makes of their middle, and of a crop chosen in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shiftlens.data.images import ImageSet
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError
from shiftlens.models.loading import Model
from shiftlens.models.matching import scores_for
from shiftlens.models.probing import evaluating
from shiftlens.nn.inference import CropChoice2d

BATCH = 256


def of_crops(model: Model, images: ImageSet, device: str = "auto") -> dict[str, float]:
    """Accuracy and fooled images, in %, of the middle crop and of the crop chosen by `CropChoice2d`.

    The middle crop has the net's own size; the view in which a crop is chosen is two pixels smaller than the image, so
    that it can move by one pixel in each direction. Nothing is filled in: what enters is the image's own content.
    """
    size, net, target = model.input_size, model.module, resolve_device(device)
    if (
        size is None
        or images.size is None
        or min(have - asked for have, asked in zip(images.size, size, strict=True)) < 2
    ):
        raise InputError(f"views need images larger than the net's input {size} by 2 pixels or more, got {images.size}")
    if not isinstance(net, nn.Module):
        raise InputError(f"{model.name} is no torch module")
    view = images.size[0] - 2, images.size[1] - 2
    found: dict[str, float] = {}
    for prefix, layer, window in (("", net, size), ("chosen_", CropChoice2d(net, size), view)):
        right = _right(model, layer.to(target), images, images.size, window, target)
        middle = right[:, 4]
        found[f"{prefix}accuracy"] = 100 * float(middle.mean())
        if middle.any():
            found[f"{prefix}fooled"] = 100 * float(1 - right[middle].all(1).mean())
    return found


def _right(
    model: Model,
    layer: nn.Module,
    images: ImageSet,
    whole: tuple[int, int],
    window: tuple[int, int],
    device: torch.device,
) -> NDArray[np.bool_]:
    """Whether each image is classified right in the middle window (column 4) and in those a pixel away (image, 9)."""
    shown, right = replace(model, module=layer), np.empty((len(images), 9), np.bool_)
    top, left = ((have - asked) // 2 for have, asked in zip(whole, window, strict=True))
    with torch.no_grad(), evaluating(layer):
        for first in range(0, len(images), BATCH):
            rows = np.arange(first, min(first + BATCH, len(images)))
            x = model.preprocessing.normalise(torch.from_numpy(images.batch(rows)).to(device))
            for k in range(9):
                y, z = top + k // 3 - 1, left + k % 3 - 1
                scores = scores_for(shown, x[..., y : y + window[0], z : z + window[1]], images.index[rows])
                right[rows, k] = scores.argmax(1).cpu().numpy() == images.labels[rows]
    return right
