"""A tile report on disk: one Zarr v3 group with the header as attributes and an array for each measured table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import Field

from shiftlens.errors import StoreError
from shiftlens.paths import output_path
from shiftlens.storage.checksums import Seal
from shiftlens.storage.entries import refuse_swollen
from shiftlens.storage.existing import Kind, found_at
from shiftlens.storage.groups import Layout, damage_of, open_group
from shiftlens.storage.headers import JSON, Header, Options, Sides, Table, Whole, stored
from shiftlens.tiles.tile_result import NUMBERS, TileReport
from shiftlens.tiles.tile_shares import ORDER

KIND = "tiles"
SCHEMA_VERSION = 1
TILES = Kind(KIND, "a tile report", SCHEMA_VERSION, "make it again")

_MOST_NUMBERS = 2**26
"""In one array: a stranger's metadata must not decide how much memory is taken."""

_Line = Annotated[str, Field(max_length=4000, description="a text of at most 4000 letters")]
_Lines = Annotated[tuple[_Line, ...], stored(list, tuple), JSON, Field(description="a JSON list of texts")]


def _nested(value: list[Any]) -> tuple[tuple[str, ...], ...]:
    if not all(isinstance(each, list) and all(isinstance(path, str) for path in each) for each in value):
        raise ValueError("no list of lists of texts")
    return tuple(tuple(each) for each in value)


class TilesHeader(Header):
    """What a tile report's group says about itself; see `TileReport`."""

    model: _Line
    model_digest: _Line
    data: _Line
    data_digest: _Line
    task: _Line
    size: Sides
    tile: Whole
    stride: Whole
    overlap: Whole
    overlap_measured: Whole | None
    tolerance: Annotated[float, Field(gt=0, lt=1, description="a number between 0 and 1")]
    grid: Sides
    exact: bool
    passes: Whole
    recipe: Table
    seed: Whole
    causes_of_steps: _Lines
    layers_of_steps: Annotated[
        tuple[tuple[str, ...], ...], stored(list, _nested), JSON, Field(description="a JSON list of lists of texts")
    ]
    alone_names: _Lines
    obstacles: _Lines
    notes: _Lines
    software: Table
    model_options: Options = Field(default_factory=dict)
    data_options: Options = Field(default_factory=dict)


_ARRAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "index": (("image",), "int64"),
    "off": (("image", "step"), "float64"),
    "numbers": (("image", "step"), "float64"),
    "with_overlap": (("image",), "float64"),
    "numbers_with_overlap": (("image",), "float64"),
    "alone": (("image", "change"), "float64"),
    "span": (("image",), "float64"),
    "map": (("y", "x"), "float64"),
    "example_map": (("y", "x"), "float64"),
    "example": (("channel", "image_y", "image_x"), "uint8"),
    "by_distance": (("distance",), "float64"),
    "largest_by_distance": (("distance",), "float64"),
    "phases": (("phase",), "int64"),
    "by_phase": (("phase",), "float64"),
}
"""Dimensions and type of every array."""


def check_tiles_target(out: str | Path) -> None:
    """Refuse a place where a tile report must not be written; `StoreError` says what is there."""
    TILES.lies_at(output_path(out))


def holds_tiles(path: str | Path) -> bool:
    """Whether a tile report lies there, by its own word; nothing else of it is read."""
    found = found_at(Path(path))
    return found is not None and found.kind == KIND


def save_tiles(report: TileReport, out: str | Path) -> TileReport:
    """Write a tile report, in place of an older one; gives the same report with its `path`.

    Raises
    ------
    StoreError
        Something else is there, or the disk refuses.
    """
    target = output_path(out)
    TILES.replace(target, lambda folder: _write(folder, report))
    return replace(report, path=target)


def _write(place: Path, report: TileReport) -> None:
    known = {name: getattr(report, name) for name in TilesHeader.model_fields}
    header = TilesHeader.model_construct(**known)
    attributes = {"kind": KIND, "schema_version": SCHEMA_VERSION, "complete": True} | header.to_attributes()
    arrays = {name: np.ascontiguousarray(getattr(report, name), dtype) for name, (_, dtype) in _ARRAYS.items()}
    attributes["seal"] = _seal(attributes, arrays)
    group = zarr.create_group(place, zarr_format=3, attributes=attributes)
    for name, values in arrays.items():
        _layout(name, values.shape).create(group, name, values)


def _layout(name: str, shape: tuple[int, ...]) -> Layout:
    dimensions, dtype = _ARRAYS[name]
    return Layout(dimensions, shape, tuple(max(side, 1) for side in shape), np.dtype(dtype))


def _seal(attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """`sha256:...` over all that is read of a file; an attribute that somebody added is no damage."""
    seal = Seal()
    names = ("kind", "schema_version", "complete", *TilesHeader.attribute_names().values())
    seal.add_attributes({name: attributes[name] for name in names if name in attributes})
    for name, values in arrays.items():
        seal.add_array(f"{name} {values.dtype.name} {values.shape}", values)
    return seal.text()


def open_tiles(path: str | Path) -> TileReport:
    """Read a tile report that `tile_report` or `shiftlens tiles` has written.

    Parameters
    ----------
    path
        The Zarr group.

    Raises
    ------
    StoreError
        Nothing is there, it is something else, of a newer version, or damaged.

    Examples
    --------
    >>> open_tiles("tiles.zarr").overlap
    1
    """
    place = Path(path)
    if not TILES.readable_at(place):
        raise StoreError(f"{place} must be a tile report, but nothing is there")
    with damage_of(place):
        group = open_group(place)
        attributes = group.attrs.asdict()
        header = TilesHeader.read(attributes, str(place))
        arrays = {name: _loaded(place, group, name) for name in _ARRAYS}
        if attributes.get("seal") != _seal(attributes, arrays):
            raise StoreError(f"{place} is damaged: its attributes or numbers are not those it was made with")
    return _checked(place, header, arrays)


def _loaded(place: Path, group: zarr.Group, name: str) -> NDArray[Any]:
    array: Any = group[name]
    dimensions, _ = _ARRAYS[name]
    if array.ndim != len(dimensions) or array.size > _MOST_NUMBERS:
        raise StoreError(f"{place} is damaged: expected {name} over {dimensions}, got shape {array.shape}")
    _layout(name, array.shape).refuse_other(place, name, array)
    refuse_swollen(place / name / "c" / "/".join("0" * array.ndim), array.nbytes)
    return np.asarray(array[:])


def _checked(place: Path, header: TilesHeader, arrays: Mapping[str, NDArray[Any]]) -> TileReport:
    """The report, if its tables fit together."""
    n, n_steps = len(arrays["index"]), len(header.causes_of_steps) + 1
    expected = {
        "off": (n, n_steps),
        "numbers": (n, n_steps),
        "with_overlap": (n,),
        "numbers_with_overlap": (n,),
        "alone": (n, len(header.alone_names)),
        "span": (n,),
        "by_phase": arrays["phases"].shape,
        "largest_by_distance": arrays["by_distance"].shape,
        "example": (*arrays["example"].shape[:1], *header.size),
        "example_map": arrays["map"].shape,
    }
    wrong = next((name for name, shape in expected.items() if arrays[name].shape != shape), None)
    known = set(header.causes_of_steps) <= set(ORDER) and header.task in NUMBERS
    finite = all(np.isfinite(arrays[name]).all() for name in ("off", "with_overlap", "span", "map", "example_map"))
    sound = known and finite and 0 < header.stride <= header.tile and _is_recipe(header.recipe)
    if n == 0 or wrong or not sound or len(header.layers_of_steps) != n_steps - 1:
        raise StoreError(f"{place} is damaged: its {wrong or 'causes and tables'} do not fit together")
    fields: dict[str, Any] = {**dict(header), **arrays}
    return TileReport(**fields, path=place)


def _is_recipe(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe's numbers and texts are what everybody who prints it expects."""
    tile, overlap, left = (recipe.get(name) for name in ("tile", "overlap", "averaged_mismatch"))
    texts = all(isinstance(recipe.get(name), str) for name in ("monai", "sahi", "loop"))
    whole = type(tile) is int and type(overlap) is int and 0 <= 2 * overlap < tile
    return texts and whole and (left is None or (type(left) is float and np.isfinite(left)))
