"""`TileReport`: how far tiled inference is from the whole image's output, why, and what makes it exact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.graph.sites import Pair
from shiftlens.naming import Printed, count_of, printable
from shiftlens.stats import Estimate, FloatArray, mean_estimate, per_cent
from shiftlens.tiles.tile_shares import CauseShare, causes_of

NUMBERS = {
    "dense": ("psnr", "dB", "higher"),
    "segmentation": ("changed", "share", "lower"),
}
"""The task's own number: its name, its unit, and which way is better."""

LOW_COST = 2.0
"""Pixels computed for each that is kept: where the recipe's tile costs more, a larger one is named."""

SAID = {
    "grid": "tile origins off the grid of the net's total stride",
    "context": "real context that is missing at a tile's border",
    "resize": "up-sampling that depends on the tile's size",
    "norm": "normalisation over the whole tile",
    "pooling": "pooling over the whole tile",
    "attention": "attention over the whole tile",
    "other": "what no step explains",
    "mirrored edge": "padding a tile with its own mirror image in place of context",
}
"""The causes, in words."""


@dataclass(frozen=True, eq=False, repr=False)
class TileReport(Printed):
    """What `tile_report` measured.

    Attributes
    ----------
    model, model_digest, data, data_digest, model_options, data_options
        What was measured.
    task
        "dense" or "segmentation".
    size
        (h, w) of the images in pixels.
    tile, stride
        Side of a plain tile and distance from tile to tile, pixels.
    overlap
        Real context on each side of a tile's core, pixels: what was asked for; by default the guaranteed reach.
    overlap_measured
        The smallest multiple of the grid that met the tolerance on these images; it promises nothing about others. None
        where none did.
    tolerance
        Largest |difference| that `overlap_measured` allows, as a share of the output's range.
    grid
        Total stride along y and x, pixels.
    exact, passes
        Whether tiles by the recipe give the whole image's output for every image by themselves (`exact_with` says
        whether `predict_tiled` does where they do not); passes over the tiles in which it computes what global layers
        need, and the output.
    recipe
        The keys of `recipe` in `to_dict`.
    index
        (image,) positions in the source.
    causes_of_steps, layers_of_steps
        Of each step after the first: what it takes away, from which layers.
    off, numbers
        (image, step): mean |difference| in the output's unit, and the task's own number.
    with_overlap, numbers_with_overlap
        (image,): the same at `overlap`.
    alone_names, alone
        What was changed alone, and (image, name) mean |difference|; NaN where the net does not take such tiles.
    span
        (image,): highest minus lowest output of the whole image.
    map, example_map
        [h', w']: mean |difference| of plain tiles over images, and of the first image.
    example
        The first image, uint8 [c, h, w].
    by_distance, largest_by_distance
        (distance,): mean and largest |difference| by whole pixels to the nearest side at which a tile cuts the image.
    phases, by_phase
        Tile origins modulo the grid, and the mean |difference| there.
    obstacles
        Why no tiling is known to be exact, a clause each; empty where `predict_tiled` is.
    notes
        What else a reader must know.
    software
        Versions.
    path
        Where it lies; None in memory.

    Examples
    --------
    >>> found = sl.open_tiles("tiles.zarr")
    >>> found.n_images, found.overlap, found.exact_with
    (8, 1, 'recipe')
    >>> [cause.cause for cause in found.causes], found.remaining.value < 1e-6 < found.mismatch.value
    (['context'], True)
    """

    model: str
    model_digest: str
    data: str
    data_digest: str
    task: str
    size: Pair
    tile: int
    stride: int
    overlap: int
    overlap_measured: int | None
    tolerance: float
    grid: Pair
    exact: bool
    passes: int
    recipe: Mapping[str, Any]
    seed: int
    index: NDArray[np.int64]
    causes_of_steps: tuple[str, ...]
    layers_of_steps: tuple[tuple[str, ...], ...]
    off: FloatArray
    numbers: FloatArray
    with_overlap: FloatArray
    numbers_with_overlap: FloatArray
    alone_names: tuple[str, ...]
    alone: FloatArray
    span: FloatArray
    map: FloatArray
    example_map: FloatArray
    example: NDArray[np.uint8]
    by_distance: FloatArray
    largest_by_distance: FloatArray
    phases: NDArray[np.int64]
    by_phase: FloatArray
    obstacles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    software: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def exact_with(self) -> str | None:
        """What gives the whole image's output for every image: "recipe", "predict_tiled" or None."""
        return "recipe" if self.exact else None if self.obstacles else "predict_tiled"

    @property
    def n_images(self) -> int:
        """How many images were measured."""
        return len(self.off)

    @property
    def mismatch(self) -> Estimate:
        """Mean |difference| of plain tiles without overlap, in the output's unit: what the shares are shares of."""
        return _mean(self.off[:, 0], "")

    @property
    def remaining(self) -> Estimate:
        """Mean |difference| at `overlap`, nothing frozen."""
        return _mean(self.with_overlap, "")

    @property
    def number(self) -> Estimate:
        """The task's own number of plain tiles: PSNR in dB, or the share of pixels whose class changes."""
        return _mean(self.numbers[:, 0], self.number_unit)

    @property
    def number_name(self) -> str:
        """Its name."""
        return NUMBERS[self.task][0]

    @property
    def number_unit(self) -> str:
        """Its unit."""
        return NUMBERS[self.task][1]

    @cached_property
    def causes(self) -> tuple[CauseShare, ...]:
        """Shares of the causes, in the order in which they were taken away; they sum to 1. Empty without a mismatch."""
        return causes_of(self.off, self.causes_of_steps, self.layers_of_steps, self.index, self.seed)

    @property
    def saved_alone(self) -> dict[str, float | None]:
        """Of each single change, the share of the mismatch that it removes by itself; None where it cannot be made."""
        total = float(self.off[:, 0].sum())
        if total <= 0:
            return {}
        made = 1 - self.alone.sum(axis=0) / total
        return {
            name: float(value) if np.isfinite(value) else None
            for name, value in zip(self.alone_names, made, strict=True)
        }

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens tiles --json`."""
        same = self.grid[0] == self.grid[1]
        return {
            "model": self.model,
            "data": self.data,
            "n_images": self.n_images,
            "size": list(self.size),
            "task": self.task,
            "tile": self.tile,
            "stride": self.stride,
            "overlap": self.overlap,
            "overlap_measured": self.overlap_measured,
            "tolerance": self.tolerance,
            "grid": self.grid[0] if same else list(self.grid),
            "exact": self.exact,
            "exact_with": self.exact_with,
            "passes": self.passes,
            "mismatch": self.mismatch.value,
            "mismatch_interval": _interval(self.mismatch),
            "mismatch_at_overlap": self.remaining.value,
            "metric": {
                "name": self.number_name,
                "unit": self.number_unit,
                "value": _finite(self.number.value),
                "interval": _interval(self.number),
                "value_at_overlap": _finite(_mean(self.numbers_with_overlap, self.number_unit).value),
            },
            "causes": [cause.to_dict() for cause in self.causes],
            "alone": self.saved_alone,
            "by_phase": [
                {"phase": int(phase), "mismatch": _finite(float(value))}
                for phase, value in zip(self.phases, self.by_phase, strict=True)
            ],
            "recipe": dict(self.recipe),
            "obstacles": list(self.obstacles),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The same for people."""
        made = [self._head(), *self._cause_lines(), *self._recipe_lines()]
        return [printable(line) for line in (*made, *(f"note: {note}" for note in self.notes))]

    def _head(self) -> str:
        h, w = self.size
        if not self.off[:, 0].any():
            return f"{self.model}: tiles of {self.tile} px give the whole image's output ({h}x{w}, {self.of_images})"
        return (
            f"{self.model}: tiles of {self.tile} px without overlap differ from the whole image's output ({h}x{w}, "
            f"{self.of_images}) by {self.mismatch.value:.3g} on average ({per_cent(self.relative)} of its range)"
            f", {self.number_text}"
        )

    @property
    def of_images(self) -> str:
        """How many images of what."""
        return f"{self.n_images} image{'s' if self.n_images != 1 else ''} of {self.data}"

    @property
    def relative(self) -> float:
        """The mismatch as a share of the output's range."""
        span = float(self.span.mean())
        return self.mismatch.value / span if span else 0.0

    @property
    def number_text(self) -> str:
        """The task's own number in words."""
        value = self.number.value
        if self.task == "segmentation":
            return f"{per_cent(value)} of the mask's pixels change"
        return f"PSNR {value:.1f} dB" if np.isfinite(value) else "PSNR infinite"

    def _cause_lines(self) -> list[str]:
        made = []
        for cause in self.causes:
            ends = "" if cause.interval is None else f" ({' to '.join(map(per_cent_of, cause.interval))})"
            worst = ", ".join(layer.path for layer in cause.layers[:3])
            more = f" and {len(cause.layers) - 3} more" if len(cause.layers) > 3 else ""
            where = f": {worst}{more}" if worst else ""
            made.append(f"  {cause.cause:10} {per_cent_of(cause.share)}{ends}  {SAID[cause.cause]}{where}")
        return made

    @property
    def _exactness(self) -> str:
        if self.exact:
            return "exact for every image"
        if self.obstacles:
            return f"no tiling is known to be exact, since {self.obstacles[0]}"
        return f"not exact by itself; predict_tiled is, in {count_of(self.passes, 'pass', 'passes')}"

    def _recipe_lines(self) -> list[str]:
        grid = "x".join(map(str, dict.fromkeys(self.grid)))
        measured = "none met the tolerance" if self.overlap_measured is None else f"{self.overlap_measured} px"
        tile, overlap = int(self.recipe["tile"]), int(self.recipe["overlap"])
        return [
            f"recipe: tile {tile} px, overlap {overlap} px, grid {grid} px: {self._exactness}",
            *(["  these images are no larger than this tile: pass them whole"] if self.fits_recipe else []),
            f"  {self._cost_text(tile, overlap)}",
            f"overlap that was enough on these images ({per_cent(self.tolerance)} of the range): {measured}",
            f"MONAI: {self.recipe['monai']}",
            f"SAHI: {self.recipe['sahi']}",
            f"  they average overlaps{self._averaging_text}",
            "in Python:"
            if self.exact_with == "predict_tiled"
            else "as a loop, of `image` [1, c, h, w] as the net takes it:",
            *str(self.recipe["loop"]).splitlines(),
        ]

    @property
    def fits_recipe(self) -> bool:
        """Whether one of the recipe's tiles holds a whole image."""
        return int(self.recipe["tile"]) >= max(self.size)

    def _cost_text(self, tile: int, overlap: int) -> str:
        """Pixels that are computed for each that is kept, and the tile that makes them `LOW_COST`."""
        cost = (tile / (tile - 2 * overlap)) ** 2
        text = f"on larger images, {cost:.1f}" if self.fits_recipe else f"{cost:.1f}"
        text += f" pixels are computed for each that is kept{' in each pass' if self.passes > 1 else ''}"
        if cost <= LOW_COST:
            return text
        grid = math.lcm(*self.grid)
        larger = math.ceil(2 * overlap / (1 - LOW_COST**-0.5) / grid) * grid
        return f"{text}; with tiles of {larger} px {(larger / (larger - 2 * overlap)) ** 2:.1f}"

    @property
    def _averaging_text(self) -> str:
        if (left := self.recipe["averaged_mismatch"]) is not None:
            return f", which leaves {left:.3g} on average on these images"
        why = "with so much overlap it takes too long"
        if int(self.recipe["tile"]) >= min(self.size):
            why = "the tile is no smaller than these images"
        return f"; what that leaves was not measured: {why}"

    def __repr__(self) -> str:
        return printable(
            f"<TileReport {self.model} on {self.data}: tile {self.tile}, mismatch {self.mismatch.value:.3g}>"
        )


def per_cent_of(share: float) -> str:
    """A share that may be below 0, in per cent."""
    return f"{100 * share:.1f} %"


def _mean(values: FloatArray, unit: str) -> Estimate:
    """Mean over images; an interval from two images on, where all are finite."""
    if len(values) > 1 and np.isfinite(values).all():
        return mean_estimate(values, unit, bounds=(0.0, np.inf))
    mean = float(values.mean()) if len(values) else float("nan")
    return Estimate(mean, mean, mean, unit, 0, "")


def _interval(estimate: Estimate) -> list[float] | None:
    return [estimate.lo, estimate.hi] if estimate.n else None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
