"""Zarr groups and arrays: made from a declared layout, and held against it when they are opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from shiftlens.errors import StoreError
from shiftlens.naming import one_line
from shiftlens.storage.entries import refuse_other_codecs

Mode = Literal["r", "r+"]


@contextmanager
def damage_of(path: Path) -> Iterator[None]:
    """Turn whatever Zarr raises into one `StoreError`: the files may be damaged in any way."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise StoreError(f"{path} is damaged and cannot be opened: {what}") from error


def open_group(path: Path, mode: Mode = "r") -> zarr.Group:
    """A Zarr v3 group, without consolidated metadata: those could contradict the arrays' own."""
    return zarr.open_group(path, mode=mode, zarr_format=3, use_consolidated=False)


def open_array(path: Path, name: str, mode: Mode = "r") -> zarr.Array[Any]:
    """An array of a group; what is written to it is written also where it equals the fill value."""
    # Zarr leaves out such chunks unless told otherwise, and does not remember being told.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(path, path=name, mode=mode, zarr_format=3)


@dataclass(frozen=True)
class Layout:
    """What an array must be."""

    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: float = 0

    def create(
        self, group: zarr.Group, name: str, values: NDArray[Any] | None = None, about: dict[str, Any] | None = None
    ) -> None:
        """Make such an array, with the attributes `about`; empty where there are no `values`."""
        array = group.create_array(
            name,
            shape=self.shape,
            chunks=self.chunks,
            dtype=self.dtype,
            fill_value=self.fill,
            dimension_names=self.dimensions,
            # The codec's checksum makes a torn or altered chunk undecodable instead of wrong.
            compressors=ZstdCodec(level=3, checksum=True),
            attributes=about,
            config={"write_empty_chunks": True},
        )
        if values is not None:
            array[:] = values

    def refuse_other(self, path: Path, name: str, array: zarr.Array[Any]) -> None:
        """Refuse an array that says it is something else; none of its numbers is read.

        Raises
        ------
        StoreError
            Names the array, what was expected and what is there.
        """
        if array.shape != self.shape or array.chunks != self.chunks:
            raise StoreError(
                f"{path} is damaged: expected {name} of shape {self.shape} in chunks {self.chunks}, "
                f"got {array.shape} in chunks {array.chunks}"
            )
        named = tuple(getattr(array.metadata, "dimension_names", None) or ())
        if named != self.dimensions:
            raise StoreError(f"{path} is damaged: expected {name} over {self.dimensions}, got {named!r:.80}")
        refuse_other_codecs(str(path / name), array)
        if array.dtype != self.dtype:
            raise StoreError(f"{path} is damaged: expected {name} of {self.dtype}, got {array.dtype}")
        if not np.array_equal(np.asarray(array.fill_value), self.fill, equal_nan=self.dtype.kind == "f"):
            raise StoreError(
                f"{path} is damaged: expected {name} with fill value {self.fill}, got {array.fill_value!r:.40}"
            )
