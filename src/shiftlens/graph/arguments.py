"""Arguments of torch's functions, read as torch reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.graph.sites import Pair, Sides
from shiftlens.indexing import RULES as INDEX_RULES
from shiftlens.indexing import source_index


def pair(value: Any) -> Pair:
    """One number for both axes, or two (vertical, horizontal)."""
    if isinstance(value, Sequence):
        return int(value[0]), int(value[-1])
    return int(value), int(value)


def pool_sides(padding: Any) -> Sides:
    """Padding of one number or (vertical, horizontal), the same before and after."""
    vertical, horizontal = pair(padding)
    return Sides(horizontal, horizontal, vertical, vertical)


def same_sides(padding: Any, kernel: Pair, dilation: Pair) -> Sides:
    """Padding of a convolution, also "same" (an odd cell goes to the end) and "valid"."""
    if padding == "valid":
        return Sides()
    if padding != "same":
        return pool_sides(padding)
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    vertical, horizontal = ((total // 2, total - total // 2) for total in totals)
    return Sides.of(vertical, horizontal)


def dims_of(args: Sequence[Any], kwargs: dict[str, Any], name: str) -> list[int]:
    """Axes that were given as a list, one by one, or by name."""
    value = kwargs.get(name, args)
    flat: list[int] = []
    for each in value if isinstance(value, Sequence) else (value,):
        flat += [int(d) for d in each] if isinstance(each, Sequence) else [int(each)]
    return flat


def index_sides(index: NDArray[np.int64], n: int) -> tuple[int, int, str] | None:
    """(before, after, mode) when an index into `n` cells is padding by a rule of `shiftlens.indexing`; else None."""
    for before in range(len(index) - n + 1):
        if np.array_equal(index[before : before + n], np.arange(n)):
            after = len(index) - n - before
            for mode in INDEX_RULES:
                if mode == "reflect" and n < 2:
                    continue
                if np.array_equal(source_index(np.arange(-before, n + after), n, mode), index):
                    return before, after, mode
    return None


def slices_of(index: Any, shape: Sequence[int]) -> list[tuple[int, int, int] | None] | None:
    """For each axis of the tensor (cut before, cut after, step), None for an axis that is gone; None if not slices."""
    items = list(index) if isinstance(index, tuple) else [index]
    if any(not isinstance(item, slice | int) and item is not Ellipsis for item in items):
        return None
    n_given = sum(item is not Ellipsis for item in items)
    filler = [slice(None)] * (len(shape) - n_given)
    if Ellipsis in items:
        place = items.index(Ellipsis)
        items[place : place + 1] = filler
    else:
        items += filler
    found: list[tuple[int, int, int] | None] = []
    for item, n in zip(items, shape, strict=True):
        if isinstance(item, int):
            found.append(None)
            continue
        start, stop, step = item.indices(int(n))
        found.append((start, int(n) - max(stop, start), step))
    return found
