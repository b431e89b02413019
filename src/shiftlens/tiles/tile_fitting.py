"""A net, an image's size and a tile brought together: the geometry, the layout, and whether it is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial

from shiftlens.arithmetic import Net, graph_of, pixels
from shiftlens.errors import InputError
from shiftlens.graph import Graph
from shiftlens.graph.ends import Resize
from shiftlens.graph.geometry import TileGeometry, geometry_of, local_sites, resizes_of
from shiftlens.graph.sites import GlobalLayer, OpKey, Pair, Site
from shiftlens.tiles.placing import WholeSizes
from shiftlens.tiles.tile_layout import TileLayout, plan_layout

MOST_TRACED = 1024
"""Sides up to this are looked at as they are, in pixels; longer ones by a shorter one at the same place on the grid."""

Look = Callable[[Pair], Graph]
"""From a size to the graph of the net at that size."""

_TRIED = (512, 480, 504, 256, 224, 64, 32)
"""Sides that are tried where a net does not take the image's: multiples of most strides."""


@dataclass(frozen=True)
class Fitting:
    """What tiles of an image of one size are like for a net.

    `geometry.obstacles` says what keeps tiles of such an image from giving the whole image's output, whose shape is
    `output`, [k, h, w]. `resizes` are those that must be told a tile's place, and their sizes for the whole image.
    """

    geometry: TileGeometry
    layout: TileLayout
    output: tuple[int, int, int]
    resizes: Mapping[OpKey, WholeSizes] = field(default_factory=dict)

    @property
    def obstacles(self) -> tuple[str, ...]:
        """The same, but for an image that is one tile: none."""
        return self.geometry.obstacles if len(self.layout) > 1 else ()

    @property
    def global_layers(self) -> tuple[GlobalLayer, ...]:
        """The layers whose statistics must be frozen: none for an image that is one tile."""
        return tuple(layer for layer in self.geometry.global_layers if layer.freezable and len(self.layout) > 1)


def fit_tiles(model: Net, size: int | Pair, tile: int | Pair) -> Fitting:
    """Plan the tiles of an image, and look at the net in a tile of every size that occurs.

    No image is needed and no weight is read.

    Parameters
    ----------
    model
        An `nn.Module`, or a `Model`.
    size
        (h, w) of the image or one number, pixels.
    tile
        Longest side of what the net is given at once, context included; (h, w) or one number, pixels.

    Raises
    ------
    InputError
        A net that returns no map; a size that the net does not take (which it does is named); a tile that is too small
        (the smallest that works is named).

    Examples
    --------
    >>> from shiftlens.nn.unet import UNet
    >>> print(fit_tiles(UNet(width=4), (400, 600), 256).layout)
    400x600 px in 12 tiles of at most 256x256 px with 48 px of context: 1 pass, 2.19 times the image's pixels each, at \
most 2.19 times the multiply-adds of the whole image at once
    """
    size = pixels(size)
    look = cache(partial(graph_of, model))
    geometry = _geometry(look, size)
    whole = _graph(look, size, geometry.grid)
    layout = plan_layout(geometry, size, tile)
    output = _output_shape(whole, size, geometry)
    if len(layout) == 1:
        return Fitting(geometry, replace(layout, n_passes=1), output)
    obstacles = list(geometry.obstacles)
    for axis, what in enumerate(("high", "wide")):
        if geometry.circular[axis] and size[axis] % geometry.grid[axis]:
            obstacles.append(
                f"padding is circular, and an image {size[axis]} px {what} is no multiple of the grid of "
                f"{geometry.grid[axis]} px"
            )
    try:
        different = _differences(look, whole, layout)
    except InputError:  # the last tile is what is left of the image, which may be too small for a net
        layout = plan_layout(geometry, size, tile, stretched=True)
        different = _differences(look, whole, layout)
    obstacles += different
    resizes: dict[OpKey, WholeSizes] = {}
    if geometry.is_placed and not obstacles:
        placed = [each for each in resizes_of(whole) if each.placed]
        obstacles = _without_place(look, whole, placed, geometry, layout)
        resizes = {} if obstacles else {each.op: _sizes(each, whole.size, size) for each in placed}
    return Fitting(replace(geometry, obstacles=tuple(dict.fromkeys(obstacles))), layout, output, resizes)


def _sizes(resize: Resize, short: Pair, size: Pair) -> WholeSizes:
    """For the whole image, from those for a smaller one: maps are in proportion, but for a pool's cells."""
    (h, w), (h_out, w_out) = resize.in_size, resize.out_size
    before = resize.in_size if resize.pooled else (h * size[0] // short[0], w * size[1] // short[1])
    return WholeSizes(before, (h_out * size[0] // short[0], w_out * size[1] // short[1]))


def _without_place(
    look: Look, whole: Graph, placed: Sequence[Resize], geometry: TileGeometry, layout: TileLayout
) -> list[str]:
    """What keeps tiles from being told their place in the image, in a clause; nothing where they can be."""
    for n, grid, what in zip(layout.size, geometry.grid, ("high", "wide"), strict=True):
        if n % grid:
            return [
                f"it depends on a tile's place in the image, and an image {n} px {what} is no multiple of the grid of "
                f"{grid} px"
            ]
    graphs = [(whole.size, placed)]
    graphs += [(sides, [r for r in resizes_of(_in_tile(look, sides)) if r.placed]) for sides in _window_sizes(layout)]
    for sides, resizes in graphs:
        for first, each in zip(placed, resizes, strict=True):
            for axis in (0, 1):
                cells = [(first.out_size[axis], each.out_size[axis])]
                cells += [] if first.pooled else [(first.in_size[axis], each.in_size[axis])]
                # As many pixels a cell in every tile, and whole cells in a step of the grid.
                if any(
                    a * sides[axis] != b * whole.size[axis] or a * geometry.grid[axis] % whole.size[axis]
                    for a, b in cells
                ):
                    return [f"{first.path} makes maps that are not in proportion to the image"]
    return []


def _output_shape(short: Graph, size: Pair, geometry: TileGeometry) -> tuple[int, int, int]:
    """Of the whole image, from that of a smaller one at the same place on the grid."""
    assert short.output is not None
    k, *sides = short.output.shape
    more = ((n - m) / stride for n, m, stride in zip(size, short.size, geometry.stride, strict=True))
    h, w = (side + int(cells) for side, cells in zip(sides, more, strict=True))
    return k, h, w


def _window_sizes(layout: TileLayout) -> Iterator[Pair]:
    heights = list(dict.fromkeys(span.hi - span.lo for span in layout.rows))
    widths = list(dict.fromkeys(span.hi - span.lo for span in layout.columns))
    for k in range(max(len(heights), len(widths))):
        yield heights[min(k, len(heights) - 1)], widths[min(k, len(widths) - 1)]


def _differences(look: Look, whole: Graph, layout: TileLayout) -> list[str]:
    """The first layer that is another one in a tile than in the whole image, in a clause; none where all are alike."""
    rules = local_sites(whole)
    for sides in _window_sizes(layout):
        other = _first_difference(rules, local_sites(_in_tile(look, sides)))
        if other:
            return [f"{other} is another layer in a tile of {sides[0]}x{sides[1]} px than in the whole image"]
    return []


def _in_tile(look: Look, sides: Pair) -> Graph:
    try:
        return look(sides)
    except InputError as error:
        raise InputError(f"the net does not take a tile of {sides[0]}x{sides[1]} px: {error}") from error


def _geometry(look: Look, size: Pair) -> TileGeometry:
    short = (_shortened(size[0], 512), _shortened(size[1], 512))
    graph, refused = None, None
    for sides in (short, *((side, side) for side in _TRIED)):
        try:
            graph = look(sides)
            break
        except InputError as error:
            refused = refused or error
    if graph is None:
        assert refused is not None
        raise refused
    return geometry_of(graph, look)


def _graph(look: Look, size: Pair, grid: Pair) -> Graph:
    short = (_shortened(size[0], grid[0]), _shortened(size[1], grid[1]))
    try:
        return look(short)
    except InputError as error:
        taken = []
        for up in (0, 1):
            h, w = (max(n // g + (up if n % g else 0), 1) * g for n, g in zip(size, grid, strict=True))
            with suppress(InputError):
                look((_shortened(h, grid[0]), _shortened(w, grid[1])))
                taken.append(f"{h}x{w}")
        steps = f"{grid[0]}" if grid[0] == grid[1] else f"{grid[0]} (height) and {grid[1]} (width)"
        named = f"; it takes multiples of {steps}, such as {' or '.join(dict.fromkeys(taken))}" if taken else ""
        raise InputError(f"the net does not take an image of {size[0]}x{size[1]} px: {error}{named}") from error


def _shortened(n: int, grid: int) -> int:
    """A side of less than twice `MOST_TRACED` that has the same remainder by the grid."""
    if n <= MOST_TRACED:
        return n
    least = -(-512 // grid) * grid
    return least + n % grid


def _first_difference(whole: tuple[Site, ...], tile: tuple[Site, ...]) -> str:
    """The first layer that does not do to a tile what it does to the whole image; "" where all do."""
    for a, b in zip(whole, tile, strict=False):
        if _rule(a) != _rule(b):
            return b.name
    return "" if len(whole) == len(tile) else [*whole, *tile][min(len(whole), len(tile))].name


def _rule(site: Site) -> tuple[object, ...]:
    return (
        site.name,
        site.kind,
        site.kernel,
        site.stride,
        site.dilation,
        site.padding,
        site.mode,
        site.ceil_mode,
        site.scale,
        site.output_padding,
    )
