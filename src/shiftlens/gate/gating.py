"""`check`: sweeps against limits or a baseline, in a `CheckResult`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftlens.analysis.arrays import from_sweep
from shiftlens.errors import InputError, StoreError
from shiftlens.gate.check_result import CheckResult
from shiftlens.gate.conditions import Condition, conditions_of
from shiftlens.gate.deciding import ALPHA, decide
from shiftlens.gate.limits import Allowed, Gate, Mode, Within, gate_of
from shiftlens.gate.quantities import Reading
from shiftlens.gate.tile_mismatch import tile_conditions
from shiftlens.naming import distinct, printable
from shiftlens.storage.existing import found_at
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from shiftlens.tiles.tile_result import TileReport
from shiftlens.tiles.tile_store import KIND as TILES
from shiftlens.tiles.tile_store import open_tiles

Checked = Sweep | TileReport | str | Path


@dataclass(frozen=True, eq=False)
class Tiles:
    """A tile report, and how the conditions call it."""

    name: str
    report: TileReport

    @property
    def n_images(self) -> int:
        """Images of the report."""
        return self.report.n_images


def check(
    sweep: Checked | Sequence[Checked],
    *,
    gate: Gate | Mapping[str, Any] | str | Path | None = None,
    baseline: Checked | None = None,
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
    max_tile_mismatch: float | None = None,
    max_tile_mismatch_with_overlap: float | None = None,
    partial: bool = False,
    seed: int = 0,
) -> CheckResult:
    """Check sweeps against limits, or against a baseline sweep of the same images: pass or fail.

    Parameters
    ----------
    sweep
        One sweep or tile report or several, open or by path; every condition holds for each of its kind.
    gate
        A file `gate.toml`, or a table of the same keys: those below, and `metrics`, a table of limits for each further
        metric. What is given by itself goes first.
    baseline
        A sweep of the same images: differences are paired, image by image.
    allowed
        How much worse than the baseline a sweep may be: `unshifted`, `near`, `side_difference`, `drop` in points (or
        the metric's unit; `drop` within a distance, such as `"1@4"`), `retained_radius` in px, `consistency` and
        `confidence_swing` in points, `border_ratio` in times that of the baseline (above 1). By default 1 point each of
        `unshifted`, `near` and `side_difference`. Of tile reports: `tile_mismatch` in points.
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
    max_tile_mismatch, max_tile_mismatch_with_overlap
        Of tile reports: how far tiles are from the whole image, without overlap and with that of the report. A share
        of the output's range (0 to 1), or of the pixels whose class changes.
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
    >>> check("vgg.zarr", min_retained_radius=3, max_drop=(2, 4)).passed  # 20 images prove neither limit
    False
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
    items = [sweep] if isinstance(sweep, Sweep | TileReport | str | Path) else list(sweep)
    if not items:
        raise InputError("expected at least one sweep to check, got none")
    readings = _readings([_opened(each, partial) for each in items], seed)
    base = None if baseline is None else _readings([_opened(baseline, partial)], seed)[0]
    return checked(readings, wanted, base, partial=partial)


def checked(
    readings: Sequence[Reading | Tiles],
    gate: Gate,
    baseline: Reading | Tiles | None = None,
    *,
    partial: bool = False,
    alpha: float = ALPHA,
) -> CheckResult:
    """The same from sweeps that are open, at a level.

    Raises
    ------
    InputError
        Nothing is asked of one of them, or of tile reports where there are none; see `check`.
    """
    conditions: list[Condition] = []
    for each in readings:
        if isinstance(each, Tiles):
            base = baseline.report if isinstance(baseline, Tiles) else None
            found = tile_conditions(each.name, each.report, gate, base)
        else:
            reading = baseline if isinstance(baseline, Reading) else None
            found = conditions_of(each, gate, reading, partial=partial)
        if not found:
            kind = "tile report (such as max_tile_mismatch=0.01)" if isinstance(each, Tiles) else "sweep"
            raise InputError(f"{each.name}: expected a condition on a {kind}, got none")
        conditions += found
    if gate.asks_of_tiles and not any(isinstance(each, Tiles) for each in readings):
        raise InputError("expected a tile report (shiftlens tiles) for a limit on its mismatch, got sweeps only")
    notes = [
        f"{each.name} is not complete: {each.arrays.n_images:,} of {each.sweep.n_images:,} images are used"
        for each in (*readings, *([baseline] if baseline else []))
        if isinstance(each, Reading) and not each.sweep.complete
    ]
    n_images = min(each.n_images for each in readings)
    return CheckResult(decide(conditions, gate.mode, alpha), gate.mode, n_images, alpha, tuple(notes))


def _opened(each: Checked, partial: bool) -> Sweep | TileReport:
    if isinstance(each, TileReport):
        return each
    if isinstance(each, str | Path):
        found = found_at(Path(each))
        if found is not None and found.kind == TILES:
            return open_tiles(each)
    sweep = each if isinstance(each, Sweep) else open_sweep(each, partial=partial)
    if not sweep.complete and not partial:
        raise StoreError(
            f"{sweep.path} is not complete: {sweep.n_written:,} of {sweep.n_images:,} images are there; run the same "
            "sweep again to finish it, or check the images that are there (--partial, partial=True)"
        )
    if not sweep.n_written:
        raise StoreError(f"{sweep.path}: 0 of {sweep.n_images:,} images are there; run the same sweep again")
    return sweep


def _readings(opened: Sequence[Sweep | TileReport], seed: int) -> list[Reading | Tiles]:
    names = distinct((printable(each.path.stem) if each.path else "") or "sweep" for each in opened)
    return [
        Tiles(name, each) if isinstance(each, TileReport) else Reading(name, each, from_sweep(each), seed)
        for name, each in zip(names, opened, strict=True)
    ]
