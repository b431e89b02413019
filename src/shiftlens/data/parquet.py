"""`parquet:PATH`: pictures in the layout that Hugging Face uses, read a row group at a time."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from shiftlens.data.example_images import WITHOUT_LABELS, EncodedPictures, Source
from shiftlens.data.folders import SPLIT_FOLDERS, pick_splits
from shiftlens.errors import InputError
from shiftlens.naming import distinct, one_line
from shiftlens.paths import entries_of, kind_of

_GROUP_BYTES = 256 * 2**20  # a row group up to this size is held in memory whole
_CACHE_BYTES = 256 * 2**20  # row groups kept in memory, all together
_MOST_SPOOLS = 4  # larger row groups kept on disk
_MOST_READERS = 16  # open files are scarce, and a set may have thousands
_BATCH_BYTES = 4 * 2**20  # handed over by the reader at once, about
_WORST_BATCH_BYTES = 64 * 2**20  # and at most, where all rows of a batch are one long value that is stored once
_MOST_COPIES = 100  # a row group, in which a value may be stored once for many rows, unpacks to so many times its size
_COPIES_ANYWAY = 128 * 2**20  # or to so many bytes
_LABELS_AT_ONCE = 2**16
_ROWS_ANYWAY = 2**20  # so many rows are read whatever the files' size; beyond that,
_BYTES_A_ROW = 8  # a row takes so much of a file at least: no picture is smaller
_READ_AHEAD = 2**20

_IMAGE_COLUMNS = ("img", "image")
_SPLIT_NAME = re.compile(r"^([a-z]+)(?=[-_.]|$)", re.IGNORECASE)


class ParquetPictures(EncodedPictures):
    """Pictures in the rows of parquet files; a few row groups, 256 MB at most, are in memory.

    A row group too large for that (some writers put a whole file in one) is copied once to a temporary file without a
    name, from which any row can be read. `group_rows` counts, for each file, the rows of its row groups.
    """

    def __init__(self, files: list[Path], column: str, group_rows: list[list[int]]) -> None:
        self._files = files
        self._column = column
        self._groups = [(f, g) for f, rows in enumerate(group_rows) for g in range(len(rows))]
        self._starts = np.cumsum([0, *(n for rows in group_rows for n in rows)])
        self._file_starts = np.cumsum([0, *(sum(rows) for rows in group_rows)])
        self._set_up_cache()

    def _set_up_cache(self) -> None:
        self._held: OrderedDict[int, _Rows] = OrderedDict()
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Open files and cached rows stay behind, so that a set can go to another process."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_held", "_readers", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with an empty cache."""
        self.__dict__.update(state)
        self._set_up_cache()

    def __len__(self) -> int:
        """How many rows."""
        return int(self._starts[-1])

    def where(self, position: int) -> str:
        """How an error names a picture."""
        file = int(np.searchsorted(self._file_starts, position, side="right")) - 1
        return f"picture {position} (row {position - self._file_starts[file]} of {self._files[file]})"

    def encoded(self, position: int) -> bytes:
        """The `bytes` of the row's picture."""
        group = int(np.searchsorted(self._starts, position, side="right")) - 1
        with self._lock:
            data = self._rows(group)[position - int(self._starts[group])]
        if data is None:
            raise InputError(f"{self.where(position)} has no bytes, only a path or nothing: embed the pictures")
        return data

    def _rows(self, group: int) -> _Rows:
        """All pictures of a row group, from the cache if they are there."""
        if group in self._held:
            self._held.move_to_end(group)
            return self._held[group]
        file, number = self._groups[group]
        try:
            reader = self._reader(file)
            rows = _Rows(self._batches(reader, file, number))
        except InputError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own errors are kinds of these
            raise InputError(f"row group {number} of {self._files[file]} cannot be read: {one_line(error)}") from error
        self._held[group] = rows
        self._forget_oldest()
        return rows

    def _forget_oldest(self) -> None:
        """Keep what was used last: a few row groups on disk, and in memory as many as fit, but always one."""
        on_disk = [group for group, rows in self._held.items() if rows.n_bytes > _GROUP_BYTES]
        in_memory = [group for group in self._held if group not in on_disk]
        for group in on_disk[:-_MOST_SPOOLS]:
            del self._held[group]
        while len(in_memory) > 1 and sum(self._held[group].n_bytes for group in in_memory) > _CACHE_BYTES:
            del self._held[in_memory.pop(0)]

    def _reader(self, file: int) -> Any:
        # With a buffer the reader streams a column; without, it would load the whole of it first.
        if file not in self._readers:
            if len(self._readers) >= _MOST_READERS:
                self._readers.pop(next(iter(self._readers))).close()
            self._readers[file] = _pyarrow_parquet().ParquetFile(
                self._files[file], buffer_size=_READ_AHEAD, pre_buffer=False
            )
        return self._readers[file]

    def _batches(self, reader: Any, file: int, group: int) -> Iterator[list[bytes | None]]:
        # Only the leaf is named: a struct may carry more than `bytes`.
        columns = [f"{self._column}.bytes"]
        facts = reader.metadata.row_group(group)
        claimed = max(1, facts.total_byte_size)
        rows = max(1, min(1024, _BATCH_BYTES * facts.num_rows // claimed, _WORST_BATCH_BYTES // claimed))
        most, n_bytes = max(_COPIES_ANYWAY, _MOST_COPIES * claimed), 0
        for batch in reader.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
            found = batch.column(0).field("bytes").to_pylist()
            n_bytes += sum(len(data) for data in found if data is not None)
            if n_bytes > most:
                raise InputError(
                    f"row group {group} of {self._files[file]} holds {claimed} bytes and unpacks to more than {most}: "
                    "a few values are repeated very often; expected pictures"
                )
            yield found


class _Rows:
    """Byte strings by number, in memory or, beyond `_GROUP_BYTES`, in a temporary file."""

    def __init__(self, batches: Iterable[list[bytes | None]]) -> None:
        self._file = tempfile.SpooledTemporaryFile(_GROUP_BYTES, prefix="shiftlens-")  # noqa: SIM115 - lives as long
        self.n_bytes = 0
        places: list[tuple[int, int]] = []
        for batch in batches:
            for data in batch:
                places.append((self.n_bytes, -1 if data is None else len(data)))
                self.n_bytes += self._file.write(data or b"")
        self._places = np.array(places, dtype=np.int64)

    def __getitem__(self, row: int) -> bytes | None:
        start, length = (int(v) for v in self._places[row])
        if length < 0:
            return None
        self._file.seek(start)
        return self._file.read(length)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # the file could not be made
            self._file.close()


def open_parquet(path: Path, split: str) -> Source:
    """Open a parquet file, or the files of one split in a folder.

    Files called `train-*`, `test-*` or `validation-*` (or in a folder of such a name) are that split; without a test
    split the validation split serves. Labels are read at once (8 bytes a picture), pictures when asked for.
    """
    if kind_of(path) == "nothing":
        raise InputError(f"parquet path {path} does not exist")
    files, whole = _files_of_split(path, split)
    pq = _pyarrow_parquet()
    labels: list[np.ndarray[Any, np.dtype[Any]]] = []
    group_rows: list[list[int]] = []
    names: list[str] | None = None
    column = ""
    n_rows, n_bytes = 0, 0
    for number, file in enumerate(files):
        try:
            with pq.ParquetFile(file) as reader:
                schema, metadata = reader.schema_arrow, reader.metadata
                found = _image_column(schema, file)
                file_names = _class_names(schema)
                if number == 0:
                    column, names = found, file_names
                elif (column, names) != (found, file_names):
                    raise InputError(f"{file} and {files[0]} differ in picture column or classes; expected one set")
                group_rows.append([metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)])
                n_rows += max(metadata.num_rows, sum(group_rows[-1]))
                n_bytes += file.stat().st_size
                if n_rows > max(_ROWS_ANYWAY, n_bytes // _BYTES_A_ROW):
                    raise InputError(
                        f"{file} says that {n_rows:,} rows are in {n_bytes:,} bytes: these are no pictures, which take "
                        f"{_BYTES_A_ROW} bytes each at least"
                    )
                labels.append(_labels(reader, file))
        except InputError:
            raise
        except (OSError, ValueError, NotImplementedError) as error:
            raise InputError(f"{file} cannot be read as parquet: {one_line(error)}") from error
    everything = np.concatenate(labels)
    return Source(ParquetPictures(files, column, group_rows), everything, names, whole)


def _parquet_files(folder: Path) -> list[Path]:
    """All parquet files below a folder, by name."""
    entries_of(folder)  # rglob passes over what it may not list, and finds nothing there
    visible = (file for file in folder.rglob("*.parquet") if not file.name.startswith("."))
    return sorted(file for file in visible if kind_of(file) == "file")


def _files_of_split(path: Path, split: str) -> tuple[list[Path], bool]:
    """The files that serve for a split, and whether they are that split whole (else they are still to be split)."""
    files = _parquet_files(path) if kind_of(path) == "folder" else [path]
    if not files:
        raise InputError(f"{path} holds no parquet files (*.parquet)")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        name = _split_of(file)
        if name is not None:
            by_split.setdefault(name, []).append(file)
    whole = bool(by_split) and set(by_split) != {"train"}
    if by_split:
        files = sorted(file for name in pick_splits(by_split, split, str(path)) for file in by_split[name])
    sets = sorted({_folder_of_set(file) for file in files})
    if len(sets) > 1:
        raise InputError(f"{path} holds several data sets, name one of them: {', '.join(map(str, sets[:4]))}")
    return files, whole


def _split_of(file: Path) -> str | None:
    """The split that a file's name, or else its folder's name, stands for."""
    match = _SPLIT_NAME.match(file.name)
    by_name = SPLIT_FOLDERS.get(match[1].lower()) if match else None
    return by_name or SPLIT_FOLDERS.get(file.parent.name.lower())


def _folder_of_set(file: Path) -> Path:
    return file.parent.parent if file.parent.name.lower() in SPLIT_FOLDERS else file.parent


def _image_column(schema: Any, file: Path) -> str:
    import pyarrow as pa

    for name in _IMAGE_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            leaf = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else None
            if leaf is None or not (pa.types.is_binary(leaf) or pa.types.is_large_binary(leaf)):
                raise InputError(
                    f"column {name} of {file} must be a struct with bytes (Hugging Face images), got {kind}"
                )
            return name
    raise InputError(f"{file} has no column img or image, only {', '.join(schema.names) or 'none at all'}")


def _labels(reader: Any, file: Path) -> Int64[np.ndarray, " n"]:
    import pyarrow as pa

    schema = reader.schema_arrow
    if "label" not in schema.names:
        raise InputError(f"{file} has no column label, only {', '.join(schema.names)}; {WITHOUT_LABELS}")
    kind = schema.field("label").type
    if not pa.types.is_integer(kind):
        raise InputError(f"column label of {file} must hold whole numbers, got {kind}")
    parts = [np.empty(0, np.int64)]
    for batch in reader.iter_batches(batch_size=_LABELS_AT_ONCE, columns=["label"]):
        column = batch.column(0)
        if column.null_count:
            row = sum(map(len, parts)) + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(f"row {row} of {file} has no label; expected a whole number in each row")
        parts.append(np.asarray(column.to_numpy(), dtype=np.int64))
    return np.concatenate(parts)


def _class_names(schema: Any) -> list[str] | None:
    """Names that Hugging Face keeps in the schema's metadata: features -> label -> names."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features["label"]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return distinct(str(name) for name in names) if isinstance(names, list) and names else None


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("parquet files need the package pyarrow: pip install pyarrow") from None
    return pq
