"""The request of a sweep: every argument is resolved and checked here, once, before anything is computed or written."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from shiftlens.data.imageset import ImageSet
from shiftlens.engine.evaluators import check_request
from shiftlens.engine.plan import CONTROLS, Plan
from shiftlens.errors import InputError, StoreError
from shiftlens.models.adapting import adapted, refuse_unfit_targets, task_for, with_gallery, with_own_detections
from shiftlens.models.adapting import targets_of as targets_of
from shiftlens.models.loading import model_and_images
from shiftlens.models.matching import LabelMap, labelled_for, on_input_grid, targets_for
from shiftlens.models.wrapping import Model
from shiftlens.paths import output_path
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.header import SweepHeader, describe
from shiftlens.sweeps.layout import mean_arrays, refuse_unfit
from shiftlens.sweeps.looks import MOST_IMAGES, checked_half_width, in_fixed_order
from shiftlens.sweeps.reuse import Reuse
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.kept_outputs import MOST_BYTES, MOST_KEPT, bytes_of_window, kept_task
from shiftlens.tasks.stored_form import KNOWN_TASKS, known_task
from shiftlens.tasks.task import Task, has_objects, has_sums, objects_of
from shiftlens.tasks.variable import Variable

logger = logging.getLogger(__name__)

CHUNK_EVALUATIONS = 16 * 65 * 65
"""Evaluations (images x shifts) in a chunk, at most: what a killed process loses. 16 images of the reference case, so
that they divide among cores."""

CHUNK_MACS = CHUNK_EVALUATIONS * 209_000_000
"""Multiply-adds in a chunk, about: nets that cost more than `vgg8` get smaller chunks, or a kill would cost hours."""

CHUNK_NUMBERS = 2**23
"""Numbers of objects, detections and classes in a chunk: what is stored of each of many classes must fit the memory."""

CHUNK_PICTURE_BYTES = 32 * 2**20
"""Bytes of images in a chunk: few shifts of large images must not fill the memory."""

MOST_CANVAS = 2**28
"""Most numbers in an image with all that can enter around it, as an index rule needs it: 1 GB in float32, three times
that while windows are cut."""


@dataclass(frozen=True)
class Request:
    """What a sweep is asked to do.

    Attributes
    ----------
    model, images, size
        The model at the input size `(h, w)`, and the images on that grid in the order of measurement.
    grid, fill, out
        The shifts, what enters, and the path of the Zarr group.
    controls
        Names of the controls, each once.
    engine, dtype, device, batch_size
        How to compute, as the user asked for it; `"auto"` and None leave it to the plan.
    half_width
        In points or the metric's own unit, for an adaptive sweep.
    reuse
        The sweep whose results are copied.
    task, n_objects
        What is measured; objects of each image, where the task stores numbers of objects.
    kept, keep_outputs
        What is kept of the outputs of so many images, the first ones; None, and 0.
    """

    model: Model
    images: ImageSet
    size: tuple[int, int]
    grid: ShiftGrid
    fill: Fill
    out: Path
    controls: tuple[str, ...]
    engine: str
    dtype: str
    device: str
    batch_size: int | None
    half_width: float | None
    reuse: Reuse | None
    task: Task
    n_objects: NDArray[np.int64] | None
    kept: Task | None
    keep_outputs: int

    def header(self, plan: Plan) -> SweepHeader:
        """The header of the sweep, computed by `plan`."""
        return describe(self.model, self.images, self.size, self.grid, self.fill, plan, self.task)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        return (self.images.n_channels, *self.size)

    @property
    def metric(self) -> str | None:
        """The metric that an adaptive sweep is measured by, None where it is the task's default."""
        metric = _first_metric(self.task, self.images)
        return None if metric == _first_metric(self.task) else metric.name

    @property
    def chunk_size(self) -> int:
        """Images in a chunk of a new sweep that measures all images.

        Where sums over the images of a chunk are stored, an interval needs several chunks, and a reused sweep gives its
        own only where they are as long.
        """
        n_bytes = self.images.n_channels * self.size[0] * self.size[1]
        most = 0 if self.n_objects is None else int(self.n_objects.max())
        sizes = {"object": most, **self.task.axes}
        n_numbers = sum(sizes[each.axis] for each in self.task.variables if each.axis)
        n = images_per_chunk(len(self.images), self.grid.n_shifts, self.model.n_macs, n_bytes, n_numbers)
        if not has_sums(self.task):
            return n
        return min(n, images_of_a_sum(len(self.images)) if self.reuse is None else self.reuse.chunk_size)

    def refuse_other_plan(self, plan: Plan, path: Path) -> None:
        """Refuse to compute in another way than the sweep at `path`, when one was asked for by name.

        Raises
        ------
        StoreError
            Says which of engine, dtype, device and batch size differs.
        """
        for what, asked, stored in (
            ("engine", self.engine, plan.engine),
            ("dtype", self.dtype, plan.dtype),
            ("device", self.device, plan.device),
            ("batch-size", self.batch_size or "auto", plan.batch_size),
        ):
            if asked not in ("auto", stored):
                raise StoreError(
                    f"{path} holds a sweep with another {what}: asked for {asked}, the stored sweep has {stored}; "
                    f"leave {what} out to use the stored one, or choose another path"
                )


def resolve(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    grid: ShiftGrid | None = None,
    *,
    step: int = 1,
    out: str | Path,
    fill: str | float | Sequence[float] | Fill = "black",
    engine: str = "auto",
    dtype: str = "auto",
    controls: Sequence[str] = (),
    device: str = "auto",
    batch_size: int | None = None,
    half_width: float | None = None,
    reuse: str | Path | None = None,
    label_map: LabelMap | str | Path | None = None,
    task: Task | str = "classification",
    keep_outputs: int = 0,
    announce: Callable[[str], None] = logger.warning,
) -> Request:
    """Check every argument of a sweep and fill in the defaults; see `shiftlens.sweep` for each of them.

    `step` is that of the default grid, which is announced last: after all that may be refused.

    Raises
    ------
    InputError
        A request that cannot be served.
    StoreError
        `reuse` is no sweep of some of the same images.
    """
    path, task = output_path(out), known_task(task)
    model, images = model_and_images(model, images, device=device)
    images, size = on_input_grid(model, images)
    model = model.at(size)
    if task.name == CLASSIFICATION.name:
        images = labelled_for(model, images, label_map)
    else:
        images = targets_for(model, images, task.uses, label_map)
        asked, task = task, task_for(task, images)
        model, task = adapted(model, task, size)
        if task.name != asked.name:
            announce(f"{images.name} has no boxes: the model's own detections stand in, by the task {task.name}")
        refuse_unfit_targets(task, images)
        for name in (controls,) if isinstance(controls, str) else controls:
            if name in CONTROLS and name not in task.controls:
                defined = ", ".join(task.controls)
                raise InputError(f"the control {name} is not defined for {task.name}: only {defined} is")
    refuse_unfit(task)
    if half_width is not None:
        half_width = checked_half_width(half_width, _first_metric(task, images))
        images = in_fixed_order(images)
    reused = None
    if reuse is not None:
        if half_width is not None:
            raise InputError("an adaptive sweep takes its images in an order of its own: leave reuse out")
        if os.path.realpath(reuse) == os.path.realpath(path):  # unlike resolve(), no error for a loop of links
            raise InputError(f"{reuse} is the sweep that is written; reuse must name another one")
        reused = Reuse(Path(reuse), images)
        images, task = reused.images, reused.adjusted(task)
    images = with_own_detections(model, images, task)
    if grid is None:
        grid = default_grid(size, announce, step=step)
    fill = Fill.parse(fill)
    n_objects = objects_of(task, targets_of(images, task)) if has_objects(task) else None
    kept, keep_outputs = kept_of(task, keep_outputs, len(images), grid)
    controls = (controls,) if isinstance(controls, str) else tuple(dict.fromkeys(controls))
    check_request(grid, fill, engine, dtype, controls, batch_size)
    refuse_wide_canvas(grid, size, images.n_channels, fill)
    if fill.is_constant:
        fill.normalised(model.preprocessing.mean, model.preprocessing.std)
    return Request(
        model=model,
        images=images,
        size=size,
        grid=grid,
        fill=fill,
        out=path,
        controls=controls,
        engine=engine,
        dtype=dtype,
        device=device,
        batch_size=batch_size,
        half_width=half_width,
        reuse=reused,
        task=with_gallery(model, task, images, size),
        n_objects=n_objects,
        kept=kept,
        keep_outputs=keep_outputs,
    )


def kept_of(task: Task, keep_outputs: int, n_images: int, grid: ShiftGrid) -> tuple[Task | None, int]:
    """What is kept of the outputs of a fitted task, and of how many images.

    Raises
    ------
    InputError
        A number that is none, a task of which nothing can be kept, or outputs that take too much room.
    """
    if type(keep_outputs) is not int or not 0 <= keep_outputs <= MOST_KEPT:
        raise InputError(f"keep-outputs must be a number of images from 0 to {MOST_KEPT}, got {keep_outputs!r}")
    n = min(keep_outputs, n_images)
    if not n:
        return None, 0
    kept = kept_task(task)
    each = bytes_of_window(kept) * grid.n_shifts
    if n * each > MOST_BYTES:
        most = MOST_BYTES // each
        less = f"keep those of at most {most}" if most else "sweep fewer shifts (a larger step, a smaller max-shift)"
        raise InputError(
            f"the outputs of {n} images under {grid.n_shifts:,} shifts take {n * each / 1e9:.1f} GB before "
            f"compression, more than the {MOST_BYTES / 1e9:.1f} GB that are kept: {less}"
        )
    return kept, n


def _first_metric(task: Task, images: ImageSet | None = None) -> Variable:
    """The default metric of a task, on some images the first one that can be measured on them."""
    labelled = images is None or task.uses is None or (images.targets is not None and task.uses in images.targets.kind)
    wanted = KNOWN_TASKS.get(task.name, task).metrics(labelled=labelled)[0]
    return next(each for each in mean_arrays(task).values() if each.name == wanted.name)


def refuse_wide_canvas(grid: ShiftGrid, size: tuple[int, int], n_channels: int, fill: Fill) -> None:
    """Refuse shifts so large that what an index rule brings in would not fit the memory.

    With a constant fill nothing is kept beyond the image's own size.

    Raises
    ------
    InputError
        Names the image's size, beyond which an index rule only repeats itself.
    """
    h, w = size[0] + 2 * grid.max_y, size[1] + 2 * grid.max_x
    if not fill.is_constant and n_channels * h * w > max(MOST_CANVAS, 9 * n_channels * size[0] * size[1]):
        raise InputError(
            f"max-shift {grid.max_y}x{grid.max_x} with fill {fill.name} needs {h:,} x {w:,} pixels around each image "
            f"({4e-9 * n_channels * h * w:.0f} GB); a max-shift of the image's size, {size[0]}x{size[1]}, shows "
            "all that the fill brings in"
        )


def default_grid(
    size: tuple[int, int], announce: Callable[[str], None] = logger.warning, *, step: int = 1
) -> ShiftGrid:
    """The shifts for images of `size` `(h, w)` pixels when no max-shift is asked for; a cut-down one is announced."""
    grid = ShiftGrid(ShiftGrid.default_for(size).max_shift, step)
    if (grid.max_y, grid.max_x) != size:
        announce(
            f"images are {size[0]} x {size[1]} px: shifts up to {grid.max_y} px down and up, {grid.max_x} px right "
            f"and left are swept ({grid.n_shifts:,} of them); ask for another max-shift to see further"
        )
    return grid


def images_of_a_sum(n_images: int) -> int:
    """Images in a chunk, at most, where a task stores sums over them: an interval is over 10 chunks or more.

    Fixed sizes, so that chunks of a small sweep add up to those of a large one.
    """
    return next((size for size in (10, 5) if n_images >= 10 * size), 1)


def images_per_chunk(n_images: int, n_shifts: int, n_macs: int | None, image_bytes: int, n_numbers: int = 0) -> int:
    """Images in a chunk, at least 1; it depends on the sweep alone, never on the machine.

    Parameters
    ----------
    n_images, n_shifts
        Size of the sweep.
    n_macs
        Multiply-adds of one image, None when unknown.
    image_bytes
        Bytes of one image (uint8).
    n_numbers
        That are stored of one window, beside those of the window itself.
    """
    evaluations = min(CHUNK_EVALUATIONS, CHUNK_MACS // max(1, n_macs or 1), CHUNK_NUMBERS // max(1, n_numbers))
    return max(1, min(n_images, MOST_IMAGES, evaluations // n_shifts, CHUNK_PICTURE_BYTES // image_bytes))
