"""The maps of a net that tiles must get right, and the sites that they come from, followed along each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from shiftlens.errors import InputError
from shiftlens.graph.axis import Step, joined, step_of
from shiftlens.graph.sites import PICTURE, GlobalLayer, Graph, OpKey, Pair, Site, Source

PLACED = ("nearest", "bilinear", "bilinear aligned")
"""Modes in which a part of a map can be resized as the whole map is."""

MOST_PIXELS = 1 << 20
"""A side of this many pixels is taken to have an inner part, if any has."""


@dataclass(frozen=True)
class Resize:
    """A resize whose result depends on the size of the map that it gets.

    Attributes
    ----------
    path
        Of the layer, or the module that calls the function and the function with "()".
    op
        The function call.
    why
        "align_corners=True", "size=" (the output's size is given in cells), "pooled map" (of a map that has the same
        cells for every size of the image), or the name of its mode.
    local
        Whether it is a resize by one whole factor at this size, without `align_corners`: a tile whose size gives the
        same factor is resized as the whole image is.
    placed
        Whether a tile must and can be given the cells at its place in the whole map.
    in_size, out_size
        (h, w) of the map that is read and of the one that is made.
    """

    path: str
    op: OpKey
    why: str
    local: bool
    placed: bool
    in_size: Pair
    out_size: Pair

    @property
    def pooled(self) -> bool:
        """Whether the map that is read has the same cells for every size of the image."""
        return self.why == "pooled map"


@dataclass(frozen=True)
class Ends:
    """The sites that matter, in call order, and the maps that must be right: the output and what global layers read."""

    graph: Graph
    sites: tuple[Site, ...]
    maps: tuple[tuple[str, tuple[Source, ...]], ...]
    resizes: tuple[Resize, ...]

    @staticmethod
    def of(graph: Graph) -> Ends:
        """Those of a net that returns a map."""
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
            if site.index in wanted and site.kind == "resize":
                resizes += _resize(site, pooled=site.index in constant)
        kept = ((name, tuple(s for s in sources if s.index not in constant)) for name, sources in maps)
        return Ends(graph, tuple(sites), tuple((name, sources) for name, sources in kept if sources), tuple(resizes))

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
        """(vertical, horizontal) pixels that are whole cells of every map."""
        grids = []
        for axis in (0, 1):
            steps = [*self.steps(axis, self.graph.size[axis]).values(), *self.ends(axis, self.graph.size[axis])]
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
        """Pixels of the image a cell of the output."""
        ends = self.ends(axis, self.graph.size[axis])
        return ends[0].jump if ends else Fraction(1)

    def layer_stride(self, layer: GlobalLayer) -> tuple[Fraction, Fraction]:
        """(vertical, horizontal) pixels of the image a cell of the map that a global layer reads."""
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


def _resize(site: Site, *, pooled: bool) -> list[Resize]:
    if pooled and (site.in_size == (1, 1) or site.scale is not None):
        return []  # what comes out is the same for every size of the image, too
    local, placed, by_factor = False, site.mode in PLACED, _by_factor(site).scale is not None
    if pooled:
        why = "pooled map"
    elif site.mode.endswith("aligned"):
        why, placed = "align_corners=True", placed and by_factor
    elif site.mode == "area":
        why = "mode 'area'"
    elif site.scale is None:
        why, local, placed = "size=", by_factor, False
    else:
        return []
    return [Resize(site.name, site.op, why, local, placed, site.in_size, site.out_size)]
