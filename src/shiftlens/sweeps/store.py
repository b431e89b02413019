"""A sweep on disk: one Zarr v3 group that `xarray.open_zarr(path, consolidated=False)` opens.

Arrays are chunked along `image` only. A chunk of images is written once, whole: confidence and loss first, prediction
last, so a chunk counts as finished exactly when all three can be read and hold no "not written". A control is a
subgroup `control_NAME` of the same layout. A group is built beside its place and renamed into it, so a half-made one
is never seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from shiftlens.errors import StoreError
from shiftlens.naming import one_line, printable
from shiftlens.sweeps.attributes import KIND, SCHEMA_VERSION, SweepHeader
from shiftlens.sweeps.locking import built_beside, disk_errors
from shiftlens.sweeps.plan import CONTROLS, ChunkResult

DIMENSIONS = ("image", "dy", "dx")
CONTROL_PREFIX = "control_"

_LAYOUT: dict[str, tuple[tuple[str, ...], str | None]] = {
    "prediction": (DIMENSIONS, None),  # as small as the number of classes allows
    "loss": (DIMENSIONS, "float32"),
    "confidence": (DIMENSIONS, "float16"),
    "accuracy": (DIMENSIONS[1:], "float64"),
    "mean_loss": (DIMENSIONS[1:], "float64"),
    "label": (("image",), "int64"),
    "index": (("image",), "int64"),
    "dy": (("dy",), "int64"),
    "dx": (("dx",), "int64"),
}
"""Every array: its dimensions and its dtype."""

# Far above what is ever written: a stranger's metadata must not decide how much memory is taken.
_MOST_IMAGES = 100_000_000
_MOST_NUMBERS = 2**28  # in a chunk of several images

_KEPT = "what is finished stays there, and the same call goes on from it"


def sweep_exists(path: Path) -> bool:
    """Whether a sweep of ours lies at `path`; False when nothing does (an empty directory is nothing).

    Raises
    ------
    StoreError
        Something else is there, or a sweep of a newer version. Nothing is touched.
    """
    metadata = path / "zarr.json"
    with disk_errors(path, "read"):
        if not path.exists() and not path.is_symlink():
            return False
        if not path.is_dir():
            raise StoreError(f"{path} must be a sweep or not exist, but it is a file; it is left as it is")
        if not metadata.is_file():
            entries = sorted(entry.name for entry in path.iterdir())
            if not entries:
                return False
            raise StoreError(
                f"{path} must be a sweep or not exist, but it is a directory with {len(entries)} entries "
                f"({printable(', '.join(entries[:3]))}{', ...' if len(entries) > 3 else ''}); it is left as it is"
            )
        text = metadata.read_bytes()
    try:
        document = json.loads(text)
        attributes = document["attributes"] if document.get("node_type") == "group" else {}
        kind, schema = attributes.get("kind"), attributes.get("schema_version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise StoreError(f"{metadata} is not the metadata of a Zarr group; {path} is left as it is") from None
    if kind != KIND:
        found = f"a result of kind {kind[:60]!r}" if isinstance(kind, str) else "a Zarr node of something else"
        raise StoreError(f"{path} must be a sweep or not exist, but it holds {found}; it is left as it is")
    if type(schema) is not int or schema < 1 or schema > SCHEMA_VERSION:
        raise StoreError(
            f"{path} is a sweep of schema version {schema!r}, this shiftlens reads up to {SCHEMA_VERSION}: "
            "a newer shiftlens wrote it"
        )
    return True


def prediction_dtype(n_classes: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest unsigned integer that holds `n_classes` + 1 values; its top value means "not written"."""
    return np.dtype(np.min_scalar_type(n_classes))


class SweepGroup:
    """One Zarr group of a sweep, the sweep itself or a control: which chunks are finished, and their numbers.

    Raises
    ------
    StoreError
        The group is damaged: an array or attribute is missing or not as the attributes say.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._mode: Literal["r", "r+"] = "r+" if writable else "r"
        try:
            self._group = zarr.open_group(str(path), mode=self._mode, zarr_format=3, use_consolidated=False)
            self.header = SweepHeader.from_attributes(self._group.attrs.asdict(), str(path))
            arrays = {name: self._open(name) for name in _LAYOUT}
            self._refuse_other_layout(arrays)
            self.labels: NDArray[np.int64] = np.asarray(arrays["label"][:])
            self.index: NDArray[np.int64] = np.asarray(arrays["index"][:])
        except StoreError:
            raise
        except Exception as error:  # these files may be damaged in any way, and Zarr raises what it happens to meet
            raise StoreError(
                f"{path} is damaged and cannot be opened: {type(error).__name__}: {one_line(error)}"
            ) from error
        self._arrays = {name: arrays[name] for name in ("prediction", "loss", "confidence")}
        self.n_images = len(self.labels)
        self.chunk_size = int(self._arrays["loss"].chunks[0])
        self.n_chunks = -(-self.n_images // self.chunk_size)
        self.not_written = int(np.iinfo(self._arrays["prediction"].dtype).max)

    def _refuse_other_layout(self, arrays: dict[str, zarr.Array[Any]]) -> None:
        """Compare what the arrays say of themselves with the header, before any memory is taken for their numbers."""
        n_images = arrays["label"].shape[0] if arrays["label"].ndim else 0
        if not 1 <= n_images <= _MOST_IMAGES:
            raise StoreError(f"{self.path} is damaged: expected 1 to {_MOST_IMAGES} labels, got {n_images}")
        ny, nx = self.header.grid.shape
        chunk = arrays["loss"].chunks[0] if arrays["loss"].ndim else 0
        if chunk < 1:
            raise StoreError(f"{self.path} is damaged: expected chunks of at least 1 image, got {chunk}")
        sizes = {"image": n_images, "dy": ny, "dx": nx}
        for name, (dimensions, stored) in _LAYOUT.items():
            array, shape = arrays[name], tuple(sizes[d] for d in dimensions)
            chunks = (chunk, *shape[1:]) if dimensions == DIMENSIONS else shape
            if array.shape != shape or array.chunks != chunks:
                raise StoreError(
                    f"{self.path} is damaged: expected {name} of shape {shape} in chunks {chunks}, "
                    f"got {array.shape} in chunks {array.chunks}"
                )
            dtype = prediction_dtype(self.header.n_classes) if stored is None else np.dtype(stored)
            if array.dtype != dtype:
                raise StoreError(f"{self.path} is damaged: expected {name} of {dtype}, got {array.dtype}")
        if chunk > 1 and chunk * ny * nx > _MOST_NUMBERS:
            raise StoreError(f"{self.path} is damaged: chunks of {chunk} images x {ny} x {nx} shifts are too large")

    def _open(self, name: str) -> zarr.Array[Any]:
        # Zarr leaves out chunks that equal the fill value unless told otherwise, and does not remember being told.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_array(str(self.path), path=name, mode=self._mode, zarr_format=3)

    @property
    def complete(self) -> bool:
        """Whether every chunk and the means were written."""
        return self._group.attrs.get("complete") is True

    def span(self, chunk: int) -> slice:
        """The images of a chunk."""
        return slice(chunk * self.chunk_size, min((chunk + 1) * self.chunk_size, self.n_images))

    def is_finished(self, chunk: int) -> bool:
        """Whether all of a chunk's numbers are there; one that is torn or cannot be decoded counts as not there."""
        span = self.span(chunk)
        try:
            with disk_errors(self.path, "read"):
                return not (
                    (self._read("prediction", span) == self.not_written).any()
                    or np.isnan(self._read("loss", span)).any()
                    or np.isnan(self._read("confidence", span)).any()
                )
        except (ValueError, RuntimeError, TypeError):
            return False

    def finished(self) -> NDArray[np.bool_]:
        """`is_finished` for every chunk."""
        return np.array([self.is_finished(chunk) for chunk in range(self.n_chunks)], dtype=np.bool_)

    def n_images_in(self, chunks: NDArray[np.bool_]) -> int:
        """How many images the marked chunks hold."""
        return sum(self.span(chunk).stop - self.span(chunk).start for chunk in np.flatnonzero(chunks).tolist())

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
        with disk_errors(self.path, "write to", _KEPT):
            for name, values in (
                ("confidence", result.confidence),
                ("loss", result.loss),
                ("prediction", result.prediction),
            ):
                array = self._arrays[name]
                array[span] = values.astype(array.dtype)

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

    def finish(self) -> None:
        """Write the means over all images, then `complete`; the caller knows that every chunk is finished."""
        accuracy, mean_loss = self.means(range(self.n_chunks))
        with disk_errors(self.path, "write to", _KEPT):
            self._open("accuracy")[:] = accuracy
            self._open("mean_loss")[:] = mean_loss
            self._group.attrs["complete"] = True

    def reopen(self) -> None:
        """Take `complete` back, for a sweep that lost a chunk after it was finished."""
        with disk_errors(self.path, "write to", _KEPT):
            self._group.attrs["complete"] = False

    def _read(self, name: str, span: slice) -> NDArray[Any]:
        return np.asarray(self._arrays[name][span])


class SweepStore:
    """A sweep's main group and its controls."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._writable = writable
        self.main = SweepGroup(path, writable=writable)
        self._controls: dict[str, SweepGroup] = {}

    @staticmethod
    def create(
        path: Path,
        header: SweepHeader,
        labels: NDArray[np.int64],
        index: NDArray[np.int64],
        *,
        chunk_size: int,
        controls: tuple[str, ...] = (),
    ) -> SweepStore:
        """Make an empty sweep at `path`, where nothing is (see `sweep_exists`); the caller holds the lock.

        Parameters
        ----------
        path
            Where the group will be.
        header
            What the sweep is of.
        labels, index
            One for each image: its class and its position in the source.
        chunk_size
            Images in a chunk, at least 1.
        controls
            Names of the controls to make room for.

        Raises
        ------
        StoreError
            The disk is full or refuses; nothing is left behind.
        """
        with disk_errors(path, "create"), built_beside(path.resolve(), path) as building:
            _create_group(building, header, labels, index, chunk_size)
            for control in controls:
                place = building / f"{CONTROL_PREFIX}{control}"
                _create_group(place, header.for_control(control), labels, index, chunk_size)
        return SweepStore(path, writable=True)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls that have a subgroup."""
        with disk_errors(self.path, "read"):
            return tuple(c for c in CONTROLS if (self.path / f"{CONTROL_PREFIX}{c}" / "zarr.json").is_file())

    def group(self, control: str | None) -> SweepGroup:
        """The main group (None) or a control's; the control must be there."""
        if control is None:
            return self.main
        if control not in self._controls:
            place = self.path / f"{CONTROL_PREFIX}{control}"
            self._controls[control] = SweepGroup(place, writable=self._writable)
        return self._controls[control]

    def add_control(self, control: str) -> None:
        """Make an empty subgroup for a control that is not there yet."""
        target = self.path.resolve() / f"{CONTROL_PREFIX}{control}"
        main = self.main
        with disk_errors(self.path, "write to", _KEPT), built_beside(target, self.path) as building:
            _create_group(building, main.header.for_control(control), main.labels, main.index, main.chunk_size)


def _create_group(
    place: Path, header: SweepHeader, labels: NDArray[np.int64], index: NDArray[np.int64], chunk_size: int
) -> None:
    group = zarr.create_group(str(place), zarr_format=3, attributes=header.to_attributes(complete=False))
    n, (ny, nx) = len(labels), header.grid.shape
    predicted = prediction_dtype(header.n_classes)

    def create(name: str, fill: Any, about: dict[str, Any]) -> zarr.Array[Any]:
        dimensions, dtype = _LAYOUT[name]
        sizes = {"image": n, "dy": ny, "dx": nx}
        # Only the three large arrays are cut; what is one number an image or a shift is read in one go.
        chunks = {"image": chunk_size if dimensions == DIMENSIONS else n, "dy": ny, "dx": nx}
        return group.create_array(
            name,
            shape=tuple(sizes[d] for d in dimensions),
            chunks=tuple(chunks[d] for d in dimensions),
            dtype=predicted if dtype is None else dtype,
            fill_value=fill,
            dimension_names=dimensions,
            # The checksum makes a torn or altered chunk undecodable instead of wrong.
            compressors=ZstdCodec(level=3, checksum=True),
            attributes=about,
            config={"write_empty_chunks": True},
        )

    for name, fill, about in (
        ("prediction", np.iinfo(predicted).max, {"long_name": "predicted class"}),
        ("loss", np.nan, {"long_name": "cross-entropy of the true class", "units": "nat"}),
        ("confidence", np.nan, {"long_name": "probability of the predicted class"}),
        ("accuracy", np.nan, {"long_name": "share of images predicted right"}),
        ("mean_loss", np.nan, {"long_name": "mean cross-entropy", "units": "nat"}),
    ):
        create(name, fill, about)
    for name, values, about in (
        ("label", labels, {"long_name": "true class"}),
        ("index", index, {"long_name": "position in the source"}),
        ("dy", header.grid.dys, {"long_name": "shift down", "units": "pixel"}),
        ("dx", header.grid.dxs, {"long_name": "shift to the right", "units": "pixel"}),
    ):
        create(name, 0, about)[:] = values
