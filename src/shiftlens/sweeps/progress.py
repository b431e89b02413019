"""How a sweep goes, and how it went."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shiftlens.naming import of_source
from shiftlens.sweeps.looks import width_text
from shiftlens.tasks.kept_outputs import bytes_of_window
from shiftlens.tasks.task import Task

Progress = Callable[[int, int], None]
"""Told the evaluations (images x shifts, controls too) done so far and in all: at the start (what was there already),
after every chunk, and about once a second inside a long one."""

SECONDS_BETWEEN_REPORTS = 1.0


class Tally:
    """Counts evaluations and tells a `Progress`.

    Parameters
    ----------
    n_there, n_total
        Evaluations that were there at the start, and in all.
    progress
        Who is told, if anybody.
    """

    def __init__(self, n_there: int, n_total: int, progress: Progress | None) -> None:
        self.n_there, self.n_done, self.n_total = n_there, n_there, n_total
        self._progress = progress
        self._last = time.monotonic()
        self.add(0)

    def expect(self, n_total: int) -> None:
        """It will probably be so many evaluations in all."""
        self.n_total = n_total
        self._tell(0)

    @property
    def n_computed(self) -> int:
        """Evaluations since the start."""
        return self.n_done - self.n_there

    def add(self, n: int) -> None:
        """A chunk of `n` evaluations is finished."""
        self.n_done += n
        self._tell(0)

    def tick(self, n_in_chunk: int) -> None:
        """So many evaluations of the present chunk are done."""
        if time.monotonic() - self._last > SECONDS_BETWEEN_REPORTS:
            self._tell(n_in_chunk)

    def _tell(self, n_in_chunk: int) -> None:
        if self._progress is not None:
            self._progress(self.n_done + n_in_chunk, self.n_total)
            self._last = time.monotonic()


LONG_SECONDS = 10.0
LONG_EVALUATIONS = 100_000
"""From this on, the cost of a sweep is said before it begins."""


def cost_text(
    n_evaluations: int, rate: float | None, step: int, *, n_canvas: int = 0, adaptive: bool = False
) -> str | None:
    """What a sweep will cost, and what makes it cheaper; None where it is short.

    `rate` is in evaluations a second, None where it was not measured; the `n_canvas` of the canvas control, whose
    images are larger, have another one. An adaptive sweep may stop before.
    """
    if n_evaluations < LONG_EVALUATIONS if rate is None else n_evaluations < LONG_SECONDS * rate:
        return None
    most = "at most " if adaptive else ""
    time_needed = "" if rate is None else f", about {duration((n_evaluations - n_canvas) / rate)} at {rate:,.0f}/s"
    if time_needed and n_canvas:
        time_needed += " without the canvas control"
    if time_needed:  # it leaves out checks and writing, and what else the machine does later
        time_needed += " (estimated from a few batches: it may take twice as long)"
    width = "" if adaptive else ", or a half-width (as many images as that needs)"
    return (
        f"{most}{n_evaluations:,} evaluations{time_needed}; cheaper: a step of {2 * step} px (a quarter of them), a "
        f"limit of images{width}"
    )


def keeping_text(kept: Task, n_images: int, n_shifts: int) -> str:
    """What it takes to keep outputs, in windows and, before they are compressed, in bytes."""
    n, n_bytes = n_images * n_shifts, n_images * n_shifts * bytes_of_window(kept)
    which = "1 image" if n_images == 1 else f"{n_images:,} images"
    return (
        f"keeping the outputs of {which}: {n:,} windows are evaluated once more, {n_bytes / 1e6:,.1f} MB before "
        "compression"
    )


def duration(seconds: float) -> str:
    """A time for people: seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


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
        counts too; a cluster's workers do not); 0 where the system does not tell.
    images_resumed
        Images of the sweep (controls aside) that were there already.
    n_images_used, half_width
        Of an adaptive sweep: the images that it took, and the half-width there. All images, and None.
    half_width_of_others
        Of an adaptive sweep: by how much its metric may miss that over other images of the same kind; else None.
    metric, unit
        What the half-widths are of, the default metric of the task, and their unit: points of a share.
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
    n_images_used: int
    half_width: float | None = None
    half_width_of_others: float | None = None
    metric: str = "accuracy"
    unit: str = "points"

    def images_text(self, n_source: int | None = None) -> str:
        """How many images, and of how many."""
        if self.half_width is None:
            return of_source(self.n_images, n_source)
        return f"{self.n_images_used:,} of {self.n_images:,} images"

    def known_lines(self) -> list[str]:
        """How well an adaptive sweep knows its metric: over its own images, and over others of the same kind."""
        if self.half_width is None:
            return []
        known = f"known to {width_text(self.half_width, self.unit)} together, with 95 % confidence"
        these = f"over these {self.n_images:,} images every {self.metric} is {known}"
        if not self.half_width:
            these = f"all {self.n_images:,} images are measured: over these images no {self.metric} is uncertain"
        others = width_text(self.half_width_of_others or 0.0, self.unit)
        return [f"{these}; over other images of the same kind, each is known to {others}"]

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens sweep --json`."""
        return asdict(self)


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
