"""What every metric reads: one sweep as arrays, taken a chunk of images at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError, StoreError

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

# About 9 MB of float32 for 65 x 65 shifts: large enough for the matrix products, small enough to be forgotten.
CELLS_PER_CHUNK = 2_200_000


class Cells(Protocol):
    """Anything shaped (image, dy, dx) that gives an array for a slice of images: NumPy, Zarr, or a lazy reader."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Image, dy, dx."""
        ...

    def __getitem__(self, images: slice, /) -> Any:
        """Return the values of these images."""
        ...


@dataclass(frozen=True, eq=False)
class SweepArrays:
    """A sweep as arrays.

    Attributes
    ----------
    prediction
        (image, dy, dx), class numbers.
    loss
        (image, dy, dx), cross-entropy in nats.
    labels
        (image,) true class numbers.
    dys, dxs
        Shifts in pixels, ascending, evenly spaced, 0 among them.
    class_names
        One name a class the model knows.
    fill
        What enters from outside, by name.
    fill_is_constant
        Whether that is a constant, so that a shift of the picture's size leaves an empty picture.
    picture_size
        (height, width) in pixels, or None when it is not known.
    strides
        Cumulative down-sampling factors of the net; () when not known.
    index
        (image,) position in the source; 0, 1, 2 ... by default. Bootstrap draws belong to it.
    controls
        Sweeps of the same images and grid with another picture: "occlusion", "flip".
    n_missing
        Images of the plan that are not in the arrays, since they were not written.
    """

    prediction: Cells
    loss: Cells
    labels: IntArray
    dys: IntArray
    dxs: IntArray
    class_names: tuple[str, ...]
    fill: str = "black"
    fill_is_constant: bool = True
    picture_size: tuple[int, int] | None = None
    strides: tuple[int, ...] = ()
    index: IntArray | None = None
    controls: Mapping[str, SweepArrays] = field(default_factory=dict)
    n_missing: int = 0

    def __post_init__(self) -> None:
        expected = (len(self.labels), len(self.dys), len(self.dxs))
        for name, cells in (("prediction", self.prediction), ("loss", self.loss)):
            if tuple(cells.shape) != expected:
                raise InputError(f"expected {name} of shape {expected} (image, dy, dx), got {tuple(cells.shape)}")
        if not len(self.labels):
            raise InputError("expected at least 1 image with all its shifts, got none")
        for name, axis in (("dys", self.dys), ("dxs", self.dxs)):
            gaps = np.diff(axis)
            if 0 not in axis or np.any(gaps <= 0) or (len(gaps) and np.any(gaps != gaps[0])):
                raise InputError(
                    f"expected {name} ascending, evenly spaced and with 0 among them, got {list(axis)[:8]}"
                )
        if self.index is not None and len(np.unique(self.index)) != len(self.labels):
            raise InputError(f"expected {len(self.labels)} distinct positions in index, got repeats or another length")
        for name, control in self.controls.items():
            if not (np.array_equal(control.dys, self.dys) and np.array_equal(control.dxs, self.dxs)):
                raise InputError(f"expected control {name} on the sweep's own grid, got another grid")

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of shifts down and across."""
        return len(self.dys), len(self.dxs)

    @property
    def origin(self) -> tuple[int, int]:
        """Cell of the shift (0, 0)."""
        return int(np.flatnonzero(self.dys == 0)[0]), int(np.flatnonzero(self.dxs == 0)[0])

    @property
    def step(self) -> tuple[int, int]:
        """Pixels between neighbouring shifts, down and across; 1 for an axis of one shift."""
        y = int(self.dys[1] - self.dys[0]) if len(self.dys) > 1 else 1
        x = int(self.dxs[1] - self.dxs[0]) if len(self.dxs) > 1 else 1
        return y, x

    @cached_property
    def positions(self) -> IntArray:
        """(image,) position in the source."""
        return np.arange(self.n_images) if self.index is None else np.asarray(self.index, np.int64)

    @cached_property
    def blank(self) -> BoolArray:
        """(dy, dx): the shift leaves nothing of the picture, only the constant fill."""
        if not self.fill_is_constant or self.picture_size is None:
            return np.zeros(self.shape, np.bool_)
        height, width = self.picture_size
        out: BoolArray = (np.abs(self.dys)[:, None] >= height) | (np.abs(self.dxs)[None, :] >= width)
        return out

    @cached_property
    def distance(self) -> NDArray[np.float64]:
        """(dy, dx): Euclidean length of the shift in pixels."""
        return np.hypot(self.dys[:, None].astype(np.float64), self.dxs[None, :].astype(np.float64))

    @cached_property
    def correct(self) -> BoolArray:
        """(image, dy, dx): the prediction is the label; one byte a cell, the only large array that is kept."""
        out = np.empty((self.n_images, *self.shape), np.bool_)
        for where in self.slices():
            np.equal(self.prediction[where], self.labels[where, None, None], out=out[where])
        return out

    def slices(self) -> Iterator[slice]:
        """Yield slices of images whose cells fit a small piece of memory."""
        return image_slices(self.n_images, len(self.dys) * len(self.dxs))


def image_slices(n_images: int, n_cells: int) -> Iterator[slice]:
    """Yield slices that cover the images, each of at most `CELLS_PER_CHUNK` cells (but at least one image)."""
    size = max(1, CELLS_PER_CHUNK // max(n_cells, 1))
    for start in range(0, n_images, size):
        yield slice(start, min(start + size, n_images))


class _Lazy:
    """Reads an xarray variable a slice of images at a time, without the images that are not whole."""

    def __init__(self, variable: Any, keep: IntArray | None) -> None:
        self._variable = variable
        self._keep = keep
        n = variable.shape[0] if keep is None else len(keep)
        self.shape: tuple[int, ...] = (n, *variable.shape[1:])

    def __getitem__(self, images: slice) -> Any:
        if self._keep is None:
            return self._variable[images].values
        rows = self._keep[images]
        if not len(rows):
            return self._variable[:0].values
        first = int(rows[0])
        return self._variable[first : int(rows[-1]) + 1].values[rows - first]


def _whole_images(prediction: Any) -> IntArray:
    """Return the images of which every shift is written (no cell holds the type's top value)."""
    missing = np.iinfo(prediction.dtype).max
    n, n_cells = prediction.shape[0], int(np.prod(prediction.shape[1:]))
    whole = [(prediction[s].values != missing).all(axis=(1, 2)) for s in image_slices(n, n_cells)]
    return np.flatnonzero(np.concatenate(whole)) if whole else np.zeros(0, np.int64)


def from_sweep(
    sweep: Any, *, picture_size: tuple[int, int] | None = None, strides: tuple[int, ...] | None = None
) -> SweepArrays:
    """Return the arrays of a sweep, read lazily; of an incomplete one, the images that are whole.

    Parameters
    ----------
    sweep
        Anything with the attributes of a `Sweep`: `dataset`, `attrs`, `fill`, `complete`, `controls`,
        `control(name, partial=True)`.
    picture_size
        (height, width); by default the attribute `image_size` of the sweep.
    strides
        By default the attribute `strides` of the sweep.

    Raises
    ------
    StoreError
        If a variable is missing or no image is whole.
    """
    data = sweep.dataset
    lacking = [name for name in ("prediction", "loss", "label", "dy", "dx") if name not in data.variables]
    if lacking:
        there = ", ".join(sorted(map(str, data.variables))) or "nothing"
        raise StoreError(f"expected a sweep with {', '.join(lacking)}, got one with {there}")
    keep = None if sweep.complete else _whole_images(data["prediction"])
    if keep is not None and not len(keep):
        raise StoreError("expected at least 1 image with all its shifts written, got none")
    labels = np.asarray(data["label"].values, np.int64)
    index = np.asarray(data["index"].values, np.int64) if "index" in data.variables else np.arange(len(labels))
    size = picture_size or _attribute(sweep.attrs, "image_size")
    found = strides if strides is not None else _attribute(sweep.attrs, "strides") or ()
    names = _attribute(sweep.attrs, "class_names") or range(int(labels.max(initial=0)) + 1)
    return SweepArrays(
        prediction=_Lazy(data["prediction"], keep),
        loss=_Lazy(data["loss"], keep),
        labels=labels if keep is None else labels[keep],
        dys=np.asarray(data["dy"].values, np.int64),
        dxs=np.asarray(data["dx"].values, np.int64),
        class_names=tuple(str(name) for name in names),
        fill=str(sweep.fill.name),
        fill_is_constant=bool(sweep.fill.is_constant),
        picture_size=None if size is None else (int(size[0]), int(size[1])),
        strides=tuple(int(s) for s in found),
        index=index if keep is None else index[keep],
        controls=_controls(sweep, size, found),
        n_missing=0 if keep is None else len(labels) - len(keep),
    )


def _controls(sweep: Any, size: Any, strides: Any) -> dict[str, SweepArrays]:
    """Return the controls of which at least one image is whole."""
    out = {}
    for name in sweep.controls:
        control = sweep.control(name, partial=True)
        if control.complete or len(_whole_images(control.dataset["prediction"])):
            out[name] = from_sweep(control, picture_size=size, strides=strides)
    return out


def _attribute(attrs: Mapping[str, Any], name: str) -> Any:
    """Return an attribute; what is nested is one string of JSON in the file."""
    value = attrs.get(name)
    return json.loads(value) if isinstance(value, str) else value


def matched_rows(sweep: SweepArrays, control: SweepArrays) -> tuple[IntArray, IntArray]:
    """Return the rows of the images that both hold, in the sweep and in the control, in the same order."""
    _, here, there = np.intersect1d(sweep.positions, control.positions, assume_unique=True, return_indices=True)
    order = np.argsort(here)
    return here[order], there[order]
