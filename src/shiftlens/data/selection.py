"""Which images are taken: a fixed order by class, and a fixed split.

Both are decided by the labels and by each image's position in its source, through whole-number arithmetic that no
library can change: the same images on every machine, with every NumPy version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from shiftlens.errors import InputError

SPLITS = ("train", "test", "all")

# One stream each, so that the images picked by a limit do not depend on who was held out, and the other way round.
_SPLIT_STREAM = 1
_LIMIT_STREAM = 2
_TEST_PART = 5  # one in five is held out


def positions_in(asked: Any, n: int) -> Int64[np.ndarray, " k"]:
    """Positions in a set of `n` images: whole numbers, negative ones from the end, a slice, or one truth value each."""
    if isinstance(asked, slice):
        return np.arange(n, dtype=np.int64)[asked]
    positions = np.asarray(asked)
    if positions.dtype == np.bool_ and positions.shape == (n,):
        return np.flatnonzero(positions).astype(np.int64)
    if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
        found = f"shape {positions.shape} of {positions.dtype}"
        raise InputError(f"positions must be a list of whole numbers, got {found}")
    positions = positions.astype(np.int64)
    bad = (positions < -n) | (positions >= n)
    if bad.any():
        raise IndexError(f"position {positions[bad][0]} of a set of {n} pictures")
    return np.where(positions < 0, positions + n, positions)


def scrambled(positions: Int64[np.ndarray, " n"], seed: int) -> UInt64[np.ndarray, " n"]:
    """One 64-bit key per position, as good as random; sorting by it is a fixed shuffle.

    Source: the output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), applied to `positions`.
    """
    with np.errstate(over="ignore"):
        z = positions.astype(np.uint64) + np.uint64(1)
        for salt in (np.uint64(seed), np.uint64(0)):
            z = (z + salt) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z


def _ranks(labels: Int64[np.ndarray, " n"], keys: UInt64[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """For each image: its place among those of its class when these are sorted by key, and how many these are."""
    order = np.lexsort((keys, labels))
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    size = np.empty(len(labels), dtype=np.int64)
    size[order] = np.repeat(counts, counts)
    return rank, size


def stratified_order(
    labels: Int64[np.ndarray, " n"], index: Int64[np.ndarray, " n"], seed: int = 0
) -> Int64[np.ndarray, " n"]:
    """Positions 0 to n - 1 in an order of which every beginning holds the classes in about their true shares.

    Image number `r` of the `m` of its class stands at `(r + 1/2) / m`; ties are broken by the shuffle, which `seed` and
    each image's position in its source (`index`) decide.
    """
    keys = scrambled(index, 2**32 * _LIMIT_STREAM + seed)
    rank, size = _ranks(labels, keys)
    return np.lexsort((keys, (2 * rank + 1) / size)).astype(np.int64)


def first_of_each_class(labels: Int64[np.ndarray, " n"], n: int) -> Int64[np.ndarray, " k"]:
    """Ascending positions of at most `n` images: the first of every class, then the second, and so on."""
    rank, _ = _ranks(labels, np.arange(len(labels), dtype=np.uint64))
    return np.sort(np.argsort(rank, kind="stable")[:n]).astype(np.int64)


def stratified_split(labels: Int64[np.ndarray, " n"], split: str, seed: int = 0) -> Int64[np.ndarray, " k"]:
    """Ascending positions of one part of a source without splits: one fifth of every class is `test`, the rest `train`.

    A fifth is rounded to the nearest number of images, and is at least one where a class has two or more.
    """
    rank, size = _ranks(labels, scrambled(np.arange(len(labels), dtype=np.int64), 2**32 * _SPLIT_STREAM + seed))
    held_out = rank < np.where(size > 1, np.maximum((size + _TEST_PART // 2) // _TEST_PART, 1), 0)
    chosen = np.flatnonzero(held_out if split == "test" else ~held_out).astype(np.int64)
    if not len(chosen):
        raise InputError(
            f"a split into train and test needs 2 images of a class, got {len(labels)} image(s) with no class twice"
        )
    return chosen


def read_only(array: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """A copy that cannot be written to."""
    array = array.copy()
    array.setflags(write=False)
    return array
