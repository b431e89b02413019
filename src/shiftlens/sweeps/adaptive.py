"""The order of the work: all images at once, or images until the band around the whole map is narrow enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from shiftlens.errors import StoreError
from shiftlens.naming import count_of
from shiftlens.sequential import Look, RunningBand
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.jobs import Job
from shiftlens.sweeps.looks import images_for_others, width_text
from shiftlens.tasks.variable import Variable


def agree_on_width(main: SweepGroup, half_width: float, announce: Callable[[str], None]) -> float:
    """The width that a stored sweep is now measured to: the narrower of the stored one and the one asked for.

    All bands hold together, so a sweep may be resumed with a narrower width at any time. A wider one changes nothing.
    """
    before = main.half_width
    if before is not None and half_width > before:
        known = f"±{before:g} {main.metric.difference_unit}".rstrip()
        announce(f"{main.path} is measured to {known}, narrower than ±{half_width:g}: it stays so")
        return before
    if half_width != before:
        main.ask(half_width)
    if main.complete and (main.half_width_reached or 0.0) > half_width:
        main.reopen()
    return half_width


def stages(
    groups: list[SweepGroup],
    half_width: float | None,
    *,
    expect: Callable[[int], None],
    announce: Callable[[str], None],
) -> Iterator[list[Job]]:
    """Yield the jobs that are missing, stage by stage: the sweep first, then its controls on the same images.

    A stage of an adaptive sweep ends where the band is looked at. The caller writes the results of all jobs of a stage
    before it asks for the next one. Groups are finished here.

    Parameters
    ----------
    groups
        The sweep, and the controls that are asked for.
    half_width
        In points or the metric's unit, see `agree_on_width`; None measures all images.
    expect
        Told how many images an adaptive sweep will probably take.
    announce
        Told what a look has shown.
    """
    main, *controls = groups
    yield from missing(main) if half_width is None else _until(main, half_width, expect, announce)
    for control in controls:
        if half_width is not None:
            if control.complete and control.n_images != main.n_images:
                control.reopen()
            if not control.complete:
                control.stop_at(main.n_images)
        yield from missing(control)


def _until(
    group: SweepGroup, half_width: float, expect: Callable[[int], None], announce: Callable[[str], None]
) -> Iterator[list[Job]]:
    if group.complete:
        yield from missing(group, group.half_width_reached)
        return
    schedule = group.header.schedule
    if schedule is None:
        raise ValueError(f"{group.path} is no adaptive sweep")
    n_cells, metric = group.header.grid.n_shifts, group.metric
    if half_width and len(schedule.looks) == 1:
        n, needed = group.n_population, images_for_others(half_width, metric, n_cells)
        text = f"{count_of(n, 'image')} {'is' if n == 1 else 'are'} too few to stop early: all are measured"
        if needed is not None and needed > n:
            known = f"±{half_width:g} {metric.difference_unit}".rstrip()
            text += f". They promise no {known} over other images: that takes about {needed:,} of them"
        announce(text)
    place = next(k for k, each in enumerate(group.means_of.values()) if each == metric)
    band = RunningBand(
        group.labels,
        group.index,
        n_cells,
        schedule.looks,
        bounds=None if metric.is_share else metric.bounds,
        optional=metric.optional,
        factor=metric.factor,
        level=schedule.level,
        n_draws=schedule.draws,
        seed=schedule.seed,
    )
    for stop in schedule.looks:
        chunks = range(band.n_images // group.chunk_size, -(-stop // group.chunk_size))
        absent = [chunk for chunk in chunks if not group.is_finished(chunk)]
        if absent:
            yield [Job(group, chunk) for chunk in absent]
        for found in group.metrics(chunks):
            band.add(found[place].reshape(-1, n_cells))
        look = band.look()
        if absent:
            announce(_described(look, metric))
        if look.half_width <= half_width:
            group.stop_at(stop)
            expect(stop)
            group.finish(look.half_width)
            return
        expect(look.images_for(half_width, schedule.looks))


def missing(group: SweepGroup, half_width: float | None = None) -> Iterator[list[Job]]:
    """The missing jobs of a group whose images are known; then the group is finished."""
    absent = np.flatnonzero(~group.finished()).tolist()
    if absent:
        n_images = group.n_images
        if group.complete:
            group.reopen()
            group.stop_at(n_images)
        yield [Job(group, chunk) for chunk in absent]
    if not group.complete or group.wrong_means():
        group.finish(half_width)


def refuse_other_kind(stored: SweepHeader, path: Path, half_width: float | None) -> None:
    """Refuse to go on with an adaptive sweep as if it were an exact one, or the other way round.

    Raises
    ------
    StoreError
        Says which it is, and what to ask for.
    """
    adaptive = stored.schedule is not None
    if adaptive and half_width is None:
        raise StoreError(
            f"{path} holds an adaptive sweep: expected a half-width to go on with it (0 measures all images), got "
            "none; ask for one, or choose another path"
        )
    if not adaptive and half_width is not None:
        raise StoreError(
            f"{path} holds a sweep that was begun without a half-width, whose images are not in an order that could "
            "be stopped: leave the half-width out, or choose another path"
        )


def _described(look: Look, metric: Variable) -> str:
    if look.n_images == look.n_population:
        return f"all {look.n_images:,} images are measured"
    after = f"after {look.n_images:,} of {look.n_population:,} images"
    if look.half_width == np.inf:
        return f"{after}, no shift has a {metric.called} of half of them"
    return f"{after} every {metric.called} is known to {width_text(look.half_width, metric.difference_unit)}"
