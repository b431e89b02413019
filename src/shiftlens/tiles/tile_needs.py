"""What a net's layers ask of tiles: the grid, the context, the layers over the whole map, and the recipe they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shiftlens.arithmetic import tile_geometry
from shiftlens.graph.geometry import TileGeometry
from shiftlens.graph.sites import OpKey, Pair
from shiftlens.models.wrapping import Model
from shiftlens.tiles.replaying import GLOBAL


@dataclass(frozen=True)
class TileNeeds:
    """What tiles need so that the net computes in them what it computes on the whole image.

    Attributes
    ----------
    grid
        Total stride along y and x in pixels; with the output's stride where that is no whole number of it.
    reach
        Guaranteed context along y and x in pixels, multiples of the grid.
    circular
        Along y and x: context comes from the far side of the image.
    exact, passes
        Whether `predict_tiled` gives the whole image's output for every image, and in how many passes over the tiles.
    global_calls
        The calls whose output depends on the whole map, with their cause, in call order.
    recipe
        `tile`, `overlap` and `grid`.
    notes
        Why no tiling is exact; empty where one is.
    """

    grid: Pair
    reach: Pair
    circular: tuple[bool, bool]
    exact: bool
    passes: int
    global_calls: Mapping[OpKey, str]
    recipe: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def needs_of(model: Model, size: Pair, tile: int) -> TileNeeds:
    """Read them from the net's geometry at a size (h, w), for tiles of `tile` pixels or the smallest that work."""
    found = tile_geometry(model, size)
    calls = {layer.op: layer.kind for layer in found.global_layers if layer.kind in GLOBAL}
    return TileNeeds(
        grid=found.grid,
        reach=found.overlap,
        circular=found.circular,
        exact=not found.obstacles,
        passes=1 if found.obstacles else found.n_levels + 1,
        global_calls=calls,
        recipe=_recipe(found, tile),
        notes=tuple(f"no tiling is known to be exact: {why}" for why in found.obstacles),
    )


def _recipe(found: TileGeometry, tile: int) -> dict[str, Any]:
    overlap, grid = max(found.overlap), max(found.grid)
    core = max(grid, (tile - 2 * overlap) // grid * grid)
    y, x = found.grid
    return {"tile": core + 2 * overlap, "overlap": overlap, "grid": y if y == x else [y, x]}
