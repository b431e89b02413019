"""A small detector: every object is the peak of a heat map at its centre, and a box around it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shiftlens.errors import InputError
from shiftlens.nn.unet import double_convolution, require_multiples

fx.wrap("require_multiples")  # torch wraps a function in each file that calls it
STRIDE = 4
"""Pixels between neighbouring cells of the heat map."""
MOST_OBJECTS = 50
FLOOR = 0.05
"""Detections of a lower score are not returned."""


class CenterPoints(nn.Module):
    """A detector of centre points with stride 4.

    Called with images [n, in_channels, h, w] in evaluation mode, it gives a list with one
    `{"boxes": [k, 4], "scores": [k], "labels": [k]}` an image: boxes (left, top, right, bottom) in pixels, clipped to
    the image, best first, at most 50, none below a score of 0.05. In training mode it gives the maps of `maps`.

    Parameters
    ----------
    n_classes, in_channels, width
        At least 1; `width` is the number of channels of the first level.
    padding
        Mode of every convolution: a name of `shiftlens.nn.PADDING_MODES`, but `full`.

    Raises
    ------
    InputError
        A number below 1, an unknown mode, or an image whose sides are not multiples of 4.

    Source
    ------
    arXiv 1904.07850 (heat map and peaks); arXiv 1904.01355 (distances to the four sides).

    Examples
    --------
    >>> sorted(CenterPoints(width=4).eval()(torch.zeros(1, 1, 32, 32))[0])
    ['boxes', 'labels', 'scores']
    """

    def __init__(self, n_classes: int = 10, in_channels: int = 1, width: int = 16, padding: str = "zeros") -> None:
        super().__init__()
        if min(n_classes, in_channels, width) < 1:
            raise InputError(
                f"n_classes, in_channels and width must be at least 1, got {n_classes}, {in_channels}, {width}"
            )
        if padding == "full":
            raise InputError("full padding makes larger maps, which no longer lie over the image")
        self.body = nn.Sequential(
            double_convolution(in_channels, width, padding),
            nn.MaxPool2d(2),
            double_convolution(width, 2 * width, padding),
            nn.MaxPool2d(2),
            double_convolution(2 * width, 4 * width, padding),
            double_convolution(4 * width, 4 * width, padding),
        )
        self.heat = nn.Conv2d(4 * width, n_classes, 1)
        self.sides = nn.Conv2d(4 * width, 4, 1)
        nn.init.constant_(self.heat.bias, -3.0)  # type: ignore[arg-type]
        nn.init.constant_(self.sides.bias, 2.0)  # type: ignore[arg-type]
        self.config: dict[str, Any] = {
            "n_classes": n_classes,
            "in_channels": in_channels,
            "width": width,
            "padding": padding,
        }
        """Keyword arguments that build this net again; plain JSON."""

    def maps(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n k y x"], Float[Tensor, "n 4 y x"]]:
        """Logits of an object's centre for each class and cell, and pixels from each cell to the box's four sides."""
        require_multiples(x, STRIDE, "this detector")
        x = self.body(x)
        return self.heat(x), self.sides(x).exp()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Any:
        """Detections of each image; in training mode the maps."""
        heat, sides = self.maps(x)
        if self.training:
            return heat, sides
        return _detections(heat.sigmoid(), sides, x.shape[-2:])


@fx.wrap  # how many there are depends on the data: one node of a traced graph
def _detections(heats: Tensor, sides: Tensor, size: torch.Size) -> list[dict[str, Tensor]]:
    return [_detections_of_one(*each, size) for each in zip(heats, sides, strict=True)]


def _detections_of_one(heat: Tensor, sides: Tensor, size: torch.Size) -> dict[str, Tensor]:
    peaks = heat * (heat == F.max_pool2d(heat, 3, stride=1, padding=1))
    scores, places = peaks.flatten().topk(min(MOST_OBJECTS, peaks.numel()))
    found = scores >= FLOOR
    scores, places = scores[found], places[found]
    n_columns = heat.shape[2]
    cell = places % (heat.shape[1] * n_columns)
    y = (cell // n_columns + 0.5) * STRIDE
    x = (cell % n_columns + 0.5) * STRIDE
    left, top, right, bottom = sides.flatten(1)[:, cell]
    boxes = torch.stack([x - left, y - top, x + right, y + bottom], 1)
    limits = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return {
        "boxes": boxes.clamp(min=0).minimum(limits),
        "scores": scores,
        "labels": places // (heat.shape[1] * n_columns),
    }
