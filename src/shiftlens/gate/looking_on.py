"""As many images as a decision needs: looks at 100, 200, 400 ... images, the error probability shared among them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from shiftlens.analysis.arms import NEAR
from shiftlens.analysis.arrays import from_sweep
from shiftlens.data.imageset import ImageSet
from shiftlens.data.selection import stratified_order
from shiftlens.errors import InputError, StoreError
from shiftlens.gate.check_result import CheckResult
from shiftlens.gate.deciding import ALPHA
from shiftlens.gate.gating import checked
from shiftlens.gate.limits import Gate, Within
from shiftlens.gate.quantities import Reading
from shiftlens.models.loading import model_and_images
from shiftlens.models.wrapping import Model
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import run_sweep
from shiftlens.sweeps.progress import Progress
from shiftlens.sweeps.sweep_result import Sweep

FIRST_LOOK = 100
RATIO = 2
FAR = int(NEAR)
"""px that the grid reaches for what is a mean over many shifts, or against a baseline: compared is within 8 px."""


def looks_at(n_images: int, first: int = FIRST_LOOK) -> tuple[int, ...]:
    """After how many images is decided, ascending; the last is all of them.

    Examples
    --------
    >>> looks_at(1000)
    (100, 200, 400, 800, 1000)
    """
    found, n = [], first
    while n < n_images:
        found.append(n)
        n *= RATIO
    return (*found, n_images)


def grid_for(gate: Gate, size: tuple[int, int]) -> ShiftGrid:
    """The smallest grid on which every condition of a gate can be decided, no further than the image's size.

    A retained region of the radius asked for may be longer than it is wide: it has half of the radius, and 1 px, more.
    """
    reach = FAR if gate.allowed or gate.baseline else 1
    for limits in gate.limits.values():
        asked = {name: limit for name, limit in vars(limits).items() if limit is not None}
        radius = asked.pop("min_retained_radius", None)
        if radius is not None:
            reach = max(reach, math.ceil(1.5 * radius) + 1)
        for name, limit in asked.items():
            if isinstance(limit, Within):
                reach = max(reach, math.ceil(limit.px))
            elif not name.endswith("_unshifted"):
                reach = max(reach, FAR)
    return ShiftGrid((min(reach, size[0]), min(reach, size[1])))


def check_adaptively(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    gate: Gate,
    *,
    out: Path,
    grid: ShiftGrid | None = None,
    baseline: Sweep | None = None,
    first_look: int = FIRST_LOOK,
    budget_s: float | None = None,
    seed: int = 0,
    announce: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[CheckResult, Sweep]:
    """Sweep images until a gate is decided.

    The looks are fixed before the first image, and each has an equal part of the 5 %, so that whenever it stops, the
    decision has the error probability that it would have on all images. It stops once every condition is proven kept,
    or one is proven breached. What is undecided in the end has failed where the gate is strict.

    Parameters
    ----------
    model, images
        As `shiftlens.sweep` takes them.
    gate
        What is asked for.
    out
        A folder; each look has its sweep in it, which reuses that of the look before. What is there of the same check
        is resumed, any other sweep at such a path is replaced.
    grid
        The shifts; by default those that the conditions need.
    baseline
        A sweep of the same images: its grid and fill are taken.
    first_look
        Images of the first look; each further one has twice as many.
    budget_s
        Seconds after which no further look is begun.
    seed
        Of the order of the images, which keeps the classes' shares, and of bootstraps.
    announce, progress, options
        As `sweeping.run_sweep` takes them.

    Returns
    -------
    tuple
        The decision of the last look, and its sweep.

    Raises
    ------
    InputError
        See `check` and `shiftlens.sweep`.
    """
    if budget_s is not None and not budget_s > 0:
        raise InputError(f"expected a budget above 0 seconds, got {budget_s}")
    if gate.asks_of_tiles:
        raise InputError("an adaptive check sweeps shifts: expected no limit on a tile mismatch")
    if gate.allowed is not None and gate.allowed.border_ratio is not None:
        raise InputError("a border ratio against a baseline is paired by chunks of images: expected a whole sweep")
    started = time.monotonic()
    model, images = model_and_images(model, images, device=options.get("device", "auto"))
    order = stratified_order(images.labels, images.index, seed)
    looks = looks_at(len(images), first_look)
    base = None
    if baseline is not None:
        base = Reading(baseline.path.stem, baseline, from_sweep(baseline), seed)
        options["fill"] = baseline.fill
        grid = baseline.grid if grid is None else grid
        known = set(base.arrays.positions.tolist())
        missing = [each for each in images.index.tolist() if each not in known]
        if missing:
            raise InputError(
                f"{baseline.path} lacks {len(missing):,} of the {len(images):,} images, such as number {missing[0]} of "
                "the source: expected a baseline of the same images"
            )
    grid = grid or grid_for(gate, _size(model, images))
    options = {"fill": "black", "progress": progress, "announce": announce} | options
    out.mkdir(parents=True, exist_ok=True)
    previous: Path | None = None
    for number, n in enumerate(looks):
        path = out / f"look-{n}.zarr"
        begun = time.monotonic()
        make = partial(run_sweep, model, images.subset(order[:n]), grid, out=path, reuse=previous, **options)
        sweep = _swept_or_resumed(make, path, announce)
        reading = Reading("adaptive", sweep, from_sweep(sweep), seed)
        found = checked([reading], gate, base, partial=True, alpha=ALPHA / len(looks))
        undecided = _undecided(found)
        announce(f"after {n:,} of {len(images):,} images: {_state(found)}")
        seconds = time.monotonic() - begun
        is_last = number == len(looks) - 1
        left = None if budget_s is None else budget_s - (time.monotonic() - started)
        # The images that come next are as many as there are, at the pace of this look.
        out_of_time = left is not None and not is_last and seconds * (looks[number + 1] - n) / n > left
        if not undecided or is_last or out_of_time:
            break
        previous = path
    measured = f"{n:,} of {len(images):,} images under {grid.n_shifts:,} shifts"
    note = f"decided after {measured}, look {number + 1} of {len(looks)}"
    if undecided:
        why = "the budget allows no further look" if out_of_time else "all images are measured"
        count = f"{len(undecided)} condition" + ("s" if len(undecided) > 1 else "")
        note = f"undecided after {measured}, {why}: {count}"
    return replace(found, notes=(*found.notes, note)), sweep


def _swept_or_resumed(make: Callable[..., tuple[Sweep, Any]], path: Path, announce: Callable[[str], None]) -> Sweep:
    """The sweep at a path: resumed if it is the same, else made anew."""
    try:
        return make()[0]
    except StoreError as error:
        if not path.exists():
            raise
        announce(f"{error}: measured anew")
        return make(overwrite=True)[0]


def _undecided(found: CheckResult) -> Sequence[str]:
    """Conditions that further images may decide: none once one of them is proven breached."""
    if any(each.proven == "breached" for each in found.conditions):
        return []
    return [each.title for each in found.conditions if each.proven == "neither"]


def _state(found: CheckResult) -> str:
    counts = {name: sum(each.proven == name for each in found.conditions) for name in ("kept", "breached", "neither")}
    return ", ".join(f"{count} {'undecided' if name == 'neither' else name}" for name, count in counts.items() if count)


def _size(model: Model, images: ImageSet) -> tuple[int, int]:
    size = model.preprocessing.size or images.size
    return (FAR, FAR) if size is None else size
