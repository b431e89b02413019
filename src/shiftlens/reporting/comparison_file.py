"""A comparison from a file: what `shiftlens compare --json` printed, with its table and sentences, without maps."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftlens.errors import StoreError
from shiftlens.naming import one_line
from shiftlens.narrative.comparison_result import KIND
from shiftlens.narrative.comparison_rows import COLUMNS, Row
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import QUESTIONS, SECTIONS, SEVERITIES, Action, Quantity, Significance
from shiftlens.reporting.arithmetic_file import EXPECTED, LARGEST
from shiftlens.stats import Estimate, Skipped
from shiftlens.storage.locking import disk_errors


@dataclass(frozen=True)
class SavedComparison:
    """What a file says of a comparison; see `shiftlens.compare` for the words.

    Attributes
    ----------
    names, baseline, rows, findings, n_images, unit
        As in `Comparison`.
    n_shifts
        Common to all sweeps.
    """

    names: tuple[str, ...]
    baseline: int
    rows: tuple[Row, ...]
    findings: Findings
    n_images: int
    n_shifts: int
    unit: str


def comparison_in(path: Path) -> SavedComparison | None:
    """Read a comparison that was saved to a file; None where the file is of something else.

    Raises
    ------
    StoreError
        It cannot be read, or says that it is a comparison and is a damaged one.
    """
    with disk_errors(path, "read"):
        if path.stat().st_size > LARGEST:
            return None
        text = path.read_bytes()
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.get("kind") != KIND:
        return None
    try:
        return _comparison(values)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        why = f"{type(error).__name__}: {one_line(error, 80)}"
        raise StoreError(f"{path} cannot be reported on ({why}): expected {EXPECTED}") from None


def _comparison(values: dict[str, Any]) -> SavedComparison:
    n = _count(values["n_images"])
    rows = tuple(_row(row, n) for row in values["rows"])
    names = tuple(row.name for row in rows)
    if not names or len(set(names)) < len(names):
        raise ValueError("expected rows of different names")
    if not all(isinstance(each, dict) for each in values["against"]):
        raise TypeError("expected an object for each sweep that is compared")
    return SavedComparison(
        names=names,
        baseline=names.index(values["baseline"]),
        rows=rows,
        findings=Findings(_finding(each, n) for each in values["findings"]),
        n_images=n,
        n_shifts=_count(values["n_shifts"]),
        unit=_text(values["pixels_of"]),
    )


def _row(values: dict[str, Any], n: int) -> Row:
    skipped = values["skipped"]
    made: dict[str, Estimate | Skipped] = {}
    for key, (attribute, unit) in COLUMNS.items():
        if values[key] is None:
            made[attribute] = Skipped(key, _text(skipped[key]))
            continue
        ends = _ends(values["interval" if key == "difference" else f"{key}_interval"])
        beyond = values["retained_at_least"] is True and key in ("retained_area", "retained_radius")
        made[attribute] = Estimate(_number(values[key]), *ends, unit, n, "", at_least=beyond)
    if isinstance(made["accuracy"], Skipped):
        raise ValueError("expected an accuracy in every row")
    counts = {key: None if values[key] is None else _count(values[key]) for key in ("n_parameters", "n_macs")}
    return Row(name=_text(values["name"]), **made, **counts)  # type: ignore[arg-type]


def _finding(values: dict[str, Any], n: int) -> Finding:
    if values["question"] not in QUESTIONS or values["severity"] not in SEVERITIES or values["section"] not in SECTIONS:
        raise ValueError("expected a finding's question, severity and section")
    estimate, action, quantity = None, values["action"], values["quantity"]
    if quantity is not None:
        shift = quantity.get("shift")
        quantity = Quantity(**quantity | {"shift": None if shift is None else tuple(map(int, shift))})
    if values["value"] is not None:
        value, interval = _number(values["value"]), values["interval"]
        ends = (value, value) if interval is None else _ends(interval)
        estimate = Estimate(value, *ends, _text(values["unit"]), 0 if interval is None else n, "")
    return Finding(
        _text(values["id"]),
        _text(values["statement"]),
        quantity,
        estimate,
        test=None if values["p_value"] is None else Significance(_number(values["p_value"])),
        action=action and Action(_text(action["text"]), tuple(map(_text, action["command"]))),
        note=_text(values["evidence"]),
        severity=values["severity"],
        question=values["question"],
        section=values["section"],
    )


def _ends(interval: Any) -> tuple[float, float]:
    """Both ends; None stands for one that the grid hides."""
    lo, hi = interval
    return -math.inf if lo is None else _number(lo), math.inf if hi is None else _number(hi)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("expected a number")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("expected a whole number")
    return int(value)
