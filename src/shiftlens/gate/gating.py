"""`check`: sweeps against limits or a baseline, in a `CheckResult`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shiftlens.analysis.arrays import from_sweep
from shiftlens.errors import InputError, StoreError
from shiftlens.gate.check_result import CheckResult
from shiftlens.gate.conditions import Condition, conditions_of
from shiftlens.gate.deciding import ALPHA, decide
from shiftlens.gate.limits import Allowed, Gate, Mode, Within, gate_of
from shiftlens.gate.quantities import Reading
from shiftlens.naming import distinct, printable
from shiftlens.sweeps.sweep_result import Sweep, open_sweep


def check(
    sweep: Sweep | str | Path | Sequence[Sweep | str | Path],
    *,
    gate: Gate | Mapping[str, Any] | str | Path | None = None,
    baseline: Sweep | str | Path | None = None,
    allowed: Mapping[str, Any] | Allowed | None = None,
    mode: Mode | None = None,
    metric: str | None = None,
    min_unshifted: float | None = None,
    max_unshifted: float | None = None,
    min_near: float | None = None,
    max_near: float | None = None,
    min_retained_radius: float | None = None,
    max_drop: tuple[float, float] | str | Within | None = None,
    max_side_difference: float | None = None,
    min_consistency: float | None = None,
    max_confidence_swing: tuple[float, float] | float | str | Within | None = None,
    max_border_ratio: float | None = None,
    partial: bool = False,
    seed: int = 0,
) -> CheckResult:
    """Check sweeps against limits, or against a baseline sweep of the same images: pass or fail.

    Parameters
    ----------
    sweep
        One sweep or several, open or by path; every condition holds for each.
    gate
        A file `gate.toml`, or a table of the same keys: those below, and `metrics`, a table of limits for each further
        metric. What is given by itself goes first.
    baseline
        A sweep of the same images: differences are paired, image by image.
    allowed
        How much worse than the baseline a sweep may be: `unshifted`, `near`, `side_difference`, `drop` in points (or
        the metric's unit; `drop` within a distance, such as `"1@4"`), `retained_radius` in px, `consistency` and
        `confidence_swing` in points, `border_ratio` in times that of the baseline (above 1). By default 1 point each of
        `unshifted`, `near` and `side_difference`.
    mode
        `"strict"` (default): a condition passes only if the limit is proven kept. `"lenient"`: it fails only if a
        breach is proven. Both at 5 % over all conditions together (Holm).
    metric
        What the limits are on; the task's default by default.
    min_unshifted, max_unshifted, min_near, max_near
        The metric on unshifted images and its mean within 8 px, in its own unit (a share from 0 to 1): `min_` where
        higher is better, `max_` where lower is.
    min_retained_radius
        Radius in px of the circle that has the area where 95 % of the unshifted performance is kept.
    max_drop
        `(points, px)`: how far the metric may fall from (0, 0) to any shift within a distance.
    max_side_difference
        Points between opposite sides, left and right or up and down, whichever is more.
    min_consistency
        Share of equal predictions over all pairs of shifts of an image.
    max_confidence_swing
        Largest less smallest confidence of an image (of an object) within a distance, 4 px by default; a share.
    max_border_ratio
        Rate of errors near the border over that inside.
    partial
        Use the images that an incomplete sweep has, and those that sweep and baseline share.
    seed
        Of the bootstrap behind the retained radius.

    Returns
    -------
    CheckResult
        `.passed` (also its truth value), `.conditions`, `.junit()`, `.markdown()`.

    Raises
    ------
    InputError
        No condition, an unknown key, a metric that a sweep lacks, a limit that cannot be, or a baseline of other
        images.
    StoreError
        A sweep that is not there, damaged, or not complete.

    Examples
    --------
    >>> check("vgg.zarr", min_retained_radius=3, max_drop=(2, 4)).passed  # doctest: +SKIP
    """
    names = {name: value for name, value in locals().items() if name.startswith(("min_", "max_"))}
    given = names | {"mode": mode, "metric": metric}
    if allowed is not None:
        given["allowed"] = allowed if isinstance(allowed, Allowed) else dict(allowed)
    wanted = gate_of(gate, given)
    if baseline is None and wanted.baseline is not None:
        baseline = wanted.baseline
    if not wanted.asks and baseline is None:
        raise InputError("expected at least one condition (such as min_retained_radius=3) or a baseline, got none")
    sweeps = [sweep] if isinstance(sweep, Sweep | str | Path) else list(sweep)
    if not sweeps:
        raise InputError("expected at least one sweep to check, got none")
    opened = [_opened(each, partial) for each in sweeps]
    readings = _readings(opened, seed)
    base = None if baseline is None else _readings([_opened(baseline, partial)], seed)[0]
    return checked(readings, wanted, base, partial=partial)


def checked(
    readings: Sequence[Reading],
    gate: Gate,
    baseline: Reading | None = None,
    *,
    partial: bool = False,
    alpha: float = ALPHA,
) -> CheckResult:
    """The same from sweeps that are open, at a level."""
    conditions: list[Condition] = []
    for each in readings:
        conditions += conditions_of(each, gate, baseline, partial=partial)
    notes = [
        f"{each.name} is not complete: {each.arrays.n_images:,} of {each.sweep.n_images:,} images are used"
        for each in (*readings, *([baseline] if baseline else []))
        if not each.sweep.complete
    ]
    n_images = min(each.arrays.n_images for each in readings)
    return CheckResult(decide(conditions, gate.mode, alpha), gate.mode, n_images, alpha, tuple(notes))


def _opened(each: Sweep | str | Path, partial: bool) -> Sweep:
    sweep = each if isinstance(each, Sweep) else open_sweep(each, partial=partial)
    if not sweep.complete and not partial:
        raise StoreError(
            f"{sweep.path} is not complete: {sweep.n_written:,} of {sweep.n_images:,} images are there; run the same "
            "sweep again to finish it, or check the images that are there (--partial, partial=True)"
        )
    if not sweep.n_written:
        raise StoreError(f"{sweep.path}: 0 of {sweep.n_images:,} images are there; run the same sweep again")
    return sweep


def _readings(sweeps: Sequence[Sweep], seed: int) -> list[Reading]:
    names = distinct(printable(each.path.stem) or "sweep" for each in sweeps)
    return [Reading(name, each, from_sweep(each), seed) for name, each in zip(names, sweeps, strict=True)]
