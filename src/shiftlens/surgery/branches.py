"""Branches that meet again: layers that sample a map in parallel must keep the same grid of it."""

from __future__ import annotations

from collections.abc import Iterable

from shiftlens.errors import InputError
from shiftlens.graph import Graph, Site

_NO_GRID = ("global pool", "adaptive pool")

Steps = tuple[str, ...]
"""The sampling layers that a map has been through, in order."""


class _Groups:
    """Layers that must choose alike; of each group, the one that was called first."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.order = {path: k for k, path in enumerate(paths)}
        self._parent = {path: path for path in self.order}

    def first(self, path: str) -> str:
        while self._parent[path] != path:
            path = self._parent[path]
        return path

    def join(self, a: str, b: str) -> None:
        early, late = sorted((self.first(a), self.first(b)), key=lambda path: self.order[path])
        self._parent[late] = early


def _is_of(site: Site, path: str) -> bool:
    return site.path == path or site.path.startswith(f"{path}.")


def leaders(graph: Graph, paths: Iterable[str]) -> dict[str, str]:
    """For each sampling layer that must follow another one's choice, that other one.

    Parameters
    ----------
    graph
        The net as it is before the change.
    paths
        Layers that will choose a grid.

    Returns
    -------
    dict
        Follower to leader, which is called before it.

    Raises
    ------
    InputError
        Branches that meet have been through different numbers of such layers; names both.
    """
    chosen = [*paths]
    sampling = {site.index: path for site in graph for path in chosen if max(site.stride) > 1 and _is_of(site, path)}
    groups = _Groups(dict.fromkeys(sampling.values()))
    steps: list[Steps | None] = []
    for site in graph:
        before: Steps | None = ()
        met: list[Steps] = []
        for source in site.sources:
            seen = () if source.index < 0 else steps[source.index]
            if seen is not None:
                met.append(seen)
        if not met:
            before = None if site.sources else ()
        else:
            before = met[0]
            for other in met[1:]:
                if len(other) != len(before):
                    a, b = (" and ".join(s) or "nothing" for s in (before, other))
                    raise InputError(
                        f"branches that meet at {site.name} are sampled by {a} on one side and {b} on the other:"
                        " they cannot keep one grid; leave both out (exclude=)"
                    )
                for mine, theirs in zip(before, other, strict=True):
                    groups.join(mine, theirs)
        if site.kind in _NO_GRID:
            before = None
        elif before is not None and site.index in sampling:
            before = (*before, sampling[site.index])
        steps.append(before)
    return {path: groups.first(path) for path in groups.order if groups.first(path) != path}
