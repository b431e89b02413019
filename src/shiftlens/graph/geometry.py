"""What a net's layers say about tiles of an image: the grid they must stand on, and the context they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from shiftlens.errors import InputError
from shiftlens.graph.axis import Step
from shiftlens.graph.ends import Ends, Resize
from shiftlens.graph.sites import PICTURE, GlobalLayer, Graph, Pair, Sides, Site


@dataclass(frozen=True)
class TileGeometry:
    """What tiles of an image must keep to, so that a net computes in them what it computes in the whole image.

    Attributes
    ----------
    size
        (h, w) of the image it was read at, pixels, multiples of `grid`.
    grid
        (vertical, horizontal) total stride: tiles begin at multiples of it, pixels.
    reach
        Real context that a tile's core needs on each side, pixels. Guaranteed: it follows from the layers alone.
    stride
        (vertical, horizontal) pixels of the image a cell of the output; below 1 where the output is larger.
    border
        (vertical, horizontal) sides of the shortest window that may hold a border of the image: what is padded by
        mirroring there must not come from the window's other end.
    global_layers
        Layers whose output at one place depends on the whole map, in call order.
    layer_strides
        Of each global layer: (vertical, horizontal) pixels of the image a cell of the map that it reads.
    resizes
        Resizes that depend on the size.
    circular
        (vertical, horizontal): whether context is read from the far side of the image along that axis.
    obstacles
        Why no tiling gives the whole image's output, a clause each; empty where one does.
    """

    size: Pair
    grid: Pair
    reach: Sides
    stride: tuple[Fraction, Fraction]
    border: Pair = (0, 0)
    global_layers: tuple[GlobalLayer, ...] = ()
    layer_strides: tuple[tuple[Fraction, Fraction], ...] = ()
    resizes: tuple[Resize, ...] = ()
    circular: tuple[bool, bool] = (False, False)
    obstacles: tuple[str, ...] = ()

    @property
    def overlap(self) -> Pair:
        """(vertical, horizontal): the larger reach of both sides, rounded up to the grid, pixels."""
        return self._up_to_grid(0, max(self.reach.along(0))), self._up_to_grid(1, max(self.reach.along(1)))

    @property
    def smallest_tile(self) -> Pair:
        """(vertical, horizontal): the overlap on both sides and one step of the grid, or more at borders, pixels."""
        h, w = (o + max(o + g, b) for o, g, b in zip(self.overlap, self.grid, self.border, strict=True))
        return h, w

    @property
    def n_levels(self) -> int:
        """How many global layers stand one behind another, at most; 0 for a net whose layers are all local."""
        return max((layer.level for layer in self.global_layers), default=0)

    @property
    def is_local(self) -> bool:
        """Whether tiles with `overlap` on `grid` give the whole image's output by themselves."""
        return not self.global_layers and not self.obstacles and not self.is_placed

    @property
    def is_placed(self) -> bool:
        """Whether a tile must be told its place in the image: then the image's sides are multiples of `grid`."""
        return any(each.placed for each in self.resizes) or any(each.cells != (1, 1) for each in self.global_layers)

    def _up_to_grid(self, axis: int, pixels: int) -> int:
        return -(-pixels // self.grid[axis]) * self.grid[axis]


def local_sites(graph: Graph) -> tuple[Site, ...]:
    """The sites that the output or a global layer comes from, whose maps are not one number at every place.

    A resize by one whole factor is told as such, however its size was given: what is compared between two sizes.
    """
    return Ends.of(graph).sites


def resizes_of(graph: Graph) -> tuple[Resize, ...]:
    """Those that depend on the size, as in `TileGeometry`."""
    return Ends.of(graph).resizes


def geometry_of(graph: Graph, again: Callable[[Pair], Graph] | None = None) -> TileGeometry:
    """The geometry of a net's tiles, from its sites.

    Parameters
    ----------
    graph
        Of the net at some size.
    again
        Gives the graph at another size. Asked where the sides are no multiples of the grid, at which a map's size would
        not be the image's over its stride.

    Raises
    ------
    InputError
        A net that does not return a map, or branches whose sizes do not meet.

    Examples
    --------
    >>> import torch
    >>> from shiftlens.graph import trace
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.MaxPool2d(2))
    >>> found = geometry_of(trace(net, (32, 32), n_channels=1))
    >>> found.grid, found.reach, found.overlap
    ((2, 2), Sides(left=2, right=2, top=2, bottom=2), (2, 2))
    """
    if graph.output is None:
        raise InputError(f"{graph.name} returns no map: there is nothing to tile")
    if len(graph.output.shape) != 3:
        what = "boxes" if graph.output.lost == "boxes" else f"numbers of shape {list(graph.output.shape)} an image"
        raise InputError(f"{graph.name} returns {what}, no map: there is nothing to tile")
    ends = Ends.of(graph)
    grid = ends.grid()
    whole = (-(-graph.size[0] // grid[0]) * grid[0], -(-graph.size[1] // grid[1]) * grid[1])
    if whole != graph.size and again is not None:
        graph = again(whole)
        ends = Ends.of(graph)
        grid = ends.grid()
    vertical, horizontal = ends.reach(0, grid[0]), ends.reach(1, grid[1])
    circular, obstacles = _padding(ends)
    obstacles += _obstacles(graph, ends)
    return TileGeometry(
        size=graph.size,
        grid=grid,
        reach=Sides.of(vertical, horizontal),
        stride=(ends.stride(0), ends.stride(1)),
        border=(ends.border(0, grid[0]), ends.border(1, grid[1])),
        global_layers=graph.global_layers,
        layer_strides=tuple(ends.layer_stride(layer) for layer in graph.global_layers),
        resizes=ends.resizes,
        circular=circular,
        obstacles=tuple(obstacles),
    )


def _padding(ends: Ends) -> tuple[tuple[bool, bool], list[str]]:
    """Along which axes padding is circular, and what stands against reading it from the far side."""
    circular, obstacles = [False, False], []
    for axis in (0, 1):
        steps = ends.steps(axis, ends.graph.size[axis])
        joins = next((s.name for s in ends.sites if "circular" in s.mode.split("+") and any(s.padding.along(axis))), "")
        stops = next((site.name for site in ends.sites if _ends_at_border(site, axis, steps)), "")
        circular[axis] = bool(joins)
        if joins and stops:
            obstacles.append(f"padding is circular at {joins}, and at {stops} the map ends at the image's border")
    obstacles += [
        f"{site.name} pads by distribution, which depends on the map's size"
        for site in ends.sites
        if "distribution" in site.mode.split("+")
    ]
    return (circular[0], circular[1]), list(dict.fromkeys(obstacles))


def _ends_at_border(site: Site, axis: int, steps: dict[int, Step | None]) -> bool:
    """Whether what a site does at the image's border is not what it does inside of a periodic image."""
    step = steps[site.index]
    if site.kind == "resize":
        return not site.mode.startswith("nearest")
    if site.kind == "transposed conv":
        return site.padding.along(axis) != (0, 0) or site.extent[axis] > site.stride[axis]
    if site.merged or step is None:  # judged with the window that it is padding for
        return False
    padded = any(side > 0 for side in site.padding.along(axis))
    return (padded and set(site.mode.split("+")) != {"circular"}) or step.n_out * step.jump != _n_pixels(steps)


def _n_pixels(steps: dict[int, Step | None]) -> int:
    """Pixels of the image along the steps' axis."""
    image = steps[PICTURE]
    assert image is not None
    return image.n_out


def _obstacles(graph: Graph, ends: Ends) -> list[str]:
    found = [
        f"{layer.path} ({layer.layer}) joins or marks places of the whole image, which no statistic stands for"
        for layer in graph.global_layers
        if not layer.freezable
    ]
    found += [f"{r.path} depends on the map's size ({r.why})" for r in ends.resizes if not r.local and not r.placed]
    unknown = [site.name for site in ends.sites if site.kind == "unknown"]
    found += [f"{name} changes the map by a rule that is not known" for name in unknown]
    lost = [site.name for site in ends.sites if not site.sources]
    found += [f"rows and columns cannot be followed up to {name}" for name in lost]
    output = graph.output
    if output is not None and output.lost:
        found.append(f"rows and columns cannot be followed past {output.lost}")
    elif not any(name == "the output" for name, _ in ends.maps):
        found.append("the output is the same at every place")
    elif not found and (off := ends.off_plan()):
        found.append(f"sizes from {off} on follow a rule that is not known")
    return found
