"""Layer arithmetic from a file: what `shiftlens inspect --json` printed, read back as an `Inspection`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shiftlens.arithmetic import Inspection
from shiftlens.arithmetic.inspection import KIND
from shiftlens.arithmetic.layers import Layer
from shiftlens.errors import StoreError
from shiftlens.graph import Sides
from shiftlens.graph.sites import Pair
from shiftlens.naming import one_line
from shiftlens.stats import Skipped
from shiftlens.storage.locking import disk_errors

LARGEST = 64 * 2**20
"""Bytes of a file that is read: the arithmetic of a net of a thousand layers is below 1 MB."""

_MOST = 10**9
"""Pixels: far beyond any picture."""

EXPECTED = "a sweep, a feature run, or the JSON of `shiftlens inspect --json` or `shiftlens compare --json`"


def inspection_from(path: Path) -> Inspection:
    """Read layer arithmetic that was saved to a file.

    Raises
    ------
    StoreError
        It cannot be read, or is something else; says what is wrong first.
    """
    with disk_errors(path, "read"):
        if path.stat().st_size > LARGEST:
            raise StoreError(f"{path} is too large for layer arithmetic: expected {EXPECTED}")
        text = path.read_bytes()
    try:
        return _inspection(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{type(error).__name__}: {one_line(error, 80)}"
        raise StoreError(f"{path} cannot be reported on ({why}): expected {EXPECTED}") from None


def _inspection(values: Any) -> Inspection:
    _must(isinstance(values, dict), "an object")
    if values.get("kind", KIND) != KIND:
        raise ValueError(f"kind {str(values['kind'])[:40]!r}")
    _must(isinstance(values["layers"], list) and values["layers"] != [], "a list of layers")
    return Inspection(
        model=_text(values["model"]),
        size=_pair(values["size"], 1),
        layers=tuple(_layer(layer) for layer in values["layers"]),
        even_sizes={axis: tuple(_whole(size) for size in values["even_sizes"][axis]) for axis in ("h", "w")},
        notes=tuple(_text(note) for note in values.get("notes", ())),
    )


def _layer(values: Any) -> Layer:
    path = _text(values["path"])
    why = Skipped(path, _text(values.get("skipped") or "it could not be followed"))
    used, field = _sides(values["used"]), values["receptive_field"]
    reach, pixels = _sides(values["border_reach"]), _sides(values["reach_pixels"])
    same = values.get("tensorflow_same")
    return Layer(
        path=path,
        call=_whole(values["call"]),
        kind=_text(values["kind"]),
        kernel=_pair(values["kernel"], 1),
        stride=_pair(values["stride"], 1),
        dilation=_pair(values["dilation"], 1),
        padding=_sides(values["padding"]) or Sides(),
        mode=_text(values.get("mode", "")),
        in_size=_pair(values["in_size"], 1),
        out_size=_pair(values["out_size"], 1),
        unused=why if values["unused"] is None else _pair(values["unused"]),
        used=why if used is None else used,
        receptive_field=why if field is None else _pair(field),
        border_reach=why if reach is None else reach,
        reach_pixels=why if pixels is None else pixels,
        tensorflow_same=_sides(same),
        merged=values.get("merged", False) is True,
    )


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise TypeError(f"expected {what}")


def _text(value: Any) -> str:
    _must(isinstance(value, str), "a text")
    return str(value)


def _whole(value: Any, least: int = -_MOST) -> int:
    _must(type(value) is int and least <= value <= _MOST, f"a whole number from {least} to {_MOST}")
    return int(value)


def _pair(value: Any, least: int = -_MOST) -> Pair:
    _must(isinstance(value, list) and len(value) == 2, "two whole numbers")
    return _whole(value[0], least), _whole(value[1], least)


def _sides(value: Any) -> Sides | None:
    if value is None:
        return None
    return Sides(*(_whole(value[side]) for side in ("left", "right", "top", "bottom")))
