"""`digits`: scikit-learn's handwritten digits, drawn so that they test position and nothing else."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from shiftlens.data.example_images import ArrayPictures, Source

CANVAS = 32  # pixels: the side of the picture
DRAWN = 20  # pixels: the side of the digit in its middle, which leaves 6 on each side
_STORED = 8
_LEVELS = 16  # the brightest of the stored grey levels


def open_digits() -> Source:
    """All 1,797 digits as 32 x 32 RGB, their labels, and the names of the ten classes."""
    levels, labels = stored_digits()
    grey = np.zeros((len(levels), CANVAS, CANVAS, 1), dtype=np.uint8)
    edge = (CANVAS - DRAWN) // 2
    grey[:, edge:-edge, edge:-edge, 0] = enlarge(levels)
    names = [str(digit) for digit in range(10)]
    return Source(ArrayPictures(np.repeat(grey, 3, axis=3)), labels, names, natural_flip=False)


def stored_digits() -> tuple[Int64[np.ndarray, "n 8 8"], Int64[np.ndarray, " n"]]:
    """Grey levels 0 to 16 and classes, as scikit-learn's `load_digits` gives them.

    Its file is read directly where it is found: to import scikit-learn takes a second and 140 MB.
    """
    spec = find_spec("sklearn")
    home = spec.submodule_search_locations if spec is not None else None
    file = Path(next(iter(home or ()), "")) / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        with gzip.open(file, "rt") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
        return table[:, :-1].reshape(-1, _STORED, _STORED), table[:, -1]
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images.astype(np.int64), data.target.astype(np.int64)


def enlarge(levels: Int64[np.ndarray, "n 8 8"]) -> UInt8[np.ndarray, "n 20 20"]:
    """Bilinear enlargement of grey levels 0 to 16 to pixels 0 to 255, in whole numbers only.

    Pixel centres keep their place (output pixel `o` lies at `(o + 1/2) 8 / 20 - 1/2`), and the border value goes on
    outside. All weights are whole tenths, so the result is the exact value rounded to nearest, on every machine.
    """
    weights = np.zeros((DRAWN, _STORED), dtype=np.int64)  # in tenths
    for o in range(DRAWN):
        tenths = 4 * o - 3
        below, part = divmod(tenths, 10)
        for place, weight in ((below, 10 - part), (below + 1, part)):
            weights[o, min(max(place, 0), _STORED - 1)] += weight
    hundredths: Int64[np.ndarray, "n 20 20"] = np.einsum("oy,nyx,px->nop", weights, levels, weights)
    scale = 100 * _LEVELS
    return ((hundredths * 255 + scale // 2) // scale).astype(np.uint8)
