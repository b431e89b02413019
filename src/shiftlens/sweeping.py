"""`sweep`: a model on every image under every shift, computed in this process or on a Ray cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from shiftlens.cluster.ray_workers import Cluster
from shiftlens.data.images import as_images
from shiftlens.data.imageset import ImageSet
from shiftlens.models.loading import as_model
from shiftlens.models.matching import LabelMap
from shiftlens.models.wrapping import Model
from shiftlens.progress_bar import shows_progress
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.jobs import Computer
from shiftlens.sweeps.progress import Progress, SweepStats
from shiftlens.sweeps.request import resolve
from shiftlens.sweeps.runner import ThisProcess, run
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.task import Task

logger = logging.getLogger(__name__)


@shows_progress("sweeping", "evaluations")
def sweep(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    grid: ShiftGrid | None = None,
    *,
    out: str | Path,
    fill: str | float | Sequence[float] | Fill = "black",
    engine: str = "auto",
    dtype: str = "auto",
    controls: Sequence[str] = (),
    device: str = "auto",
    batch_size: int | None = None,
    cluster: str | None = None,
    half_width: float | None = None,
    reuse: str | Path | None = None,
    label_map: LabelMap | str | Path | None = None,
    task: Task | str = "classification",
    keep_outputs: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Sweep:
    """Evaluate a model on every image under every shift, into one Zarr group; an interrupted sweep is resumed.

    Parameters
    ----------
    model
        A `Model`, an `nn.Module`, or a spec as `load_model` takes it.
    images
        An `ImageSet`, or a spec as `load_images` takes it; brought to the model's input size first, then shifted.
    grid
        The shifts; by default up to the image's size along each axis of up to 64 px, and up to 16 px along a
        longer one (which is announced).
    out
        Path of the Zarr group: new, or an unfinished or finished sweep of the same model, images, grid and fill.
    fill
        What enters from outside: `"black"`, `"mean"`, a pixel value from 0 to 1, one a channel, or an index rule
        (`"edge"`, `"reflect"`, `"symmetric"`, `"wrap"`).
    engine, dtype, device
        How to compute. `"auto"` measures which path is fastest and takes bfloat16 in a long sweep where the hardware
        has it and the model agrees; a resumed sweep keeps what is stored.
    batch_size
        Windows in a forward pass; by default what measures fastest. A model whose answer for an image depends on the
        other images of its batch is refused, unless every window is evaluated by itself: 1.
    controls
        `"occlusion"` (the pixels that are lost blanked in place), `"flip"` (mirrored images), `"canvas"` (no padding
        near the image): measured too, as subgroups; may be added to a sweep later.
    cluster
        Compute on Ray: `"local"` (a worker a core, started here), `"local:N"`, `"HOST:PORT"` of a cluster's head, or
        `"auto"`. The results are the same bytes as without. A Ray cluster runs code: only on a network you trust.
    half_width
        Stop when the default metric is known to plus or minus that under all shifts together, with 95 % confidence,
        instead of measuring all images: in points of a share (accuracy, mean IoU, recall), in the unit of any other
        metric (MAE, cosine similarity). The images are then taken in a fixed order that keeps the classes' shares;
        controls are measured on the same ones. A narrower one may be asked for later, down to 0: all images.
    reuse
        A sweep of some of the same images, with the same model, grid and fill: what it holds is copied rather than
        computed again. Its images come first.
    label_map
        From the images' classes, by name, to the model's, by name or number: a mapping, or a JSON file of one. By
        default classes are matched by name where the model knows every name; otherwise label k is the model's class k.
    task
        What is measured: the name of a task, or a `Task`.
    keep_outputs
        Of so many images, the first ones, keep at every shift the mask (`segmentation`) or the boxes of detections
        above the score threshold (`detection`), so that the report can show them: see `Sweep.kept`. At most 60; may be
        asked of a finished sweep. The windows are evaluated once more.
    overwrite
        Replace the sweep at `out` by a new one, instead of resuming it. Anything else at `out` is refused all the same.
    progress
        Called with the evaluations done and in all. By default a bar on a terminal and in a notebook.

    Returns
    -------
    Sweep
        Complete.

    Raises
    ------
    InputError
        A request that cannot be served: no images, labels beyond the model's classes, images of mixed sizes, a
        model whose answer depends on the batch or changes from call to call, ...
    StoreError
        The path holds something else or another sweep, is busy, or the disk is full; finished chunks stay.
    ModelOutputError
        The model raised or gave scores that are not finite; names the images. Finished chunks stay.

    Examples
    --------
    >>> images = sl.load_images("digits", limit=20)
    >>> made = sweep("runs/vgg", images, ShiftGrid(1), out="small.zarr")
    >>> made.accuracy.shape, made.complete
    ((3, 3), True)
    """
    return run_sweep(**locals())[0]


def run_sweep(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    grid: ShiftGrid | None = None,
    *,
    cluster: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] = logger.warning,
    **options: Any,
) -> tuple[Sweep, SweepStats]:
    """`sweep`, and how it went; `options` are those of `sweeps.request.resolve`.

    `announce` is told in one line what the caller should know before the work starts.
    """
    started = time.perf_counter()
    if cluster is None:
        computer: Computer = ThisProcess()
    else:
        computer = Cluster(cluster, announce)
        computer.device(options.get("device", "auto"))  # what no worker has is refused before anything is loaded
        images = as_images(images)
        model = as_model(model, images, device="cpu")  # it travels, and workers bring it to their GPUs
    request = resolve(model, images, grid, announce=announce, **options)
    return run(request, computer, overwrite=overwrite, progress=progress, announce=announce, started=started)
