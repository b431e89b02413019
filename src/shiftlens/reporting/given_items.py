"""What is to be reported: paths and objects, told apart by their kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftlens.arithmetic import Inspection
from shiftlens.errors import InputError, StoreError
from shiftlens.lens.feature_run import FeatureRun
from shiftlens.lens.feature_store import KIND as FEATURES
from shiftlens.lens.feature_store import open_features
from shiftlens.naming import printable
from shiftlens.narrative.comparison_result import Compared
from shiftlens.reporting.saved_results import EXPECTED, saved_result
from shiftlens.storage.existing import found_at
from shiftlens.storage.locking import disk_errors
from shiftlens.sweeps.header import KIND as SWEEP
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from shiftlens.tiles.tile_result import TileReport
from shiftlens.tiles.tile_store import KIND as TILES
from shiftlens.tiles.tile_store import open_tiles

Opened = Sweep | FeatureRun | Inspection | Compared | TileReport


@dataclass(frozen=True)
class Given:
    """What the report is about, by kind, each in the order given."""

    sweeps: tuple[Sweep, ...] = ()
    runs: tuple[FeatureRun, ...] = ()
    inspections: tuple[Inspection, ...] = ()
    comparisons: tuple[Compared, ...] = ()
    tiles: tuple[TileReport, ...] = ()


def given(items: Any) -> Given:
    """Open and sort what a user gave.

    Raises
    ------
    InputError
        Nothing to report, or something that is none of the kinds.
    StoreError
        A path where nothing is, a damaged file, or a sweep of which no image is whole.
    """
    single = isinstance(items, Opened | str | Path) or not isinstance(items, Iterable)
    listed = [items] if single else list(items)
    if not listed:
        raise InputError(f"nothing to report: expected at least one of {EXPECTED}")
    opened = [_opened(each) for each in listed]
    kinds = (Sweep, FeatureRun, Inspection, Compared, TileReport)
    sorted_by: list[Any] = [tuple(each for each in opened if isinstance(each, kind)) for kind in kinds]
    return Given(*sorted_by)


def _opened(each: Any) -> Opened:
    if isinstance(each, str | Path):
        each = _read(Path(each))
    if isinstance(each, Sweep) and not each.n_written:
        raise StoreError(f"{each.path} holds no whole image yet; run the same sweep again to resume it")
    if not isinstance(each, Opened):
        raise InputError(f"cannot report on {type(each).__name__}: expected {EXPECTED}")
    return each


def _read(path: Path) -> Opened:
    with disk_errors(path, "read"):
        if not path.exists():
            raise StoreError(f"nothing is at {printable(str(path))}: expected {EXPECTED}")
        if path.is_file():
            return saved_result(path)
    found = found_at(path)
    kind = None if found is None else found.kind
    if kind == FEATURES:
        return open_features(path)
    if kind == TILES:
        return open_tiles(path)
    if kind == SWEEP:
        return open_sweep(path, partial=True)
    why = f" ({found.what})" if found is not None else ""
    what = f"holds nothing of this tool{why}" if kind is None else f"is of kind {printable(kind)[:40]!r}"
    raise StoreError(f"{path} {what}: expected {EXPECTED}")
