"""The input sizes nearby at which every layer treats opposite sides alike."""

from __future__ import annotations

from functools import cache

from torch import nn

from shiftlens.arithmetic.layers import matches
from shiftlens.errors import InputError
from shiftlens.graph import WINDOWED, Graph, Site, trace
from shiftlens.graph.axis import plan, same_padding
from shiftlens.graph.sites import Pair
from shiftlens.models.probing import evaluating

LEAST_RADIUS = 32
"""Sizes are looked for this many pixels up and down, or two total strides where that is more."""

MOST_EACH_WAY = 3

ONE_SIZE = "the net takes this input size only: no other is suggested"
"""The note of a net that takes none of the other sizes that were tried."""

EvenSizes = dict[str, tuple[int, ...]]


def even_sizes(module: nn.Module, graph: Graph) -> tuple[EvenSizes, list[str]]:
    """Even sizes near the graph's own, for "h" and "w", and what must be said about them.

    One more forward pass, at another size, tells whether the net computes sizes or padding from its input; more tell
    whether the net takes what would be suggested.
    """
    same, notes = _padding_rule(module, graph)
    if same is None:
        return {"h": (), "w": ()}, notes
    found: EvenSizes = {}
    for k, axis in enumerate(("h", "w")):
        n = graph.size[k]
        try:
            steps = plan(graph, k, n, same)
        except ValueError:
            return {"h": (), "w": ()}, notes
        if any(step is None or not step.followed for step in steps) and not notes:
            notes.append("even sizes do not account for what cannot be followed")
        strides = [float(step.jump) for step in steps if step is not None and step.followed and step.n_out > 1]
        radius = max(LEAST_RADIUS, 2 * round(max(strides, default=1.0)))
        even = [m for m in range(max(1, n - radius), n + radius + 1) if _is_even(graph, k, m, same)]
        below, above = [m for m in even if m < n], [m for m in even if m > n]
        found[axis] = (*below[-MOST_EACH_WAY:], *([n] if n in even else []), *above[:MOST_EACH_WAY])
    return _taken(module, graph, found, notes)


def _taken(module: nn.Module, graph: Graph, found: EvenSizes, notes: list[str]) -> tuple[EvenSizes, list[str]]:
    """The sizes that the net takes, of those found; a head or position embeddings may be made for one size."""

    @cache
    def taken_at(size: Pair) -> bool:
        other = _traced(module, graph, size)
        return other is not None and not other.is_cut_short

    def takes(*sizes: Pair) -> bool:
        return any(map(taken_at, sizes))

    (h, w), rows, columns = graph.size, found["h"], found["w"]
    largest = max((*rows, h)), max((*columns, w))
    # Where the graph is cut short, the size that the net is made for is another one, and not known.
    if graph.is_cut_short or (largest != graph.size and takes(largest)):
        return found, notes
    taken = {
        "h": tuple(m for m in rows if m == h or takes((m, w), (m, m))),
        "w": tuple(m for m in columns if m == w or takes((h, m), (m, m))),
    }
    others = {*taken["h"]} - {h} or {*taken["w"]} - {w}
    if not others and not takes((h + 1, w + 1), (2 * h, 2 * w)):
        notes = [*notes, ONE_SIZE]
    return taken, notes


def _is_even(graph: Graph, axis: int, n: int, same: frozenset[int]) -> bool:
    try:
        steps = plan(graph, axis, n, same)
    except ValueError:
        return False
    return all(step is None or step.is_even for step in steps)


def _padding_rule(module: nn.Module, graph: Graph) -> tuple[frozenset[int] | None, list[str]]:
    """The sites that pad as TensorFlow's SAME does; None where sizes follow a rule that is not known here."""
    other = _traced(module, graph, (graph.size[0] + 1, graph.size[1] + 1))
    if other is None or _as_planned(graph, other, frozenset()):
        return frozenset(), []
    same = frozenset(a.index for a, b in zip(graph, other, strict=False) if _pads_same(a) and _pads_same(b))
    if _as_planned(graph, other, same):
        return same, ["padding is computed from the picture's size, as TensorFlow's SAME does"]
    return None, ["sizes or padding are computed from the picture's size: even sizes were not looked for"]


def _pads_same(site: Site) -> bool:
    return site.kind in WINDOWED and all(
        site.padding.along(axis) == same_padding(site.in_size[axis], site.extent[axis], site.stride[axis])
        for axis in (0, 1)
    )


def _traced(module: nn.Module, graph: Graph, size: Pair) -> Graph | None:
    try:
        with evaluating(module):
            return trace(module, size, n_channels=graph.n_channels, name=graph.name)
    except InputError:
        return None  # a net that takes one size only


def _as_planned(graph: Graph, other: Graph, same: frozenset[int]) -> bool:
    """Whether a forward pass at another size has the sites, paddings and sizes that were computed for it."""
    if [site.name for site in graph][: len(other)] != [site.name for site in other]:
        return False
    fixed = [(a, b) for a, b in zip(graph, other, strict=False) if a.index not in same and not a.merged]
    if any(a.padding != b.padding for a, b in fixed):
        return False
    try:
        steps = (plan(graph, 0, other.size[0], same)[: len(other)], plan(graph, 1, other.size[1], same)[: len(other)])
    except ValueError:
        return False
    return matches(other, steps)
