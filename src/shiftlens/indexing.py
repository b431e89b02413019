"""THE table of index rules: which source position is seen at an integer position outside the picture.

Fills of a shift, padding modules, the engine's states and foveation all read this table, so that `symmetric` means the
same thing everywhere. Rules work per axis and for any distance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError

IntArray = NDArray[np.int64]

OUTSIDE = -1
"""What `source_index` returns where no source pixel is seen and a constant stands instead."""


def _zeros(i: IntArray, n: int) -> IntArray:
    return np.where((i >= 0) & (i < n), i, OUTSIDE)


def _replicate(i: IntArray, n: int) -> IntArray:
    return np.clip(i, 0, n - 1)


def _reflect(i: IntArray, n: int) -> IntArray:
    if n < 2:
        raise InputError(f"reflect needs at least 2 positions along an axis, got {n}")
    m = np.mod(i, 2 * (n - 1))
    return np.where(m < n, m, 2 * (n - 1) - m)


def _symmetric(i: IntArray, n: int) -> IntArray:
    m = np.mod(i, 2 * n)
    return np.where(m < n, m, 2 * n - 1 - m)


def _circular(i: IntArray, n: int) -> IntArray:
    return np.mod(i, n)


RULES: dict[str, Callable[[IntArray, int], IntArray]] = {
    "zeros": _zeros,
    "replicate": _replicate,
    "reflect": _reflect,
    "symmetric": _symmetric,
    "circular": _circular,
}
"""Padding modes by the names that PyTorch uses (plus `symmetric`, which it lacks)."""

FILL_RULES: dict[str, str] = {
    "edge": "replicate",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "wrap": "circular",
}
"""Fills by the names that numpy uses, and the padding mode whose rule each of them is."""


def source_index(positions: IntArray, n: int, rule: str) -> IntArray:
    """Source position for each position on an axis of `n` pixels, under an index rule.

    Parameters
    ----------
    positions
        Integers of any shape and any distance from the picture; 0 to `n` - 1 are inside.
    n
        Number of pixels along the axis, at least 1 (at least 2 for `reflect`).
    rule
        A key of `RULES`.

    Returns
    -------
    NDArray[int64]
        Same shape; 0 to `n` - 1, or `OUTSIDE` (only under `zeros`).

    Raises
    ------
    InputError
        An unknown rule, an empty axis, or `reflect` on a single pixel.

    Examples
    --------
    >>> source_index(np.arange(-3, 0), 6, "symmetric").tolist()
    [2, 1, 0]
    """
    if rule not in RULES:
        raise InputError(f"unknown index rule {rule!r}; expected one of {', '.join(RULES)}")
    if n < 1:
        raise InputError(f"an axis needs at least 1 position, got {n}")
    return RULES[rule](np.asarray(positions, dtype=np.int64), n)
