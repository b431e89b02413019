"""What a gate asks for: limits by name, from Python, the command line or `gate.toml`, checked before any sweep."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from shiftlens.errors import InputError
from shiftlens.naming import one_line, printable, unknown_name
from shiftlens.paths import kind_of

Mode = Literal["strict", "lenient"]
SWING_RADIUS = 4.0
"""px within which a confidence swing is looked for, unless a limit says otherwise."""

MAX_BYTES = 2**20


class Within(BaseModel):
    """A limit within a distance: `2@4` is 2 (points, or the metric's unit) within 4 px."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: float
    px: float

    @staticmethod
    def read(value: Any) -> Any:
        """`"2@4"`, `(2, 4)` or `[2, 4]`; a number alone is within 4 px."""
        if isinstance(value, Within):
            return value
        parts = value.split("@") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        try:
            numbers = [float(part) for part in parts if not isinstance(part, bool)]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) not in (1, 2) or not all(map(math.isfinite, numbers)):
            raise ValueError(f"expected a limit and a distance in px, such as 2@4, got {value!r}")
        limit, px = (*numbers, SWING_RADIUS)[:2]
        if px <= 0:
            raise ValueError(f"expected a distance above 0 px, got {px:g}")
        return Within(limit=limit, px=px)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)


Number = Annotated[float, BeforeValidator(_number)]
Distanced = Annotated[Within, BeforeValidator(Within.read)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def checked(cls, table: Mapping[str, Any], where: str) -> Self:
        """A table of the same keys.

        Raises
        ------
        InputError
            An unknown key, with the nearest one, or a value that is none.
        """
        try:
            return cls.model_validate(dict(table))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            path = [str(part) for part in fault["loc"]]
            if fault["type"] == "extra_forbidden":
                known = _keys_at(cls, path[:-1])
                raise InputError(f"{where}: {unknown_name('key', path[-1], known)}") from None
            message = str(fault["msg"]).removeprefix("Value error, ")
            raise InputError(printable(f"{where}: {'.'.join(path)}: {message}")) from None


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys of a table within a table."""
    if path[:1] == ["metrics"]:
        model = Limits
    elif path[:1] == ["allowed"]:
        model = Allowed
    return list(model.model_fields)


class Limits(_Table):
    """Absolute limits on one metric; None asks nothing.

    Attributes
    ----------
    min_unshifted, max_unshifted, min_near, max_near
        The metric on unshifted images, and its mean within 8 px, in its own unit (a share from 0 to 1). `min_` where
        higher is better, `max_` where lower is.
    min_retained_radius
        px.
    max_drop
        Points (or the metric's unit) that it may fall under any shift within a distance.
    max_side_difference
        Points (or the metric's unit) between opposite sides, left and right or up and down, whichever is more.
    min_consistency
        Pairwise consistency, a share.
    max_confidence_swing
        Largest less smallest confidence within a distance (4 px by default), a share.
    max_border_ratio
        Rate of errors near the border over that inside.
    """

    min_unshifted: Number | None = None
    max_unshifted: Number | None = None
    min_near: Number | None = None
    max_near: Number | None = None
    min_retained_radius: Number | None = None
    max_drop: Distanced | None = None
    max_side_difference: Number | None = None
    min_consistency: Number | None = None
    max_confidence_swing: Distanced | None = None
    max_border_ratio: Number | None = None


class Allowed(_Table):
    """How much worse than the baseline a sweep may be (delta); None asks nothing.

    Attributes
    ----------
    unshifted, near, side_difference
        Points of a share, or the metric's unit.
    drop
        The same under any shift within a distance, each shift against the same one of the baseline.
    retained_radius
        px.
    consistency, confidence_swing
        Points.
    border_ratio
        Times: how many times that of the baseline the ratio may be, above 1.
    tile_mismatch
        Points, of a tile report.
    """

    unshifted: Number | None = None
    near: Number | None = None
    retained_radius: Number | None = None
    drop: Distanced | None = None
    side_difference: Number | None = None
    consistency: Number | None = None
    confidence_swing: Distanced | None = None
    border_ratio: Number | None = None
    tile_mismatch: Number | None = None


class Gate(Limits):
    """Everything that is asked for.

    Attributes
    ----------
    mode
        "strict": passes only if every limit is proven kept. "lenient": fails only if a breach is proven.
    metric
        What the limits are on; the task's default by default.
    baseline
        A sweep to compare with.
    allowed
        How much worse than it.
    metrics
        Limits on further metrics, by name.
    max_tile_mismatch, max_tile_mismatch_with_overlap
        How far tiles may be from the whole image, without overlap and with that of the tile report: a share of the
        output's range, or of the pixels whose class changes.
    """

    mode: Mode = "strict"
    metric: str | None = None
    baseline: str | None = None
    allowed: Allowed | None = None
    metrics: dict[str, Limits] = {}
    max_tile_mismatch: Number | None = None
    max_tile_mismatch_with_overlap: Number | None = None

    @property
    def limits(self) -> dict[str | None, Limits]:
        """The limits on each metric; None is the default one."""
        own = Limits(**{name: getattr(self, name) for name in Limits.model_fields})
        found: dict[str | None, Limits] = {self.metric: own}
        found.update(self.metrics.items())
        return found

    @property
    def asks(self) -> bool:
        """Whether there is any condition."""
        if self.asks_of_tiles:
            return True
        tables = [*self.limits.values(), *([self.allowed] if self.allowed else [])]
        return any(value is not None for table in tables for value in vars(table).values())

    @property
    def asks_of_tiles(self) -> bool:
        """Whether there is a condition on a tile report."""
        limits = (
            self.max_tile_mismatch,
            self.max_tile_mismatch_with_overlap,
            self.allowed and self.allowed.tile_mismatch,
        )
        return any(limit is not None for limit in limits)


def read_gate(path: str | Path) -> dict[str, Any]:
    """The table in a file `gate.toml`; a relative baseline is one beside the file.

    Raises
    ------
    InputError
        No such file, or no TOML.
    """
    file = Path(path)
    if kind_of(file) != "file":
        raise InputError(f"{file}: expected a file with limits (gate.toml), found {kind_of(file)}")
    try:
        content = file.read_bytes()
        table: dict[str, Any] = tomllib.loads(content[:MAX_BYTES].decode("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file} is no TOML: {one_line(error)}") from None
    if isinstance(table.get("baseline"), str):
        table["baseline"] = str(file.parent / table["baseline"])
    Gate.checked(table, str(file))
    return table


def gate_of(gate: Gate | Mapping[str, Any] | str | Path | None, given: Mapping[str, Any]) -> Gate:
    """A gate (a file, a table) with what was given by itself, which goes first; None stands for what was not given.

    Raises
    ------
    InputError
        An unknown key, a value that is none, or nothing to check.
    """
    where = str(gate) if isinstance(gate, str | Path) else "limits"
    if isinstance(gate, Gate):
        table: dict[str, Any] = {name: getattr(gate, name) for name in gate.model_fields_set}
    elif isinstance(gate, str | Path):
        table = read_gate(gate)
    else:
        table = dict(gate or {})
    return Gate.checked(table | {key: value for key, value in given.items() if value is not None}, where)
