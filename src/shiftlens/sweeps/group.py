"""One Zarr v3 group of a sweep, the sweep itself or a control: which chunks are finished, and their numbers.

Arrays are chunked along `image` only. A chunk of images is written once, whole: confidence and loss first, prediction
and checksums last, so a chunk counts as finished exactly when all can be read, hold no "not written" and agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from shiftlens.engine.plan import ChunkResult
from shiftlens.errors import StoreError
from shiftlens.naming import one_line
from shiftlens.storage.checksums import checksums, state_seal_of
from shiftlens.storage.entries import refuse_swollen
from shiftlens.storage.locking import Unsynced, disk_errors
from shiftlens.storage.written_folder import WrittenFolder
from shiftlens.sweeps.layout import ADAPTIVE, CHUNKED, open_checked, state_of

ChunkState = Literal["whole", "absent", "torn", "wrong"]
"""All there and right; nothing there; partly there or unreadable; readable, but not what was written."""

MEANS = ("accuracy", "mean_loss")


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
        self._group, self._arrays = opened.group, opened.arrays
        self.everyone = opened.known["label"], opened.known["index"]
        self.n_population = len(self.everyone[0])
        self.chunk_size = int(self._arrays["loss"].chunks[0])
        self.not_written = int(np.iinfo(self._arrays["prediction"].dtype).max)
        self.stop_at(self._n_images_used() if self.complete else self.n_population)
        self._unsynced = Unsynced()
        # A control lies in another group's folder.
        self.folder = WrittenFolder(path, path.parent if self.header.control else path)

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
        """The half-width asked for, in points; None for a sweep of all images, or where none was asked for yet."""
        return self._points("half_width")

    @property
    def half_width_reached(self) -> float | None:
        """The half-width of all accuracies together where an adaptive sweep has stopped, in points; None before."""
        return self._points("half_width_reached") if self.complete else None

    def _points(self, name: str) -> float | None:
        value = self._group.attrs.get(name) if self.header.schedule is not None else None
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise StoreError(f"{self.path} is damaged: {name} must be a number from 0 to 100, got {value!r:.80}")
        return float(value)

    # ---- chunks

    def span(self, chunk: int) -> slice:
        """The images of a chunk."""
        return slice(chunk * self.chunk_size, min((chunk + 1) * self.chunk_size, self.n_images))

    def state(self, chunk: int) -> ChunkState:
        """What a chunk is; one that cannot be decoded is torn."""
        if not any(self._file(chunk, name).is_file() for name in CHUNKED):
            return "absent"
        span = self.span(chunk)
        try:
            with disk_errors(self.path, "read"):
                prediction, loss, confidence, stored = (self._read(name, span) for name in CHUNKED)
        except (ValueError, RuntimeError, TypeError):
            return "torn"
        if (prediction == self.not_written).any() or np.isnan(loss).any() or np.isnan(confidence).any():
            return "torn"
        if not stored.all():
            return "torn"
        right = checksums(self._seal, span, prediction, loss, confidence)
        return "whole" if np.array_equal(stored, right) else "wrong"

    def is_finished(self, chunk: int) -> bool:
        """Whether all of a chunk's numbers are there and right."""
        return self.state(chunk) == "whole"

    def finished(self) -> NDArray[np.bool_]:
        """`is_finished` for every chunk."""
        return np.array([self.is_finished(chunk) for chunk in range(self.n_chunks)], dtype=np.bool_)

    def n_images_in(self, chunks: NDArray[np.bool_]) -> int:
        """How many images the marked chunks hold."""
        return sum(self.span(chunk).stop - self.span(chunk).start for chunk in np.flatnonzero(chunks).tolist())

    def chunks(self, marked: Iterable[int]) -> Iterator[tuple[NDArray[Any], NDArray[np.float32], NDArray[np.int64]]]:
        """Prediction, loss [image, dy, dx] and label [image] of each marked chunk, one at a time."""
        for chunk in marked:
            span = self.span(chunk)
            try:
                with disk_errors(self.path, "read"):
                    prediction, loss = self._read("prediction", span), self._read("loss", span)
            except (ValueError, RuntimeError) as error:
                raise StoreError(
                    f"{self.path} is damaged: images {span.start} to {span.stop - 1}: {one_line(error)}"
                ) from error
            yield prediction, loss, self.labels[span]

    def means(self, marked: Iterable[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracy (0 to 1) and mean loss (nats) [dy, dx] over the marked chunks: float64, always summed in order."""
        n_correct = np.zeros(self.header.grid.shape, dtype=np.int64)
        total_loss = np.zeros(self.header.grid.shape, dtype=np.float64)
        n = 0
        for prediction, loss, label in self.chunks(marked):
            n_correct += (prediction == label[:, None, None]).sum(axis=0)
            total_loss += loss.sum(axis=0, dtype=np.float64)
            n += len(label)
        if n == 0:
            return np.full(n_correct.shape, np.nan), np.full(n_correct.shape, np.nan)
        return n_correct / n, total_loss / n

    def wrong_means(self) -> tuple[str, ...]:
        """Which of `accuracy` and `mean_loss` are not those of the chunks, to the last bit; all must be finished."""
        wrong = []
        for name, right in zip(MEANS, self.means(range(self.n_chunks)), strict=True):
            try:
                stored = self._read(name, slice(None))
            except (OSError, ValueError, RuntimeError, TypeError):
                stored = np.empty(0)
            if not np.array_equal(stored, right):
                wrong.append(name)
        return tuple(wrong)

    # ---- writing

    def write(self, chunk: int, result: ChunkResult) -> None:
        """Write one whole chunk.

        Raises
        ------
        StoreError
            The disk is full or refuses; the other chunks are untouched and the chunk counts as not written.
        """
        span = self.span(chunk)
        shape = (span.stop - span.start, *self.header.grid.shape)
        if any(a.shape != shape for a in (result.prediction, result.loss, result.confidence)):
            raise ValueError(f"a chunk is written whole: expected {shape}, got {result.prediction.shape}")
        if result.prediction.min() < 0 or result.prediction.max() >= self.not_written:
            raise ValueError(f"predictions must lie between 0 and {self.not_written - 1}")
        stored = {name: getattr(result, name).astype(self._arrays[name].dtype) for name in CHUNKED[:3]}
        stored["checksum"] = checksums(self._seal, span, *stored.values())
        with self.folder.writing(*(self._file(chunk, name) for name in stored)):
            for name in ("confidence", "loss", "prediction", "checksum"):
                self._arrays[name][span] = stored[name]
                self._unsynced.add(self._file(chunk, name))
            self._unsynced.sync_now_and_then()

    def finish(self, half_width_reached: float | None = None) -> None:
        """Write the means over all images, then `complete`; the caller knows that every chunk is finished."""
        self.folder.refuse_gone()  # what is not there would read as not written
        means = dict(zip(MEANS, self.means(range(self.n_chunks)), strict=True))
        files = {name: self.path / name / "c" / "0" / "0" for name in means}
        with self.folder.writing(*files.values()):
            for name, values in means.items():
                self._arrays[name][:] = values
                self._unsynced.add(files[name])
            # What a killed process wrote may not have reached the disk either.
            for chunk in range(self.n_chunks):
                self._unsynced.add(*(self._file(chunk, name) for name in CHUNKED))
            self._unsynced.sync()
            self._set(complete=True, n_images_used=self.n_images, half_width_reached=half_width_reached)

    def reopen(self) -> None:
        """Take `complete` back, for a sweep that lost a chunk after it was finished."""
        with self.folder.writing():
            self._set(complete=False, n_images_used=None, half_width_reached=None)
        self.stop_at(self.n_population)

    def ask(self, half_width: float) -> None:
        """Write the half-width that is now asked for, in points."""
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
        start, stop, _ = images.indices(self.n_images) if name in CHUNKED else (0, size, 1)
        for chunk in range(start // size, -(-stop // size)):
            refuse_swollen(self._file(chunk, name), most)

    def _file(self, chunk: int, name: str) -> Path:
        """The file of a chunk of an array."""
        inner = ("0",) * (self._arrays[name].ndim - 1)
        return self.path.joinpath(name, "c", str(chunk), *inner)

    def _read(self, name: str, span: slice) -> NDArray[Any]:
        self.refuse_swollen(name, span)
        return np.asarray(self._arrays[name][span])
