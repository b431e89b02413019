"""What a net's layers say about tiles of an image: the grid they must stand on, and the context they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from shiftlens.errors import InputError
from shiftlens.graph.axis import Step, joined, step_of
from shiftlens.graph.sites import PICTURE, GlobalLayer, Graph, Pair, Sides, Site, Source

MOST_PIXELS = 1 << 20
"""A side of this many pixels is taken to have an inner part, if any has."""


@dataclass(frozen=True)
class Resize:
    """A resize whose result depends on the size of the map that it gets.

    Attributes
    ----------
    path
        Of the layer, or the module that calls the function and the function with "()".
    why
        "align_corners=True", "size=" (the output's size is given in cells), or the name of its mode.
    local
        Whether it is a resize by one whole factor at this size, without `align_corners`: a tile whose size gives the
        same factor is resized as the whole image is.
    """

    path: str
    why: str
    local: bool


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
        return not self.global_layers and not self.obstacles

    def _up_to_grid(self, axis: int, pixels: int) -> int:
        return -(-pixels // self.grid[axis]) * self.grid[axis]


def local_sites(graph: Graph) -> tuple[Site, ...]:
    """The sites that the output or a global layer comes from, whose maps are not one number at every place.

    A resize by one whole factor is told as such, however its size was given: what is compared between two sizes.
    """
    return _Ends.of(graph).sites


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
    ends = _Ends.of(graph)
    grid = ends.grid()
    whole = (-(-graph.size[0] // grid[0]) * grid[0], -(-graph.size[1] // grid[1]) * grid[1])
    if whole != graph.size and again is not None:
        graph = again(whole)
        ends = _Ends.of(graph)
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


@dataclass(frozen=True)
class _Ends:
    """The sites that matter, in call order, and the maps that must be right: the output and what global layers read."""

    graph: Graph
    sites: tuple[Site, ...]
    maps: tuple[tuple[str, tuple[Source, ...]], ...]
    resizes: tuple[Resize, ...]

    @staticmethod
    def of(graph: Graph) -> _Ends:
        assert graph.output is not None
        maps = [("the output", graph.output.sources)]
        maps += [(layer.path, layer.sources) for layer in graph.global_layers]
        wanted = {source.index for _, sources in maps for source in sources}
        for site in reversed(graph.sites):
            if site.index in wanted:
                wanted |= {source.index for source in site.sources}
        constant = _constant(graph)
        sites, resizes = [], []
        for site in graph:
            if site.index in wanted and site.index not in constant:
                sites.append(_by_factor(site) if site.kind == "resize" else site)
                resizes += _resize(site)
        kept = ((name, tuple(s for s in sources if s.index not in constant)) for name, sources in maps)
        return _Ends(graph, tuple(sites), tuple((name, sources) for name, sources in kept if sources), tuple(resizes))

    def steps(self, axis: int, n: int) -> dict[int, Step | None]:
        """What each site does along an axis of `n` pixels; None from a rule on that is not known."""
        image = Step(n, n, None, (0, 0), (0, 0), Fraction(0), Fraction(0), Fraction(1))
        found: dict[int, Step | None] = {PICTURE: image}
        for site in self.sites:
            try:
                before = self._before(site.name, site.sources, found)
                found[site.index] = None if before is None else step_of(site, axis, before)
            except ValueError as error:
                raise InputError(f"{self.graph.name} does not take {n} pixels: {error}") from None
        return found

    def ends(self, axis: int, n: int) -> list[Step]:
        """The maps that must be right, as far as they can be followed; the output's first."""
        steps = self.steps(axis, n)
        found = [self._before(name, sources, steps) for name, sources in self.maps]
        return [step for step in found if step is not None]

    @staticmethod
    def _before(where: str, sources: Sequence[Source], found: dict[int, Step | None]) -> Step | None:
        known = [found[source.index] for source in sources if source.index in found]
        steps = [step for step in known if step is not None]
        return joined(where, steps) if steps and len(steps) == len(known) else None

    def grid(self) -> Pair:
        grids = []
        for axis in (0, 1):
            steps = [*self.steps(axis, self.graph.size[axis]).values(), *self.ends(axis, self.graph.size[axis])]
            # A step of the grid is whole cells of every map.
            grids.append(math.lcm(*(step.jump.numerator for step in steps if step is not None)))
        return grids[0], grids[1]

    def off_plan(self) -> str:
        """The first site whose map has not the size that its rule gives; "" where all have."""
        for axis in (0, 1):
            steps = self.steps(axis, self.graph.size[axis])
            for site in self.sites:
                step = steps[site.index]
                if step is None or (step.n_out != site.out_size[axis] and not site.merged):
                    return site.name
        return ""

    def stride(self, axis: int) -> Fraction:
        ends = self.ends(axis, self.graph.size[axis])
        return ends[0].jump if ends else Fraction(1)

    def layer_stride(self, layer: GlobalLayer) -> tuple[Fraction, Fraction]:
        found = []
        for axis in (0, 1):
            n = self.graph.size[axis]
            step = self._before(layer.path, layer.sources, self.steps(axis, n))
            found.append(Fraction(n, layer.size[axis]) if step is None else step.jump)
        return found[0], found[1]

    def reach(self, axis: int, grid: int) -> Pair:
        """Pixels before and after."""
        n = self._long(axis, grid)
        ends = self.ends(axis, n)
        before = max((math.ceil(step.seam[0] * step.jump) for step in ends), default=0)
        after = max((math.ceil(n - (step.n_out - step.seam[1]) * step.jump) for step in ends), default=0)
        return before, max(after, 0)

    def border(self, axis: int, grid: int) -> int:
        """Pixels, a multiple of the grid, from which on mirrored cells are right at both ends."""
        n = self._long(axis, grid)
        steps = self.steps(axis, n)
        most = 0
        for site in self.sites:
            read = self._before(site.name, site.sources, steps)
            if read is None or not set(site.mode.split("+")) & {"reflect", "symmetric"}:
                continue
            for padded, wrong in zip(site.padding.along(axis), reversed(read.seam), strict=True):
                # Cells that must be there: as many as are mirrored, the edge, and those that the other end spoils.
                if padded > 0:
                    most = max(most, math.ceil(n - (read.n_out - padded - 1 - wrong) * read.jump))
        return -(-most // grid) * grid

    def _long(self, axis: int, grid: int) -> int:
        """A side at which some cell of every map sees neither end."""
        n = -(-self.graph.size[axis] // grid) * grid
        while any(sum(step.seam) >= step.n_out for step in self.ends(axis, n)):
            if n > MOST_PIXELS:
                raise InputError(f"{self.graph.name}: padding reaches every cell, however large the image")
            n *= 2
        return n


def _constant(graph: Graph) -> set[int]:
    """Sites whose map is the same at every place: one cell for the whole image, and what is made of such."""
    found: set[int] = set()
    for site in graph:
        # What is read without a source is a map whose rows and columns were lost, or a single cell.
        of_constants = all(source.index in found for source in site.sources) if site.sources else site.in_size == (1, 1)
        # Pooling to a few cells is no better known in a tile; what it gives is named among the global layers.
        if site.kind in ("global pool", "adaptive pool") or of_constants:
            found.add(site.index)
    return found


def _by_factor(site: Site) -> Site:
    """A resize to a given size as one by a whole factor, where it is one."""
    if site.scale is not None:
        return site
    factors = [Fraction(site.out_size[axis], site.in_size[axis]) for axis in (0, 1)]
    whole = all(factor.denominator == 1 or factor.numerator == 1 for factor in factors)
    return replace(site, scale=(float(factors[0]), float(factors[1]))) if whole else site


def _resize(site: Site) -> list[Resize]:
    if site.kind != "resize":
        return []
    if site.mode.endswith("aligned"):
        return [Resize(site.name, "align_corners=True", local=False)]
    if site.mode == "area":
        return [Resize(site.name, "mode 'area'", local=False)]
    if site.scale is None:
        return [Resize(site.name, "size=", local=_by_factor(site).scale is not None)]
    return []


def _padding(ends: _Ends) -> tuple[tuple[bool, bool], list[str]]:
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


def _obstacles(graph: Graph, ends: _Ends) -> list[str]:
    found = [
        f"{layer.path} ({layer.layer}) joins or marks places of the whole image, which no statistic stands for"
        for layer in graph.global_layers
        if not layer.freezable
    ]
    found += [f"{r.path} depends on the map's size ({r.why})" for r in ends.resizes if not r.local]
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
