"""One Zarr v3 group of a sweep, the sweep itself or a control: which chunks are finished, and their numbers.

Arrays are chunked along `image` only. A chunk of images is written once, whole: the task's variables from the last to
the first, then the checksums, so a chunk counts as finished exactly when all can be read, hold no "not written" and
agree. An accumulator has one row a chunk, which the checksum of each of its images covers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from shiftlens.errors import StoreError
from shiftlens.naming import one_line
from shiftlens.storage.checksums import checksums, state_seal_of
from shiftlens.storage.entries import refuse_swollen
from shiftlens.storage.locking import Unsynced, disk_errors
from shiftlens.storage.written_folder import WrittenFolder
from shiftlens.sweeps.layout import ADAPTIVE, mean_arrays, measured_arrays, open_checked, state_of
from shiftlens.tasks.task import OBJECT, Variable, beyond

ChunkState = Literal["whole", "absent", "torn", "wrong"]
"""All there and right; nothing there; partly there or unreadable; readable, but not what was written."""


class SweepGroup:
    """One group; its files are written within `folder.writing`.

    `labels`, `index` are those of the images that it takes, `everyone` those of all that it could take.

    Raises
    ------
    StoreError
        The group is damaged: an array or attribute is missing, not as the attributes say, or was altered.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        opened = open_checked(path, "r+" if writable else "r")
        self.header, self._seal = opened.header, opened.seal
        self._group, self._arrays, self.own_axes = opened.group, opened.arrays, opened.own_axes
        self.everyone = opened.known["label"], opened.known["index"]
        self.n_objects = opened.known.get("n_objects")
        self.n_population = len(self.everyone[0])
        self.chunk_size = int(self._arrays["checksum"].chunks[0])
        self.measured, self.means_of = measured_arrays(self.header.task), mean_arrays(self.header.task)
        self._accumulators = {each.name for each in self.header.task.variables if each.is_accumulator}
        self._of_objects = {each.name for each in self.header.task.variables if each.dims == OBJECT}
        self._fills = {name: self._arrays[name].fill_value for name in self.measured}
        self.stop_at(self._n_images_used() if self.complete else self.n_population)
        self._unsynced = Unsynced()
        # A control lies in another group's folder.
        self.folder = WrittenFolder(path, path.parent if self.header.control else path)

    @property
    def metric(self) -> Variable:
        """The metric that an adaptive sweep is measured by; by default that of the task."""
        wanted = self.header.schedule.metric if self.header.schedule else None
        found = [each for each in self.means_of.values() if wanted in (None, each.name)]
        if not found:
            raise StoreError(f"{self.path} is damaged: its task has no metric {wanted!r:.80}")
        return found[0]

    # ---- how many images: of an adaptive sweep, where it has stopped

    def stop_at(self, n_images: int) -> None:
        """Take the first `n_images` for all there are: where an adaptive sweep has stopped."""
        self.n_images = n_images
        self.labels, self.index = (values[:n_images] for values in self.everyone)
        self.n_chunks = -(-n_images // self.chunk_size)

    def _n_images_used(self) -> int:
        if self.header.schedule is None:
            return self.n_population
        for name in ("half_width", "half_width_reached"):
            self._points(name)  # refuses what is no number
        used = self._group.attrs.get("n_images_used")
        if type(used) is not int or used not in self.header.schedule.looks:
            raise StoreError(f"{self.path} is damaged: n_images_used must be one of its looks, got {used!r:.80}")
        return used

    @property
    def complete(self) -> bool:
        """Whether every chunk and the means were written."""
        return self._group.attrs.get("complete") is True

    @property
    def half_width(self) -> float | None:
        """The half-width asked for, in points or the metric's unit; None where none was asked for."""
        return self._points("half_width")

    @property
    def half_width_reached(self) -> float | None:
        """The half-width of the whole map where an adaptive sweep has stopped; None before."""
        return self._points("half_width_reached") if self.complete else None

    def _points(self, name: str) -> float | None:
        value = self._group.attrs.get(name) if self.header.schedule is not None else None
        if value is None:
            return None
        most = self.metric.factor * self.metric.difference_bounds[1]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise StoreError(f"{self.path} is damaged: {name} must be a number from 0 to {most:g}, got {value!r:.80}")
        return float(value)

    # ---- chunks

    def span(self, chunk: int) -> slice:
        """The images of a chunk."""
        return slice(chunk * self.chunk_size, min((chunk + 1) * self.chunk_size, self.n_images))

    def state(self, chunk: int) -> ChunkState:
        """What a chunk is; one that cannot be decoded is torn."""
        if not any(self._file(chunk, name).is_file() for name in self.measured):
            return "absent"
        try:
            with disk_errors(self.path, "read"):
                *values, stored = (self._read_chunk(name, chunk) for name in self.measured)
        except (ValueError, RuntimeError, TypeError):
            return "torn"
        if any(self.unwritten(name, v).any() for name, v in zip(self.measured, values, strict=False)):
            return "torn"
        if not stored.all():
            return "torn"
        return "whole" if np.array_equal(stored, self._checksums(chunk, values)) else "wrong"

    def unwritten(self, name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which numbers of one of the arrays `measured`, or of the means, say that nothing was written."""
        fill = self._fills.get(name, np.nan)
        return np.isnan(values) if fill != fill else np.asarray(values == fill)

    def may_lack(self, name: str) -> bool:
        """Whether NaN in one of the means can be what was written."""
        return name in self.means_of and self.means_of[name].optional

    def images_of(self, name: str, rows: slice) -> slice:
        """The images that some rows of an array belong to."""
        if name not in self._accumulators:
            return rows
        start, stop, _ = rows.indices(self._arrays[name].shape[0])
        return slice(start * self.chunk_size, stop * self.chunk_size)

    def _checksums(self, chunk: int, values: list[NDArray[Any]]) -> NDArray[np.uint64]:
        span = self.span(chunk)
        n = span.stop - span.start
        rows = [
            _digest_rows(each, n) if name in self._accumulators else each
            for name, each in zip(self.measured, values, strict=False)
        ]
        return checksums(self._seal, span, *rows)

    def is_finished(self, chunk: int) -> bool:
        """Whether all of a chunk's numbers are there and right."""
        return self.state(chunk) == "whole"

    def finished(self) -> NDArray[np.bool_]:
        """`is_finished` for every chunk."""
        return np.array([self.is_finished(chunk) for chunk in range(self.n_chunks)], dtype=np.bool_)

    def n_images_in(self, chunks: NDArray[np.bool_]) -> int:
        """How many images the marked chunks hold."""
        return sum(self.span(chunk).stop - self.span(chunk).start for chunk in np.flatnonzero(chunks).tolist())

    def metrics(self, marked: Iterable[int]) -> Iterator[list[NDArray[Any]]]:
        """Every metric of `means_of` [image, dy, dx], of each marked chunk, one at a time."""
        task, grid = self.header.task, self.header.grid
        origin = int(np.searchsorted(grid.dys, 0)), int(np.searchsorted(grid.dxs, 0))
        for chunk in marked:
            span = self.span(chunk)
            read = cache(partial(self._read_chunk, chunk=chunk))
            try:
                with disk_errors(self.path, "read"):
                    found = [
                        task.measured(each.name, read, self.labels[span], origin) for each in self.means_of.values()
                    ]
            except (ValueError, RuntimeError) as error:
                raise StoreError(
                    f"{self.path} is damaged: images {span.start} to {span.stop - 1}: {one_line(error)}"
                ) from error
            yield found

    def means(self, marked: Iterable[int]) -> dict[str, NDArray[np.float64]]:
        """The mean (dy, dx) of each metric over the marked chunks: float64, always summed in order.

        A window that has no value is left out; NaN where no window has one.
        """
        shape = self.header.grid.shape
        totals = [np.zeros(shape, dtype=np.int64 if each.is_share else np.float64) for each in self.means_of.values()]
        counts = [np.zeros(shape, dtype=np.int64) for _ in totals]
        for found in self.metrics(marked):
            for k, (values, metric) in enumerate(zip(found, self.means_of.values(), strict=True)):
                if metric.optional:
                    counts[k] += (~np.isnan(values)).sum(axis=0)
                    totals[k] += np.nansum(values, axis=0, dtype=np.float64)
                else:
                    counts[k] += len(values)
                    totals[k] += values.sum(axis=0, dtype=totals[k].dtype)
        out = {}
        for name, total, n in zip(self.means_of, totals, counts, strict=True):
            out[name] = np.full(shape, np.nan)
            np.divide(total, n, out=out[name], where=n > 0)
        return out

    def wrong_means(self) -> tuple[str, ...]:
        """Which of the means are not those of the chunks, to the last bit; all chunks must be finished."""
        wrong = []
        for name, right in self.means(range(self.n_chunks)).items():
            try:
                stored = self.read(name, slice(None))
            except (OSError, ValueError, RuntimeError, TypeError):
                stored = np.empty(0)
            if not np.array_equal(stored, right, equal_nan=self.means_of[name].optional):
                wrong.append(name)
        return tuple(wrong)

    # ---- writing

    def write(self, chunk: int, result: Mapping[str, NDArray[Any]]) -> None:
        """Write one whole chunk: for each variable of the task an array, of an accumulator the sum over the chunk.

        Raises
        ------
        StoreError
            The disk is full or refuses; the other chunks are untouched and the chunk counts as not written.
        """
        span, stored = self.span(chunk), {}
        if set(result) != set(self.measured[:-1]):
            raise ValueError(
                f"a chunk is written whole: expected {', '.join(self.measured[:-1])}, got {', '.join(result)}"
            )
        for name in self.measured[:-1]:
            array, of_chunk = self._arrays[name], name in self._accumulators
            values = result[name][None] if of_chunk else result[name]
            if name in self._of_objects:
                values = self._padded(values, span, array.shape[1])
            shape = (1 if of_chunk else span.stop - span.start, *array.shape[1:])
            if values.shape != shape:
                raise ValueError(f"a chunk is written whole: expected {name} of {shape}, got {values.shape}")
            if array.dtype.kind == "u" and (values.min() < 0 or values.max() >= self._fills[name]):
                raise ValueError(f"{name} must lie between 0 and {self._fills[name] - 1}")
            stored[name] = values.astype(array.dtype)
        stored["checksum"] = self._checksums(chunk, list(stored.values()))
        with self.folder.writing(*(self._file(chunk, name) for name in stored)):
            for name in (*reversed(self.measured[:-1]), "checksum"):
                self._arrays[name][self._rows(name, chunk)] = stored[name]
                self._unsynced.add(self._file(chunk, name))
            self._unsynced.sync_now_and_then()

    def _padded(self, values: NDArray[Any], span: slice, most: int) -> NDArray[Any]:
        """Numbers [image, object, dy, dx] with room for `most` objects, NaN where an image has none."""
        assert self.n_objects is not None
        counts = self.n_objects[span]
        if values.ndim != 4 or values.shape[1] < counts.max():
            raise ValueError(f"expected numbers of up to {counts.max()} objects, got {values.shape}")
        padded = np.full((len(values), most, *values.shape[2:]), np.nan, values.dtype)
        padded[:, : values.shape[1]] = values[:, :most]
        padded[beyond(counts, most)] = np.nan
        return padded

    def finish(self, half_width_reached: float | None = None) -> None:
        """Write the means over all images, then `complete`; the caller knows that every chunk is finished."""
        self.folder.refuse_gone()  # what is not there would read as not written
        means = self.means(range(self.n_chunks))
        files = {name: self.path / name / "c" / "0" / "0" for name in means}
        with self.folder.writing(*files.values()):
            for name, values in means.items():
                self._arrays[name][:] = values
                self._unsynced.add(files[name])
            # What a killed process wrote may not have reached the disk either.
            for chunk in range(self.n_chunks):
                self._unsynced.add(*(self._file(chunk, name) for name in self.measured))
            self._unsynced.sync()
            self._set(complete=True, n_images_used=self.n_images, half_width_reached=half_width_reached)

    def reopen(self) -> None:
        """Take `complete` back, for a sweep that lost a chunk after it was finished."""
        with self.folder.writing():
            self._set(complete=False, n_images_used=None, half_width_reached=None)
        self.stop_at(self.n_population)

    def ask(self, half_width: float) -> None:
        """Write the half-width that is now asked for."""
        with self.folder.writing():
            self._set(half_width=half_width)

    def _set(self, **attributes: bool | int | float | None) -> None:
        """Change attributes in one go; those of an adaptive sweep only where it is one."""
        known: dict[str, Any] = {
            k: v for k, v in attributes.items() if k not in ADAPTIVE or self.header.schedule is not None
        }
        known["state_seal"] = state_seal_of(self._seal, state_of(self._group.attrs.asdict() | known))
        self._group.attrs.update(known)
        self._unsynced.add(self.path / "zarr.json")
        self._unsynced.sync()

    # ---- files

    def array(self, name: str) -> zarr.Array[Any]:
        """One of the arrays as Zarr gives it: what is torn or gone is not told."""
        return self._arrays[name]

    def refuse_swollen(self, name: str, images: slice) -> None:
        """`ValueError` when a chunk of these images says that it unpacks to more than its numbers are."""
        array, size = self._arrays[name], self.chunk_size
        most = math.prod(array.chunks) * array.dtype.itemsize
        start, stop, _ = images.indices(self.n_images) if name in self.measured else (0, size, 1)
        for chunk in range(start // size, -(-stop // size)):
            refuse_swollen(self._file(chunk, name), most)

    def _file(self, chunk: int, name: str) -> Path:
        """The file of a chunk of an array."""
        inner = ("0",) * (self._arrays[name].ndim - 1)
        return self.path.joinpath(name, "c", str(chunk), *inner)

    def read(self, name: str, span: slice) -> NDArray[Any]:
        """Numbers of an array as they are; `ValueError` and others where they cannot be read."""
        self.refuse_swollen(name, span)
        return np.asarray(self._arrays[name][span])

    def read_images(self, span: slice) -> dict[str, NDArray[Any]]:
        """The numbers of some images as they were given to `write`; with accumulators, of one whole chunk."""
        chunk = span.start // self.chunk_size
        of = {name: self._read_chunk(name, chunk)[0] for name in self._accumulators}
        return {name: of[name] if name in of else self.read(name, span) for name in self.measured[:-1]}

    def _rows(self, name: str, chunk: int) -> slice:
        """Where a chunk's numbers lie in an array."""
        return slice(chunk, chunk + 1) if name in self._accumulators else self.span(chunk)

    def _read_chunk(self, name: str, chunk: int) -> NDArray[Any]:
        self.refuse_swollen(name, self.span(chunk))
        return np.asarray(self._arrays[name][self._rows(name, chunk)])


def _digest_rows(values: NDArray[Any], n: int) -> NDArray[np.uint8]:
    """SHA-256 of an accumulator's row, once for each image."""
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return np.broadcast_to(np.frombuffer(hashlib.sha256(plain.data).digest(), np.uint8), (n, 32))
