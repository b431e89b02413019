"""What a net's layers ask of tiles: the grid, the context, the layers over the whole map, and the recipe they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shiftlens.arithmetic import tile_geometry
from shiftlens.errors import InputError
from shiftlens.graph.geometry import TileGeometry
from shiftlens.graph.sites import GlobalLayer, OpKey, Pair
from shiftlens.models.wrapping import Model
from shiftlens.tiles.replaying import GLOBAL
from shiftlens.tiles.tile_fitting import fit_tiles
from shiftlens.tiles.tile_recipe import Recipe, recipe_of


@dataclass(frozen=True)
class TileNeeds:
    """What tiles need so that the net computes in them what it computes on the whole image.

    Attributes
    ----------
    geometry
        Grid, reach and global layers of the net.
    layers
        The global layers that can be given what they computed on the whole image, by function call.
    recipe
        Tiles of the side that was asked for; where that holds no context, tiles whose core has that side.
    obstacles
        Why no tiling is known to be exact, a clause each; empty where one is.
    """

    geometry: TileGeometry
    layers: Mapping[OpKey, GlobalLayer]
    recipe: Recipe
    obstacles: tuple[str, ...] = ()

    @property
    def pooled(self) -> frozenset[OpKey]:
        """The resizes of maps that have the same cells for every size of the image."""
        return frozenset(resize.op for resize in self.geometry.resizes if resize.pooled)


def needs_of(model: Model, size: Pair, tile: int) -> TileNeeds:
    """Read them from the net's layers at a size (h, w)."""
    found = tile_geometry(model, size)
    tile = _workable(found, tile)
    side = recipe_of(found, tile).tile
    # An image in which tiles of all kinds occur: at its ends, inside, and what is left.
    large = [-(-max(n, 3 * s) // g) * g for n, s, g in zip(size, side, found.grid, strict=True)]
    try:
        found = fit_tiles(model, (large[0], large[1]), side).geometry
    except InputError as error:
        return TileNeeds(
            found, _by_call(found), recipe_of(found, tile), (f"its tiles could not be looked at ({error})",)
        )
    return TileNeeds(found, _by_call(found), recipe_of(found, tile), found.obstacles)


def _workable(found: TileGeometry, tile: int) -> int:
    return tile if tile >= max(found.smallest_tile) else tile + 2 * max(found.overlap)


def _by_call(found: TileGeometry) -> dict[OpKey, GlobalLayer]:
    return {layer.op: layer for layer in found.global_layers if layer.kind in GLOBAL}
