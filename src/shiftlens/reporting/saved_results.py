"""Read back what `shiftlens inspect --json` and `shiftlens compare --json` printed.

The files may come from strangers: models made from the dataclasses that wrote them check every type and bound.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field, FiniteFloat, ValidationError, create_model

from shiftlens.arithmetic import Inspection
from shiftlens.arithmetic.inspection import KIND as INSPECTION
from shiftlens.arithmetic.layers import Layer
from shiftlens.errors import StoreError
from shiftlens.graph import Sides
from shiftlens.graph.sites import Pair
from shiftlens.naming import one_line
from shiftlens.narrative.comparison_result import KIND as COMPARISON
from shiftlens.narrative.comparison_result import METRIC_KEYS, Compared
from shiftlens.narrative.comparison_rows import Row, columns, interval_key
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import Action, Quantity, Section, Significance
from shiftlens.stats import Estimate, Skipped
from shiftlens.storage.locking import disk_errors
from shiftlens.tasks.classification import ACCURACY
from shiftlens.tasks.task import Variable

LARGEST = 64 * 2**20
"""Bytes of a file that is read: the arithmetic of a net of a thousand layers is below 1 MB."""

EXPECTED = "a sweep, a feature run, or the JSON of `shiftlens inspect --json` or `shiftlens compare --json`"

_MOST = 10**9  # px: far beyond any image
_Whole = Annotated[int, Field(ge=-_MOST, le=_MOST)]
_Least1 = Annotated[int, Field(ge=1, le=_MOST)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Ends = tuple[FiniteFloat | None, FiniteFloat | None]


def _model(name: str, types: dict[str, Any], **defaults: Any) -> Any:
    """A strict model; fields without a default are required."""
    asked = {key: (kind, defaults.get(key, ...)) for key, kind in types.items()}
    return create_model(name, __config__=ConfigDict(strict=True, frozen=True), **asked)  # type: ignore[call-overload]


def _many(kind: Any, least: int = 0) -> Any:
    return Annotated[tuple[kind, ...], Field(min_length=least)]


def _fields(kind: type, replaced: dict[Any, Any] | None = None) -> dict[str, Any]:
    """The fields of a dataclass with their types; `replaced` says what stands for a type in JSON."""
    hints = get_type_hints(kind)
    return {each.name: (replaced or {}).get(hints[each.name], hints[each.name]) for each in fields(kind)}


_Sides = _model("sides", _fields(Sides, {int: _Whole}))
_IN_JSON = {
    int: _Whole,
    Pair: tuple[_Least1, _Least1],
    Pair | Skipped: tuple[_Whole, _Whole] | None,
    Sides: _Sides,
    Sides | Skipped: _Sides | None,
    Sides | None: _Sides | None,
}
_Layer = _model("layer", _fields(Layer, _IN_JSON) | {"skipped": str | None})
_Inspection = _model(
    "inspection",
    _fields(Inspection, _IN_JSON)
    | {
        "kind": Literal[INSPECTION],
        "layers": _many(_Layer, 1),
        "even_sizes": _model("even sizes", dict.fromkeys("hw", tuple[_Whole, ...])),
        "model_options": dict[str, str | int | FiniteFloat | tuple[int | FiniteFloat, ...] | dict[str, str | int]],
    },
    unseen=(),  # in the JSON it is among the notes
    model_options={},
)
_Word = Annotated[str, Field(max_length=100, pattern=r"^[^\p{C}]*$")]
_Metric = _model(
    "metric",
    {key: _Word if kind is str else kind for key, kind in _fields(Variable).items() if key in METRIC_KEYS}
    | {"name": Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,63}$")]},
)


def _row_model(metric: Variable) -> Any:
    """Fields are called as in `Row`, keys of the JSON as the metric says."""
    asked: dict[str, Any] = {}
    for key, (attribute, _) in columns(metric).items():
        number, ends = (FiniteFloat, _Ends) if attribute == "unshifted" else (FiniteFloat | None, _Ends | None)
        asked[attribute] = Annotated[number, Field(alias=key)]
        asked[f"{attribute}_interval"] = Annotated[ends, Field(alias=interval_key(key))]
    counts = {"n_parameters": _Count | None, "n_macs": _Count | None, "retained_at_least": bool}
    return _model("row", asked | {"name": str, "skipped": dict[str, str]} | counts)


_Finding = _model(
    "finding",
    {key: kind for key, kind in _fields(Finding).items() if key in ("statement", "question", "severity")}
    | {"id": str, "section": Section, "value": FiniteFloat | None, "unit": str | None, "interval": _Ends | None}
    | {"p_value": FiniteFloat | None, "evidence": str, "action": _model("action", _fields(Action)) | None}
    | {"quantity": _model("quantity", _fields(Quantity), **dict.fromkeys(_fields(Quantity))) | None},
)
_Comparison = _model(
    "comparison",
    {"kind": Literal[COMPARISON], "baseline": str, "rows": _many(dict[str, Any], 1), "metric": _Metric | None}
    | {"against": tuple[dict[str, Any], ...], "findings": _many(_Finding), "pixels_of": str}
    | {"n_images": _Count, "n_shifts": _Count},
    metric=None,
)


def saved_result(path: Path) -> Inspection | Compared:
    """Read layer arithmetic or a comparison that was saved to a file.

    Raises
    ------
    StoreError
        It cannot be read, or is something else; says what is wrong first.
    """
    with disk_errors(path, "read"):
        if path.stat().st_size > LARGEST:
            raise StoreError(f"{path} is too large ({LARGEST // 2**20} MiB at most): expected {EXPECTED}")
        text = path.read_bytes()
    try:
        kind = _model("result", {"kind": Literal[INSPECTION, COMPARISON]}).model_validate_json(text).kind
        if kind == INSPECTION:
            return _inspection(_Inspection.model_validate_json(text))
        return _comparison(_Comparison.model_validate_json(text))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where, found = ".".join(map(str, fault["loc"])), fault["input"]
        got = "" if isinstance(found, dict | list | bytes) else f", got {found!r:.40}"
        why = one_line(ValueError(f"{where}: {fault['msg']}{got}".removeprefix(": ")))
    except ValueError as error:
        why = one_line(error)
    raise StoreError(f"{path} cannot be reported on ({why}): expected {EXPECTED}")


def _inspection(read: Any) -> Inspection:
    options = {key: list(each) if isinstance(each, tuple) else each for key, each in read.model_options.items()}
    values = dict(read) | {"even_sizes": dict(read.even_sizes), "layers": tuple(map(_layer, read.layers))}
    values |= {"model_options": options}
    return Inspection(**{name: values[name] for name in _fields(Inspection)})


def _layer(read: Any) -> Layer:
    why = Skipped(read.path, read.skipped or "it could not be followed")
    values: dict[str, Any] = {}
    for name in _fields(Layer):
        value = getattr(read, name)
        unknown = value is None and name != "tensorflow_same"
        values[name] = why if unknown else Sides(**dict(value)) if isinstance(value, _Sides) else value
    return Layer(**values)


def _comparison(read: Any) -> Compared:
    # A file of a version that compared nothing else says no metric.
    metric = ACCURACY if read.metric is None else Variable(dtype="float64", **dict(read.metric))
    model = _row_model(metric)
    rows = [model.model_validate_json(json.dumps(row)) for row in read.rows]
    names = tuple(row.name for row in rows)
    if len(set(names)) < len(names) or read.baseline not in names:
        raise ValueError("expected rows of different names, the baseline among them")
    return Compared(
        baseline=names.index(read.baseline),
        rows=tuple(_row(row, metric, read.n_images) for row in rows),
        findings=Findings(_finding(each, read.n_images) for each in read.findings),
        n_images=read.n_images,
        n_shifts=read.n_shifts,
        unit=read.pixels_of,
        metric=metric,
    )


def _row(read: Any, metric: Variable, n: int) -> Row:
    made: dict[str, Any] = {}
    for key, (attribute, unit) in columns(metric).items():
        value, interval = getattr(read, attribute), getattr(read, f"{attribute}_interval")
        if (key not in read.skipped) if value is None else interval is None:
            raise ValueError(f"expected a number with its interval, or why it was skipped: {key}")
        if value is None:
            made[attribute] = Skipped(key, read.skipped[key])
        else:
            beyond = read.retained_at_least and key in ("retained_area", "retained_radius")
            made[attribute] = Estimate(value, *_ends(interval), unit, n, "", at_least=beyond)
    return Row(name=read.name, n_parameters=read.n_parameters, n_macs=read.n_macs, **made)


def _finding(read: Any, n: int) -> Finding:
    estimate = None
    if read.value is not None:
        if read.unit is None:
            raise ValueError("expected a unit of the finding's value")
        lo, hi = (read.value, read.value) if read.interval is None else _ends(read.interval)
        estimate = Estimate(read.value, lo, hi, read.unit, 0 if read.interval is None else n, "")
    return Finding(
        read.id,
        read.statement,
        read.quantity and Quantity(**dict(read.quantity)),
        estimate,
        test=None if read.p_value is None else Significance(read.p_value),
        action=read.action and Action(**dict(read.action)),
        note=read.evidence,
        severity=read.severity,
        question=read.question,
        section=read.section,
    )


def _ends(interval: tuple[float | None, float | None]) -> tuple[float, float]:
    """Both ends; None stands for one that the grid hides."""
    lo, hi = interval
    return -math.inf if lo is None else lo, math.inf if hi is None else hi
