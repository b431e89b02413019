"""What `tile_report` does with its images, one after another: the whole image, then every step of tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shiftlens.arithmetic import net_of
from shiftlens.data.images import ImageSet
from shiftlens.data.surveying import Progress
from shiftlens.errors import InputError
from shiftlens.graph.sites import OpKey, Pair
from shiftlens.models.wrapping import Model
from shiftlens.stats import FloatArray
from shiftlens.sweeps.header import software_versions
from shiftlens.tiles.predicting import predict_tiled
from shiftlens.tiles.replaying import Call
from shiftlens.tiles.tile_needs import TileNeeds, needs_of
from shiftlens.tiles.tile_passes import Profile, Whole, averaged
from shiftlens.tiles.tile_recipe import Recipe
from shiftlens.tiles.tile_result import TileReport
from shiftlens.tiles.tile_steps import ROUNDING, Runner, Step, Tiling, difference, off_at_phase, plan_steps
from shiftlens.tiles.whole_images import WholeImages

MOST_COST = 100
"""The recipe is tried out where that costs no more than so many whole images."""

N_PHASES = 8
"""Most tile origins modulo the grid that are tried."""

N_PHASE_IMAGES = 4
"""Images that they are tried on."""


@dataclass(frozen=True)
class _Examined:
    """What was measured on one image; see `TileReport`."""

    steps: list[Step]
    alone_steps: list[Step]
    off: list[float]
    numbers: list[float]
    alone: list[float]
    within: float
    number_within: float
    span: float
    map: FloatArray
    profile: Profile
    enough: int | None
    by_phase: list[float]
    averaged: float | None


class Examination:
    """The tiles of some images, in evaluation mode and without gradients.

    Parameters
    ----------
    model, images, size
        Brought together by `on_input_grid`; (h, w) of an image.
    tile, stride
        Side of a tile and pixels from tile to tile; None: the tile's side.
    task
        A key of `NUMBERS`.
    tolerance
        Largest |difference| that `overlap_measured` allows, as a share of the output's range.
    device
        Where the net is.
    """

    def __init__(
        self,
        model: Model,
        images: ImageSet,
        size: Pair,
        tile: int,
        stride: int | None,
        task: str,
        tolerance: float,
        device: torch.device,
    ) -> None:
        _refuse_no_pixels("tile", tile)
        if not 0 < tolerance < 1:
            raise InputError(f"tolerance is a share of the output's range, above 0 and below 1, got {tolerance}")
        self.model, self.images, self.task, self.tolerance = model, images, task, tolerance
        self._digest = model.digest  # before the work: it may refuse
        self.whole_images = WholeImages(model, images, size, task, device)
        self.needs: TileNeeds = needs_of(model, self.whole_images.size, tile)
        self.tiling = _checked_tiling(self.needs, self.whole_images.size, tile, stride)
        self.runner = Runner(net_of(model), self.whole_images.map, self.tiling, self.needs.layers, self.needs.pooled)
        self.notes: list[str] = self.whole_images.notes

    def report(self, overlap: int | str, seed: int, progress: Progress | None) -> TileReport:
        """Measure every image."""
        around = self._checked_overlap(overlap)
        asked = None if overlap == "auto" else around
        found: list[_Examined] = []
        for position in range(len(self.images)):
            found.append(self._examined(position, asked))
            if progress is not None:
                progress(position + 1, len(self.images))
        steps, alone = found[0].steps, found[0].alone_steps
        profile = Profile(self._longest)
        for each in found:
            profile.merge(each.profile)
        enough = [each.enough for each in found if each.enough is not None]
        phased = np.array([each.by_phase for each in found[:N_PHASE_IMAGES]], np.float64)
        recipe, geometry = self.needs.recipe, self.needs.geometry
        averaged = [each.averaged for each in found]
        checked = self._checked_recipe()
        return TileReport(
            model=self.model.name,
            model_digest=self._digest,
            data=self.images.name,
            data_digest=self.images.digest,
            task=self.task,
            size=self.tiling.size,
            tile=self.tiling.tile,
            stride=self.tiling.stride,
            overlap=around,
            overlap_measured=max(enough) if len(enough) == len(found) else None,
            tolerance=self.tolerance,
            grid=geometry.grid,
            exact=recipe.exact,
            passes=recipe.n_passes,
            recipe=recipe.to_dict()
            | {"loop": recipe.loop()}
            | {"averaged_mismatch": None if None in averaged else float(np.mean(np.array(averaged, np.float64)))}
            | {"checked": checked},
            seed=seed,
            index=np.asarray(self.images.index, np.int64),
            causes_of_steps=tuple(step.cause for step in steps[1:]),
            layers_of_steps=tuple(step.layers for step in steps[1:]),
            off=np.array([each.off for each in found], np.float64),
            numbers=np.array([each.numbers for each in found], np.float64),
            with_overlap=np.array([each.within for each in found], np.float64),
            numbers_with_overlap=np.array([each.number_within for each in found], np.float64),
            alone_names=tuple(step.cause for step in alone),
            alone=np.array([each.alone for each in found], np.float64).reshape(len(found), len(alone)),
            span=np.array([each.span for each in found], np.float64),
            map=np.mean([each.map for each in found], axis=0),
            example_map=found[0].map,
            example=self.whole_images.pixels(0),
            by_distance=profile.mean,
            largest_by_distance=np.where(profile.n > 0, profile.largest, np.nan),
            phases=np.array(_phases(self.tiling), np.int64),
            by_phase=phased.mean(0),
            obstacles=self.needs.obstacles,
            notes=(*self.notes, *self._reach_note()),
            software=software_versions(),
            model_options=dict(self.model.options),
            data_options=dict(self.images.options),
        )

    @property
    def _longest(self) -> int:
        """Distances from a tile's border that are looked at, pixels."""
        return min(self.tiling.tile // 2 + max(self.tiling.reach), max(self.tiling.size)) + 1

    def _examined(self, position: int, overlap: int | None) -> _Examined:
        """All steps on one image; `overlap`: what was asked for, None for the reach."""
        whole, calls = self.runner.whole(self.whole_images.image(position))
        steps, alone = plan_steps(self.tiling, list(calls.values()))
        profile, reached = Profile(self._longest), True
        limit = self.tolerance * max(whole.span, 1e-30)
        off, numbers, first_map = [], [], np.zeros((1, 1))
        for step in steps:
            made = self.runner.of_step(whole, calls, step, profile if step.on_grid and not step.frozen else None)
            mean, map_ = difference(made, whole)
            off.append(mean)
            numbers.append(self._number(made, whole))
            if step is steps[0]:
                first_map = map_
            if step.on_grid and not step.frozen:  # the last of these has all the context there is
                reached = float((made - whole.output).abs().max()) <= limit
        if "grid" not in (step.cause for step in steps):  # plain tiles lie on it
            self.runner.stitched(whole, calls, self.tiling.windows(), profile=profile)
        reaching = self.tiling.windows(on_grid=True, overlap=self.tiling.reach)
        within = self.runner.stitched(whole, calls, reaching if overlap is None else self.tiling.within(overlap))
        recipe = self.needs.recipe
        affordable = _cost(self.tiling.size, recipe) <= MOST_COST
        averaged_ = averaged(self.whole_images.map, whole, recipe.tile, recipe.core) if affordable else None
        phases = _phases(self.tiling) if position < N_PHASE_IMAGES else []
        return _Examined(
            steps=steps,
            alone_steps=alone,
            off=off,
            numbers=numbers,
            alone=[self._alone(whole, calls, step) for step in alone],
            within=difference(within, whole)[0],
            number_within=self._number(within, whole),
            span=whole.span,
            map=first_map,
            profile=profile,
            enough=self._enough(whole, calls, profile) if reached else None,
            by_phase=[off_at_phase(self.runner, whole, phase) for phase in phases],
            averaged=None if averaged_ is None else difference(averaged_, whole)[0],
        )

    def _checked_recipe(self) -> float | None:
        """The largest difference that `predict_tiled` by the recipe leaves on the first image, as a share of the range.

        None where the recipe's tile holds the image, and where it would cost too much.
        """
        recipe = self.needs.recipe
        holds_all = all(side >= n for side, n in zip(recipe.tile, self.tiling.size, strict=True))
        if holds_all or recipe.n_passes * _cost(self.tiling.size, recipe) > MOST_COST:
            return None
        whole, _ = self.runner.whole(self.whole_images.image(0))
        made = predict_tiled(self.model, self.whole_images.pixels(0), tile=recipe.tile, exact=False, quiet=True)
        return float((made.reshape(whole.output[0].shape) - whole.output[0].cpu()).abs().max()) / max(whole.span, 1e-30)

    def _reach_note(self) -> list[str]:
        reach, size = self.tiling.reach, self.tiling.size
        if self.needs.geometry.is_local or any(self.tiling.tile + r < n for r, n in zip(reach, size, strict=True)):
            return []  # nothing looks at the whole tile, or no tile is the whole image
        return [
            f"with the {max(reach)} px of context that the layers need, some tiles of {self.tiling.tile} px cover "
            f"these images of {size[0]}x{size[1]} px: `context` then also removes what layers over the whole tile do; "
            "larger images tell them apart"
        ]

    def _checked_overlap(self, overlap: int | str) -> int:
        if overlap == "auto":
            return max(self.tiling.reach)
        if isinstance(overlap, bool) or not isinstance(overlap, int) or overlap < 0:
            raise InputError(f'overlap is "auto" or whole pixels of at least 0, got {overlap!r}')
        grid = max(self.tiling.grid)
        if overlap % grid:
            self.notes.append(f"an overlap of {overlap} px is rounded up to the grid of {grid} px")
        overlap = -(-overlap // grid) * grid
        least = 2 * overlap + grid
        if self.tiling.tile < least:
            raise InputError(
                f"a tile of {self.tiling.tile} px has no core left between {overlap} px of overlap on each side: the "
                f"smallest tile that works has {least} px"
            )
        return overlap

    def _alone(self, whole: Whole, calls: dict[OpKey, Call], step: Step) -> float:
        try:
            return difference(self.runner.of_step(whole, calls, step), whole)[0]
        except InputError:
            return float("nan")

    def _enough(self, whole: Whole, calls: dict[OpKey, Call], own: Profile) -> int | None:
        """The smallest overlap on the grid that meets the tolerance on one image, tried out."""
        grid, most = max(self.tiling.grid), max(self.tiling.reach)
        limit = self.tolerance * max(whole.span, 1e-30)
        above = np.flatnonzero(own.largest > limit)
        first = 0 if not len(above) else -(-(int(above[-1]) + 1) // grid) * grid
        for overlap in range(min(first, most), most + 1, grid):
            windows = self.tiling.windows(on_grid=True, overlap=(overlap, overlap))
            if float((self.runner.stitched(whole, calls, windows) - whole.output).abs().max()) <= limit:
                return overlap
        return None

    def _number(self, made: Tensor, whole: Whole) -> float:
        """The task's own number."""
        if self.task == "segmentation":
            return float((made.argmax(1) != whole.output.argmax(1)).double().mean())
        from shiftlens.tasks.dense import psnr

        mse = float((made - whole.output).double().square().mean())
        if mse <= (ROUNDING * whole.span) ** 2:
            return float("inf")
        return psnr(mse, float(whole.output.min()), float(whole.output.max()))


def _checked_tiling(needs: TileNeeds, size: Pair, tile: int, stride: int | None) -> Tiling:
    if tile >= max(size):
        raise InputError(
            f"a tile of {tile} px holds the whole image of {size[0]}x{size[1]} px: nothing is cut; give a smaller tile "
            "(--tile) or larger images"
        )
    stride = tile if stride is None else stride
    _refuse_no_pixels("stride", stride)
    if stride > tile:
        raise InputError(f"stride must be at most the tile's {tile} px, got {stride}: some pixels would be in no tile")
    return Tiling(size, tile, stride, needs.geometry.grid, needs.geometry.overlap, needs.geometry.circular)


def _refuse_no_pixels(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be whole pixels of at least 1, got {value!r}")


def _cost(size: Pair, recipe: Recipe) -> float:
    """Pixels that the net is given in one pass over the recipe's tiles, over those of the image, at most."""
    cost = 1.0
    for n, side, core in zip(size, recipe.tile, recipe.core, strict=True):
        cost *= -(-n // core) * min(side, n) / n
    return cost


def _phases(tiling: Tiling) -> list[int]:
    grid = max(tiling.grid)
    n = min(grid, N_PHASES)
    return sorted({k * grid // n for k in range(n)})
