"""What every metric reads: one sweep as arrays, taken a chunk of images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError, StoreError
from shiftlens.naming import unknown_name
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.task import Task, Variable

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# About 9 MB of float32: large enough for the matrix products, small enough to be forgotten.
CELLS_PER_CHUNK = 2_200_000


class Cells(Protocol):
    """Anything shaped (image, dy, dx) that NumPy takes a slice of images of: an array, Zarr, a lazy xarray variable."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Image, dy, dx."""

    def __getitem__(self, images: slice, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class SweepArrays:
    """A sweep as arrays.

    Attributes
    ----------
    variables
        What the task has stored, by name: (image, dy, dx).
    labels
        (image,) true class numbers; (0,) where there are none.
    dys, dxs
        Shifts in pixels, ascending, evenly spaced, 0 among them.
    class_names
        One name a class the model knows.
    task
        What the variables mean.
    fill, fill_is_constant
        What enters from outside; if a constant, a shift of the picture's size leaves an empty picture.
    picture_size, strides
        (height, width) in pixels, None when not known; cumulative down-sampling factors of the net, () when not known.
    index
        (image,) position in the source; 0, 1, 2 ... by default. Bootstrap draws belong to it.
    controls
        Sweeps of the same images and grid with another picture: "occlusion", "flip", "canvas".
    n_missing, title
        Images of the plan that were not written and are not in the arrays; names of the model and the images, or ().
    """

    variables: Mapping[str, Cells]
    labels: IntArray
    dys: IntArray
    dxs: IntArray
    class_names: tuple[str, ...] = ()
    task: Task = CLASSIFICATION
    fill: str = "black"
    fill_is_constant: bool = True
    picture_size: tuple[int, int] | None = None
    strides: tuple[int, ...] = ()
    index: IntArray | None = None
    controls: Mapping[str, SweepArrays] = field(default_factory=dict)
    n_missing: int = 0
    title: tuple[str, ...] = ()
    _kept: dict[str, BoolArray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        expected = (self.n_images, len(self.dys), len(self.dxs))
        for name, cells in self.variables.items():
            if tuple(cells.shape) != expected:
                raise InputError(f"expected {name} of shape {expected} (image, dy, dx), got {tuple(cells.shape)}")
        if not self.n_images:
            raise InputError("expected at least 1 image with all its shifts, got none")
        for name, axis in (("dys", self.dys), ("dxs", self.dxs)):
            gaps = np.diff(axis)
            if 0 not in axis or np.any(gaps <= 0) or (len(gaps) and np.any(gaps != gaps[0])):
                raise InputError(
                    f"expected {name} ascending, evenly spaced and with 0 among them, got {list(axis)[:8]}"
                )
        if self.index is not None and len(np.unique(self.index)) != self.n_images:
            raise InputError(f"expected {self.n_images} distinct positions in index, got repeats or another length")
        for name, control in self.controls.items():
            if not (np.array_equal(control.dys, self.dys) and np.array_equal(control.dxs, self.dxs)):
                raise InputError(f"expected control {name} on the sweep's own grid, got another grid")

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.labels) or next(iter(self.variables.values())).shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of shifts down and across."""
        return len(self.dys), len(self.dxs)

    @property
    def shifts(self) -> tuple[IntArray, IntArray]:
        """The dys and dxs."""
        return self.dys, self.dxs

    @property
    def origin(self) -> tuple[int, int]:
        """Cell of the shift (0, 0)."""
        return int(np.flatnonzero(self.dys == 0)[0]), int(np.flatnonzero(self.dxs == 0)[0])

    @property
    def origin_cell(self) -> int:
        """The same as a flat cell."""
        return self.origin[0] * self.shape[1] + self.origin[1]

    @property
    def step(self) -> tuple[int, int]:
        """Pixels between neighbouring shifts, down and across; 1 for an axis of one shift."""
        y, x = (int(axis[1] - axis[0]) if len(axis) > 1 else 1 for axis in (self.dys, self.dxs))
        return y, x

    @property
    def reach(self) -> int:
        """Pixels from (0, 0) to the nearest edge of the grid, of the sides that it has; 0 for (0, 0) alone."""
        sides = (int(side.max()) for side in (-self.dys, self.dys, -self.dxs, self.dxs))
        return min((side for side in sides if side > 0), default=0)

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
    def distance(self) -> FloatArray:
        """(dy, dx): Euclidean length of the shift in pixels."""
        return np.hypot(self.dys[:, None].astype(np.float64), self.dxs[None, :].astype(np.float64))

    @property
    def prediction(self) -> Cells:
        """Class numbers, (image, dy, dx)."""
        return self.variables["prediction"]

    @property
    def loss(self) -> Cells:
        """Cross-entropy in nats, (image, dy, dx)."""
        return self.variables["loss"]

    @property
    def correct(self) -> BoolArray:
        """(image, dy, dx): the prediction is the label."""
        return self._share("accuracy")

    @property
    def metrics(self) -> tuple[Variable, ...]:
        """What can be measured, the default first."""
        return self.task.metrics(labelled=len(self.labels) > 0)

    def values(self, metric: str | Variable | None = None) -> Values:
        """The default metric, one of `metrics` by name (`InputError` if there is none), or another of the task."""
        if not isinstance(metric, Variable):
            named = {each.name: each for each in self.metrics}
            if metric is not None and metric not in named:
                raise unknown_name("metric", metric, tuple(named))
            metric = self.metrics[0] if metric is None else named[metric]
        return Values(metric, self)

    def _share(self, name: str) -> BoolArray:
        """A metric of yes and no: one byte a cell, the only large array that is kept."""
        stored = self.variables.get(name)
        if isinstance(stored, np.ndarray) and stored.dtype == np.bool_:
            return stored
        if name not in self._kept:
            self._kept[name] = np.empty((self.n_images, *self.shape), np.bool_)
            for s in self.slices():
                self._kept[name][s] = self._measured(name, s)
        return self._kept[name]

    def _measured(self, name: str, images: slice) -> NDArray[Any]:
        def read(stored: str) -> NDArray[Any]:
            return np.asarray(self.variables[stored][images])

        return self.task.measured(name, read, self.labels[images], self.origin)

    def slices(self) -> Iterator[slice]:
        """Yield slices of images whose cells fit a small piece of memory."""
        return image_slices(self.n_images, len(self.dys) * len(self.dxs))


@dataclass(frozen=True, eq=False)
class Values:
    """One metric of a sweep.

    Attributes
    ----------
    metric, sweep
        What, and where it is read.
    """

    metric: Variable
    sweep: SweepArrays

    def __getitem__(self, images: slice) -> NDArray[Any]:
        """Some images, (image, cell): 0 and 1 as int8 for a share, float32 for a number (NaN where there is none)."""
        if self.metric.is_share:
            return self.sweep._share(self.metric.name)[images].reshape(-1, self.n_cells).view(np.int8)
        values = self.sweep._measured(self.metric.name, images)
        return np.asarray(values, np.float32).reshape(-1, self.n_cells)

    def rows(self, which: IntArray) -> NDArray[Any]:
        """Some images by their rows, (image, cell); read from the first to the last of them."""
        first = int(which.min())
        return self[first : int(which.max()) + 1][which - first]

    @property
    def n_cells(self) -> int:
        """Number of shifts."""
        return self.sweep.shape[0] * self.sweep.shape[1]

    def of(self, control: str) -> Values:
        """The same metric of one of the sweep's controls."""
        return Values(self.metric, self.sweep.controls[control])

    def per_image(self, cells: BoolArray) -> FloatArray:
        """Each image's mean over some cells (dy, dx), shape (image,); NaN for an image that has no value there."""
        chosen = cells.ravel()
        return np.concatenate([row_means(self[s][:, chosen]) for s in self.sweep.slices()])


def row_means(values: NDArray[Any]) -> FloatArray:
    """Means over the columns, NaN left out; NaN for a row of nothing else."""
    if values.dtype.kind != "f":
        return np.asarray(values.sum(axis=1, dtype=np.int32) / values.shape[1], np.float64)
    there = np.count_nonzero(~np.isnan(values), axis=1)
    out = np.full(len(values), np.nan)
    np.divide(np.nansum(values, axis=1, dtype=np.float64), there, out=out, where=there > 0)
    return out


def image_slices(n_images: int, n_cells: int) -> Iterator[slice]:
    """Yield slices that cover the images, each of at most `CELLS_PER_CHUNK` cells (but at least one image)."""
    size = max(1, CELLS_PER_CHUNK // max(n_cells, 1))
    for start in range(0, n_images, size):
        yield slice(start, min(start + size, n_images))


def _whole_images(cells: Cells, *, optional: bool = False) -> IntArray:
    """Images written under every shift: no cell holds the type's largest number or NaN (`optional`: -inf)."""
    whole = np.zeros(cells.shape[0], np.bool_)
    for s in image_slices(cells.shape[0], int(np.prod(cells.shape[1:]))):
        values = np.asarray(cells[s])
        if values.dtype.kind == "f":
            there = ~np.isneginf(values) if optional else ~np.isnan(values)
        else:
            there = values != np.iinfo(values.dtype).max
        whole[s] = there.all(axis=(1, 2))
    return np.flatnonzero(whole)


def from_sweep(sweep: Any) -> SweepArrays:
    """Return the arrays of a sweep, read lazily; of an incomplete one, the images that are whole.

    Parameters
    ----------
    sweep
        A `Sweep`, or what has its `dataset`, `header`, `complete`, `controls` and `control(name, partial=True)`.

    Raises
    ------
    StoreError
        If a variable is missing or no image is whole.
    """
    data, header = sweep.dataset, sweep.header
    names, sure, optional = _stored_names(sweep)
    needed = [*names, *(["label"] if header.task.needs_labels else []), "dy", "dx"]
    lacking = [name for name in needed if name not in data.variables]
    if lacking:
        there = ", ".join(sorted(map(str, data.variables))) or "nothing"
        raise StoreError(f"expected a sweep with {', '.join(lacking)}, got one with {there}")
    stored = {name: data[name].variable for name in names}
    n = stored[sure].shape[0]
    keep = np.arange(n)
    if not sweep.complete:
        keep = _whole_images(stored[sure], optional=optional)
        if not len(keep):
            raise StoreError("expected at least 1 image with all its shifts written, got none")
        stored = {name: cells.isel(image=keep) for name, cells in stored.items()}
    labelled = "label" in data.variables and not _without_targets(sweep)
    labels = np.asarray(data["label"].values if labelled else np.zeros(0), np.int64)
    index = np.asarray(data["index"].values, np.int64) if "index" in data.variables else np.arange(n)
    return SweepArrays(
        variables=stored,
        labels=labels[keep] if len(labels) else labels,
        dys=np.asarray(data["dy"].values, np.int64),
        dxs=np.asarray(data["dx"].values, np.int64),
        class_names=header.class_names or tuple(map(str, range(int(labels.max(initial=-1)) + 1))),
        task=header.task,
        fill=header.fill.name,
        fill_is_constant=header.fill.is_constant,
        picture_size=header.image_size,
        strides=header.strides,
        index=index[keep],
        controls=_controls(sweep),
        n_missing=n - len(keep),
        title=(header.model, header.data),
    )


def _stored_names(sweep: Any) -> tuple[tuple[str, ...], str, bool]:
    """What the metrics are made from, which of it tells whether an image is there, and whether that is optional."""
    task = sweep.header.task
    metrics = task.metrics(labelled=task.needs_labels or "label" in sweep.dataset.variables)
    names = tuple(dict.fromkeys(name for each in metrics for name in each.needs or (each.name,)))
    optional = {each.name for each in task.variables if each.optional}
    sure = next((name for name in names if name not in optional), names[0])
    return names, sure, sure in optional


def _without_targets(sweep: Any) -> bool:
    """Whether no image has the metric that a task with masks or boxes puts first."""
    first = sweep.header.task.metrics(labelled=True)[0]
    known = first.optional and f"mean_{first.name}" in sweep.dataset.variables
    return bool(known and np.isnan(sweep.mean_of(first)).all())


def _controls(sweep: Any) -> dict[str, SweepArrays]:
    """Return the controls of which at least one image is whole."""
    _, sure, optional = _stored_names(sweep)
    opened = {name: sweep.control(name, partial=True) for name in sweep.controls}
    return {
        name: from_sweep(control)
        for name, control in opened.items()
        if control.complete or len(_whole_images(control.dataset[sure].variable, optional=optional))
    }
