"""Which arrays a sweep's group has: made, opened and checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from shiftlens.errors import StoreError
from shiftlens.storage.checksums import seal_of, state_seal_of
from shiftlens.storage.entries import refuse_swollen
from shiftlens.storage.groups import Layout, Mode, damage_of, open_array, open_group
from shiftlens.sweeps.header import SWEEP, SweepHeader

_CELLS = ("image", "dy", "dx")

_ARRAYS: dict[str, tuple[tuple[str, ...], str | None, dict[str, str]]] = {
    "prediction": (_CELLS, None, {"long_name": "predicted class"}),  # as small as the number of classes allows
    "loss": (_CELLS, "float32", {"long_name": "cross-entropy of the true class", "units": "nat"}),
    "confidence": (_CELLS, "float16", {"long_name": "probability of the predicted class"}),
    "checksum": (("image",), "uint64", {"long_name": "checksum of the image's prediction, loss and confidence"}),
    "accuracy": (_CELLS[1:], "float64", {"long_name": "share of images predicted right"}),
    "mean_loss": (_CELLS[1:], "float64", {"long_name": "mean cross-entropy", "units": "nat"}),
    "label": (("image",), "int64", {"long_name": "true class"}),
    "index": (("image",), "int64", {"long_name": "position in the source"}),
    "dy": (("dy",), "int64", {"long_name": "shift down", "units": "pixel"}),
    "dx": (("dx",), "int64", {"long_name": "shift to the right", "units": "pixel"}),
}
"""Every array: its dimensions, its dtype and its attributes."""

ARRAYS = tuple(_ARRAYS)
CHUNKED = ("prediction", "loss", "confidence", "checksum")
"""The arrays that are cut along `image`; all others are read in one go."""

KNOWN = ("label", "index", "dy", "dx")
"""The arrays that are written when the group is made, and sealed."""

ADAPTIVE = ("half_width", "n_images_used", "half_width_reached")
"""Attributes of an adaptive sweep that are known later: the points asked for, and where it stopped with which width."""

# Far above what is ever written: a stranger's metadata must not decide how much memory is taken.
_MOST_IMAGES = 10_000_000
_MOST_NUMBERS = 2**28  # in a chunk of several images


def state_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that change while a sweep is made; what `state_seal` is over."""
    return {name: attributes.get(name) for name in ("complete", *ADAPTIVE)}


def prediction_dtype(n_classes: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest unsigned integer that holds `n_classes` + 1 values; its top value means "not written"."""
    return np.dtype(np.min_scalar_type(n_classes))


def layouts(header: SweepHeader, n_images: int, chunk_size: int) -> dict[str, Layout]:
    """What every array of a group must be; a chunk that is not there must read as "not written"."""
    sizes = dict(zip(_CELLS, (n_images, *header.grid.shape), strict=True))
    made = {}
    for name, (dimensions, stored, _) in _ARRAYS.items():
        dtype = prediction_dtype(header.n_classes) if stored is None else np.dtype(stored)
        shape = tuple(sizes[d] for d in dimensions)
        fill = int(np.iinfo(dtype).max) if name == "prediction" else np.nan if dtype.kind == "f" else 0
        made[name] = Layout(dimensions, shape, (chunk_size, *shape[1:]) if name in CHUNKED else shape, dtype, fill)
    return made


def create_group(
    place: Path, header: SweepHeader, labels: NDArray[np.int64], index: NDArray[np.int64], chunk_size: int
) -> None:
    """Make the empty group of a sweep or a control at `place`, where nothing is."""
    _refuse_other_looks(place, header, len(labels), chunk_size)
    known = dict(zip(KNOWN, (labels, index, header.grid.dys, header.grid.dxs), strict=True))
    attributes = header.to_attributes(complete=False)
    attributes["seal"] = seal_of(attributes, *known.values())
    if header.schedule is not None:
        attributes |= dict.fromkeys(ADAPTIVE)
    attributes["state_seal"] = state_seal_of(attributes["seal"], state_of(attributes))
    group = zarr.create_group(place, zarr_format=3, attributes=attributes)
    for name, layout in layouts(header, len(labels), chunk_size).items():
        layout.create(group, name, known.get(name), _ARRAYS[name][2])


@dataclass(frozen=True)
class OpenedGroup:
    """A group that is as it was made: `known` are the arrays of `KNOWN`, in memory."""

    group: zarr.Group
    header: SweepHeader
    arrays: dict[str, zarr.Array[Any]]
    known: dict[str, NDArray[np.int64]]
    seal: str


def open_checked(path: Path, mode: Mode) -> OpenedGroup:
    """Open a group and check all but the numbers of its chunks.

    Raises
    ------
    StoreError
        An array or attribute is missing, not as the attributes say, or was altered.
    """
    with damage_of(path):
        group = open_group(path, mode)
        attributes = group.attrs.asdict()
        SWEEP.refuse_other_version(path, attributes.get("schema_version"))
        header = SweepHeader.from_attributes(attributes, str(path))
        arrays = {name: open_array(path, name, mode) for name in ARRAYS}
        _refuse_other_layout(path, header, arrays)
        for name in KNOWN:
            refuse_swollen(path / name / "c" / "0", arrays[name].nbytes)
        known = {name: np.asarray(arrays[name][:]) for name in KNOWN}
        seal = _checked_seal(path, header, attributes, known)
        _refuse_other_numbers(path, header, known)
    return OpenedGroup(group, header, arrays, known, seal)


def _refuse_other_layout(path: Path, header: SweepHeader, arrays: dict[str, zarr.Array[Any]]) -> None:
    """Compare what the arrays say of themselves with the header, before any memory is taken for their numbers."""
    n_images = arrays["label"].shape[0] if arrays["label"].ndim else 0
    if not 1 <= n_images <= _MOST_IMAGES:
        raise StoreError(f"{path} is damaged: expected 1 to {_MOST_IMAGES} labels, got {n_images}")
    chunk = arrays["loss"].chunks[0] if arrays["loss"].ndim else 0
    if chunk < 1:
        raise StoreError(f"{path} is damaged: expected chunks of at least 1 image, got {chunk}")
    for name, layout in layouts(header, n_images, chunk).items():
        layout.refuse_other(path, name, arrays[name])
    _refuse_other_looks(path, header, n_images, chunk)
    if chunk > 1 and chunk * header.grid.n_shifts > _MOST_NUMBERS:
        ny, nx = header.grid.shape
        raise StoreError(f"{path} is damaged: chunks of {chunk} images x {ny} x {nx} shifts are too large")


def _refuse_other_looks(path: Path, header: SweepHeader, n_images: int, chunk_size: int) -> None:
    """Refuse a schedule whose last look is not at all images, or another one within a chunk."""
    looks = (n_images,) if header.schedule is None else header.schedule.looks
    if looks[-1] != n_images or any(n % chunk_size for n in looks[:-1]):
        raise StoreError(
            f"{path} is damaged: expected looks between chunks of {chunk_size} and at all {n_images} images, "
            f"got {looks}"
        )


def _checked_seal(
    path: Path, header: SweepHeader, attributes: dict[str, Any], known: dict[str, NDArray[np.int64]]
) -> str:
    # Attributes that somebody added, or that a later version will add at the end, are no damage.
    sealed = {key: attributes[key] for key in header.to_attributes(complete=False) if key in attributes}
    seal = seal_of(sealed, *known.values())
    if attributes.get("seal") != seal:
        raise StoreError(f"{path} is damaged: its attributes, labels, index or shifts are not those it was made with")
    state = state_of(attributes)
    if attributes.get("state_seal") != state_seal_of(seal, state):
        raise StoreError(f"{path} is damaged: {', '.join(state)} are not all as they were written")
    return seal


def _refuse_other_numbers(path: Path, header: SweepHeader, known: dict[str, NDArray[np.int64]]) -> None:
    """Refuse labels beyond the classes, a position twice, other shifts: a stranger seals what he likes."""
    lowest, highest = int(known["label"].min()), int(known["label"].max())
    if lowest < 0 or highest >= header.n_classes:
        top = header.n_classes - 1
        raise StoreError(f"{path} is damaged: expected labels from 0 to {top}, got {lowest} to {highest}")
    if len(np.unique(known["index"])) < len(known["index"]):
        raise StoreError(f"{path} is damaged: expected distinct positions in index, got some twice")
    for name, right in (("dy", header.grid.dys), ("dx", header.grid.dxs)):
        if not np.array_equal(known[name], right):
            raise StoreError(f"{path} is damaged: expected {name} from {right[0]} to {right[-1]}, got others")
