"""Steadier answers from a net as it is: at the price of more evaluations, or of moving the picture first.

The wrappers are this project's own, and no method of a paper. They change what a net answers, not what it has learnt:
compare them with the net itself by the same sweep.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.nn.convolution import Outer
from shiftlens.nn.padding import INDEX_MODES, check_mode, pad


class _Shifting(Outer):
    """A net around which pictures are moved by at most `radius` pixels, `fill` entering."""

    def __init__(self, layer: nn.Module, radius: int, fill: str) -> None:
        super().__init__()
        if radius < 0:
            raise InputError(f"radius must be at least 0 pixels, got {radius}")
        self.radius = radius
        self.fill = check_mode(fill, INDEX_MODES)
        self.layer = layer

    def extra_repr(self) -> str:
        """The settings."""
        return f"radius={self.radius}, fill={self.fill}"


class ShiftAverage2d(_Shifting):
    """The mean of a net's scores over all shifts of the picture by at most `radius` pixels [this project's own].

    Costs (2 radius + 1)^2 evaluations a picture.

    Parameters
    ----------
    layer
        The net: [n, c, h, w] to a tensor of scores [n, k].
    radius
        Largest shift along each axis, pixels.
    fill
        Index rule for what enters (`zeros` is the mean colour of a normalised picture).

    Raises
    ------
    InputError
        A radius below 0 or an unknown rule.

    Examples
    --------
    >>> corner = nn.Sequential(nn.MaxPool2d(1, stride=8), nn.Flatten())  # a net that reads the top left pixel
    >>> image = torch.zeros(1, 1, 8, 8)
    >>> image[..., 0, 0] = 9
    >>> ShiftAverage2d(corner, radius=1, fill="zeros")(image).tolist()  # it is there under 1 of 9 shifts
    [[1.0]]
    """

    def __init__(self, layer: nn.Module, radius: int = 1, fill: str = "replicate") -> None:
        super().__init__(layer, radius, fill)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Mean scores."""
        r, (h, w) = self.radius, x.shape[-2:]
        wide = pad(x, (r, r, r, r), self.fill)
        windows = [(top, left) for top in range(2 * r + 1) for left in range(2 * r + 1)]
        summed: Any = 0
        for top, left in windows:
            summed = summed + self.layer(wide[..., top : top + h, left : left + w])
        mean: Tensor = summed / len(windows)
        return mean


class ContentAligned2d(_Shifting):
    """A net that is shown each picture with its content in the middle [this project's own].

    Content is what differs from the frame of edge pixels: the picture is moved by whole pixels, so that the centre of
    gravity of the squared difference comes to the middle, by at most `radius` along each axis. For objects on a plain
    background this takes most of a translation back; for photographs that fill the frame it does little.

    Parameters
    ----------
    layer
        The net.
    radius
        Largest correction along each axis, pixels.
    fill
        Index rule for what enters.

    Raises
    ------
    InputError
        A radius below 0 or an unknown rule.

    Examples
    --------
    >>> net = ContentAligned2d(nn.Identity())
    >>> image = torch.zeros(1, 1, 16, 16)
    >>> image[..., 3:7, 3:7] = 1
    >>> torch.equal(net(image), net(image.roll(5, dims=3)))
    True
    """

    def __init__(self, layer: nn.Module, radius: int = 8, fill: str = "replicate") -> None:
        super().__init__(layer, radius, fill)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Any:
        """The net's output for the moved pictures."""
        return self.layer(self.aligned(x))

    def aligned(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The pictures, moved."""
        r, (n, _, h, w) = self.radius, x.shape
        dy, dx = self.corrections(x).unbind(1)
        wide = pad(x, (r, r, r, r), self.fill)
        rows = torch.arange(h, device=x.device) + r - dy[:, None]
        columns = torch.arange(w, device=x.device) + r - dx[:, None]
        pictures = torch.arange(n, device=x.device)[:, None, None]
        moved: Tensor = wide.permute(0, 2, 3, 1)[pictures, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return moved

    def corrections(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """(dy, dx) by which each picture is moved, whole pixels, down and right positive."""
        h, w = x.shape[-2:]
        edge = torch.cat([x[..., 0, :], x[..., -1, :], x[..., 1:-1, 0], x[..., 1:-1, -1]], -1).mean(-1)
        weight = (x - edge[..., None, None]).square().sum(1).double()
        total = weight.sum((1, 2)).clamp_min(1e-12)
        found = []
        for size, sums in ((h, weight.sum(2)), (w, weight.sum(1))):
            # Distances from the middle: a picture without content stays where it is.
            distances = torch.arange(size, device=x.device, dtype=torch.float64) - (size - 1) / 2
            found.append((-(sums * distances).sum(1) / total).round().clamp(-self.radius, self.radius))
        return torch.stack(found, 1).long()


class CropChoice2d(Outer):
    """A net that is shown one crop of a larger image, chosen by what the crop itself holds [this project's own].

    The crop with the strongest differences between neighbouring pixels near its middle is chosen. Since the score
    depends on the crop alone, another view of the same scene gives the same crop, as long as that lies in both views.
    This is the idea of Robust Inference by Crop Selection (arXiv 2404.07153), with another score than the paper's.

    Parameters
    ----------
    layer
        The net.
    size
        (h, w) or one number, at least 2: pixels of the crop, the net's input.

    Raises
    ------
    InputError
        A size below 2, or images smaller than it.

    Examples
    --------
    >>> net = CropChoice2d(nn.Identity(), size=9)
    >>> scene = torch.zeros(1, 1, 24, 24)
    >>> scene[..., 9:13, 9:13] = 1
    >>> torch.equal(net(scene), net(scene.roll(3, dims=3)))
    True
    """

    def __init__(self, layer: nn.Module, size: int | tuple[int, int]) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(self.size) < 2:
            raise InputError(f"a crop needs at least 2 pixels a side, got {self.size[0]}x{self.size[1]}")
        self.layer = layer

    def extra_repr(self) -> str:
        """The settings."""
        return f"size={self.size}"

    def forward(self, x: Float[Tensor, "n c h w"]) -> Any:
        """The net's output for the chosen crops."""
        return self.layer(self.chosen(x))

    def chosen(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        """The chosen crop of each image [n, c, *size]."""
        (h, w), n = self.size, len(x)
        if x.shape[2] < h or x.shape[3] < w:
            raise InputError(f"expected images of at least {h}x{w} pixels, got {x.shape[2]}x{x.shape[3]}")
        scores = self.scores(x)
        best = scores.flatten(1).argmax(1)
        top, left = best // scores.shape[2], best % scores.shape[2]
        rows = top[:, None] + torch.arange(h, device=x.device)
        columns = left[:, None] + torch.arange(w, device=x.device)
        image = torch.arange(n, device=x.device)[:, None, None]
        crops: Tensor = x.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return crops

    def scores(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n y x"]:
        """The score of the crop at each place, top left first."""
        h, w = self.size
        pixels = x.double()  # so that the same crop has the same score in every view, but for the last digits
        down, across = pixels.diff(dim=2)[..., :-1].square(), pixels.diff(dim=3)[:, :, :-1].square()
        energy = (down + across).sum(1, keepdim=True)
        window = torch.outer(*(torch.hann_window(k + 1, periodic=False, dtype=torch.float64)[1:-1] for k in (h, w)))
        return F.conv2d(energy, window.to(x.device)[None, None])[:, 0]
