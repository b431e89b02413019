"""The recipe: tile, overlap and grid for any tiling tool, and as Python that gives the whole image's output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from shiftlens.graph.geometry import TileGeometry
from shiftlens.graph.sites import Pair
from shiftlens.tiles.tile_fitting import Fitting


@dataclass(frozen=True)
class Recipe:
    """How to tile the images of one net.

    Attributes
    ----------
    tile
        (vertical, horizontal) sides of what the net is given, context included, pixels.
    overlap
        Context on each side of a tile's core that is enough for every image, pixels: the guaranteed reach, rounded up
        to the grid; the larger one of both axes.
    grid
        What tiles begin at multiples of, pixels; for both axes.
    exact
        Whether tiles like these give the whole image's output for every image, by themselves.
    served
        Whether `predict_tiled` gives it: also where layers read the whole map or must know a tile's place.
    why_not
        Where tiles do not give it by themselves: the reason, in a clause.
    stride
        (vertical, horizontal) pixels of the image a cell of the output.
    border
        (vertical, horizontal) sides of the shortest window that may hold an end of the image, pixels.
    circular
        Whether context is read from the far side where the image ends, along each axis.
    n_passes
        Of `predict_tiled`.
    overlap_measured
        The smallest overlap that met a tolerance on some images; promises nothing for others. None: not measured.
    """

    tile: Pair
    overlap: int
    grid: int
    exact: bool
    served: bool
    why_not: str
    stride: tuple[Fraction, Fraction]
    border: Pair
    circular: tuple[bool, bool]
    n_passes: int
    overlap_measured: int | None = None

    @property
    def core(self) -> Pair:
        """(vertical, horizontal) sides of what is kept of a tile, pixels of the image."""
        return self.tile[0] - 2 * self.overlap, self.tile[1] - 2 * self.overlap

    def monai(self) -> str:
        """The arguments of MONAI's `SlidingWindowInferer`.

        It averages where tiles overlap and moves the last tile back to fit, off the grid: it is not exact.
        """
        # Half a pixel less, since the step that is left is rounded down.
        y, x = (f"{_share(tile, core, -0.5):.6g}" for tile, core in zip(self.tile, self.core, strict=True))
        share = y if y == x else f"({y}, {x})"
        return f'SlidingWindowInferer(roi_size={self.tile}, overlap={share}, mode="constant")'

    def sahi(self) -> str:
        """The arguments of SAHI's `get_sliced_prediction`; what holds for MONAI's holds here too."""
        (h, w), (y, x) = self.tile, self.core
        # Half a pixel more, since the overlap is rounded down.
        return (
            f"get_sliced_prediction(image, model, slice_height={h}, slice_width={w}, "
            f"overlap_height_ratio={_share(h, y, 0.5):.6g}, overlap_width_ratio={_share(w, x, 0.5):.6g})"
        )

    def loop(self) -> str:
        """Python that computes `output` [1, k, h, w] of `image` [1, c, h, w], as the net takes it, with `net`.

        Where the loop would not be exact and `predict_tiled` is, its call: [k, h, w] of a uint8 image, with `model`.
        """
        if self.exact:
            return self._loop()
        note = f"# tiles of this net are not exact: {self.why_not}"
        if not self.served:
            return f"{note}\n{self._loop()}"
        tile = self.tile[0] if self.tile[0] == self.tile[1] else self.tile
        return f"""\
{note}; shiftlens.predict_tiled is
# model: the one that was measured; image: uint8 [c, h, w], before mean and std
import shiftlens as sl
output = sl.predict_tiled(model, image, tile={tile})  # [k, h, w]
"""

    def to_dict(self) -> dict[str, Any]:
        """The keys of `recipe` in `shiftlens tiles --json`."""
        tile = self.tile[0] if self.tile[0] == self.tile[1] else list(self.tile)
        return {"tile": tile, "overlap": self.overlap, "grid": self.grid, "monai": self.monai(), "sahi": self.sahi()}

    def _loop(self) -> str:
        cells_y, cells_x = (_cells(stride) for stride in self.stride)
        lows = []
        for axis, (name, side) in enumerate((("y", "h"), ("x", "w"))):
            low = f"{name} - overlap"
            if self.border[axis] > self.overlap + self.grid:  # the last window is longer than its core asks for
                low = f"min({low}, ({side} - {self.border[axis]}) // grid * grid)"
            lows.append(low if self.circular[axis] else f"max({low}, 0)")
        if any(self.circular):
            pad = ", ".join("overlap" if circular else "0" for circular in self.circular[::-1] for _ in "ab")
            moved = [" + overlap" if circular else "" for circular in self.circular]
            wrapped = f'wrapped = torch.nn.functional.pad(image, ({pad}), mode="circular")\n'
            window = (
                f"wrapped[:, :, top{moved[0]} : y_end + overlap{moved[0]}, left{moved[1]} : x_end + overlap{moved[1]}]"
            )
        else:
            wrapped, window = "", "image[:, :, top : y_end + overlap, left : x_end + overlap]"
        ends = [
            cells(f"{name}_end - {name}") + ("" if circular else f" if {name}_end < {side} else None")
            for cells, name, side, circular in zip((cells_y, cells_x), "yx", "hw", self.circular, strict=True)
        ]
        sides = f"# height and width of the image: multiples of {self.grid}\n" if any(self.circular) else ""
        return f"""\
{sides}overlap, grid = {self.overlap}, {self.grid}
h, w = image.shape[2:]
{wrapped}ys = [*range(0, h // grid * grid or 1, {self.core[0]}), h]
xs = [*range(0, w // grid * grid or 1, {self.core[1]}), w]
bands = []
for y, y_end in zip(ys, ys[1:]):
    band = []
    for x, x_end in zip(xs, xs[1:]):
        top, left = {lows[0]}, {lows[1]}
        part = net({window})[:, :, {cells_y("y - top")} :, {cells_x("x - left")} :]
        band.append(part[:, :, : {ends[0]}, : {ends[1]}])
    bands.append(torch.cat(band, 3))
output = torch.cat(bands, 2)
"""


def recipe_of(fitting: Fitting | TileGeometry, tile: int | Pair, overlap_measured: int | None = None) -> Recipe:
    """The recipe of a net with tiles of this side, or the smallest that works where that is longer.

    Examples
    --------
    >>> from shiftlens.nn.unet import UNet
    >>> from shiftlens.tiles.tile_fitting import fit_tiles
    >>> recipe = recipe_of(fit_tiles(UNet(width=4), 512, 256), 256)
    >>> recipe.tile, recipe.overlap, recipe.grid, recipe.exact
    ((256, 256), 48, 8, True)
    >>> print(recipe.monai())
    SlidingWindowInferer(roi_size=(256, 256), overlap=0.373047, mode="constant")
    """
    geometry = fitting if isinstance(fitting, TileGeometry) else fitting.geometry
    grid, overlap = math.lcm(*geometry.grid), max(geometry.overlap)
    overlap = -(-overlap // grid) * grid
    sides = (tile, tile) if isinstance(tile, int) else tile
    least = (max(2 * overlap + grid, overlap + -(-border // grid) * grid) for border in geometry.border)
    h, w = (max(side // grid * grid, smallest) for side, smallest in zip(sides, least, strict=True))
    why_not = geometry.obstacles[0] if geometry.obstacles else ""
    if geometry.global_layers and not why_not:
        first = geometry.global_layers[0]
        why_not = f"{first.path} ({first.layer}) reads the whole map"
    if geometry.is_placed and not why_not:
        first_resize = next(each for each in geometry.resizes if each.placed)
        why_not = f"{first_resize.path} depends on the map's size ({first_resize.why})"
    return Recipe(
        tile=(h, w),
        overlap=overlap,
        grid=grid,
        exact=geometry.is_local,
        served=not geometry.obstacles,
        why_not=why_not,
        stride=geometry.stride,
        border=geometry.border,
        circular=geometry.circular,
        n_passes=geometry.n_levels + 1,
        overlap_measured=overlap_measured,
    )


def _share(tile: int, core: int, more: float) -> float:
    """The share of a tile that overlaps the next one, with so many pixels more."""
    return (tile - core + more) / tile if tile > core else 0.0


def _cells(stride: Fraction) -> Any:
    """From an expression in pixels to one in cells of the output."""

    def cells(pixels: str) -> str:
        if stride == 1:
            return pixels
        times = f" * {stride.denominator}" if stride.denominator > 1 else ""
        over = f" // {stride.numerator}" if stride.numerator > 1 else ""
        return f"({pixels}){times}{over}"

    return cells
