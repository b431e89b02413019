"""Branches that meet again: layers that sample a map in parallel must keep the same grid of it."""

from __future__ import annotations

from collections.abc import Iterable

import scipy

from shiftlens.errors import InputError
from shiftlens.graph import Graph
from shiftlens.surgery.repair_plan import within

_NO_GRID = ("global pool", "adaptive pool")


def leaders(graph: Graph, paths: Iterable[str]) -> dict[str, str]:
    """For each sampling layer (of `paths`) that must follow another one's choice, that one, which is called before it.

    Raises
    ------
    InputError
        Branches that meet have been through different numbers of such layers; names both.
    """
    chosen = [*paths]
    sampling = {s.index: path for s in graph for path in chosen if max(s.stride) > 1 and within(s.path, path)}
    order = [*dict.fromkeys(sampling.values())]
    alike = scipy.cluster.hierarchy.DisjointSet(order)
    steps: list[tuple[str, ...] | None] = []  # the sampling layers that each map has been through
    for site in graph:
        read = [() if source.index < 0 else steps[source.index] for source in site.sources]
        met = [before for before in read if before is not None]
        here = met[0] if met else None if read else ()
        for other in met[1:]:
            if len(other) != len(met[0]):
                a, b = (" and ".join(s) or "nothing" for s in (met[0], other))
                raise InputError(
                    f"branches that meet at {site.name} are sampled by {a} on one side and {b} on the other:"
                    " they cannot keep one grid; leave both out (exclude=)"
                )
            for mine, theirs in zip(met[0], other, strict=True):
                alike.merge(mine, theirs)
        if here is not None and site.index in sampling:
            here = (*here, sampling[site.index])
        steps.append(None if site.kind in _NO_GRID else here)
    first = {path: min(alike.subset(path), key=order.index) for path in order}
    return {path: leader for path, leader in first.items() if path != leader}
