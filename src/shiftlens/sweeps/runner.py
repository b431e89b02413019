"""Chunks of images to the store: what to compute is decided once, what is there already is never computed again."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.devices import resolve_device, roomy_heap
from shiftlens.errors import ModelOutputError
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sources.imageset import ImageSet
from shiftlens.sources.matching import check_labels, on_input_grid
from shiftlens.sources.wrapping import Model
from shiftlens.sweeps.attributes import describe
from shiftlens.sweeps.engine import check_controls, check_machine, check_request, make_plan, prepare
from shiftlens.sweeps.locking import clean_strays, disk_errors, output_lock
from shiftlens.sweeps.plan import ChunkResult, Evaluator
from shiftlens.sweeps.request import default_grid, images_per_chunk, refuse_other_plan
from shiftlens.sweeps.result import Sweep
from shiftlens.sweeps.store import SweepGroup, SweepStore, sweep_exists

logger = logging.getLogger(__name__)

PLAN_IMAGES = 64
"""Pictures that the plan is measured on."""


Progress = Callable[[int, int], None]
"""Told the evaluations (images x shifts, controls too) done so far and in all: at the start (what was there already),
after every chunk, and about once a second inside a long one."""

SECONDS_BETWEEN_REPORTS = 1.0


@dataclass(frozen=True)
class SweepStats:
    """How a sweep went.

    Attributes
    ----------
    out
        Path of the Zarr group.
    n_images, n_shifts
        Size of the sweep.
    seconds
        Wall time of the whole call: checks, plan, preparation, chunks.
    shifts_per_second
        Evaluations (images x shifts, controls too) that this call computed, divided by `seconds`; 0 when all was there.
    engine, dtype
        From the plan.
    peak_memory_bytes
        The most memory that this process ever held (the high-water mark of its resident set, so loading the model
        counts too); 0 where the system does not tell.
    images_resumed
        Images of the sweep (controls aside) that were there already.
    """

    out: str
    n_images: int
    n_shifts: int
    seconds: float
    shifts_per_second: float
    engine: str
    dtype: str
    peak_memory_bytes: int
    images_resumed: int

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens sweep --json`."""
        return asdict(self)


def sweep(
    model: Model,
    images: ImageSet,
    grid: ShiftGrid | None = None,
    *,
    out: str | Path,
    fill: str | float | Sequence[float] | Fill = "black",
    engine: str = "auto",
    dtype: str = "auto",
    controls: Sequence[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
) -> Sweep:
    """Evaluate a model on every image under every shift, into one Zarr group; an interrupted one is taken up again.

    Parameters
    ----------
    model
        From `load_model` or `wrap`.
    images
        From `load_images`, or an `ImageSet`; brought to the model's input size first, then shifted.
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
    controls
        `"occlusion"` (the pixels that are lost blanked in place), `"flip"` (mirrored pictures), `"canvas"` (no padding
        near the picture): measured too, as subgroups; may be added to a sweep later.
    progress
        Called with the evaluations done and in all.

    Returns
    -------
    Sweep
        Complete.

    Raises
    ------
    InputError
        A request that cannot be served: no images, labels beyond the model's classes, images of mixed sizes, ...
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
        progress=progress,
    )[0]


def run_sweep(
    model: Model,
    images: ImageSet,
    grid: ShiftGrid | None = None,
    *,
    out: str | Path,
    fill: str | float | Sequence[float] | Fill = "black",
    engine: str = "auto",
    dtype: str = "auto",
    controls: Sequence[str] = (),
    device: str = "auto",
    progress: Progress | None = None,
    announce: Callable[[str], None] = logger.warning,
) -> tuple[Sweep, SweepStats]:
    """`sweep`, and how it went; `announce` is told in one line what the caller should know before the work starts."""
    started = time.perf_counter()
    path = Path(out)
    images, size = on_input_grid(model, images)
    model = model.at(size)
    check_labels(model, images)
    if grid is None:
        grid = default_grid(size, announce)
    fill = Fill.parse(fill)
    controls = (controls,) if isinstance(controls, str) else tuple(dict.fromkeys(controls))
    check_request(grid, fill, engine, dtype, controls)
    if fill.is_constant:
        fill.normalised(model.preprocessing.mean, model.preprocessing.std)
    sweep_exists(path)  # before the lock, so that beside a foreign thing not even a lock file is made
    target = resolve_device(device)
    with output_lock(path), roomy_heap(target):
        with disk_errors(path, "clean up beside"):
            clean_strays(path)
        if sweep_exists(path):
            store = SweepStore(path, writable=True)
            plan = store.main.header.plan
            describe(model, images, size, grid, fill, plan).refuse_other(store.main.header, str(path))
            refuse_other_plan(plan, path, engine=engine, dtype=dtype, device=device)
            new = [control for control in controls if control not in store.controls]
            if new:
                # Refused before anything is added: a control that cannot be computed must not be left half made.
                store.main.header.refuse_other_torch(str(path))
                check_machine(plan)
                check_controls(model, plan, grid, fill, new, (images.n_channels, *size))
            for control in new:
                store.add_control(control)
        else:
            sample = images.batch(np.arange(min(PLAN_IMAGES, len(images))))
            plan = make_plan(
                model,
                sample,
                grid,
                fill,
                n_images=len(images),
                engine=engine,
                dtype=dtype,
                device=device,
                n_groups=1 + len(controls),
            )
            check_controls(model, plan, grid, fill, controls, (images.n_channels, *size))
            store = SweepStore.create(
                path,
                describe(model, images, size, grid, fill, plan),
                images.labels,
                images.index,
                chunk_size=images_per_chunk(len(images), grid.n_shifts, model.n_macs, int(sample[0].nbytes)),
                controls=controls,
            )
        n_computed, n_resumed = _fill_store(store, controls, model, images, progress, announce)
    seconds = time.perf_counter() - started
    stats = SweepStats(
        out=str(out),
        n_images=len(images),
        n_shifts=grid.n_shifts,
        seconds=seconds,
        shifts_per_second=n_computed / seconds,
        engine=plan.engine,
        dtype=plan.dtype,
        peak_memory_bytes=peak_memory_bytes(),
        images_resumed=n_resumed,
    )
    return Sweep(SweepStore(path)), stats


def _fill_store(
    store: SweepStore,
    controls: tuple[str, ...],
    model: Model,
    images: ImageSet,
    progress: Progress | None,
    announce: Callable[[str], None],
) -> tuple[int, int]:
    """Compute what is missing; returns the evaluations computed, and the images that were there already."""
    header = store.main.header
    groups = [store.group(control) for control in (None, *controls)]
    finished = [group.finished() for group in groups]
    n_shifts = header.grid.n_shifts
    n_total = len(groups) * len(images) * n_shifts
    n_there = n_done = sum(g.n_images_in(f) for g, f in zip(groups, finished, strict=True)) * n_shifts
    n_resumed = groups[0].n_images_in(finished[0])
    if n_done < n_total:
        header.refuse_other_torch(str(store.path))
        if n_done:
            announce(f"going on with {store.path}: {n_done:,} of {n_total:,} evaluations are there")
    last_report = time.monotonic()

    def report(n_in_chunk: int = 0) -> None:
        nonlocal last_report
        if progress is not None and (not n_in_chunk or time.monotonic() - last_report > SECONDS_BETWEEN_REPORTS):
            progress(n_done + n_in_chunk, n_total)
            last_report = time.monotonic()

    report()
    evaluator: Evaluator | None = None
    for group, there in zip(groups, finished, strict=True):
        if group.complete and not there.all():
            group.reopen()
        for chunk in np.flatnonzero(~there).tolist():
            evaluator = evaluator or prepare(model, header.plan, header.grid, header.fill, report)
            span = group.span(chunk)
            try:
                result = evaluator(images.batch(span), group.labels[span], group.header.control)
                _check_result(result, header.n_classes)
            except ModelOutputError as error:
                raise _with_sources(error, group, span, images.name) from error
            group.write(chunk, result)
            n_done += (span.stop - span.start) * n_shifts
            report()
        if not group.complete:
            group.finish()
    return n_done - n_there, n_resumed


def peak_memory_bytes() -> int:
    """High-water mark of this process's resident memory in bytes, 0 where the system does not tell (Windows)."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: a child process starts with its parent's mark there.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        return 0
    import resource

    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return high if sys.platform == "darwin" else high * 1024


def _check_result(result: ChunkResult, n_classes: int) -> None:
    """A chunk with a number missing would count as unfinished for ever, so it is refused whatever the engine."""
    bad = ~(np.isfinite(result.loss) & np.isfinite(result.confidence)).all(axis=(1, 2))
    if bad.any():
        raise ModelOutputError("the loss is not finite", tuple(np.flatnonzero(bad).tolist()))
    if result.prediction.max() >= n_classes:
        raise ModelOutputError(f"expected {n_classes} classes, got a prediction of class {result.prediction.max()}")


def _with_sources(error: ModelOutputError, group: SweepGroup, span: slice, name: str) -> ModelOutputError:
    """The same error with the images' positions in their source."""
    index: NDArray[np.int64] = group.index[span]
    sources = tuple(index[list(error.positions)].tolist()) if error.positions else tuple(index.tolist())
    shown = ", ".join(map(str, sources[:10])) + (", ..." if len(sources) > 10 else "")
    which = "at image" if error.positions else "somewhere in images"
    return ModelOutputError(
        f"{error} {which} {shown} of {name}; the chunks finished before stay in {group.path}", sources
    )
