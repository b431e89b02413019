"""Which arrays a sweep's group has: made, opened and checked in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from shiftlens.errors import InputError, StoreError
from shiftlens.storage.checksums import seal_of, state_seal_of
from shiftlens.storage.entries import refuse_swollen
from shiftlens.storage.groups import Layout, Mode, damage_of, open_array, open_group
from shiftlens.sweeps.header import SWEEP, SweepHeader
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.stored_form import KNOWN_TASKS
from shiftlens.tasks.task import OBJECT, SEVERAL, WINDOW, Stored, Task, Variable, has_objects

_ALWAYS: dict[str, tuple[tuple[str, ...], str, dict[str, str]]] = {
    "label": (("image",), "int64", {"long_name": "true class"}),
    "index": (("image",), "int64", {"long_name": "position in the source"}),
    "dy": (("dy",), "int64", {"long_name": "shift down", "units": "pixel"}),
    "dx": (("dx",), "int64", {"long_name": "shift to the right", "units": "pixel"}),
    "n_objects": (("image",), "int64", {"long_name": "objects in the image"}),
}
"""Arrays that are known beforehand: dimensions, dtype and attributes."""

_ABOUT = {
    "loss": {"long_name": "cross-entropy of the true class", "units": "nat"},
    "confidence": {"long_name": "probability of the predicted class"},
    "accuracy": {"long_name": "share of images predicted right"},
    "mean_loss": {"long_name": "mean cross-entropy", "units": "nat"},
}
"""What classification says of its arrays, where that is more than their variables say."""

KNOWN = ("label", "index", "dy", "dx")
"""The arrays that are written when the group is made, and sealed; and `n_objects`, where there are objects."""

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


def measured_arrays(task: Task) -> tuple[str, ...]:
    """The arrays that hold a chunk's numbers, as the task names them, and last their checksum."""
    return (*(each.name for each in task.variables), "checksum")


def mean_arrays(task: Task) -> dict[str, Variable]:
    """The arrays (dy, dx) that are written at the end, each with the metric whose mean it is."""
    stored = {each.name for each in task.variables}
    metrics = KNOWN_TASKS.get(task.name, Stored(task.variables)).metrics(labelled=True)
    return {f"mean_{each.name}" if each.name in stored else each.name: each for each in metrics}


def known_arrays(task: Task) -> tuple[str, ...]:
    """The arrays that are written when the group is made."""
    return (*KNOWN, *(("n_objects",) if has_objects(task) else ()))


def array_names(task: Task) -> tuple[str, ...]:
    """Every array of a group."""
    return (*measured_arrays(task), *mean_arrays(task), *known_arrays(task))


def _variable_layout(
    variable: Variable, header: SweepHeader, n_images: int, chunk_size: int, own_axes: Mapping[str, int]
) -> Layout:
    """Of a window, one number a cell; of an accumulator, one row a chunk, so that chunks merge in any order.

    `own_axes` are the lengths of the axes that some variables have between image and shift. Numbers of objects have
    room for as many as any image has; where an image has fewer, they are NaN.
    """
    dtype = prediction_dtype(header.n_classes) if variable.name == "prediction" else np.dtype(variable.dtype)
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)  # which has a value to spare for "not written"
    # Where NaN means that there is no such number, "not written" needs another mark.
    may_lack = variable.optional or variable.dims == OBJECT
    missing = (-np.inf if may_lack else np.nan) if dtype.kind == "f" else int(np.iinfo(dtype).max)
    sizes = dict(zip(("dy", "dx", "y", "x"), (*header.grid.shape, *header.image_size), strict=True)) | dict(own_axes)
    axes = tuple(axis for axis in variable.dims if axis != "image")
    if variable.is_accumulator and not set(axes) <= {"y", "x"}:
        known = " or ".join(", ".join(dims) for dims in (WINDOW, *SEVERAL, ("y", "x")))
        raise StoreError(f"expected {variable.name} over {known}, got {', '.join(variable.dims)}")
    row, n_rows = tuple(sizes[axis] for axis in axes), 1 if variable.is_accumulator else chunk_size
    if variable.dims != WINDOW and n_rows * math.prod(row) > _MOST_NUMBERS:
        n_numbers = n_rows * math.prod(row)
        raise StoreError(f"expected {variable.name} of at most {_MOST_NUMBERS:,} numbers in a chunk, got {n_numbers:,}")
    if variable.is_accumulator:
        return Layout(("chunk", *axes), (-(-n_images // chunk_size), *row), (1, *row), dtype, missing)
    return Layout(("image", *axes), (n_images, *row), (chunk_size, *row), dtype, missing)


def layouts(header: SweepHeader, n_images: int, chunk_size: int, own_axes: Mapping[str, int]) -> dict[str, Layout]:
    """What every array of a group must be; a chunk that is not there must read as "not written"."""
    sizes = dict(zip(WINDOW, (n_images, *header.grid.shape), strict=True))
    made = {each.name: _variable_layout(each, header, n_images, chunk_size, own_axes) for each in header.task.variables}
    made["checksum"] = Layout(("image",), (n_images,), (chunk_size,), np.dtype(np.uint64))
    for name in mean_arrays(header.task):
        made[name] = Layout(WINDOW[1:], header.grid.shape, header.grid.shape, np.dtype(np.float64), np.nan)
    for name in known_arrays(header.task):
        dimensions, dtype, _ = _ALWAYS[name]
        shape = tuple(sizes[d] for d in dimensions)
        made[name] = Layout(dimensions, shape, shape, np.dtype(dtype))
    return made


def _about(task: Task) -> dict[str, dict[str, str]]:
    """The attributes of every array."""
    *names, last = (each.name for each in task.variables)
    listed = f"{', '.join(names)} and {last}" if names else last
    made = {each.name: _described(each.long_name, each.unit) for each in task.variables}
    made["checksum"] = {"long_name": f"checksum of the image's {listed}"}
    made |= {name: _described(f"mean of {each.long_name}", each.unit) for name, each in mean_arrays(task).items()}
    made |= {name: about for name, (_, _, about) in _ALWAYS.items()}
    return made | _ABOUT if task.name == CLASSIFICATION.name else made


def _described(long_name: str, unit: str) -> dict[str, str]:
    return {"long_name": long_name} | ({"units": unit} if unit else {})


def refuse_unfit(task: Task) -> None:
    """Refuse a task that no group can be made for.

    Raises
    ------
    InputError
        Names that the group needs itself, or no metric.
    """
    names = array_names(task)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"variables of the task {task.name} need other names than {', '.join(twice)}")
    if not mean_arrays(task):
        raise InputError(f"the task {task.name} has no metric: expected a variable of windows with a better side")


def create_group(
    place: Path,
    header: SweepHeader,
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    n_objects: NDArray[np.int64] | None,
    chunk_size: int,
    own_axes: Mapping[str, int] | None = None,
) -> None:
    """Make the empty group of a sweep or a control at `place`, where nothing is.

    `own_axes` are those of another group of the sweep; by default those of the task that is measured.
    """
    _refuse_other_looks(place, header, len(labels), chunk_size)
    if has_objects(header.task) != (n_objects is not None):
        raise ValueError("n_objects belongs to tasks with numbers of objects, and to no others")
    values = (labels, index, header.grid.dys, header.grid.dxs, n_objects)
    known = {name: each for name, each in zip((*KNOWN, "n_objects"), values, strict=True) if each is not None}
    attributes = header.to_attributes(complete=False)
    attributes["seal"] = seal_of(attributes, *known.values())
    if header.schedule is not None:
        attributes |= dict.fromkeys(ADAPTIVE)
    attributes["state_seal"] = state_seal_of(attributes["seal"], state_of(attributes))
    group = zarr.create_group(place, zarr_format=3, attributes=attributes)
    about = _about(header.task)
    most = 1 if n_objects is None else max(1, int(n_objects.max()))
    own_axes = {OBJECT[0]: most, **(header.task.axes if own_axes is None else own_axes)}
    for name, layout in layouts(header, len(labels), chunk_size, own_axes).items():
        layout.create(group, name, known.get(name), about[name])


@dataclass(frozen=True)
class OpenedGroup:
    """A group that is as it was made: `known` are the arrays of `KNOWN`, in memory, `own_axes` as in `layouts`."""

    group: zarr.Group
    header: SweepHeader
    arrays: dict[str, zarr.Array[Any]]
    known: dict[str, NDArray[np.int64]]
    seal: str
    own_axes: dict[str, int]


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
        arrays = {name: open_array(path, name, mode) for name in array_names(header.task)}
        _refuse_other_layout(path, header, arrays)
        for name in known_arrays(header.task):
            refuse_swollen(path / name / "c" / "0", arrays[name].nbytes)
        known = {name: np.asarray(arrays[name][:]) for name in known_arrays(header.task)}
        seal = _checked_seal(path, header, attributes, known)
        own_axes = _own_axes(header, arrays)
        _refuse_other_numbers(path, header, known, own_axes[OBJECT[0]])
    return OpenedGroup(group, header, arrays, known, seal, own_axes)


def _refuse_other_layout(path: Path, header: SweepHeader, arrays: dict[str, zarr.Array[Any]]) -> None:
    """Compare what the arrays say of themselves with the header, before any memory is taken for their numbers."""
    n_images = arrays["label"].shape[0] if arrays["label"].ndim else 0
    if not 1 <= n_images <= _MOST_IMAGES:
        raise StoreError(f"{path} is damaged: expected 1 to {_MOST_IMAGES} labels, got {n_images}")
    chunk = arrays["checksum"].chunks[0] if arrays["checksum"].ndim else 0
    if chunk < 1:
        raise StoreError(f"{path} is damaged: expected chunks of at least 1 image, got {chunk}")
    for name, layout in layouts(header, n_images, chunk, _own_axes(header, arrays)).items():
        layout.refuse_other(path, name, arrays[name])
    _refuse_other_looks(path, header, n_images, chunk)
    if chunk > 1 and chunk * header.grid.n_shifts > _MOST_NUMBERS:
        ny, nx = header.grid.shape
        raise StoreError(f"{path} is damaged: chunks of {chunk} images x {ny} x {nx} shifts are too large")


def _own_axes(header: SweepHeader, arrays: dict[str, zarr.Array[Any]]) -> dict[str, int]:
    """For how many objects, detections and classes of an image there is room."""
    sizes = {axis: 1 for axis, *_ in SEVERAL}
    for each in header.task.variables:
        if each.axis is not None and arrays[each.name].ndim > 1:
            sizes[each.axis] = max(sizes[each.axis], int(arrays[each.name].shape[1]))
    return sizes


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


def _refuse_other_numbers(
    path: Path, header: SweepHeader, known: dict[str, NDArray[np.int64]], most_objects: int
) -> None:
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
    if "n_objects" in known:
        fewest, most = int(known["n_objects"].min()), int(known["n_objects"].max())
        if fewest < 0 or max(1, most) != most_objects:
            raise StoreError(
                f"{path} is damaged: expected up to {most_objects} objects an image, got {fewest} to {most}"
            )
