"""Chunks of images to the store: what to compute is decided once, what is there already is never computed again."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from shiftlens.data.imageset import ImageSet
from shiftlens.devices import give_back, resolve_device, roomy_heap
from shiftlens.engine.evaluators import Prepared, check_controls, check_machine, check_request, make_plan, prepare
from shiftlens.engine.plan import ChunkResult, Evaluator
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import Model, model_and_images
from shiftlens.models.matching import check_labels, on_input_grid
from shiftlens.paths import output_path
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.storage.locking import clean_strays, disk_errors, output_lock
from shiftlens.sweeps.adaptive import agree_on_width, refuse_other_kind, stretches
from shiftlens.sweeps.existing import read_header, sweep_exists
from shiftlens.sweeps.header import SweepHeader, describe
from shiftlens.sweeps.integrity import restore_known
from shiftlens.sweeps.jobs import Compute, Job, check_result, with_sources
from shiftlens.sweeps.looks import Schedule, checked_half_width, in_fixed_order, short_chunk
from shiftlens.sweeps.progress import Progress, SweepStats, Tally, peak_memory_bytes
from shiftlens.sweeps.ray_workers import Cluster
from shiftlens.sweeps.request import (
    default_grid,
    device_on_cluster,
    images_per_chunk,
    refuse_other_plan,
    refuse_wide_canvas,
)
from shiftlens.sweeps.reuse import Reuse
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.sweeps.sweep_store import SweepStore

logger = logging.getLogger(__name__)

PLAN_IMAGES = 64
"""Pictures that the plan is measured on."""


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
    progress: Progress | None = None,
) -> Sweep:
    """Evaluate a model on every image under every shift, into one Zarr group; an interrupted one is taken up again.

    Parameters
    ----------
    model
        A `Model`, an `nn.Module`, or a spec as `load_model` takes it.
    images
        An `ImageSet`, or a spec as `load_images` takes it; brought to the model's input size first, then shifted.
    grid
        The shifts; by default up to the picture's size along each axis of up to 64 px, and up to 16 px along a
        longer one (which is announced).
    out
        Path of the Zarr group: new, or an unfinished or finished sweep of the same model, images, grid and fill.
    fill
        What enters from outside: `"black"`, `"mean"`, a pixel value from 0 to 1, one a channel, or an index rule
        (`"edge"`, `"reflect"`, `"symmetric"`, `"wrap"`).
    engine, dtype, device
        How to compute; `"auto"` measures once, and keeps to what is stored when a sweep is taken up again.
    batch_size
        Windows in a forward pass; by default what measures fastest. A model whose answer for an image depends on the
        other images of its batch is refused, unless every window is evaluated by itself: 1.
    controls
        `"occlusion"` (the pixels that are lost blanked in place), `"flip"` (mirrored pictures), `"canvas"` (no padding
        near the picture): measured too, as subgroups; may be added to a sweep later.
    cluster
        Compute on Ray: `"local"` (a worker a core, started here), `"local:N"`, `"HOST:PORT"` of a cluster's head, or
        `"auto"`. The results are the same bytes as without. A Ray cluster runs code: only on a network you trust.
    half_width
        Points: stop when the accuracies under all shifts are known to plus or minus that together, with 95 %
        confidence, instead of measuring all images. They are then taken in a fixed order that keeps the classes'
        shares; controls are measured on the same ones. A narrower one may be asked for later, down to 0: all images.
    reuse
        A sweep of some of the same images, with the same model, grid and fill: what it holds is copied rather than
        computed again. Its images come first.
    progress
        Called with the evaluations done and in all.

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
    """
    return run_sweep(
        model,
        images,
        grid,
        out=out,
        fill=fill,
        engine=engine,
        dtype=dtype,
        controls=controls,
        device=device,
        batch_size=batch_size,
        cluster=cluster,
        half_width=half_width,
        reuse=reuse,
        progress=progress,
    )[0]


def run_sweep(
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
    progress: Progress | None = None,
    announce: Callable[[str], None] = logger.warning,
) -> tuple[Sweep, SweepStats]:
    """`sweep`, and how it went; `announce` is told in one line what the caller should know before the work starts."""
    started = time.perf_counter()
    path = output_path(out)
    model, images = model_and_images(model, images, device=device)
    images, size = on_input_grid(model, images)
    model = model.at(size)
    check_labels(model, images)
    if half_width is not None:
        half_width = checked_half_width(half_width)
        images = in_fixed_order(images)
    other = _other(reuse, path, images, half_width)
    if other is not None:
        images = other.images
    if grid is None:
        grid = default_grid(size, announce)
    fill = Fill.parse(fill)
    controls = (controls,) if isinstance(controls, str) else tuple(dict.fromkeys(controls))
    check_request(grid, fill, engine, dtype, controls, batch_size)
    refuse_wide_canvas(grid, size, images.n_channels, fill)
    if fill.is_constant:
        fill.normalised(model.preprocessing.mean, model.preprocessing.std)
    sweep_exists(path)  # before the lock, so that beside a foreign thing not even a lock file is made
    target = resolve_device(device if cluster is None else device_on_cluster(device))
    with (
        output_lock(path) as folder,
        roomy_heap(target),
        nullcontext() if cluster is None else Cluster(cluster, announce) as machines,
    ):
        with disk_errors(path, "clean up beside"):
            clean_strays(path)
        if sweep_exists(path):
            stored = read_header(path)
            plan = stored.plan
            refuse_other_kind(stored, path, half_width)
            describe(model, images, size, grid, fill, plan).refuse_other(stored, str(path))
            refuse_other_plan(plan, path, engine=engine, dtype=dtype, device=device, batch_size=batch_size)
            if other is not None:
                other.check(stored, engine=engine, dtype=dtype, device=device)
            for name in restore_known(path, images.labels, images.index, grid):
                announce(f"{name} was torn: it is written again")
            store = SweepStore(path, writable=True)
            new = [control for control in controls if control not in store.controls]
            if new:
                # Refused before anything is added: a control that cannot be computed must not be left half made.
                store.main.header.refuse_other_torch(str(path))
                if machines is None:
                    check_machine(plan)
                check_controls(model, plan, grid, fill, new, (images.n_channels, *size))
            for control in new:
                store.add_control(control)
        else:
            sample = images.batch(np.arange(min(PLAN_IMAGES, len(images))))
            if other is not None:
                plan = other.plan
            else:
                plan = (make_plan if machines is None else machines.make_plan)(
                    model,
                    sample,
                    grid,
                    fill,
                    n_images=len(images),
                    engine=engine,
                    dtype=dtype,
                    device=str(target) if machines else device,
                    batch_size=batch_size,
                    n_groups=1 + len(controls),
                )
                if plan.cut_short:
                    announce(
                        "how to compute was chosen before all ways were tried, as trying took too long: a faster one "
                        f"may have been missed; this sweep goes on by it ({plan.engine}, {plan.dtype})"
                    )
            header = describe(model, images, size, grid, fill, plan)
            if other is not None:
                other.check(header, engine=engine, dtype=dtype, device=device)
            check_controls(model, plan, grid, fill, controls, (images.n_channels, *size))
            chunk_size = images_per_chunk(len(images), grid.n_shifts, model.n_macs, int(sample[0].nbytes))
            if half_width is not None:
                chunk_size = short_chunk(chunk_size, len(images))
                header = replace(header, schedule=Schedule.declared(len(images), chunk_size))
            store = SweepStore.create(
                path, header, images.labels, images.index, chunk_size=chunk_size, controls=controls
            )
            folder.take()
        compute = (_Here if machines is None else machines.evaluator)(model, images, store.main.header)
        if other is not None:
            announce(f"what {reuse} holds of its {other.n_images:,} images is taken over")
            compute = other.serving(compute)
        if half_width is None:
            tally, n_resumed = _fill_store(store, controls, compute, len(images), progress, announce)
        else:
            tally, n_resumed = _fill_adaptive(store, controls, compute, half_width, progress, announce)
    seconds = time.perf_counter() - started
    stats = SweepStats(
        out=str(out),
        n_images=len(images),
        n_shifts=grid.n_shifts,
        seconds=seconds,
        shifts_per_second=tally.n_computed / seconds,
        engine=plan.engine,
        dtype=plan.dtype,
        peak_memory_bytes=peak_memory_bytes(),
        images_resumed=n_resumed,
        n_images_used=store.main.n_images,
        half_width=store.main.half_width_reached,
    )
    return Sweep(SweepStore(path)), stats


def _other(reuse: str | Path | None, path: Path, images: ImageSet, half_width: float | None) -> Reuse | None:
    if reuse is None:
        return None
    if half_width is not None:
        raise InputError("a sweep that stops early takes its images in an order of its own: leave reuse out")
    if os.path.realpath(reuse) == os.path.realpath(path):  # unlike resolve(), calm about links in a circle
        raise InputError(f"{reuse} is the sweep that is written; reuse names another one")
    return Reuse(Path(reuse), images)


def _fill_store(
    store: SweepStore,
    controls: tuple[str, ...],
    compute: Compute,
    n_images: int,
    progress: Progress | None,
    announce: Callable[[str], None],
) -> tuple[Tally, int]:
    """Compute what is missing; returns the evaluations counted, and the images that were there already."""
    header = store.main.header
    groups = [store.group(control) for control in (None, *controls)]
    finished = [group.finished() for group in groups]
    n_shifts = header.grid.n_shifts
    n_there = sum(g.n_images_in(f) for g, f in zip(groups, finished, strict=True)) * n_shifts
    n_total = len(groups) * n_images * n_shifts
    if n_there < n_total:
        header.refuse_other_torch(str(store.path))
        if n_there:
            announce(f"going on with {store.path}: {n_there:,} of {n_total:,} evaluations are there")
    jobs: list[Job] = []
    left: dict[str | None, int] = {}
    for group, there in zip(groups, finished, strict=True):
        missing = np.flatnonzero(~there).tolist()
        left[group.header.control] = len(missing)
        jobs += [Job(group, chunk) for chunk in missing]
        if missing and group.complete:
            group.reopen()
        elif not missing and not (group.complete and not group.wrong_means()):
            group.finish()
    tally = Tally(n_there, n_total, progress)
    for job, result in compute(jobs, tally.tick):
        job.group.write(job.chunk, result)
        tally.add(job.n_images * n_shifts)
        left[job.control] -= 1
        if not left[job.control]:
            job.group.finish()
    return tally, groups[0].n_images_in(finished[0])


def _fill_adaptive(
    store: SweepStore,
    controls: tuple[str, ...],
    compute: Compute,
    half_width: float,
    progress: Progress | None,
    announce: Callable[[str], None],
) -> tuple[Tally, int]:
    """The same until the accuracies are known to `half_width` points, from look to look."""
    half_width = agree_on_width(store.main, half_width, announce)
    groups = [store.group(control) for control in (None, *controls)]
    finished = [group.n_images_in(group.finished()) for group in groups]
    n_shifts = store.main.header.grid.n_shifts
    n_each = len(groups) * n_shifts
    tally = Tally(sum(finished) * n_shifts, n_each * store.main.n_images, progress)
    stages = stretches(groups, half_width, expect=lambda n: tally.expect(n * n_each), announce=announce)
    for jobs in stages:
        store.main.header.refuse_other_torch(str(store.path))
        for job, result in compute(jobs, tally.tick):
            job.group.write(job.chunk, result)
            tally.add(job.n_images * n_shifts)
    return tally, finished[0]


class _Here:
    """Chunks computed one after the other in this process."""

    def __init__(self, model: Model, images: ImageSet, header: SweepHeader) -> None:
        self._model, self._images, self._header = model, images, header
        self._evaluator: Prepared | None = None

    def __call__(self, jobs: Iterable[Job], tick: Callable[[int], None]) -> Iterator[tuple[Job, ChunkResult]]:
        """See `jobs.Compute`."""
        header = self._header
        device = resolve_device(header.plan.device)
        # A GPU has begun the next chunk by the time that this process writes the last one.
        n_ahead = 0 if device.type == "cpu" else 1
        begun: deque[tuple[Job, Callable[[], ChunkResult]]] = deque()
        for job in jobs:
            give_back(device)  # what the plan, or the last chunk, needed
            if self._evaluator is None:
                self._evaluator = prepare(self._model, header.plan, header.grid, header.fill, tick)
            try:
                begin = self._evaluator.begin if n_ahead else partial(_at_once, self._evaluator)
                begun.append((job, begin(self._images.batch(job.span), job.labels, job.control)))
            except ModelOutputError as error:
                raise with_sources(error, job, self._images.name) from error
            if len(begun) > n_ahead:
                yield self._finished(*begun.popleft())
        while begun:
            yield self._finished(*begun.popleft())

    def _finished(self, job: Job, finish: Callable[[], ChunkResult]) -> tuple[Job, ChunkResult]:
        try:
            result = finish()
            check_result(result, self._header.n_classes)
        except ModelOutputError as error:
            raise with_sources(error, job, self._images.name) from error
        return job, result


def _at_once(
    evaluator: Evaluator, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None
) -> Callable[[], ChunkResult]:
    result = evaluator(images, labels, control)
    return lambda: result
