"""A sweep to read: its numbers as an `xarray.Dataset` that loads what is asked for, and what they are of."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from shiftlens.errors import InputError, StoreError
from shiftlens.naming import count_of, unknown_name
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.header import SweepHeader, sweep_exists
from shiftlens.sweeps.reading import Cells, open_dataset
from shiftlens.sweeps.sweep_store import SweepStore
from shiftlens.tasks.task import OBJECT, Variable, beyond

DATASET_NUMBERS = 2**25
"""Stored numbers in memory at once while a metric of the data set is computed."""


class Sweep:
    """What a model predicted for every image under every shift; made by `sweep` and `open_sweep`.

    `path` is the Zarr group's place on disk; nothing of its large arrays is in memory until it is asked for.

    Examples
    --------
    >>> sweep = sl.open_sweep("vgg.zarr")
    >>> sweep
    <Sweep of runs/vgg on digits: 20 images x 9 x 9 shifts>
    >>> sweep.accuracy.dims, sweep.dataset["prediction"].dims
    (('dy', 'dx'), ('image', 'dy', 'dx'))
    >>> sweep.dataset["loss"].sel(dx=2, dy=0).shape  # of each image, shifted by 2 px to the right
    (20,)
    """

    def __init__(self, store: SweepStore, control: str | None = None) -> None:
        self._store = store
        self._group: SweepGroup = store.group(control)
        self.path: Path = store.path

    def __repr__(self) -> str:
        header, (ny, nx) = self.header, self.grid.shape
        kind = f" control={header.control}" if header.control else ""
        state = "" if self.complete else f", {self.n_written} of {self.n_images} images so far"
        size = f"{count_of(self.n_images, 'image')} x {ny} x {nx} shifts"
        return f"<Sweep{kind} of {header.model} on {header.data}: {size}{state}>"

    @property
    def header(self) -> SweepHeader:
        """The attributes, read and typed."""
        return self._group.header

    @property
    def grid(self) -> ShiftGrid:
        """The shifts that were measured."""
        return self.header.grid

    @property
    def fill(self) -> Fill:
        """What entered from outside."""
        return self.header.fill

    @property
    def n_images(self) -> int:
        """Number of images, measured or still to be; where an adaptive sweep has stopped, those that it took."""
        return self._group.n_images

    @property
    def n_population(self) -> int:
        """Number of images that could be measured: more than `n_images` where an adaptive sweep has stopped."""
        return self._group.n_population

    @property
    def half_width(self) -> float | None:
        """Where an adaptive sweep has stopped: how far its metric may be from that of all `n_population` images.

        In points of a share, in the metric's unit otherwise; for all shifts at once, with the confidence of
        `header.schedule`. 0 when all images were measured; None for a sweep that is not adaptive or not complete.
        """
        return self._store.main.half_width_reached

    @property
    def half_width_asked(self) -> float | None:
        """The half-width that was asked for; None for a sweep that is not adaptive."""
        return self._store.main.half_width

    @cached_property
    def complete(self) -> bool:
        """Whether every image was measured when this was opened, or of an adaptive sweep all that it takes."""
        return self._group.complete

    @cached_property
    def _finished(self) -> NDArray[np.bool_]:
        if self.complete:
            return np.ones(self._group.n_chunks, dtype=np.bool_)
        return self._group.finished()

    @property
    def n_written(self) -> int:
        """Number of images that were measured under all shifts when this was first asked."""
        return self._group.n_images_in(self._finished)

    @property
    def written(self) -> NDArray[np.bool_]:
        """For each image, whether it was measured (all True when `complete`)."""
        return np.repeat(self._finished, self._group.chunk_size)[: self.n_images]

    @cached_property
    def dataset(self) -> xr.Dataset:
        """All variables and attributes, each loaded when it is used (no dask).

        In an incomplete sweep, images that are not written have the largest number that fits as `prediction` and NaN
        as `loss` and `confidence`, and `accuracy` and `mean_loss` are NaN everywhere; of a task where NaN means that a
        window has no such number, minus infinity. Where numbers are torn or gone, reading them raises a `StoreError`
        that names the chunk.
        """
        return open_dataset(self._group)

    def cells(self, name: str) -> Cells:
        """A variable (image, dy, dx) such as `loss`, of the images that are `written`, for `[start:stop]`.

        Each slice is read when it is asked for, with the checks of `dataset`.
        """
        return Cells(self._group, name, None if self.complete else np.flatnonzero(self.written))

    def objects(self, name: str, images: slice = slice(None)) -> xr.DataArray:
        """A variable of objects (object, dy, dx): those of all images one after the other.

        Parameters
        ----------
        name
            The variable; `dataset` has it as (image, object, dy, dx), NaN where an image has no more objects.
        images
            Which of the images that are `written`.

        Returns
        -------
        DataArray
            Its coordinate `image` is the place of each object's image among those.

        Raises
        ------
        InputError
            The task has no such variable.
        """
        known = tuple(each.name for each in self.header.task.variables if each.dims == OBJECT)
        if name not in known:
            raise unknown_name("variable of objects", name, known)
        cells = self.cells(name)
        counts = self.dataset["n_objects"].values[self.written][images]
        there = ~beyond(counts, cells.shape[1])
        place = np.repeat(np.arange(cells.shape[0])[images], counts)
        return xr.DataArray(cells[images][there], {"image": ("object", place)}, OBJECT, name)

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes as they are in the file (`header` has them typed)."""
        return dict(self.dataset.attrs)

    @cached_property
    def accuracy(self) -> xr.DataArray:
        """Share of images predicted right, 0 to 1, float64 (dy, dx); over the images written so far if incomplete."""
        return self.mean_of("accuracy")

    @cached_property
    def mean_loss(self) -> xr.DataArray:
        """Mean cross-entropy in nats, float64 (dy, dx); over the images written so far if incomplete."""
        return self.mean_of("loss")

    @property
    def metrics(self) -> tuple[Variable, ...]:
        """What maps, areas and tests can be made of, the default first."""
        return tuple(self._group.means_of.values())

    def mean_of(self, metric: Variable | str) -> xr.DataArray:
        """Mean of one of the `metrics`, float64 (dy, dx); over the images written so far if incomplete.

        Raises
        ------
        InputError
            The task has no such metric.

        Examples
        --------
        >>> sweep = open_sweep("vgg.zarr")
        >>> sweep.mean_of("loss").sel(dy=0, dx=[0, 1, 2]).shape
        (3,)
        """
        wanted = metric if isinstance(metric, str) else metric.name
        names = {each.name: name for name, each in self._group.means_of.items()}
        if wanted not in names:
            raise unknown_name("metric", wanted, tuple(names))
        name = names[wanted]
        stored = self.dataset[name]
        if self.complete:
            return stored.load()
        return stored.copy(data=self._group.means(np.flatnonzero(self._finished).tolist())[name])

    @property
    def dataset_metrics(self) -> tuple[Variable, ...]:
        """Metrics of all images under one shift together, for `of_dataset`: AP, PSNR, mean IoU of the data set."""
        stored = {each.name for each in self.header.task.variables}
        return tuple(each for each in self.header.task.dataset_metrics if stored.issuperset(each.needs))

    def of_dataset(self, metric: Variable | str, *, every: int = 1) -> xr.DataArray:
        """One of the `dataset_metrics` (dy, dx), float64, of the images written so far; NaN where undefined.

        Unlike `mean_of`, it is no mean over windows: it is made of the detections, pixels or errors of all images. With
        `every=n`, only that of every n-th shift along both axes, counted from (0, 0).

        Raises
        ------
        InputError
            The task has no such metric.

        Examples
        --------
        >>> sweep = open_sweep("depth.zarr")
        >>> float(sweep.of_dataset("psnr").sel(dy=0, dx=1)) > 0  # dB
        True
        """
        known = {each.name: each for each in self.dataset_metrics}
        name = metric if isinstance(metric, str) else metric.name
        if name not in known:
            raise unknown_name("metric of the data set", name, tuple(known))
        stored = {each: self.cells(each) for each in known[name].needs}
        chosen = [np.flatnonzero(axis // self.grid.step % every == 0) for axis in (self.grid.dys, self.grid.dxs)]
        ny, nx = map(len, chosen)
        out = np.full((ny, nx), np.nan)
        # Some rows of the grid at a time: what is stored of all images would not fit the memory.
        numbers = sum(int(np.prod(cells.shape)) for cells in stored.values())
        step = max(1, DATASET_NUMBERS * ny // max(1, numbers))
        for first in range(0, ny, step):
            lines = chosen[0][first : first + step]
            rows = {each: _some_cells(cells, lines, chosen[1]) for each, cells in stored.items()}
            for iy, ix in np.ndindex(len(lines), nx):
                measured = self.header.task.of_dataset({each: values[..., iy, ix] for each, values in rows.items()})
                out[first + iy, ix] = measured(np.ones(self.n_written))[name]
        coordinates = {"dy": self.grid.dys[chosen[0]], "dx": self.grid.dxs[chosen[1]]}
        return xr.DataArray(out, coordinates, ("dy", "dx"), name, {"long_name": known[name].long_name})

    @property
    def kept(self) -> Sweep | None:
        """The outputs that were kept of the first images (`keep_outputs`), as a sweep of those; None where none were.

        Of a segmentation, `dataset["class_map"]` (image, place, dy, dx) holds the class of each cell of a map of
        `header.task.settings` "rows" and "columns", row after row. Of a detection, `kept_left`, `kept_top`,
        `kept_right`, `kept_bottom` (image, rank, dy, dx) in tenths of a pixel, `kept_score` in thousandths, and
        `kept_class`, 65534 where a window has no more boxes.

        Raises
        ------
        StoreError
            They are damaged, or not complete: the same sweep finishes them.
        """
        group = self._store.kept if self.header.control is None else None
        return None if group is None else open_sweep(group.path)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls that were asked for; empty for a control itself."""
        return () if self.header.control else self._store.controls

    def control(self, name: str, *, partial: bool = False) -> Sweep:
        """A control, measured at the same shifts on the same images.

        Parameters
        ----------
        name
            One of `controls`.
        partial
            Also open one that is not complete.

        Raises
        ------
        InputError
            This sweep has no such control.
        StoreError
            It is not complete, and `partial` is False.
        """
        if name not in self.controls:
            there = ", ".join(self.controls) or "none"
            raise InputError(f"{self.path} has no control {name!r}; expected one of: {there}")
        return _checked(Sweep(self._store, name), partial)


def _some_cells(cells: Cells, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[Any]:
    """A variable of all images under the shifts of some rows and columns; a few images are read at a time."""
    step = max(1, DATASET_NUMBERS // max(1, int(np.prod(cells.shape[1:]))))
    parts = [cells[k : k + step][..., rows, :][..., columns] for k in range(0, cells.shape[0], step)]
    return np.concatenate(parts)


def open_sweep(path: str | Path, *, partial: bool = False) -> Sweep:
    """Open a sweep that lies on disk.

    Parameters
    ----------
    path
        The Zarr group that `sweep` wrote (or the subgroup of a control).
    partial
        Also open one that is not complete; see `Sweep.dataset` for what its unwritten images hold.

    Raises
    ------
    StoreError
        Nothing is there, or no sweep, or a damaged or newer one, or one that is not complete while `partial` is False.

    Examples
    --------
    >>> sweep = open_sweep("vgg.zarr")
    >>> sweep.n_images, sweep.grid.max_x, sweep.fill.name
    (20, 4, 'black')
    """
    where = Path(path)
    if not sweep_exists(where):
        raise StoreError(f"no sweep at {where}: nothing is there")
    return _checked(Sweep(SweepStore(where)), partial)


def _checked(sweep: Sweep, partial: bool) -> Sweep:
    if not partial and not sweep.complete:
        what = f"control {sweep.header.control} of {sweep.path}" if sweep.header.control else str(sweep.path)
        raise StoreError(
            f"{what} is not complete: {sweep.n_written} of {sweep.n_images} images are there; run the same sweep "
            "again to finish it, or use the images that are there (--partial, partial=True)"
        )
    return sweep
