"""A feature run on disk: one Zarr v3 group, a subgroup for each layer, arrays of (channel, y, x)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import Field, InstanceOf, PlainSerializer

from shiftlens.errors import StoreError
from shiftlens.lens.feature_run import Average, FeatureRun, LayerMaps
from shiftlens.lens.map_scores import Scores
from shiftlens.paths import output_path
from shiftlens.stats import Skipped
from shiftlens.storage.checksums import Seal
from shiftlens.storage.entries import refuse_swollen
from shiftlens.storage.existing import Kind, found_at
from shiftlens.storage.groups import Layout, damage_of, open_group
from shiftlens.storage.headers import JSON, Header, Options, Sides, Table, Whole, stored

KIND = "features"
SCHEMA_VERSION = 2
FEATURES = Kind(KIND, "a feature run", SCHEMA_VERSION, "make it again")
DIMENSIONS = ("channel", "y", "x")
_OPTIONS = ("model_options", "data_options")
_AVERAGES = ("mean", "variance", "rolled", "flipped")

# Far above what is ever written: a stranger's metadata must not decide how much memory is taken.
_MOST_LAYERS = 10_000
_MOST_NUMBERS = 2**28  # in one map; eight times that in all

_Line = Annotated[str, Field(max_length=1000, description="a text of at most 1000 letters")]


def _scores(table: dict[str, Any]) -> Scores:
    found = Scores.from_dict(table)
    for name, value in asdict(found).items():
        plain = value if isinstance(value, dict) else {name: value}
        wrong = [v for v in plain.values() if isinstance(v, float) and not math.isfinite(v)]
        kinds = (int, float, str) if isinstance(getattr(found, name), Skipped) else (int, float)
        if wrong or not all(isinstance(v, kinds) or v is None or name == "channels" for v in plain.values()):
            raise ValueError(f"the score {name} is no finite number")
    return found


class FeatureHeader(Header):
    """What a feature run's group says about itself; see `FeatureRun`."""

    model: _Line
    model_digest: _Line
    input: _Line
    is_empty: bool
    size: Sides
    after: bool
    data: _Line | None
    data_digest: _Line | None
    n_images: Whole
    n_layers: Annotated[int, Field(ge=1, le=_MOST_LAYERS, description=f"a whole number from 1 to {_MOST_LAYERS}")]
    seed: Whole
    notes: Annotated[tuple[_Line, ...], stored(list, tuple), JSON, Field(description="a JSON list of texts")]
    software: Table
    model_options: Options = Field(default_factory=dict)
    data_options: Options = Field(default_factory=dict)


_AS_JSON = PlainSerializer(lambda scores: scores and json.dumps(scores.to_dict(), allow_nan=False))


class LayerHeader(Header):
    """What a layer's group says about itself; see `LayerMaps`."""

    path: _Line
    call: Whole
    kind: _Line = Field(serialization_alias="layer_kind")
    index: Whole
    activation: _Line | None
    scores: Annotated[InstanceOf[Scores], stored(dict, _scores), _AS_JSON]
    n_images: Annotated[int, Field(ge=1)] | None = None
    average_scores: Annotated[InstanceOf[Scores] | None, stored(dict, _scores), _AS_JSON] = None
    in_channels: Annotated[int, Field(ge=1)] | None = None


def save_features(run: FeatureRun, out: str | Path) -> FeatureRun:
    """Write a feature run, in place of an older one; gives the same run with its `path`.

    Raises
    ------
    StoreError
        Something else is there, or the disk refuses.
    """
    target = output_path(out)
    FEATURES.replace(target, lambda folder: _write(folder, run))
    return replace(run, path=target)


def check_target(out: str | Path) -> None:
    """Refuse a place where a feature run must not be written; `StoreError` says what is there."""
    FEATURES.lies_at(output_path(out))


def holds_features(path: str | Path) -> bool:
    """Whether a feature run lies there, by its own word; nothing else of it is read."""
    found = found_at(Path(path))
    return found is not None and found.kind == KIND


def _write(place: Path, run: FeatureRun) -> None:
    known = {name: getattr(run, name) for name in FeatureHeader.model_fields if name != "n_layers"}
    header = FeatureHeader.model_construct(**known, n_layers=len(run.layers))
    known = {key: value for key, value in header.to_attributes().items() if not (key in _OPTIONS and value == "{}")}
    attributes = {"kind": KIND, "schema_version": SCHEMA_VERSION, "complete": True} | known
    layers = [_layer(layer) for layer in run.layers]
    attributes["seal"] = seal_of_run(attributes, layers)
    group = zarr.create_group(place, zarr_format=3, attributes=attributes)
    for number, (about, arrays) in enumerate(layers):
        inner = group.create_group(f"layer_{number:03d}", attributes=about)
        for name, values in arrays.items():
            Layout(DIMENSIONS, values.shape, values.shape, values.dtype).create(inner, name, values)


def _layer(layer: LayerMaps) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Attributes and arrays of a layer's group."""
    names = ("path", "call", "kind", "index", "activation", "scores", "in_channels")
    known = {name: getattr(layer, name) for name in names}
    average = layer.average
    if average is not None:
        known |= {"n_images": average.n, "average_scores": average.scores}
    attributes = LayerHeader.model_construct(**known).to_attributes()
    about = {key: value for key, value in attributes.items() if value is not None or key == "activation"}
    arrays: dict[str, NDArray[Any]] = {"maps": layer.maps}
    if average is not None:
        found = {name: getattr(average, name) for name in _AVERAGES}
        arrays |= {name: values for name, values in found.items() if values is not None}
    return about, arrays


def seal_of_run(attributes: Mapping[str, Any], layers: list[tuple[dict[str, Any], dict[str, NDArray[Any]]]]) -> str:
    """`sha256:...` over all that is read of a file: attributes, and of each layer in turn attributes and numbers.

    An attribute that somebody added is no damage.
    """
    seal = Seal()
    seal.add_attributes(_named(attributes, "kind", "schema_version", "complete", *_names(FeatureHeader)))
    for about, arrays in layers:
        seal.add_attributes(_named(about, *_names(LayerHeader)))
        for name, values in arrays.items():
            seal.add_array(f"{name} {values.dtype.name} {values.shape}", values)
    return seal.text()


def _names(header: type[Header]) -> list[str]:
    return list(header.attribute_names().values())


def _named(attributes: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: attributes[name] for name in names if name in attributes}


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
    >>> first = open_features("features.zarr").layers[0]
    >>> first.name, first.scores.artefact_energy  # zeros that are padded with zeros show no border
    ('0.0', 0.0)
    """
    place = Path(path)
    if not FEATURES.readable_at(place):
        raise StoreError(f"{place} must be a feature run, but nothing is there")
    with damage_of(place):
        group = open_group(place)
        attributes = group.attrs.asdict()
        header = FeatureHeader.read(attributes, str(place))
        groups: list[Any] = [group[f"layer_{k:03d}"] for k in range(header.n_layers)]
        layers = [(dict(inner.attrs.asdict()), _arrays_of(place, inner)) for inner in groups]
        if sum(array.size for _, arrays in layers for array in arrays.values()) > 8 * _MOST_NUMBERS:
            raise StoreError(f"{place} is damaged: its maps hold more numbers than a feature run has")
        loaded = [(about, {name: np.asarray(array[:]) for name, array in arrays.items()}) for about, arrays in layers]
        if attributes.get("seal") != seal_of_run(attributes, loaded):
            raise StoreError(f"{place} is damaged: its attributes, scores or maps are not those it was made with")
        known = {name: value for name, value in header if name != "n_layers"}
        found = zip(groups, loaded, strict=True)
        return FeatureRun(
            **known, path=place, layers=tuple(_layer_of(f"{place}/{inner.path}", *layer) for inner, layer in found)
        )


def _arrays_of(place: Path, group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """The arrays of a layer; what they say of themselves is looked at before any memory is taken for them."""
    averages = [name for name in _AVERAGES if name in group] if "average_scores" in group.attrs else []
    arrays: dict[str, Any] = {name: group[name] for name in ("maps", *averages)}
    for name, array in arrays.items():
        folder = place / group.path
        if array.ndim != 3 or not 0 < array.size <= _MOST_NUMBERS or array.dtype.kind != "f":
            raise StoreError(
                f"{folder} is damaged: expected {name} of at most {_MOST_NUMBERS} fractions [c, h, w], "
                f"got {array.dtype} {array.shape}"
            )
        Layout(DIMENSIONS, array.shape, array.shape, array.dtype).refuse_other(folder, name, array)
        refuse_swollen(folder / name / "c" / "0" / "0" / "0", array.nbytes)
    return arrays


def _layer_of(where: str, about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> LayerMaps:
    header = LayerHeader.read(about, where)
    maps = arrays["maps"]
    average = None
    if header.average_scores is not None:
        found = {name: arrays[name].astype(np.float64) if name in arrays else None for name in _AVERAGES}
        if any(a is not None and a.shape != maps.shape for a in found.values()):
            raise StoreError(f"{where} is damaged: the averages have another shape than the maps")
        mean, variance = found.pop("mean"), found.pop("variance")
        if mean is None or variance is None or header.n_images is None:
            raise StoreError(f"{where} is damaged: an average has n_images, a mean and a variance")
        average = Average(header.n_images, mean, variance, **found, scores=header.average_scores)
    named = header.path, header.call, header.kind, header.index, header.activation
    return LayerMaps(*named, maps, header.scores, average, header.in_channels)
