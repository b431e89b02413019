"""Where tiles lie: the window that the net sees and the core that is kept of its output, along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from shiftlens.graph.sites import Pair


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels: the window [lo, hi) that is read, the core [core_lo, core_hi) that is kept.

    With circular padding a window may begin before 0 and end after the image: it goes on at the far side. `last`: the
    core goes to the end of every map, whatever its length.
    """

    lo: int
    hi: int
    core_lo: int
    core_hi: int
    last: bool = False

    def cells(self, stride: Fraction) -> slice:
        """The core's cells in the window's map of so many pixels a cell; the core begins at a whole one."""
        first = (self.core_lo - self.lo) / stride
        end = None if self.last else int((self.core_hi - self.lo) / stride)
        return slice(int(first), end)


@dataclass(frozen=True)
class Window:
    """One tile: a span along each axis."""

    y: Span
    x: Span

    @property
    def origin(self) -> Pair:
        """(y, x) of the window's first pixel."""
        return self.y.lo, self.x.lo

    @property
    def size(self) -> Pair:
        """(h, w) in pixels."""
        return self.y.hi - self.y.lo, self.x.hi - self.x.lo


def plain_spans(n: int, tile: int, stride: int) -> list[Span]:
    """Tiles without overlap as most tilers place them: every `stride` pixels, the last one moved back to fit.

    Where two tiles overlap, the later one counts.
    """
    if tile >= n:
        return [Span(0, n, 0, n)]
    origins = [*range(0, n - tile, stride), n - tile]
    ends = [*origins[1:], n]
    return [Span(o, o + tile, o, end) for o, end in zip(origins, ends, strict=True)]


def aligned(spans: Sequence[Span], n: int, grid: int) -> list[Span]:
    """The same tiles with their origins moved back to multiples of the grid, and sides that are such multiples."""
    origins = sorted({span.lo // grid * grid for span in spans})
    longest = max(span.hi - span.lo for span in spans)
    side = -(-longest // grid) * grid
    ends = [*origins[1:], n]
    return [
        Span(o, n if end == n else max(min(o + side, n), end), o, end) for o, end in zip(origins, ends, strict=True)
    ]


def grown(spans: Sequence[Span], n: int, overlap: int, *, circular: bool = False) -> list[Span]:
    """The same cores with at least `overlap` pixels of the image around them, as far as the image goes.

    `circular`: where it ends, it goes on at the far side.
    """
    if not overlap or len(spans) == 1:
        return list(spans)
    made = []
    for span in spans:
        lo, hi = min(span.lo, span.core_lo - overlap), max(span.hi, span.core_hi + overlap)
        made.append(replace(span, lo=lo, hi=hi) if circular else replace(span, lo=max(lo, 0), hi=min(hi, n)))
    return made


def windows_of(rows: Sequence[Span], columns: Sequence[Span]) -> list[Window]:
    """Every tile, row by row."""
    return [Window(y, x) for y in rows for x in columns]


def distance_to_cut(span: Span, n: int, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far places in the image (pixels) are from the nearer end of a window that cuts the image; infinite if none.

    An end of the window at the image's own border cuts nothing.
    """
    before = centres - span.lo if span.lo > 0 else np.full(len(centres), np.inf)
    after = span.hi - centres if span.hi < n else np.full(len(centres), np.inf)
    return np.minimum(before, after)
