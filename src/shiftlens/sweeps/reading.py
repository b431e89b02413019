"""A group's numbers, read when they are used: a chunk that is torn or gone is an error that names it, not NaN."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.storage import LocalStore

from shiftlens.errors import StoreError
from shiftlens.storage.groups import damage_of
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.layout import array_names


def open_dataset(group: SweepGroup) -> xr.Dataset:
    """All variables and attributes of a group, each loaded when it is used (no dask).

    Zarr takes a chunk that is not there for one that was never written and gives its fill value; of one that cannot be
    decoded it does not say which it was. Here both are a `StoreError` that names the images, unless the sweep is not
    complete: then what is not written has the largest number that fits as `prediction`, NaN elsewhere.
    """
    # What else lies in the group is not ours, and could be of any size; what its attributes ask xarray to do neither.
    with os.scandir(group.path) as entries:
        ours = array_names(group.header.task)
        others = [entry.name for entry in entries if entry.name not in ours]
    store = LocalStore(group.path, read_only=True)  # xarray would put a home folder for `~` in a path
    with damage_of(group.path):
        data: xr.Dataset = xr.open_zarr(
            store, consolidated=False, chunks=None, zarr_format=3, decode_cf=False, drop_variables=others
        )
    named = {
        name: data[name].copy(data=indexing.LazilyIndexedArray(_Checked(group, name)))
        for name in (*group.measured, *group.means_of)
        if name in data.variables
    }
    return data.assign(named).isel(image=slice(group.n_images), chunk=slice(group.n_chunks), missing_dims="ignore")


class Cells:
    """A stored variable (image, dy, dx) or (image, object, dy, dx) of some images, read from disk a slice at a time.

    Parameters
    ----------
    group
        The sweep or control.
    name
        The array.
    images
        Places of the images in the group, ascending; None for all.
    """

    def __init__(self, group: SweepGroup, name: str, images: NDArray[np.int64] | None = None) -> None:
        self._array, self._images = _Checked(group, name), images
        self.shape = (group.n_images if images is None else len(images), *self._array.shape[1:])
        self.dtype = self._array.dtype

    def __getitem__(self, images: slice) -> NDArray[Any]:
        every = (slice(None),) * (len(self.shape) - 1)
        if self._images is None:
            return self._array.read((slice(*images.indices(self.shape[0])), *every))
        rows = self._images[images]
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        first = int(rows[0])
        values = self._array.read((slice(first, int(rows[-1]) + 1), *every))[rows - first]
        if self._array.unwritten(values):
            raise self._array.damage()  # they were written when the sweep was opened
        return values


class _Checked(BackendArray):
    """One array of a group, as xarray indexes it."""

    def __init__(self, group: SweepGroup, name: str) -> None:
        self._group, self._name, self._stored = group, name, group.array(name)
        self.shape, self.dtype = self._stored.shape, self._stored.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        got: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self.read
        )
        return got

    def read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        """The numbers at these places.

        Raises
        ------
        StoreError
            A chunk is torn or gone, or a prediction is of no class.
        """
        n_classes = self._group.header.n_classes
        try:
            first = key[0] if isinstance(key[0], slice) else slice(key[0], key[0] + 1)
            first = self._group.images_of(self._name, first)
            self._group.refuse_swollen(self._name, first)
            values = np.asarray(self._stored[key])
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise self.damage() from error
        if self._group.complete and self.unwritten(values):
            raise self.damage()
        if self._name == "prediction" and (values[~self._group.unwritten("prediction", values)] >= n_classes).any():
            raise StoreError(f"{self._group.path} is damaged: expected predictions from 0 to {n_classes - 1}")
        return values

    def unwritten(self, values: NDArray[Any]) -> bool:
        """Whether some of these numbers mean "not written"."""
        if self._group.may_lack(self._name):
            return False  # no window may have a value
        return bool(self._group.unwritten(self._name, values).any())

    def damage(self) -> StoreError:
        """The error that names the chunks that are torn or gone."""
        group, path = self._group, self._group.path
        if self._name in self._group.means_of:
            what = f"{self._name} cannot be read"
        else:
            # Not only where it was read: who mends one chunk will want to know of all.
            states = {chunk: group.state(chunk) for chunk in range(group.n_chunks)}
            told = ("torn", "wrong", "absent") if group.complete else ("torn",)
            bad = {chunk: state for chunk, state in states.items() if state in told}
            parts = [
                f"chunk {k} (images {group.span(k).start} to {group.span(k).stop - 1}) of {self._name} is {state}"
                for k, state in list(bad.items())[:5]
            ]
            what = "; ".join(parts) + (f"; and {len(bad) - 5} more" if len(bad) > 5 else "")
            what = what or f"{self._name} could not be read just now"
        return StoreError(f"{path} is damaged: {what}; run the same sweep again to mend it")
