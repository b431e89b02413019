"""A feature run on disk: one Zarr v3 group, a subgroup for each layer, arrays of (channel, y, x)."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from shiftlens.errors import StoreError
from shiftlens.lens.feature_run import Average, FeatureRun, LayerMaps
from shiftlens.lens.map_scores import Scores
from shiftlens.naming import one_line
from shiftlens.paths import output_path
from shiftlens.stats import Skipped
from shiftlens.storage.entries import (
    metadata_of,
    nothing_at,
    refuse_other_codecs,
    refuse_strange_entries,
    refuse_swollen,
)
from shiftlens.storage.locking import built_beside, clean_strays, disk_errors, output_lock, set_aside

KIND = "features"
SCHEMA_VERSION = 2
"""2 added the seal; 1 is still read."""
DIMENSIONS = ("channel", "y", "x")
_ARRAYS = ("mean", "variance", "rolled", "flipped")

# What is read, and sealed: an attribute that somebody added is no damage.
_ATTRIBUTES = (
    *("kind", "schema_version", "complete", "model", "model_digest", "input", "is_empty", "size", "after", "data"),
    *("data_digest", "n_images", "n_layers", "seed", "notes", "software"),
)
_LAYER_ATTRIBUTES = ("path", "call", "layer_kind", "index", "activation", "scores", "n_images", "average_scores")

# Far above what is ever written: a stranger's metadata must not decide how much memory is taken.
_MOST_LAYERS = 10_000
_MOST_NUMBERS = 2**28  # in one map; eight times that in all
_LONGEST_TEXT = 1000


def save_features(run: FeatureRun, out: str | Path) -> FeatureRun:
    """Write a feature run, in place of an older one; gives the same run with its `path`.

    Raises
    ------
    StoreError
        Something else is there, or the disk refuses.
    """
    target = output_path(out)
    old = _check_target(target)
    real = target.resolve()
    with output_lock(target), disk_errors(target, "write to"):
        clean_strays(target)
        with built_beside(real, target) as building:
            _write(building, run)
            aside = None if old is None else set_aside(real)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    return replace(run, path=target)


def check_target(out: str | Path) -> None:
    """Refuse a place where a feature run must not be written; `StoreError` says what is there."""
    _check_target(output_path(out))


def _check_target(target: Path) -> str | None:
    old = _kind_at(target)
    if old not in (None, KIND):
        raise StoreError(f"{target} must be a feature run or not exist, but it {old}; it is left as it is")
    return old


def _kind_at(path: Path) -> str | None:
    """`features`, what else is there in words, or None for nothing (or an empty directory)."""
    with disk_errors(path, "read"):
        if nothing_at(path):
            return None
        if not path.is_dir():
            return "is a file"
        metadata = path / "zarr.json"
        if not metadata.is_file():
            return "is a directory of something else" if any(path.iterdir()) else None
        text = metadata_of(metadata)
    try:
        kind = json.loads(text)["attributes"]["kind"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "holds a Zarr node of something else"
    return KIND if kind == KIND else f"holds a result of kind {str(kind)[:40]!r}"


def holds_features(path: str | Path) -> bool:
    """Whether a feature run lies there, by its own word; nothing else of it is read."""
    return _kind_at(Path(path)) == KIND


def _write(place: Path, run: FeatureRun) -> None:
    attributes = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "complete": True,
        "model": run.model,
        "model_digest": run.model_digest,
        "input": run.input,
        "is_empty": run.is_empty,
        "size": list(run.size),
        "after": run.after,
        "data": run.data,
        "data_digest": run.data_digest,
        "n_images": run.n_images,
        "n_layers": len(run.layers),
        "seed": run.seed,
        "notes": json.dumps(run.notes),
        "software": json.dumps(dict(run.software), sort_keys=True),
    }
    layers = [_layer(layer) for layer in run.layers]
    seal = _Seal(attributes)
    for about, arrays in layers:
        seal.add(about, arrays.items())
    group = zarr.create_group(place, zarr_format=3, attributes=attributes | {"seal": seal.text()})
    for number, (about, arrays) in enumerate(layers):
        inner = group.create_group(f"layer_{number:03d}", attributes=about)
        for name, values in arrays.items():
            array = inner.create_array(
                name,
                shape=values.shape,
                chunks=values.shape,
                dtype=values.dtype,
                dimension_names=DIMENSIONS,
                compressors=ZstdCodec(level=3, checksum=True),
            )
            array[:] = values


def _layer(layer: LayerMaps) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Attributes and arrays of a layer's group."""
    about = {
        "path": layer.path,
        "call": layer.call,
        "layer_kind": layer.kind,
        "index": layer.index,
        "activation": layer.activation,
        "scores": json.dumps(layer.scores.to_dict(), allow_nan=False),
    }
    arrays: dict[str, NDArray[Any]] = {"maps": layer.maps}
    if layer.average is not None:
        about["n_images"] = layer.average.n
        about["average_scores"] = json.dumps(layer.average.scores.to_dict(), allow_nan=False)
        found = {name: getattr(layer.average, name) for name in _ARRAYS}
        arrays |= {name: values for name, values in found.items() if values is not None}
    return about, arrays


class _Seal:
    """SHA-256 over all that is read of a file: attributes, and of each layer in turn its attributes and numbers."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self._total = hashlib.sha256()
        self._put(attributes, _ATTRIBUTES)

    def add(self, about: Mapping[str, Any], arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
        """The next layer."""
        self._put(about, _LAYER_ATTRIBUTES)
        for name, values in arrays:
            self._total.update(f"|{name} {values.dtype.name} {values.shape}|".encode())
            self._total.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data)

    def _put(self, attributes: Mapping[str, Any], names: Iterable[str]) -> None:
        known = {name: attributes[name] for name in names if name in attributes}
        self._total.update(json.dumps(known, sort_keys=True).encode())

    def text(self) -> str:
        """`sha256:...`."""
        return f"sha256:{self._total.hexdigest()}"


def open_features(path: str | Path) -> FeatureRun:
    """Read a feature run that `features` or `shiftlens features` has written.

    Parameters
    ----------
    path
        The Zarr group.

    Raises
    ------
    StoreError
        Nothing is there, it is something else, of a newer version, or damaged.

    Examples
    --------
    >>> open_features("features.zarr").layers[0].scores.artefact_energy  # doctest: +SKIP
    """
    place = Path(path)
    kind = _kind_at(place)
    if kind != KIND:
        raise StoreError(f"{place} must be a feature run, but {'nothing is there' if kind is None else f'it {kind}'}")
    refuse_strange_entries(place)
    try:
        group = zarr.open_group(place, mode="r", zarr_format=3, use_consolidated=False)
        attributes: dict[str, Any] = dict(group.attrs.asdict())
        version = attributes["schema_version"]
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise StoreError(
                f"{place} is a feature run of schema version {version!r}, this shiftlens reads up to {SCHEMA_VERSION}: "
                "a newer shiftlens wrote it"
            )
        n_layers = _whole(attributes["n_layers"], 1, _MOST_LAYERS)
        room = _Room(place)
        seal = _Seal(attributes)
        layers = tuple(_read_layer(group[f"layer_{k:03d}"], room, seal) for k in range(n_layers))
        if attributes.get("seal") != (None if version == 1 else seal.text()):
            raise StoreError(f"{place} is damaged: its attributes, scores or maps are not those it was made with")
        h, w = attributes["size"]
        return FeatureRun(
            model=_text(attributes["model"]),
            model_digest=_text(attributes["model_digest"]),
            input=_text(attributes["input"]),
            is_empty=bool(attributes["is_empty"]),
            size=(_whole(h, 1), _whole(w, 1)),
            after=bool(attributes["after"]),
            layers=layers,
            data=None if attributes["data"] is None else _text(attributes["data"]),
            data_digest=None if attributes["data_digest"] is None else _text(attributes["data_digest"]),
            n_images=_whole(attributes["n_images"], 0),
            seed=_whole(attributes["seed"], 0),
            notes=tuple(_text(note) for note in _listed(json.loads(attributes["notes"]))),
            software=json.loads(attributes["software"]),
            path=place,
        )
    except StoreError:
        raise
    except Exception as error:  # these files may be damaged in any way, and Zarr raises what it happens to meet
        raise StoreError(
            f"{place} is damaged and cannot be opened: {type(error).__name__}: {one_line(error)}"
        ) from error


class _Room:
    """How many numbers may still be read from one file."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._left = 8 * _MOST_NUMBERS

    def read(self, group: Any, name: str) -> NDArray[np.floating[Any]]:
        """A map [c, h, w]; what it says of itself is looked at before any memory is taken for it."""
        array = group[name]
        file = self._place / array.path
        size = math.prod(array.shape)
        if array.ndim != 3 or not size or array.chunks != array.shape or array.dtype.kind != "f":
            raise ValueError(
                f"{array.path}: expected fractions [c, h, w] in one chunk, got {array.dtype} {array.shape}"
            )
        if size > min(_MOST_NUMBERS, self._left):
            raise ValueError(f"{array.path}: {size} numbers are too many")
        refuse_other_codecs(str(file), array)
        refuse_swollen(file / "c" / "0" / "0" / "0", size * array.dtype.itemsize)
        self._left -= size
        return np.asarray(array[:])


def _read_layer(group: Any, room: _Room, seal: _Seal) -> LayerMaps:
    about = group.attrs.asdict()
    averaged = [name for name in _ARRAYS if name in group] if "average_scores" in about else []
    stored = {name: room.read(group, name) for name in ("maps", *averaged)}
    seal.add(about, stored.items())
    maps = stored["maps"]
    average = None
    if "average_scores" in about:
        arrays = {name: stored[name].astype(np.float64) if name in stored else None for name in _ARRAYS}
        if any(a is not None and a.shape != maps.shape for a in arrays.values()):
            raise ValueError(f"{group.path}: the averages have another shape than the maps")
        mean, variance = arrays.pop("mean"), arrays.pop("variance")
        if mean is None or variance is None:
            raise ValueError(f"{group.path}: an average has a mean and a variance")
        average = Average(
            _whole(about["n_images"], 1), mean, variance, **arrays, scores=_scores(about["average_scores"])
        )
    return LayerMaps(
        path=_text(about["path"]),
        call=_whole(about["call"], 0),
        kind=_text(about["layer_kind"]),
        index=_whole(about["index"], 0),
        activation=None if about["activation"] is None else _text(about["activation"]),
        maps=maps,
        scores=_scores(about["scores"]),
        average=average,
    )


def _scores(text: str) -> Scores:
    found = Scores.from_dict(json.loads(text))
    for name, value in asdict(found).items():
        plain = value if isinstance(value, dict) else {name: value}
        wrong = [v for v in plain.values() if isinstance(v, float) and not math.isfinite(v)]
        kinds = (int, float, str) if isinstance(getattr(found, name), Skipped) else (int, float)
        if wrong or not all(isinstance(v, kinds) or v is None or name == "channels" for v in plain.values()):
            raise ValueError(f"the score {name} is no finite number")
    return found


def _whole(value: Any, least: int, most: int = 2**63 - 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"expected a whole number from {least}, got {value!r:.60}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError(f"expected a text of at most {_LONGEST_TEXT} letters, got {value!r:.60}")
    return value


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, got {value!r:.60}")
    return value
