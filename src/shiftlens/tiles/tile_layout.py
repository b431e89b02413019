"""Where the tiles of an image lie, so that a net computes in each what it computes in the whole image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shiftlens.errors import InputError
from shiftlens.graph.geometry import TileGeometry
from shiftlens.graph.sites import Pair
from shiftlens.naming import count_of
from shiftlens.tiles.tile_windows import Span, Window, windows_of


@dataclass(frozen=True)
class TileLayout:
    """The tiles of an image.

    Attributes
    ----------
    size
        (h, w) of the image, pixels.
    tile, overlap, grid
        (vertical, horizontal), pixels: the longest window but for what is left of the image, the context on each side
        of a core, and what cores begin at multiples of.
    rows, columns
        Tiles along each axis; every row is crossed with every column.
    n_passes
        How often the image is gone through: once for each level of global layers and once for the output.
    """

    size: Pair
    tile: Pair
    overlap: Pair
    grid: Pair
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    n_passes: int

    def __iter__(self) -> Iterator[Window]:
        return iter(windows_of(self.rows, self.columns))

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def overhead(self) -> float:
        """Pixels that the net is given in one pass, over those of the image: at least 1."""
        given = sum(span.hi - span.lo for span in self.rows) * sum(span.hi - span.lo for span in self.columns)
        return given / (self.size[0] * self.size[1])

    @property
    def implied_overhead(self) -> float:
        """The same of an image without borders: the tile's area over its core's."""
        found = 1.0
        for tile, overlap, spans in zip(self.tile, self.overlap, (self.rows, self.columns), strict=True):
            found *= tile / (tile - 2 * overlap) if len(spans) > 1 else 1.0
        return found

    def __str__(self) -> str:
        (h, w), (y, x) = self.size, self.overlap
        context = f"{y} px" if y == x else f"{y} and {x} px"
        passes = "1 pass" if self.n_passes == 1 else f"{count_of(self.n_passes, 'pass', 'passes')}"
        cost = self.n_passes * self.overhead
        return (
            f"{h}x{w} px in {len(self):,} {'tile' if len(self) == 1 else 'tiles'} of at most {self.tile[0]}x"
            f"{self.tile[1]} px with {context} of context: {passes}, {self.overhead:.2f} times the image's pixels each,"
            f" at most {cost:.2f} times the multiply-adds of the whole image at once"
        )


def tile_spans(
    n: int, tile: int, overlap: int, grid: int, *, circular: bool = False, border: int = 0
) -> tuple[Span, ...]:
    """The tiles along an axis of `n` pixels, with real context as far as the image goes.

    Cores begin on the grid. The last is shorter, or longer by less than a step of the grid: never moved back to fit.

    Parameters
    ----------
    n
        Pixels of the image.
    tile, overlap
        Multiples of the grid, the tile longer than two overlaps; a tile that holds the image is the image.
    circular
        Whether windows go on at the far side where the image ends; then `n` must be a multiple of the grid.
    border
        A window that holds an end of the image takes more context on its other side, up to this length: a multiple of
        the grid.

    Examples
    --------
    >>> [(span.lo, span.hi, span.core_lo, span.core_hi) for span in tile_spans(100, 48, 8, 8)]
    [(0, 40, 0, 32), (24, 72, 32, 64), (56, 100, 64, 100)]
    """
    if tile >= n:
        return (Span(0, n, 0, n, last=True),)
    core = tile - 2 * overlap
    starts = [*range(0, n // grid * grid, core)]
    spans = []
    for start, end in zip(starts, [*starts[1:], n], strict=True):
        lo, hi = start - overlap, end + overlap
        if not circular:
            lo, hi = max(lo, 0), min(hi, n)
            lo = min(lo, max(n - border, 0) // grid * grid) if hi == n else lo
            hi = max(hi, min(border, n)) if lo == 0 else hi
        spans.append(Span(lo, hi, start, end, last=end == n and not circular))
    return tuple(spans)


def plan_layout(geometry: TileGeometry, size: Pair, tile: int | Pair, *, stretched: bool = False) -> TileLayout:
    """The tiles of an image of (h, w) pixels as the geometry of a net asks for them.

    A tile's sides are rounded down to the grid. `stretched`: a window that holds an end of the image takes more context
    on its other side, up to a whole tile: for nets that take no small maps.

    Raises
    ------
    InputError
        A tile that does not hold the overlap on both sides and one step of the grid: the smallest that does is named.

    Examples
    --------
    >>> from shiftlens.arithmetic import tile_geometry
    >>> from shiftlens.nn.unet import UNet
    >>> layout = plan_layout(tile_geometry(UNet(width=4), 64), (200, 300), 160)
    >>> len(layout), layout.overlap, round(layout.overhead, 2)
    (20, (48, 48), 5.08)
    """
    sides = (tile, tile) if isinstance(tile, int) else tuple(tile)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        raise InputError(f"tile must be a side or (h, w), whole pixels of at least 1, got {tile!r}")
    rounded, spans = [], []
    for axis in (0, 1):
        n, grid, overlap, least = size[axis], geometry.grid[axis], geometry.overlap[axis], geometry.smallest_tile[axis]
        side = sides[axis] if sides[axis] >= n else sides[axis] // grid * grid
        if side < min(least, n):
            raise InputError(
                f"a tile of {sides[axis]} px is too small: this net needs {overlap} px of context on each side and "
                f"tiles on a grid of {grid} px; the smallest tile that works is {least}"
            )
        rounded.append(side)
        border = max(geometry.border[axis], side // grid * grid if stretched else 0)
        spans.append(tile_spans(n, side, overlap, grid, circular=geometry.circular[axis], border=border))
    return TileLayout(
        size=size,
        tile=(rounded[0], rounded[1]),
        overlap=geometry.overlap,
        grid=geometry.grid,
        rows=spans[0],
        columns=spans[1],
        n_passes=geometry.n_levels + 1,
    )
