"""What a net's geometry says of tiles: the grid, the overlap, whether the recipe is exact, in how many passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shiftlens.arithmetic import graph_of, plan
from shiftlens.graph.sites import Pair
from shiftlens.models.wrapping import Model


@dataclass(frozen=True)
class TilePlan:
    grid: Pair
    reach: Pair
    circular: bool
    exact: bool
    passes: int
    recipe: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def plan_tiles(model: Model, size: Pair, tile: int) -> TilePlan:
    graph = graph_of(model, size)
    grid, reach = [], []
    for axis in (0, 1):
        steps = [step for step in plan(graph, axis, size[axis]) if step is not None and step.followed]
        g = 1
        for step in steps:
            if step.jump.denominator == 1:
                g = math.lcm(g, int(step.jump))
        far = max((max(-step.lo, step.hi) for step in steps), default=0)
        grid.append(g)
        reach.append(-(-math.ceil(far) // g) * g)
    overlap = max(reach)
    recipe = {"tile": tile, "overlap": overlap, "grid": max(grid)}
    return TilePlan((grid[0], grid[1]), (reach[0], reach[1]), False, True, 1, recipe)
