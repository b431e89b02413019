"""Images that are read, and outputs that are written, a window at a time: arrays, Zarr, TIFF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.data.decode import decode
from shiftlens.errors import InputError
from shiftlens.graph.sites import Pair
from shiftlens.naming import one_line, printable
from shiftlens.paths import kind_of, read_file, with_home

Source = Tensor | NDArray[Any] | zarr.Array[Any] | str | Path
Target = NDArray[Any] | zarr.Array[Any] | str | Path

_TIFF = (".tif", ".tiff")


class WindowedImage:
    """A uint8 image [c, h, w] of which only windows are held in memory.

    Parameters
    ----------
    image
        A uint8 tensor, array, memory map or Zarr array, [c, h, w], [h, w, c] or [h, w]; or a path: a Zarr array, a TIFF
        (with tifffile), or any other image file, which is decoded as a whole.
    n_channels
        Of the model: tells [c, h, w] from [h, w, c].

    Raises
    ------
    InputError
        No uint8 image, another number of channels, a path that holds none, or a TIFF without tifffile.

    Examples
    --------
    >>> image = WindowedImage(np.arange(12, dtype=np.uint8).reshape(1, 3, 4), n_channels=1)
    >>> image.size, image.read((-1, 1), (0, 2)).tolist()  # what lies beyond the image is read from its far side
    ((3, 4), [[[8, 9], [0, 1]]])
    """

    def __init__(self, image: Source, n_channels: int) -> None:
        self._file: Any = None
        array: Any = image
        name = "the image"
        if isinstance(image, str | Path):
            name = printable(str(image))
            array = self._opened(with_home(image), name)
        elif isinstance(image, Tensor):
            array = image.detach().cpu().numpy()
        shape = tuple(getattr(array, "shape", ()))
        if getattr(array, "dtype", None) != np.uint8 or len(shape) not in (2, 3):
            found = f"{getattr(array, 'dtype', type(array).__name__)} {list(shape)}"
            raise InputError(f"expected a uint8 image [c, h, w], got {found} ({name})")
        self._array = array
        self._channels: int | None
        if len(shape) == 3 and shape[0] != n_channels and shape[2] == n_channels:
            self._channels, self.size = 2, (int(shape[0]), int(shape[1]))
        else:
            self._channels, self.size = 0 if len(shape) == 3 else None, (int(shape[-2]), int(shape[-1]))
        n_found = 1 if self._channels is None else int(shape[self._channels])
        if n_found != n_channels:
            raise InputError(f"{name} has {n_found} channels, shape {list(shape)}; the model takes {n_channels}")

    def _opened(self, path: Path, name: str) -> Any:
        if path.suffix.lower() in _TIFF:
            return self._tiff(path, name)
        if kind_of(path) == "folder":
            try:
                return zarr.open_array(path, mode="r")
            except Exception as error:  # a folder may hold anything
                raise InputError(f"{name} holds no Zarr array: {one_line(error)}") from error
        return decode(read_file(path, name), name)

    def _tiff(self, path: Path, name: str) -> Any:
        try:
            import tifffile
        except ImportError:
            raise InputError(f"reading windows of {name} needs tifffile: pip install tifffile") from None
        try:
            self._file = tifffile.TiffFile(path)
            found = zarr.open(self._file.series[0].levels[0].aszarr(), mode="r")
        except Exception as error:  # a damaged file makes its reader raise anything
            raise InputError(f"{name} cannot be read as a TIFF: {one_line(error)}") from error
        return found if isinstance(found, zarr.Array) else found["0"]

    def read(self, rows: Pair, columns: Pair) -> UInt8[Tensor, "c h w"]:
        """The window of these rows and columns, [from, to) each; what lies beyond the image is read from its far side.

        A window is at most as long as the image.
        """
        parts = [[self._part(y, x) for x in _inside(columns, self.size[1])] for y in _inside(rows, self.size[0])]
        bands = [np.concatenate(band, 2) if len(band) > 1 else band[0] for band in parts]
        return torch.from_numpy(np.concatenate(bands, 1) if len(bands) > 1 else bands[0])

    def _part(self, rows: Pair, columns: Pair) -> NDArray[np.uint8]:
        window: tuple[slice, ...] = (slice(*rows), slice(*columns))
        if self._channels is not None:
            window = (slice(None), *window) if self._channels == 0 else (*window, slice(None))
        part = np.asarray(self._array[window])
        if self._channels is None:
            part = part[None]
        elif self._channels == 2:
            part = part.transpose(2, 0, 1)
        return np.array(part, order="C")

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()


def _inside(span: Pair, n: int) -> Sequence[Pair]:
    """A span that may go beyond [0, n) on either side, as spans inside of it."""
    lo, hi = span
    found = [(lo + n, min(hi + n, n))] if lo < 0 else []
    found += [(max(lo, 0), min(hi, n))] if hi > 0 and lo < n else []
    return found + ([(max(lo - n, 0), hi - n)] if hi > n else [])


def open_output(out: Target | None, shape: tuple[int, int, int], dtype: torch.dtype, chunk: Pair) -> Any:
    """Where an output [k, h, w] is written to: what was given, or a new array.

    Parameters
    ----------
    out
        None for an array in memory; an array, memory map or Zarr array of this shape; or a path at which nothing is: a
        memory map for a name that ends with `.npy`, else a Zarr array.
    chunk
        (h, w) of the chunks of a new Zarr array.

    Raises
    ------
    InputError
        Another shape, or something at the path.
    """
    kind = np.dtype(str(dtype).removeprefix("torch."))
    if out is None:
        return np.empty(shape, kind)
    if isinstance(out, str | Path):
        path = with_home(out)
        if kind_of(path) != "nothing":
            raise InputError(f"out: there is something at {printable(str(out))} already; give another path")
        if path.suffix == ".npy":
            return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
        chunks = (shape[0], min(chunk[0], shape[1]), min(chunk[1], shape[2]))
        return zarr.create_array(path, shape=shape, chunks=chunks, dtype=kind)
    if tuple(getattr(out, "shape", ())) != shape:
        raise InputError(f"out has shape {list(getattr(out, 'shape', ()))}; the output's is {list(shape)}")
    return out
