"""Runs a sweep: open the store with its plan, then fill it chunk by chunk; a finished chunk is never computed again."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from shiftlens.data.imageset import ImageSet
from shiftlens.devices import give_back, refuse_gone, resolve_device, roomy_heap, tensors_of
from shiftlens.engine.evaluators import check_controls, check_machine, make_plan, prepare
from shiftlens.engine.outcomes import Chunk
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.engine.window_evaluator import WindowEvaluator
from shiftlens.errors import ModelOutputError, ShiftlensError, StoreError
from shiftlens.models.wrapping import Model
from shiftlens.naming import count_of
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.storage.locking import clean_strays, disk_errors, output_lock, set_aside
from shiftlens.sweeps.adaptive import agree_on_width, missing, refuse_other_kind, stages
from shiftlens.sweeps.header import SweepHeader, read_header, sweep_exists
from shiftlens.sweeps.integrity import restore_known
from shiftlens.sweeps.jobs import Compute, Computer, Job, check_result, with_sources
from shiftlens.sweeps.looks import Schedule, half_width_of_others, short_chunk
from shiftlens.sweeps.progress import (
    LONG_EVALUATIONS,
    Progress,
    SweepStats,
    Tally,
    cost_text,
    keeping_text,
    peak_memory_bytes,
)
from shiftlens.sweeps.request import Request, targets_of
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.sweeps.sweep_store import SweepStore, kept_header
from shiftlens.tasks.task import Task, can_settle

PLAN_IMAGES = 64
"""Images that the plan is measured on."""

Announce = Callable[[str], None]


def run(
    request: Request,
    computer: Computer,
    *,
    overwrite: bool = False,
    progress: Progress | None,
    announce: Announce,
    started: float,
) -> tuple[Sweep, SweepStats]:
    """Do what a resolved request asks for: open its store, fill it, and say how that went.

    Parameters
    ----------
    request
        From `request.resolve`.
    computer
        Where the chunks are computed.
    overwrite
        Begin anew in the place of a stored sweep, instead of resuming it.
    progress
        Called with the evaluations done and in all.
    announce
        Told in one line what the caller should know before or during the work.
    started
        `time.perf_counter()` when the call began.
    """
    # Before the lock, so that beside a foreign thing not even a lock file is made.
    if sweep_exists(request.out) and overwrite and read_header(request.out).control is not None:
        raise StoreError(f"{request.out} holds a control of a sweep: expected the sweep itself to overwrite")
    device = torch.device(computer.device(request.device))
    with output_lock(request.out) as folder, roomy_heap(device), computer:
        with disk_errors(request.out, "clean up beside"):
            clean_strays(request.out)
        if sweep_exists(request.out) and not overwrite:
            store = _reopened(request, computer, announce)
        else:
            store = _created(request, computer, announce)
            folder.take()
        # What is read of a file does not tell how a task measures.
        header = store.main.header.model_copy(update={"task": request.task})
        compute = computer.evaluator(request.model, request.images, header)
        if request.kept is not None:
            announce(keeping_text(request.kept, request.keep_outputs, request.grid.n_shifts))
        if request.reuse is not None:
            announce(f"reusing the results of {count_of(request.reuse.n_images, 'image')} from {request.reuse.path}")
            compute = request.reuse.serving(compute)
        tally, n_resumed = _fill(request, store, compute, computer.rate, progress, announce)
        if request.kept is not None:
            _keep(request, request.kept, store, computer, tally)
    seconds = time.perf_counter() - started
    plan, made = store.main.header.plan, Sweep(SweepStore(request.out))
    others, known = None, store.main.half_width_reached
    if known is not None:
        metric, main = store.main.metric, store.main
        place = list(main.means_of.values()).index(metric)
        others = half_width_of_others(metric, (found[place] for found in main.metrics(range(main.n_chunks))))
    stats = SweepStats(
        out=str(request.out),
        n_images=len(request.images),
        n_shifts=request.grid.n_shifts,
        seconds=seconds,
        shifts_per_second=tally.n_computed / seconds,
        engine=plan.engine,
        dtype=plan.dtype,
        peak_memory_bytes=peak_memory_bytes(),
        images_resumed=n_resumed,
        n_images_used=store.main.n_images,
        half_width=known,
        half_width_of_others=others,
        metric=store.main.metric.name,
        unit=store.main.metric.difference_unit,
    )
    return made, stats


def _reopened(request: Request, computer: Computer, announce: Announce) -> SweepStore:
    """The stored sweep, if it answers the same request; controls asked for now are added."""
    path, stored = request.out, read_header(request.out)
    refuse_other_kind(stored, path, request.half_width)
    header = request.header(stored.plan)
    _refuse_other_number(header, stored, request)
    header.refuse_other(stored, str(path))
    request.refuse_other_plan(stored.plan, path)
    if request.reuse is not None:
        request.reuse.check(stored)
    for name in restore_known(path, request.images.labels, request.images.index, request.grid, request.n_objects):
        announce(f"{name} was torn: it is written again")
    store = SweepStore(path, writable=True)
    new = [control for control in request.controls if control not in store.controls]
    if new:
        # Refused before anything is added: a control that cannot be computed must not be left half made.
        store.main.header.refuse_other_torch(str(path))
        computer.check(stored.plan)
        check_controls(request.model, stored.plan, request.grid, request.fill, new, request.image_shape)
    for control in new:
        store.add_control(control)
    return store


def _created(request: Request, computer: Computer, announce: Announce) -> SweepStore:
    """A new, empty store with the plan that was chosen for it."""
    if request.reuse is None:
        plan = _planned(request, computer, announce)
        header = request.header(plan)
    else:
        plan = request.reuse.plan
        header = request.header(plan)
        request.refuse_other_plan(plan, request.reuse.path)
        request.reuse.check(header)
    check_controls(request.model, plan, request.grid, request.fill, request.controls, request.image_shape)
    chunk_size = request.chunk_size
    if request.half_width is not None:
        chunk_size = short_chunk(chunk_size, len(request.images))
        header = header.model_copy(
            update={"schedule": Schedule.declared(len(request.images), chunk_size, request.metric)}
        )
    known = request.images.labels, request.images.index, request.n_objects
    if sweep_exists(request.out):
        with disk_errors(request.out, "overwrite"):
            shutil.rmtree(set_aside(request.out.resolve()))
    return SweepStore.create(request.out, header, *known, chunk_size=chunk_size, controls=request.controls)


def _refuse_other_number(header: SweepHeader, stored: SweepHeader, request: Request) -> None:
    """Refuse a stored sweep of more or fewer images of the same data, with what to do about it."""
    same = (header.model_digest, header.data, stored.control) == (stored.model_digest, stored.data, None)
    if not same or header.data_digest == stored.data_digest:
        return
    there, here = SweepStore(request.out).main.n_population, len(request.images)
    if there != here:
        reuse = f"use --reuse {request.out} (reuse=...) and another --out to keep its results, " if here > there else ""
        raise StoreError(
            f"{request.out} holds {count_of(there, 'image')}, {here:,} were requested: "
            f"{reuse or 'choose another path '}or --overwrite (overwrite=True) to replace it"
        )


MATTERS_FROM = 60.0
"""Seconds that a sweep takes, from which on it is said that a faster way to compute it may have been missed."""


def _planned(request: Request, computer: Computer, announce: Announce) -> Plan:
    images = request.images
    n_evaluations = len(images) * request.grid.n_shifts * (1 + len(request.controls))
    if n_evaluations >= LONG_EVALUATIONS:
        announce(f"measuring how to compute {count_of(n_evaluations, 'evaluation')} fastest")
    plan = computer.make_plan(
        request.model,
        images.batch(np.arange(min(PLAN_IMAGES, len(images)))),
        request.grid,
        request.fill,
        n_images=len(images),
        engine=request.engine,
        dtype=request.dtype,
        device=computer.device(request.device),
        batch_size=request.batch_size,
        n_groups=1 + len(request.controls),
        task=request.task,
    )
    if request.dtype == "auto" and not can_settle(request.task):
        announce(f"the task {request.task.name} has no margins to settle near ties by: computed in float32")
    if plan.cut_short and (computer.rate is None or n_evaluations >= MATTERS_FROM * computer.rate):
        announce(
            "how to compute was chosen before all ways were tried, as trying took too long: a faster one may have "
            f"been missed; this sweep is computed with ({plan.engine}, {plan.dtype})"
        )
    return plan


def _fill(
    request: Request,
    store: SweepStore,
    compute: Compute,
    rate: float | None,
    progress: Progress | None,
    announce: Announce,
) -> tuple[Tally, int]:
    """Compute what is missing; returns the evaluations counted, and the images that were there already."""
    header = store.main.header
    half_width = request.half_width
    if half_width is not None:
        half_width = agree_on_width(store.main, half_width, announce)
    groups = [store.group(control) for control in (None, *request.controls)]
    n_there = [group.n_images_in(group.finished()) for group in groups]
    n_shifts = header.grid.n_shifts
    n_each = len(groups) * n_shifts
    n_done, n_total = sum(n_there) * n_shifts, n_each * store.main.n_images
    if half_width is None and 0 < n_done < n_total:
        announce(f"resuming {store.path}: {n_done:,} of {n_total:,} evaluations are there")
    there = dict(zip(request.controls, n_there[1:], strict=True))
    n_canvas = n_shifts * (store.main.n_images - there["canvas"]) if "canvas" in there else 0
    cost = cost_text(n_total - n_done, rate, header.grid.step, n_canvas=n_canvas, adaptive=half_width is not None)
    if cost is not None:
        announce(cost)
    tally = Tally(n_done, n_total, progress)
    for jobs in stages(groups, half_width, expect=lambda n: tally.expect(n * n_each), announce=announce):
        header.refuse_other_torch(str(store.path))
        for job, result in compute(jobs, tally.tick):
            job.group.write(job.chunk, result)
            tally.add(job.n_images * n_shifts)
    return tally, n_there[0]


def _keep(request: Request, kept: Task, store: SweepStore, computer: Computer, tally: Tally) -> None:
    """Compute the outputs that are to be kept and are not there: of the first images, once all numbers are there."""
    group = store.keeping(kept, min(request.keep_outputs, store.main.n_images))
    compute = computer.evaluator(request.model, request.images, kept_header(store.main.header, kept))
    for jobs in missing(group):
        group.header.refuse_other_torch(str(store.path))
        tally.expect(tally.n_total + len(jobs) * request.grid.n_shifts)
        for job, result in compute(jobs, tally.tick):
            group.write(job.chunk, result)
            tally.add(job.n_images * request.grid.n_shifts)


class ThisProcess(Computer):
    """Computes chunks one after the other in this process; see `jobs.Computer`."""

    def device(self, asked: str) -> str:
        """The device that `asked` stands for."""
        return str(resolve_device(asked, apple=True))

    def check(self, plan: Plan) -> None:
        """Refuse a plan of another kind of machine."""
        check_machine(plan)

    def make_plan(self, model: Model, images: NDArray[np.uint8], grid: ShiftGrid, fill: Fill, **options: Any) -> Plan:
        """See `engine.evaluators.make_plan`."""
        found: list[float] = []
        try:
            plan = make_plan(model, images, grid, fill, told=found.append, **options)
        except (ShiftlensError, RuntimeError):
            refuse_gone(torch.device(options["device"]), "nothing was begun: run it again, or on the CPU")
            raise
        self.rate = found[-1] if found else None
        return plan

    def evaluator(self, model: Model, images: ImageSet, header: SweepHeader) -> Compute:
        """The function that computes the jobs of a sweep."""
        return _Here(model, images, header)


class _Here:
    """See `jobs.Compute`; the net is prepared for the first job."""

    def __init__(self, model: Model, images: ImageSet, header: SweepHeader) -> None:
        self._model, self._images, self._header = model, images, header
        self._evaluator: WindowEvaluator | None = None

    def __call__(self, jobs: Iterable[Job], tick: Callable[[int], None]) -> Iterator[tuple[Job, ChunkResult]]:
        header = self._header
        device = tensors_of(resolve_device(header.plan.device, apple=True))
        # A GPU has begun the next chunk by the time that this process writes the last one.
        n_ahead = 0 if device.type == "cpu" else 1
        begun: deque[tuple[Job, Callable[[], ChunkResult]]] = deque()
        for job in jobs:
            give_back(device)  # what the plan, or the last chunk, needed
            try:
                if self._evaluator is None:
                    self._evaluator = prepare(self._model, header.plan, header.grid, header.fill, tick)
                chunk = Chunk(
                    self._images.batch(job.span),
                    targets_of(self._images, header.task, job.span),
                    job.control,
                    header.task,
                )
                begun.append((job, self._evaluator.begin_chunk(chunk)))
            except (ModelOutputError, RuntimeError) as error:
                self._raise_told(error, job)
            if len(begun) > n_ahead:
                yield self._finished(*begun.popleft())
        while begun:
            yield self._finished(*begun.popleft())

    def _finished(self, job: Job, finish: Callable[[], ChunkResult]) -> tuple[Job, ChunkResult]:
        try:
            result = finish()
            task = self._header.task
            check_result(result, task, self._header.n_classes, targets_of(self._images, task, job.span))
        except (ModelOutputError, RuntimeError) as error:
            self._raise_told(error, job)
        return job, result

    def _raise_told(self, error: ModelOutputError | RuntimeError, job: Job) -> NoReturn:
        """Raise an error with what a user needs to know beside: the images, or that it was the GPU that failed."""
        plan = self._header.plan
        refuse_gone(
            torch.device(plan.device),
            f"the chunks finished before stay in {job.group.path}, and the same command goes on; if it fails there "
            "again, the net is the cause: another sweep on the CPU says where",
        )
        if isinstance(error, ModelOutputError):
            raise with_sources(error, job, self._images.name) from error
        raise error
