"""Resizing a part of a map to what resizing the whole map gives there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from shiftlens.graph.ends import PLACED
from shiftlens.graph.sites import Pair
from shiftlens.tiles.tile_windows import Window


@dataclass(frozen=True)
class WholeSizes:
    """(h, w) of the map that a resize reads and of the one that it makes, for the whole image."""

    before: Pair
    after: Pair


def resized_in_place(
    given: Mapping[str, Any], sizes: WholeSizes, window: Window, image: Pair, n_out: Pair
) -> Tensor | None:
    """The rows and columns that resizing the whole map gives in a window; None where they are not known.

    Parameters
    ----------
    given
        The arguments of `interpolate`, by name; `input` is the window's own map [n, c, h, w], or the whole image's
        where that has the same cells for every window.
    sizes
        Of the same call for the whole image.
    window, image
        The window, and (h, w) of the image, pixels.
    n_out
        (h, w) of the map to be made.
    """
    made: Tensor = given["input"]
    aligned = bool(given["align_corners"])
    if f"{given['mode']}{' aligned' if aligned else ''}" not in PLACED or given.get("antialias"):
        return None
    for axis, span in enumerate((window.y, window.x)):
        n, before, after = image[axis], sizes.before[axis], sizes.after[axis]
        start_in, start_out = Fraction(span.lo * before, n), Fraction(span.lo * after, n)
        is_part = span.hi - span.lo < n
        if made.shape[2 + axis] == before and is_part:
            start_in = Fraction(0)  # the whole image's map, such as a pool's
        if (start_in.denominator, start_out.denominator) != (1, 1):
            return None
        # Beyond the image's border, where circular padding goes on, come the cells of its far side.
        places = torch.arange(n_out[axis], device=made.device, dtype=torch.float64).add(int(start_out)).remainder(after)
        if given["mode"] == "nearest":
            source = torch.floor(places * before / after)
        elif aligned:
            source = places * (before - 1) / max(after - 1, 1)
        else:
            source = ((places + 0.5) * before / after - 0.5).clamp(min=0)
        made = _sampled(made, 2 + axis, source - int(start_in))
    return made


def _sampled(x: Tensor, axis: int, places: Tensor) -> Tensor:
    """Linear interpolation of a map along one axis at places in cells; beyond the ends, the last cell."""
    n = x.shape[axis]
    places = places.clamp(0, n - 1)
    before = places.floor().long()
    shape = [1] * x.ndim
    shape[axis] = -1
    share = (places - before).to(x.dtype).view(shape)
    first, second = x.index_select(axis, before), x.index_select(axis, (before + 1).clamp(max=n - 1))
    return first * (1 - share) + second * share
