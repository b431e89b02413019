"""One axis of one site as a linear map: how often each input cell enters each output cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from shiftlens.errors import InputError
from shiftlens.graph import WINDOWED, Site
from shiftlens.indexing import OUTSIDE, RULES, source_index
from shiftlens.naming import unknown_name
from shiftlens.nn.pooling import out_cells

OVERRIDES = (*RULES, "partial", "full", "none")
"""Padding modes that foveation can be asked for."""

_AS_ZEROS = ("zeros", "-inf", "constant", "none", "cut", "random")
_POOLS = ("max pool", "average pool", "lp pool")

Matrix = sparse.csr_array


@dataclass(frozen=True)
class Override:
    """Another padding for the layers that pad: its mode, and whether pools get it too."""

    mode: str
    pools: bool = True

    def __post_init__(self) -> None:
        if self.mode not in OVERRIDES:
            raise unknown_name("padding mode", self.mode, OVERRIDES)


Padding = tuple[int, int, str]
"""Before, after, mode."""


def padding_of(site: Site, axis: int, override: Override | None) -> tuple[Padding, Padding]:
    """Explicit padding right before a site, and the site's own, along an axis; refused where it is no index rule."""
    own, both = site.own.along(axis), site.padding.along(axis)
    explicit = (both[0] - own[0], both[1] - own[1])
    first, _, last = site.mode.partition("+")
    if override is None or not (site.kind == "conv" or (override.pools and site.kind in _POOLS)):
        before = "zeros" if first == "partial" else first
        return _known(site, explicit, before), _known(site, own, last or first)
    wide = site.dilation[axis] * (site.kernel[axis] - 1)
    if override.mode == "none":
        return _kept(explicit, "zeros", cut=True), _kept(own, "zeros", cut=True)
    if override.mode in ("full", "partial") and site.kind != "conv":
        return (*explicit, "zeros"), (*own, "zeros")
    if override.mode == "full":
        return (0, 0, "zeros"), (wide, wide, "zeros")
    if override.mode == "partial":
        # Explicit padding is part of what the windows do not see.
        return (0, 0, "zeros"), (*both, "partial")
    return _kept(explicit, override.mode), _kept(own, override.mode)


def _kept(sides: tuple[int, int], mode: str, *, cut: bool = False) -> Padding:
    """The same width by another mode, or none of it; what cuts cells off stays as it is."""
    before, after = (min(side, 0) for side in sides) if cut else sides
    return before, after, mode


def _known(site: Site, sides: tuple[int, int], mode: str) -> Padding:
    if mode in _AS_ZEROS or sides == (0, 0):
        return (*sides, "partial" if mode == "partial" else "zeros")
    if mode not in RULES and mode != "partial":
        raise InputError(f"{site.name} pads by {mode!r}, which is no index rule: a pixel then has no number of paths")
    return (*sides, mode)


def axis_matrix(site: Site, axis: int, n: int, override: Override | None = None) -> Matrix:
    """How often each of `n` cells enters each output cell of a site, along one axis; shape (n_out, n).

    Convolutions count 1 a tap, pools 1 / kernel (of all kinds: the mean), a partial convolution kernel / taps inside.
    Over both axes the counts multiply.
    """
    if site.kind in WINDOWED:
        return _windows(site, axis, n, override)
    if site.kind == "sum":
        return sparse.eye_array(n, format="csr")
    if site.kind == "pad":
        before, after, mode = _known(site, site.padding.along(axis), site.mode)
        if override is not None and override.mode not in ("partial", "full"):
            before, after, mode = _kept(
                (before, after), "zeros" if override.mode == "none" else override.mode, cut=override.mode == "none"
            )
        return _padded((before, after, mode), n)
    # What is left is rare: the operation itself is shown each cell alone.
    return sparse.csr_array(_of_cells(site, axis, torch.eye(n, dtype=torch.float64)[:, None])[:, 0].T.numpy())


def _of_cells(site: Site, axis: int, cells: Tensor) -> Tensor:
    """What a site makes of rows of cells, [n, 1, n]."""
    if site.kind == "transposed conv":
        taps = cells.new_ones(1, 1, site.kernel[axis])
        made = F.conv_transpose1d(cells, taps, stride=site.stride[axis], dilation=site.dilation[axis])
        before, after = site.padding.along(axis)
        return F.pad(made, (-before, site.output_padding[axis] - after))
    if site.kind in ("adaptive pool", "global pool"):
        return F.adaptive_avg_pool1d(cells, site.out_size[axis])
    if site.kind == "shuffle" and site.scale is not None:
        # Cells to channels or back: a channel is one cell of each block, so its mean over channels is the block's.
        scale = site.scale[axis]
        return cells.repeat_interleave(round(scale), 2) if scale >= 1 else F.avg_pool1d(cells, round(1 / scale))
    if site.kind == "resize":
        name, _, aligned = site.mode.partition(" ")
        n_out = site.out_size[axis] if site.scale is None else int(cells.shape[2] * site.scale[axis])
        if name not in ("nearest", "nearest-exact", "bilinear", "bicubic"):
            raise InputError(f"{site.name} resizes by {name!r}: paths cannot be counted through it")
        corners = None if name.startswith("nearest") else bool(aligned)
        return F.interpolate(cells[..., None], size=(n_out, 1), mode=name, align_corners=corners)[..., 0]
    raise InputError(f"{site.name} changes the map by a rule that is not known: paths cannot be counted through it")


def _windows(site: Site, axis: int, n: int, override: Override | None) -> Matrix:
    explicit, (before, after, mode) = padding_of(site, axis, override)
    first = _padded(explicit, n)
    n = first.shape[0]
    kernel, stride, dilation = site.kernel[axis], site.stride[axis], site.dilation[axis]
    n_out = out_cells(n, dilation * (kernel - 1) + 1, stride, before, after, site.ceil_mode)
    if n_out < 1:
        raise InputError(f"{site.name} gets {n} cells, which is too few")
    positions = np.arange(n_out)[:, None] * stride - before + np.arange(kernel) * dilation
    weight: float | NDArray[np.float64] = 1.0
    if site.kind in _POOLS:
        weight = 1 / kernel
        if site.kind == "average pool":
            # What hangs over the end is never counted; the padding is, unless the layer says otherwise.
            start, end = (-before, n + after) if site.counts_padding else (0, n)
            weight = 1 / ((positions >= start) & (positions < end)).sum(1, keepdims=True)
    elif mode == "partial":
        weight = kernel / np.maximum(((positions >= 0) & (positions < n)).sum(1, keepdims=True), 1)
    made = _by_index(positions, n, after, "zeros" if mode == "partial" else mode, weight)
    return made if explicit[:2] == (0, 0) else sparse.csr_array(made @ first)


def _padded(padding: Padding, n: int) -> Matrix:
    before, after, mode = padding
    return _by_index(np.arange(-before, n + after)[:, None], n, after, mode, 1.0)


def _by_index(
    positions: NDArray[np.int64], n: int, after: int, rule: str, weight: float | NDArray[np.float64]
) -> Matrix:
    source = source_index(positions, n, rule)
    seen = (source != OUTSIDE) & (positions < n + max(after, 0))
    rows = np.broadcast_to(np.arange(len(positions))[:, None], positions.shape)[seen]
    values = np.broadcast_to(np.asarray(weight, np.float64), positions.shape)[seen]
    return sparse.csr_array((values, (rows, source[seen])), shape=(len(positions), n))
