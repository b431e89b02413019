"""What is to be reported: paths and objects, told apart by their kind."""

from __future__ import annotations

import json
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
from shiftlens.narrative.comparison_result import Comparison
from shiftlens.reporting.saved_results import EXPECTED, SavedComparison, saved_result
from shiftlens.storage.entries import metadata_of
from shiftlens.storage.locking import disk_errors
from shiftlens.sweeps.header import KIND as SWEEP
from shiftlens.sweeps.sweep_result import Sweep, open_sweep

Opened = Sweep | FeatureRun | Inspection | Comparison | SavedComparison


@dataclass(frozen=True)
class Given:
    """What the report is about, by kind, each in the order given."""

    sweeps: tuple[Sweep, ...] = ()
    runs: tuple[FeatureRun, ...] = ()
    inspections: tuple[Inspection, ...] = ()
    comparisons: tuple[Comparison | SavedComparison, ...] = ()


def given(items: Any) -> Given:
    """Open and sort what a user gave.

    Raises
    ------
    InputError
        Nothing to report, or something that is none of the kinds.
    StoreError
        A path where nothing is, a damaged file, or a sweep of which no image is whole.
    """
    single = Sweep | FeatureRun | Inspection | Comparison | SavedComparison | str | Path
    listed = [items] if isinstance(items, single) else list(items) if isinstance(items, Iterable) else [items]
    if not listed:
        raise InputError(f"nothing to report: expected at least one of {EXPECTED}")
    opened = [_opened(each) for each in listed]
    return Given(
        sweeps=tuple(each for each in opened if isinstance(each, Sweep)),
        runs=tuple(each for each in opened if isinstance(each, FeatureRun)),
        inspections=tuple(each for each in opened if isinstance(each, Inspection)),
        comparisons=tuple(each for each in opened if isinstance(each, Comparison | SavedComparison)),
    )


def _opened(each: Any) -> Opened:
    if isinstance(each, str | Path):
        each = _read(Path(each))
    if isinstance(each, Sweep):
        if not each.n_written:
            raise StoreError(f"{each.path} holds no whole image yet; run the same sweep again to go on with it")
        return each
    if isinstance(each, FeatureRun | Inspection | Comparison | SavedComparison):
        return each
    raise InputError(f"cannot report on {type(each).__name__}: expected {EXPECTED}")


def _read(path: Path) -> Opened:
    with disk_errors(path, "read"):
        if not path.exists():
            raise StoreError(f"nothing is at {printable(str(path))}: expected {EXPECTED}")
        if path.is_file():
            return saved_result(path)
    kind = _kind(path)
    if kind == FEATURES:
        return open_features(path)
    if kind == SWEEP:
        return open_sweep(path, partial=True)
    what = "holds nothing of this tool" if kind is None else f"is of kind {printable(kind)[:40]!r}"
    raise StoreError(f"{path} {what}: expected {EXPECTED}")


def _kind(path: Path) -> str | None:
    """The `kind` that a directory names, or None where it names none."""
    for name, where in (("zarr.json", ("attributes", "kind")), ("model.json", ("kind",))):
        file = path / name
        with disk_errors(file, "read"):
            if not file.is_file():
                continue
            text = metadata_of(file)
        try:
            value: Any = json.loads(text)
            for key in where:
                value = value[key]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StoreError(f"{file} is damaged or of something else: expected {EXPECTED}") from None
        return str(value)
    return None
