"""An adaptive sweep: images until the band around the accuracies of all shifts is as narrow as was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from shiftlens.errors import StoreError
from shiftlens.sequential import Look, RunningBand
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.jobs import Job


def agree_on_width(main: SweepGroup, half_width: float, announce: Callable[[str], None]) -> float:
    """The width that a stored sweep is now measured to: the narrower of what was and what is asked for.

    All bands hold together, so a narrower one may be asked for whenever: the sweep goes on from where it is. A wider
    one is no reason to stop elsewhere than the sweep would have.
    """
    before = main.half_width
    if before is not None and half_width > before:
        announce(f"{main.path} is measured to ±{before:g} points, narrower than ±{half_width:g}: it stays so")
        return before
    if half_width != before:
        main.ask(half_width)
    if main.complete and (main.half_width_reached or 0.0) > half_width:
        main.reopen()
    return half_width


def stretches(
    groups: list[SweepGroup],
    half_width: float,
    *,
    expect: Callable[[int], None],
    announce: Callable[[str], None],
) -> Iterator[list[Job]]:
    """What is to be computed from one look to the next; the sweep first, then its controls on the same images.

    The caller writes the results of all jobs of a stretch before it asks for the next one. Groups are finished here.

    Parameters
    ----------
    groups
        The sweep, and the controls that are asked for.
    half_width
        In points, see `agree_on_width`.
    expect
        Told how many images it will probably take.
    announce
        Told what a look has shown.
    """
    main, *controls = groups
    yield from _until(main, half_width, expect, announce)
    for control in controls:
        if control.complete and control.n_images != main.n_images:
            control.reopen()
        if not control.complete:
            control.stop_at(main.n_images)
        yield from _finished(control, None)


def _until(
    group: SweepGroup, half_width: float, expect: Callable[[int], None], announce: Callable[[str], None]
) -> Iterator[list[Job]]:
    if group.complete:
        yield from _finished(group, group.half_width_reached)
        return
    schedule = group.header.schedule
    if schedule is None:
        raise ValueError(f"{group.path} is no adaptive sweep")
    n_cells = group.header.grid.n_shifts
    band = RunningBand(
        group.labels,
        group.index,
        n_cells,
        schedule.looks,
        level=schedule.level,
        n_draws=schedule.draws,
        seed=schedule.seed,
    )
    for stop in schedule.looks:
        chunks = range(band.n_images // group.chunk_size, -(-stop // group.chunk_size))
        missing = [chunk for chunk in chunks if not group.is_finished(chunk)]
        if missing:
            yield [Job(group, chunk) for chunk in missing]
        for prediction, _, labels in group.chunks(chunks):
            band.add((prediction == labels[:, None, None]).reshape(len(labels), n_cells))
        look = band.look()
        if missing:
            announce(_said(look))
        if look.half_width <= half_width:
            group.stop_at(stop)
            expect(stop)
            group.finish(look.half_width)
            return
        expect(look.images_for(half_width, schedule.looks))


def _finished(group: SweepGroup, half_width: float | None) -> Iterator[list[Job]]:
    """A group whose images are known: what it lacks, and then its means."""
    missing = np.flatnonzero(~group.finished()).tolist()
    if missing:
        n_images = group.n_images
        if group.complete:
            group.reopen()
            group.stop_at(n_images)
        yield [Job(group, chunk) for chunk in missing]
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


def _said(look: Look) -> str:
    if look.n_images == look.n_population:
        return f"all {look.n_images:,} images are measured: no width is left"
    return (
        f"after {look.n_images:,} of {look.n_population:,} images every accuracy is known to "
        f"±{look.half_width:.2f} points"
    )
