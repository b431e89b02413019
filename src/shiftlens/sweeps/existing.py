"""Is there a sweep at a path, and whose: looked at before any of it is opened, and nothing is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zarr

from shiftlens.errors import StoreError
from shiftlens.naming import one_line, printable
from shiftlens.storage.entries import metadata_of, nothing_at, refuse_strange_entries
from shiftlens.storage.locking import disk_errors
from shiftlens.sweeps.header import KIND, SCHEMA_VERSION, SweepHeader


def sweep_exists(path: Path) -> bool:
    """Whether a sweep of ours lies at `path`; False when nothing does (an empty directory is nothing).

    Raises
    ------
    StoreError
        Something else is there, or a sweep of a newer version. Nothing is touched.
    """
    metadata = path / "zarr.json"
    with disk_errors(path, "read"):
        if nothing_at(path):
            return False
        if not path.is_dir():
            raise StoreError(f"{path} must be a sweep or not exist, but it is a file; it is left as it is")
        if not metadata.is_file():
            entries = sorted(entry.name for entry in path.iterdir())
            if not entries:
                return False
            raise StoreError(
                f"{path} must be a sweep or not exist, but it is a directory with {len(entries)} entries "
                f"({printable(', '.join(entries[:3]))}{', ...' if len(entries) > 3 else ''}); it is left as it is"
            )
        text = metadata_of(metadata)
    try:
        document = json.loads(text)
        attributes = document["attributes"] if document.get("node_type") == "group" else {}
        kind, schema = attributes.get("kind"), attributes.get("schema_version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise StoreError(f"{metadata} is not the metadata of a Zarr group; {path} is left as it is") from None
    if kind != KIND:
        found = f"a result of kind {kind[:60]!r}" if isinstance(kind, str) else "a Zarr node of something else"
        raise StoreError(f"{path} must be a sweep or not exist, but it holds {found}; it is left as it is")
    if type(schema) is not int or schema < 1 or schema > SCHEMA_VERSION:
        raise StoreError(
            f"{path} is a sweep of schema version {schema!r}, this shiftlens reads up to {SCHEMA_VERSION}: "
            "a newer shiftlens wrote it"
        )
    refuse_strange_entries(path)
    return True


def read_header(path: Path) -> SweepHeader:
    """What a sweep says of itself, without a look at its arrays.

    Raises
    ------
    StoreError
        An attribute is missing or cannot be read.
    """
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        attributes = group.attrs.asdict()
    except Exception as error:  # these files may be damaged in any way, and Zarr raises what it happens to meet
        raise unreadable(path, error) from error
    schema_of(attributes, path)
    return SweepHeader.from_attributes(attributes, str(path))


def unreadable(path: Path, error: Exception) -> StoreError:
    """The error for files that may be damaged in any way."""
    return StoreError(f"{path} is damaged and cannot be opened: {type(error).__name__}: {one_line(error)}")


def schema_of(attributes: dict[str, Any], path: Path) -> int:
    """The schema version that a group says it has.

    Raises
    ------
    StoreError
        None that this version reads.
    """
    schema = attributes.get("schema_version")
    if type(schema) is not int or not 1 <= schema <= SCHEMA_VERSION:
        raise StoreError(
            f"{path} is of schema version {schema!r:.20}, this shiftlens reads 1 to {SCHEMA_VERSION}; "
            "a newer shiftlens wrote it, or it is damaged"
        )
    return schema
