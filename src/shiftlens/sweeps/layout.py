"""Which arrays a sweep's group has: names, dimensions, types and chunks, made and checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from shiftlens.errors import StoreError
from shiftlens.storage.checksums import seal_of, state_seal_of
from shiftlens.storage.entries import refuse_other_codecs
from shiftlens.sweeps.header import SCHEMA_VERSION, SweepHeader

DIMENSIONS = ("image", "dy", "dx")

CHECKED = 2
"""The first schema version with a seal and checksums."""

STATE_SEALED = 3
"""The first schema version in which the attributes that change later have a seal too."""

_ARRAYS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "prediction": (DIMENSIONS, None),  # as small as the number of classes allows
    "loss": (DIMENSIONS, "float32"),
    "confidence": (DIMENSIONS, "float16"),
    "checksum": (("image",), "uint64"),
    "accuracy": (DIMENSIONS[1:], "float64"),
    "mean_loss": (DIMENSIONS[1:], "float64"),
    "label": (("image",), "int64"),
    "index": (("image",), "int64"),
    "dy": (("dy",), "int64"),
    "dx": (("dx",), "int64"),
}
"""Every array: its dimensions and its dtype."""

CHUNKED = ("prediction", "loss", "confidence", "checksum")
"""The arrays that are cut along `image`; all others are read in one go."""

ADAPTIVE = ("half_width", "n_images_used", "half_width_reached")
"""Attributes of an adaptive sweep that are known later: the points asked for, and where it stopped with which width."""

# Far above what is ever written: a stranger's metadata must not decide how much memory is taken.
_MOST_IMAGES = 10_000_000
_MOST_NUMBERS = 2**28  # in a chunk of several images


def arrays_of(schema: int) -> tuple[str, ...]:
    """Names of the arrays of a group of a schema version."""
    return tuple(name for name in _ARRAYS if name != "checksum" or schema >= CHECKED)


def state_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that change while a sweep is made; what `state_seal` is over."""
    return {name: attributes.get(name) for name in ("complete", *ADAPTIVE)}


def prediction_dtype(n_classes: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest unsigned integer that holds `n_classes` + 1 values; its top value means "not written"."""
    return np.dtype(np.min_scalar_type(n_classes))


def refuse_other_layout(path: Path, header: SweepHeader, arrays: dict[str, zarr.Array[Any]]) -> None:
    """Compare what the arrays say of themselves with the header, before any memory is taken for their numbers.

    Raises
    ------
    StoreError
        Names the array, what was expected and what is there.
    """
    n_images = arrays["label"].shape[0] if arrays["label"].ndim else 0
    if not 1 <= n_images <= _MOST_IMAGES:
        raise StoreError(f"{path} is damaged: expected 1 to {_MOST_IMAGES} labels, got {n_images}")
    ny, nx = header.grid.shape
    chunk = arrays["loss"].chunks[0] if arrays["loss"].ndim else 0
    if chunk < 1:
        raise StoreError(f"{path} is damaged: expected chunks of at least 1 image, got {chunk}")
    sizes = {"image": n_images, "dy": ny, "dx": nx}
    for name, array in arrays.items():
        dimensions, stored = _ARRAYS[name]
        shape = tuple(sizes[d] for d in dimensions)
        chunks = (chunk, *shape[1:]) if name in CHUNKED else shape
        if array.shape != shape or array.chunks != chunks:
            raise StoreError(
                f"{path} is damaged: expected {name} of shape {shape} in chunks {chunks}, "
                f"got {array.shape} in chunks {array.chunks}"
            )
        named = tuple(getattr(array.metadata, "dimension_names", None) or ())
        if named != dimensions:
            raise StoreError(f"{path} is damaged: expected {name} over {dimensions}, got {named!r:.80}")
        refuse_other_codecs(str(path / name), array)
        dtype = prediction_dtype(header.n_classes) if stored is None else np.dtype(stored)
        if array.dtype != dtype:
            raise StoreError(f"{path} is damaged: expected {name} of {dtype}, got {array.dtype}")
        fill = _fill_of(name, dtype)
        if not np.array_equal(np.asarray(array.fill_value), fill, equal_nan=dtype.kind == "f"):
            raise StoreError(f"{path} is damaged: expected {name} with fill value {fill}, got {array.fill_value!r:.40}")
    refuse_other_looks(path, header, n_images, chunk)
    if chunk > 1 and chunk * ny * nx > _MOST_NUMBERS:
        raise StoreError(f"{path} is damaged: chunks of {chunk} images x {ny} x {nx} shifts are too large")


def _fill_of(name: str, dtype: np.dtype[Any]) -> float:
    """What Zarr gives for a chunk that is not there: it must read as "not written"."""
    if name == "prediction":
        return int(np.iinfo(dtype).max)
    return np.nan if dtype.kind == "f" else 0


def refuse_other_looks(path: Path, header: SweepHeader, n_images: int, chunk_size: int) -> None:
    """Refuse a schedule of looks that is not of these images.

    Raises
    ------
    StoreError
        The last look is not at all images, or another one within a chunk.
    """
    looks = (n_images,) if header.schedule is None else header.schedule.looks
    if looks[-1] != n_images or any(n % chunk_size for n in looks[:-1]):
        raise StoreError(
            f"{path} is damaged: expected looks between chunks of {chunk_size} and at all {n_images} images, "
            f"got {looks}"
        )


def create_group(
    place: Path,
    header: SweepHeader,
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    chunk_size: int,
    schema: int = SCHEMA_VERSION,
) -> None:
    """Make the empty group of a sweep or a control at `place`, where nothing is; `schema` follows an older sweep's."""
    attributes = header.to_attributes(complete=False) | {"schema_version": schema}
    refuse_other_looks(place, header, len(labels), chunk_size)
    if schema >= CHECKED:
        attributes["seal"] = seal_of(attributes, labels, index, header.grid.dys, header.grid.dxs)
    if header.schedule is not None:
        attributes |= dict.fromkeys(ADAPTIVE)
    if schema >= STATE_SEALED:
        attributes["state_seal"] = state_seal_of(attributes["seal"], state_of(attributes))
    group = zarr.create_group(place, zarr_format=3, attributes=attributes)
    n, (ny, nx) = len(labels), header.grid.shape
    predicted = prediction_dtype(header.n_classes)
    sizes = {"image": n, "dy": ny, "dx": nx}

    def create(name: str, about: dict[str, Any]) -> zarr.Array[Any]:
        dimensions, stored = _ARRAYS[name]
        dtype = predicted if stored is None else np.dtype(stored)
        shape = tuple(sizes[d] for d in dimensions)
        return group.create_array(
            name,
            shape=shape,
            chunks=(chunk_size, *shape[1:]) if name in CHUNKED else shape,
            dtype=dtype,
            fill_value=_fill_of(name, dtype),
            dimension_names=dimensions,
            # The codec's checksum makes a torn or altered chunk undecodable instead of wrong.
            compressors=ZstdCodec(level=3, checksum=True),
            attributes=about,
            config={"write_empty_chunks": True},
        )

    for name, about in (
        ("prediction", {"long_name": "predicted class"}),
        ("loss", {"long_name": "cross-entropy of the true class", "units": "nat"}),
        ("confidence", {"long_name": "probability of the predicted class"}),
        ("checksum", {"long_name": "checksum of the image's prediction, loss and confidence"}),
        ("accuracy", {"long_name": "share of images predicted right"}),
        ("mean_loss", {"long_name": "mean cross-entropy", "units": "nat"}),
    ):
        if name in arrays_of(schema):
            create(name, about)
    for name, values, about in (
        ("label", labels, {"long_name": "true class"}),
        ("index", index, {"long_name": "position in the source"}),
        ("dy", header.grid.dys, {"long_name": "shift down", "units": "pixel"}),
        ("dx", header.grid.dxs, {"long_name": "shift to the right", "units": "pixel"}),
    ):
        create(name, about)[:] = values
