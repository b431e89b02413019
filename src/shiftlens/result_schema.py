"""What a stored result is made of: its groups and arrays, checked against the layout of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr

from shiftlens.errors import StoreError
from shiftlens.lens.feature_store import holds_features, open_features
from shiftlens.storage.existing import found_at
from shiftlens.storage.groups import damage_of, open_group
from shiftlens.sweeps.header import SWEEP
from shiftlens.sweeps.sweep_store import SweepStore
from shiftlens.tiles.tile_store import holds_tiles, open_tiles


def schema_of(path: str | Path) -> dict[str, Any]:
    """Check a result's layout, and list it; the numbers of a sweep's chunks are not read.

    Every attribute, and every array's dimensions, shape, chunks, type, fill value and codecs must be those that its
    kind declares, and the seal must hold.

    Parameters
    ----------
    path
        A sweep, a feature run or a tile report.

    Returns
    -------
    dict
        `kind`, `schema_version` and `arrays`: path in the group to `dimensions`, `shape`, `chunks` and `dtype`.

    Raises
    ------
    StoreError
        Nothing is there, or not such a result; says what is not as declared.
    """
    where = Path(path)
    if holds_features(where):
        open_features(where)
    elif holds_tiles(where):
        open_tiles(where)
    elif SWEEP.readable_at(where):
        store = SweepStore(where)
        for control in store.controls:
            store.group(control)
    else:
        raise StoreError(f"no result at {where}: nothing is there")
    found = found_at(where)
    with damage_of(where):
        arrays = dict(_arrays(open_group(where)))
    return {"kind": found and found.kind, "schema_version": found and found.version, "arrays": arrays}


def schema_lines(path: str | Path, schema: dict[str, Any]) -> list[str]:
    """The same for people, an array a line."""
    lines = [f"{path}: {schema['kind']}, schema version {schema['schema_version']}, as declared"]
    for name, each in schema["arrays"].items():
        axes = ", ".join(f"{axis} {n}" for axis, n in zip(each["dimensions"], each["shape"], strict=True))
        lines.append(f"  {name}: {each['dtype']} ({axes}), in chunks of {' x '.join(map(str, each['chunks']))}")
    return lines


def _arrays(group: zarr.Group) -> list[tuple[str, dict[str, Any]]]:
    """Of the group and all below it, by name."""
    found = []
    for name, node in sorted(group.members(max_depth=None)):
        if isinstance(node, zarr.Array):
            about = {
                "dimensions": list(getattr(node.metadata, "dimension_names", None) or ()),
                "shape": list(node.shape),
                "chunks": list(node.chunks),
                "dtype": str(node.dtype),
            }
            found.append((name, about))
    return found
