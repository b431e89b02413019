"""Tiled inference the plain way: one window after another, and what of its output differs from the whole image's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.graph.sites import Pair
from shiftlens.tiles.tile_windows import Span, Window, distance_to_cut

Net = Callable[[Tensor], Tensor]
"""From a normalised image or window [1, c, h, w] to its map [1, k, h', w']."""

FloatArray = NDArray[np.float64]


def cut(image: Tensor, window: Window) -> Tensor:
    """A window of an image [1, c, h, w]; beyond a border the image goes on at the far side."""
    for axis, span in ((2, window.y), (3, window.x)):
        n = image.shape[axis]
        if span.lo >= 0 and span.hi <= n:
            image = image.narrow(axis, span.lo, span.hi - span.lo)
        else:
            index = torch.arange(span.lo, span.hi, device=image.device).remainder(n)
            image = image.index_select(axis, index)
    return image


def extended(image: Tensor, window: Window, overlap: int) -> tuple[Tensor, Pair]:
    """A window, and `overlap` pixels of its own mirror image where it cuts the image; and how many stand before it."""
    h, w = image.shape[2:]
    part = cut(image, window)
    sides: list[int] = []
    for span, n in ((window.x, w), (window.y, h)):
        most = min(overlap, span.hi - span.lo - 1)
        sides += [most if span.lo > 0 else 0, most if span.hi < n else 0]
    return torch.nn.functional.pad(part, sides, mode="reflect"), (sides[2], sides[0])


def cells_of(span: Span, n: int, n_out: int, n_here: int, before: int = 0) -> tuple[slice, NDArray[np.int64]]:
    """Which cells of the whole output a tile's core is, and where they stand in the tile's own output.

    `n` pixels of the image give `n_out` cells, the window gave `n_here`; `before`: pixels put before the window.
    """
    ratio = n_out / n
    first, last = round(span.core_lo * ratio), round(span.core_hi * ratio)
    start = round((span.lo - before) * ratio)
    return slice(first, last), np.clip(np.arange(first, last) - start, 0, n_here - 1)


@dataclass
class Profile:
    """Differences by the distance to the nearest side at which a window cuts the image, in whole pixels.

    Attributes
    ----------
    total, n, largest
        (distance,): sum of the differences, number of cells, largest difference.
    """

    length: int
    total: FloatArray = field(init=False)
    n: FloatArray = field(init=False)
    largest: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.total, self.n, self.largest = (np.zeros(self.length) for _ in range(3))

    def add(self, off: FloatArray, distance: FloatArray) -> None:
        """Count the differences (y, x) at these distances; those of a window that cuts nothing are left out."""
        near = distance < self.length
        place, values = distance[near].astype(np.int64), off[near]
        self.total += np.bincount(place, values, self.length)
        self.n += np.bincount(place, minlength=self.length)
        np.maximum.at(self.largest, place, values)

    def merge(self, other: Profile) -> None:
        """Count what another image's profile of the same length has counted."""
        self.total += other.total
        self.n += other.n
        np.maximum(self.largest, other.largest, out=self.largest)

    @property
    def mean(self) -> FloatArray:
        """(distance,): NaN where no cell is so far from a side."""
        out: FloatArray = np.divide(self.total, self.n, out=np.full(self.length, np.nan), where=self.n > 0)
        return out


@dataclass(frozen=True)
class Whole:
    """One image and what the net makes of it as a whole, which is the truth here.

    Attributes
    ----------
    image
        [1, c, h, w], normalised.
    output
        [1, k, h', w'].
    """

    image: Tensor
    output: Tensor

    @property
    def size(self) -> Pair:
        """(h, w) of the image."""
        return int(self.image.shape[2]), int(self.image.shape[3])

    @property
    def span(self) -> float:
        """Highest minus lowest output."""
        return float(self.output.max() - self.output.min())


def tiled(
    net: Callable[[Tensor, Window], Tensor],
    whole: Whole,
    windows: Sequence[Window],
    profile: Profile | None = None,
    mirrored: int = 0,
) -> Tensor:
    """Stitch the outputs [1, k, h', w'] of the windows' cores together.

    Parameters
    ----------
    net
        Is also told which window it sees.
    whole, windows
        The image and its tiles.
    profile
        Where each window's differences from the whole image's output are added, its overlap included.
    mirrored
        Pixels of its own mirror image around a window where it cuts the image.
    """
    (h, w), out = whole.size, torch.zeros_like(whole.output)
    h_out, w_out = out.shape[2:]
    for window in windows:
        part, (top, left) = extended(whole.image, window, mirrored) if mirrored else (cut(whole.image, window), (0, 0))
        made = net(part, window)
        rows, from_y = cells_of(window.y, h, h_out, made.shape[2], top)
        columns, from_x = cells_of(window.x, w, w_out, made.shape[3], left)
        there = made[:, :, torch.from_numpy(from_y)][:, :, :, torch.from_numpy(from_x)]
        out[:, :, rows, columns] = there
        if profile is not None:
            _add(profile, whole, window, made)
    return out


def _add(profile: Profile, whole: Whole, window: Window, made: Tensor) -> None:
    (h, w), (h_out, w_out) = whole.size, whole.output.shape[2:]
    y0, x0 = round(window.y.lo * h_out / h), round(window.x.lo * w_out / w)
    truth = whole.output[:, :, max(y0, 0) : y0 + made.shape[2], max(x0, 0) : x0 + made.shape[3]]
    made = made[:, :, max(-y0, 0) :, max(-x0, 0) :][:, :, : truth.shape[2], : truth.shape[3]]
    off = (made - truth[:, :, : made.shape[2], : made.shape[3]]).abs().mean(1)[0].double().cpu().numpy()
    rows = (np.arange(off.shape[0]) + max(y0, 0) + 0.5) * h / h_out
    columns = (np.arange(off.shape[1]) + max(x0, 0) + 0.5) * w / w_out
    distance = np.minimum(distance_to_cut(window.y, h, rows)[:, None], distance_to_cut(window.x, w, columns)[None, :])
    profile.add(off, distance)


def averaged(net: Net, whole: Whole, tile: Pair, step: Pair) -> Tensor | None:
    """What MONAI's and SAHI's way of tiling gives: whole windows, averaged where they overlap, the last moved back.

    None where a tile holds the image. Windows are `tile` large and `step` pixels apart.
    """
    if any(side >= n for side, n in zip(tile, whole.size, strict=True)):
        return None
    (h, w), total = whole.size, torch.zeros_like(whole.output)
    n_times = torch.zeros_like(whole.output[:1, :1])
    h_out, w_out = total.shape[2:]
    for y in [*range(0, h - tile[0], step[0]), h - tile[0]]:
        for x in [*range(0, w - tile[1], step[1]), w - tile[1]]:
            made = net(whole.image[:, :, y : y + tile[0], x : x + tile[1]])
            top, left = round(y * h_out / h), round(x * w_out / w)
            rows, columns = slice(top, top + made.shape[2]), slice(left, left + made.shape[3])
            total[:, :, rows, columns] += made
            n_times[:, :, rows, columns] += 1
    return total / n_times.clamp(min=1)
