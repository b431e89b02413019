"""`tile_report`: how far tiled inference is from the whole image's output, which causes it has, and the recipe."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from shiftlens.arithmetic import net_of
from shiftlens.data.images import ImageSet
from shiftlens.data.surveying import Progress
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError
from shiftlens.models.loading import Model, model_and_images
from shiftlens.models.matching import on_input_grid
from shiftlens.models.probing import evaluating
from shiftlens.naming import unknown_name
from shiftlens.progress_bar import shows_progress
from shiftlens.tiles.examination import Examination
from shiftlens.tiles.tile_result import NUMBERS, TileReport
from shiftlens.tiles.tile_store import check_tiles_target, save_tiles

_NO_MAPS = {
    "classification": "a classifier gives no map: there is nothing to tile",
    "embedding": "an embedding is no map: there is nothing to tile",
    "detection": "boxes of tiles are merged, not stitched, and are not compared here; report on the net's raw maps",
}


@shows_progress("tiling", "images")
def tile_report(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    tile: int = 128,
    overlap: int | str = "auto",
    task: str = "dense",
    *,
    stride: int | None = None,
    tolerance: float = 1e-3,
    out: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> TileReport:
    """Compare tiled inference with the whole image's output, name the causes of the difference, and give a recipe.

    The whole image's output is the truth. Tiles without overlap are the beginning; then one cause after another is
    taken away, each step keeping the earlier ones: tile origins are aligned to the total stride (`grid`), the overlap
    grows to the reach of the net's local layers (`context`), up-sampling that depends on the map's size gets the whole
    map's coordinates (`resize`), and layers that look at the whole map get what they computed on the whole image
    (`norm`, `pooling`, `attention`, in depth order). A cause's share is the fall in mean |difference| at its step;
    `other` is what remains.

    Parameters
    ----------
    model
        A `Model`, a net or a spec: images to maps [k, h', w'].
    images
        An `ImageSet` or a spec; of one size, or brought to the size that the model declares.
    tile
        Side of a tile in pixels.
    overlap
        Real context on each side of a tile's core in pixels, for `mismatch_at_overlap`; "auto": what the recipe needs.
    task
        "dense" (PSNR against the whole image's output) or "segmentation" (share of pixels whose class changes).
    stride
        Pixels from tile to tile, at most `tile`, which is the default: how another tiler places them.
    tolerance
        Largest |difference| that `overlap_measured` allows, as a share of the output's range.
    out
        A Zarr group to write, in place of an older report; None writes nothing.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Of the bootstrap behind the intervals.
    progress
        Called with (images done, images in all).

    Returns
    -------
    TileReport
        `print` shows the causes and the recipe; `to_dict()` has the keys of `shiftlens tiles --json`.

    Raises
    ------
    InputError
        A model that gives no map or whose output differs from run to run, images of mixed sizes, a tile that is not
        smaller than the image or that the net does not take (says which it can), an overlap that leaves no core.
    StoreError
        Something else lies at `out`, or the disk refuses.

    Examples
    --------
    >>> from torch import nn
    >>> import numpy as np
    >>> from shiftlens import ImageSet, wrap
    >>> net = wrap(nn.Conv2d(1, 1, 3, padding=1), mean=0.5, std=0.25)
    >>> noise = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), np.uint8)
    >>> found = tile_report(net, ImageSet(noise, [0, 0]), tile=16)
    >>> found.overlap, [cause.cause for cause in found.causes]
    (1, ['context'])
    """
    if task not in NUMBERS:
        if task in _NO_MAPS:
            raise InputError(f"task {task}: {_NO_MAPS[task]}")
        raise unknown_name("task of a tile report", task, tuple(NUMBERS))
    if out is not None:
        check_tiles_target(out)
    wanted, images = model_and_images(model, images, device=device)
    module, target = net_of(wanted), resolve_device(device)
    images, size = on_input_grid(wanted, images)
    module.to(target)
    with evaluating(module), torch.no_grad():
        found = Examination(wanted, images, size, tile, stride, task, tolerance, target).report(overlap, seed, progress)
    return found if out is None else save_tiles(found, out)
