"""A feature run on disk: one Zarr v3 group, a subgroup for each layer, arrays of (channel, y, x)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from shiftlens.errors import StoreError
from shiftlens.lens.result import Average, FeatureRun, LayerMaps
from shiftlens.lens.scores import Scores
from shiftlens.naming import one_line
from shiftlens.sweeps.locking import built_beside, disk_errors, output_lock

KIND = "features"
SCHEMA_VERSION = 1
DIMENSIONS = ("channel", "y", "x")
_ARRAYS = ("mean", "variance", "rolled", "flipped")


def save_features(run: FeatureRun, out: str | Path) -> FeatureRun:
    """Write a feature run, in place of an older one; gives the same run with its `path`.

    Raises
    ------
    StoreError
        Something else is there, or the disk refuses.
    """
    target = Path(out)
    old = _check_target(target)
    real = target.resolve()
    with output_lock(target), disk_errors(target, "write to"), built_beside(real, target) as building:
        _write(building, run)
        if old is not None:
            shutil.rmtree(real)
    return replace(run, path=target)


def check_target(out: str | Path) -> None:
    """Refuse a place where a feature run must not be written; `StoreError` says what is there."""
    _check_target(Path(out))


def _check_target(target: Path) -> str | None:
    old = _kind_at(target)
    if old not in (None, KIND):
        raise StoreError(f"{target} must be a feature run or not exist, but it {old}; it is left as it is")
    return old


def _kind_at(path: Path) -> str | None:
    """`features`, what else is there in words, or None for nothing (or an empty directory)."""
    with disk_errors(path, "read"):
        if not path.exists() and not path.is_symlink():
            return None
        if not path.is_dir():
            return "is a file"
        metadata = path / "zarr.json"
        if not metadata.is_file():
            return "is a directory of something else" if any(path.iterdir()) else None
        text = metadata.read_bytes()
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
    group = zarr.create_group(str(place), zarr_format=3, attributes=attributes)
    for number, layer in enumerate(run.layers):
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
    try:
        group = zarr.open_group(str(place), mode="r", zarr_format=3, use_consolidated=False)
        attributes: dict[str, Any] = dict(group.attrs.asdict())
        version = attributes["schema_version"]
        if type(version) is not int or version > SCHEMA_VERSION:
            raise StoreError(
                f"{place} is a feature run of schema version {version!r}, this shiftlens reads up to {SCHEMA_VERSION}: "
                "a newer shiftlens wrote it"
            )
        layers = tuple(_read_layer(group[f"layer_{k:03d}"]) for k in range(int(attributes["n_layers"])))
        return FeatureRun(
            model=attributes["model"],
            model_digest=attributes["model_digest"],
            input=attributes["input"],
            is_empty=bool(attributes["is_empty"]),
            size=(int(attributes["size"][0]), int(attributes["size"][1])),
            after=bool(attributes["after"]),
            layers=layers,
            data=attributes["data"],
            data_digest=attributes["data_digest"],
            n_images=int(attributes["n_images"]),
            seed=int(attributes["seed"]),
            notes=tuple(json.loads(attributes["notes"])),
            software=json.loads(attributes["software"]),
            path=place,
        )
    except StoreError:
        raise
    except Exception as error:  # these files may be damaged in any way, and Zarr raises what it happens to meet
        raise StoreError(
            f"{place} is damaged and cannot be opened: {type(error).__name__}: {one_line(error)}"
        ) from error


def _read_layer(group: Any) -> LayerMaps:
    about = group.attrs.asdict()
    average = None
    if "average_scores" in about:
        arrays = {name: np.asarray(group[name][:]) if name in group else None for name in _ARRAYS}
        scores = Scores.from_dict(json.loads(about["average_scores"]))
        average = Average(int(about["n_images"]), **arrays, scores=scores)  # type: ignore[arg-type]
    return LayerMaps(
        path=about["path"],
        call=int(about["call"]),
        kind=about["layer_kind"],
        index=int(about["index"]),
        activation=about["activation"],
        maps=np.asarray(group["maps"][:]),
        scores=Scores.from_dict(json.loads(about["scores"])),
        average=average,
    )
