"""One pass over the stored images of a set: their checksum, their common size, and how many are JPEG-compressed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from shiftlens.data.example_images import Pictures

Progress = Callable[[int, int], None]

_FACTS_AT_ONCE = 1024


class Survey(NamedTuple):
    """What one pass over the stored images has found: the checksum of all, in order; (h, w) of each; how many JPEGs."""

    content: str
    sizes: Int64[np.ndarray, "n 2"]
    n_jpeg: int

    @property
    def size(self) -> tuple[int, int] | None:
        """(h, w) that all share."""
        h, w = self.sizes[0].tolist()
        return (h, w) if (self.sizes == (h, w)).all() else None


def surveyed(pictures: Pictures, index: Int64[np.ndarray, " n"], progress: Progress | None = None) -> Survey:
    """Read the stored form of the images at `index` once; `progress` is called with (images done, in all)."""
    digests = np.empty((len(index), 32), dtype=np.uint8)
    sizes = np.empty((len(index), 2), dtype=np.int64)
    n_jpeg = 0
    order = np.argsort(index, kind="stable")
    for start in range(0, len(index), _FACTS_AT_ONCE):
        part = order[start : start + _FACTS_AT_ONCE]
        for k, fact in zip(part, pictures.facts(index[part].tolist()), strict=True):
            digests[k] = np.frombuffer(fact.sha256, dtype=np.uint8)
            sizes[k] = fact.size
            n_jpeg += fact.is_jpeg
        if progress is not None:
            progress(start + len(part), len(index))
    return Survey(hashlib.sha256(digests.tobytes()).hexdigest(), sizes, n_jpeg)
