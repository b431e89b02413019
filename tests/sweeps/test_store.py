"""The Zarr group: its layout, when a chunk counts as finished, and what is never touched."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_sweeps as small
import xarray as xr
import zarr
from PIL import Image

from shiftlens.data.images import load_images
from shiftlens.data.imageset import ImageSet
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import StoreError
from shiftlens.models.wrapping import wrap
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.storage.locking import output_lock
from shiftlens.sweeps import sweep_store as store_module
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.header import SweepHeader, describe, sweep_exists
from shiftlens.sweeps.layout import prediction_dtype
from shiftlens.sweeps.sweep_result import open_sweep
from shiftlens.sweeps.sweep_store import SweepStore
from shiftlens.tasks.classification import CLASSIFICATION

# ---- layout


def test_the_group_is_what_the_contract_says_and_xarray_opens_it_silently(tmp_path: Path) -> None:
    store = small.create(tmp_path / "s.zarr", controls=("flip",))
    result = small.fill(store)
    data = xr.open_zarr(tmp_path / "s.zarr", consolidated=False)
    assert dict(data.sizes) == {"image": 7, "dy": 3, "dx": 5}
    assert {name: (v.dims, str(v.dtype)) for name, v in data.variables.items()} == {
        "prediction": (("image", "dy", "dx"), "uint8"),
        "loss": (("image", "dy", "dx"), "float32"),
        "confidence": (("image", "dy", "dx"), "float16"),
        "checksum": (("image",), "uint64"),
        "label": (("image",), "int64"),
        "index": (("image",), "int64"),
        "accuracy": (("dy", "dx"), "float64"),
        "mean_loss": (("dy", "dx"), "float64"),
        "dy": (("dy",), "int64"),
        "dx": (("dx",), "int64"),
    }
    assert set(data.coords) == {"dy", "dx"}
    assert data.dy.values.tolist() == [-2, 0, 2]
    assert data.dx.values.tolist() == [-4, -2, 0, 2, 4]
    np.testing.assert_array_equal(data.prediction, result["prediction"])
    np.testing.assert_array_equal(data.loss, result["loss"])
    np.testing.assert_array_equal(data.confidence, result["confidence"])
    np.testing.assert_array_equal(data["index"], np.arange(7) * 10)
    assert data.prediction.encoding["chunks"] == (3, 3, 5)
    flip = xr.open_zarr(tmp_path / "s.zarr", group="control_flip", consolidated=False)
    assert set(flip.variables) == set(data.variables)
    assert (flip.prediction.values == 255).all()
    assert np.isnan(flip.loss.values).all()


def test_attributes_hold_what_the_contract_names_and_no_times_or_hosts(tmp_path: Path) -> None:
    small.create(tmp_path / "s.zarr")
    attributes = json.loads((tmp_path / "s.zarr" / "zarr.json").read_text())["attributes"]
    assert attributes.pop("kind") == "sweep"
    assert attributes.pop("schema_version") == 3
    assert attributes.pop("complete") is False
    for seal in ("seal", "state_seal"):
        assert re.fullmatch("sha256:[0-9a-f]{64}", attributes.pop(seal))
    assert attributes.pop("max_shift") == [2, 4]
    assert attributes.pop("image_size") == [6, 7]
    assert json.loads(attributes.pop("software"))["torch"]
    nested = ("plan", "class_names", "strides", "preprocessing", "training", "model_notes", "data_notes", "fill_values")
    assert {key: json.loads(attributes.pop(key)) for key in nested} == {
        "plan": json.loads(small.PLAN.to_json()),
        "class_names": ["a", "b", "c"],
        "strides": [2, 4],
        "preprocessing": {
            "mean": [0.5],
            "std": [0.25],
            "size": [6, 7],
            "resize": None,
            "interpolation": "bilinear",
            "declared": True,
        },
        "training": {"epochs": 3, "augmentation": {"shift": 2}},
        "model_notes": ["a note"],
        "data_notes": [],
        "fill_values": [0.123456789],
    }
    assert attributes == {
        "model": "net.py:factory",
        "model_digest": "sha256:aaaa",
        "data": "digits",
        "data_digest": "sha256:bbbb",
        "n_classes": 3,
        "step": 2,
        "fill": small.HEADER.fill.name,
        "engine": "direct",
        "dtype": "float32",
        "n_parameters": 10,
        "n_macs": None,
    }


def test_header_survives_the_disk(tmp_path: Path) -> None:
    store = small.create(tmp_path / "s.zarr", controls=("occlusion",))
    assert store.main.header == small.header()
    assert store.group("occlusion").header == small.header(control="occlusion")


@pytest.mark.parametrize("fill", ["black", "mean", "edge", "0.25", "0.1,0.2,0.3"])
def test_every_fill_survives_the_disk(tmp_path: Path, fill: str) -> None:
    assert small.create(tmp_path / "s.zarr", fill=Fill.parse(fill)).main.header.fill == Fill.parse(fill)


@pytest.mark.parametrize(("n_classes", "dtype"), [(2, "uint8"), (255, "uint8"), (256, "uint16"), (65536, "uint32")])
def test_prediction_holds_the_classes_and_one_value_more(n_classes: int, dtype: str) -> None:
    assert prediction_dtype(n_classes) == dtype
    assert n_classes - 1 < np.iinfo(dtype).max


# ---- chunks


def test_a_chunk_is_finished_when_it_is_whole_and_only_then(tmp_path: Path) -> None:
    group = small.create(tmp_path / "s.zarr").main
    result = small.numbers(7)
    assert group.n_chunks == 3
    assert group.finished().tolist() == [False, False, False]
    group.write(2, small.cut(result, group.span(2)))
    group.write(0, small.cut(result, group.span(0)))
    again = SweepGroup(tmp_path / "s.zarr")
    assert again.finished().tolist() == [True, False, True]
    assert again.n_images_in(again.finished()) == 4


def test_numbers_that_equal_zarrs_usual_fill_value_are_written(tmp_path: Path) -> None:
    group = small.create(tmp_path / "s.zarr").main
    zeros = np.zeros((3, 3, 5))
    group.write(0, dict.fromkeys(("prediction", "loss", "confidence"), zeros))
    assert SweepGroup(tmp_path / "s.zarr").finished().tolist() == [True, False, False]


def test_a_mean_map_of_nan_is_on_disk_too(tmp_path: Path) -> None:
    # Zarr drops what equals the fill value unless `write_empty_chunks` is set again after every opening.
    group = SweepGroup(small.create(tmp_path / "s.zarr").path, writable=True)
    group.array("accuracy")[:] = np.nan
    assert (tmp_path / "s.zarr" / "accuracy" / "c" / "0" / "0").is_file()


@pytest.mark.parametrize("array", ["prediction", "loss", "confidence", "checksum"])
@pytest.mark.parametrize("chunk", [0, 2], ids=["first", "last, not full"])
@pytest.mark.parametrize("harm", ["gone", "empty", "cut", "garbage", "flipped"])
def test_a_torn_chunk_is_not_finished_and_can_be_written_again(
    tmp_path: Path, array: str, chunk: int, harm: str
) -> None:
    store = small.create(tmp_path / "s.zarr")
    result = small.fill(store)
    file = next(
        (tmp_path / "s.zarr" / array / "c").glob(f"{chunk}/0/0"), tmp_path / "s.zarr" / array / "c" / str(chunk)
    )
    content = file.read_bytes()
    middle = len(content) // 2
    harmed = {
        "empty": b"",
        "cut": content[:-5],
        "garbage": b"no compressed numbers",
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
    }
    file.unlink()
    if harm != "gone":
        file.write_bytes(harmed[harm])
    group = SweepGroup(tmp_path / "s.zarr", writable=True)
    assert group.finished().tolist() == [k != chunk for k in range(3)]
    group.write(chunk, small.cut(result, group.span(chunk)))
    assert group.finished().all()
    assert file.read_bytes() == content


def test_prediction_and_checksum_come_last_so_a_death_in_between_leaves_an_unfinished_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = small.create(tmp_path / "s.zarr").main
    written = []
    put = zarr.Array.__setitem__

    def spy(array: zarr.Array, where: slice, values: np.ndarray) -> None:
        written.append(array.name)
        put(array, where, values)

    monkeypatch.setattr(zarr.Array, "__setitem__", spy)
    group.write(0, small.numbers(3))
    assert written == ["/confidence", "/loss", "/prediction", "/checksum"]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_part_of_a_chunk_is_refused(tmp_path: Path, n: int) -> None:
    group = small.create(tmp_path / "s.zarr").main
    with pytest.raises(ValueError, match="written whole"):
        group.write(0, small.numbers(n))


def test_a_prediction_that_means_not_written_is_refused(tmp_path: Path) -> None:
    group = small.create(tmp_path / "s.zarr").main
    result = small.numbers(3)
    result["prediction"][1, 1, 1] = 255
    with pytest.raises(ValueError, match="between 0 and 254"):
        group.write(0, result)


# ---- means


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7])
def test_means_equal_a_plain_loop_for_any_chunking(tmp_path: Path, chunk_size: int) -> None:
    store = small.create(tmp_path / "s.zarr", chunk_size=chunk_size)
    result = small.fill(store)
    data = xr.open_zarr(tmp_path / "s.zarr", consolidated=False)
    label = small.labels(7)
    for iy in range(3):
        for ix in range(5):
            right = sum(int(result["prediction"][k, iy, ix]) == label[k] for k in range(7))
            loss = sum(float(result["loss"][k, iy, ix]) for k in range(7)) / 7
            assert data.accuracy.values[iy, ix] == right / 7
            assert data.mean_loss.values[iy, ix] == pytest.approx(loss, rel=1e-14)
    assert data.attrs["complete"] is True


def test_bytes_do_not_depend_on_the_order_of_writing(tmp_path: Path) -> None:
    straight = small.create(tmp_path / "a.zarr")
    result = small.fill(straight)
    small.create(tmp_path / "b.zarr")
    for chunk in (2, 0, 1):
        group = SweepGroup(tmp_path / "b.zarr", writable=True)
        group.write(chunk, small.cut(result, group.span(chunk)))
    group.finish()
    assert small.tree(tmp_path / "a.zarr") == small.tree(tmp_path / "b.zarr")


# ---- creation


def test_a_control_may_be_added_later_and_gives_the_same_bytes(tmp_path: Path) -> None:
    first = small.create(tmp_path / "a.zarr", controls=("occlusion",))
    later = small.create(tmp_path / "b.zarr")
    assert (first.controls, later.controls) == (("occlusion",), ())
    later.add_control("occlusion")
    assert later.controls == ("occlusion",)
    assert small.tree(tmp_path / "a.zarr") == small.tree(tmp_path / "b.zarr")


def test_an_empty_directory_may_become_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    assert not sweep_exists(tmp_path / "s.zarr")
    small.create(tmp_path / "s.zarr")
    assert sweep_exists(tmp_path / "s.zarr")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_creation_that_the_disk_refuses_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = store_module.create_group

    def fails_after(*args: object) -> None:
        real(*args)
        raise OSError(code, "refused")

    monkeypatch.setattr(store_module, "create_group", fails_after)
    expected = "cannot create" if code == errno.EIO else "no space left on the disk"
    with pytest.raises(StoreError, match=expected):
        small.create(tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


# ---- what else may lie at the path


def test_nothing_there_is_no_sweep(tmp_path: Path) -> None:
    assert not sweep_exists(tmp_path / "nothing")


def _foreign(kind: str, path: Path) -> str:
    """Put something foreign at `path`; returns what the message must say."""
    if kind == "file":
        path.write_text("my thesis")
        return "it is a file"
    if kind == "dangling link":
        path.symlink_to(path.parent / "gone")
        return "it is a file"
    path.mkdir()
    if kind == "directory":
        (path / "thesis.tex").write_text("my thesis")
        return "a directory with 1 entries .thesis.tex."
    if kind == "zarr 2":
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        return "a directory with 1 entries"
    if kind == "cut metadata":
        (path / "zarr.json").write_text('{"attributes": {"ki')
        return "not the metadata of a Zarr group"
    documents = {
        "no attributes": {"zarr_format": 3, "node_type": "group"},
        "array": {"zarr_format": 3, "node_type": "array", "attributes": {}},
        "other group": {"zarr_format": 3, "node_type": "group", "attributes": {"title": "ERA5"}},
        "features": {"zarr_format": 3, "node_type": "group", "attributes": {"kind": "features", "schema_version": 1}},
        "newer": {"zarr_format": 3, "node_type": "group", "attributes": {"kind": "sweep", "schema_version": 4}},
        "list": [1],
    }
    (path / "zarr.json").write_text(json.dumps(documents[kind]))
    return {
        "no attributes": "not the metadata",
        "list": "not the metadata",
        "features": "of kind 'features'",
        "newer": "schema version 4",
    }.get(kind, "something else")


@pytest.mark.parametrize(
    "kind",
    [
        "file",
        "dangling link",
        "directory",
        "zarr 2",
        "cut metadata",
        "no attributes",
        "array",
        "other group",
        "features",
        "newer",
        "list",
    ],
)
def test_a_foreign_thing_is_named(tmp_path: Path, kind: str) -> None:
    message = _foreign(kind, tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=message) as caught:
        sweep_exists(tmp_path / "s.zarr")
    assert "s.zarr" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("max_shift", "big", "max_shift"),
        ("max_shift", [0, 0], "max-shift must be at least 1"),
        ("step", None, "step"),
        ("n_classes", True, "n_classes"),
        ("plan", "{}", "plan"),
        ("plan", 3, "plan"),
        ("class_names", "not json", "class_names"),
        ("preprocessing", "[]", "preprocessing.*a JSON object"),
        ("preprocessing", '{"unknown": 1}', "cannot be read"),
        ("strides", "3", "strides.*a JSON list of whole numbers"),
        ("model", 1, "model"),
    ],
)
def test_damaged_attributes_are_named(tmp_path: Path, key: str, value: object, says: str) -> None:
    attributes = small.header().to_attributes(complete=False)
    attributes[key] = value
    with pytest.raises(StoreError, match=says):
        SweepHeader.from_attributes(attributes, "here")
    del attributes[key]
    with pytest.raises(StoreError, match=f"{key}.*got nothing"):
        SweepHeader.from_attributes(attributes, "here")


@pytest.mark.parametrize("value", ["[]", '{"mean": null}', '{"weights": ["a"]}', 3])
def test_damaged_options_are_named(value: object) -> None:
    attributes = small.header().to_attributes() | {"model_options": value}
    with pytest.raises(StoreError, match=r"model_options.*a JSON object of texts, numbers and lists of numbers"):
        SweepHeader.from_attributes(attributes, "here")


def test_options_survive_the_disk_and_none_leave_no_trace(tmp_path: Path) -> None:
    said = {"weights": "w.pt", "mean": [0.5, 0.25, 1], "std": 0.2, "input_size": [6, 7]}
    shown = {"split": "all", "limit": 7, "label_map": {"cat": "tabby", "dog": 2}}
    header = small.create(tmp_path / "s.zarr", model_options=said, data_options=shown).main.header
    assert (header.model_options, header.data_options) == (said, shown)
    plain = small.create(tmp_path / "t.zarr").main.header
    assert (plain.model_options, plain.data_options) == ({}, {})
    assert not [name for name in plain.to_attributes() if name.endswith("options")]


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    small.create(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "loss" / "zarr.json").unlink()
    with pytest.raises(StoreError, match="damaged"):
        SweepStore(tmp_path / "s.zarr")


def test_an_array_of_another_shape_is_named(tmp_path: Path) -> None:
    small.create(tmp_path / "s.zarr")
    file = tmp_path / "s.zarr" / "loss" / "zarr.json"
    document = json.loads(file.read_text())
    document["shape"] = [7, 3, 4]
    file.write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"expected loss of shape \(7, 3, 5\)"):
        SweepStore(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("fill", "zz", "unknown fill 'zz'"),
        ("fill", "black", "differ"),
        ("fill", "0.1,0.2", "differ"),
        ("fill_values", '["a"]', "fill_values must be pixel values"),
        ("fill_values", "[2.0]", "between 0 and 1"),
        ("fill_values", "[NaN]", "between 0 and 1"),
        ("fill_values", "[true]", "fill_values must be pixel values"),
        ("fill_values", "null", "fill"),
        ("max_shift", [10**9, 10**9], "max-shift must be at most"),
        ("max_shift", [10**30, 1], "max-shift must be at most"),
        ("image_size", [0, 3], "image_size"),
        ("n_classes", 1, "n_classes"),
        ("n_classes", 10**30, "n_classes"),
        ("n_parameters", -1, "n_parameters"),
        ("class_names", '"abc"', "class_names.*JSON list of texts"),
        ("class_names", "[1]", "class_names.*JSON list of texts"),
        ("model_notes", "{}", "model_notes.*JSON list of texts"),
        ("strides", "[0]", "strides.*whole numbers"),
        ("training", "[]", "training.*JSON object"),
        ("software", "3", "software.*JSON object"),
        ("training", "[" * 200_000, "training"),
        ("plan", "[" * 200_000, "."),
        ("preprocessing", '{"mean": [["a"]], "std": [1]}', "cannot be read"),
        ("preprocessing", '{"mean": ["a"], "std": [1]}', "."),
        ("control", "sideways", "control.*one of occlusion, flip"),
    ],
)
def test_hostile_attributes_are_one_line(key: str, value: object, says: str) -> None:
    attributes = small.header().to_attributes(complete=False)
    attributes[key] = value
    with pytest.raises(StoreError, match=says) as caught:
        SweepHeader.from_attributes(attributes, "here")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def _set(*path: str | int, to: object) -> Callable[[Any], Any]:
    def change(document: Any) -> Any:
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return document

    return change


def _of_many_bytes(data_type: str) -> Callable[[Any], Any]:
    """A type of several bytes, and their order: without it some versions of zarr refuse before the type is read."""

    def change(document: Any) -> Any:
        first = {"name": "bytes", "configuration": {"endian": "little"}}
        return document | {"data_type": data_type, "codecs": [first, *document["codecs"][1:]]}

    return change


_CHUNK = ("chunk_grid", "configuration", "chunk_shape")


@pytest.mark.parametrize(
    ("array", "change", "says"),
    [
        ("loss", lambda _: [], "damaged and cannot be opened"),
        ("loss", lambda _: {}, "damaged and cannot be opened"),
        ("loss", lambda _: "\x1b[2J", "damaged and cannot be opened"),
        ("loss", _set("data_type", to="float64"), "expected loss of float32, got float64"),
        ("loss", _set("shape", to=[7]), "damaged"),
        ("loss", _set("codecs", to=[{"name": "zap"}]), "damaged"),
        ("loss", _set(*_CHUNK, to=[0, 3, 5]), "damaged"),
        ("loss", _set(*_CHUNK, to=[3, 3, 4]), "expected loss .*chunks"),
        ("loss", _set(*_CHUNK, to=[10**6, 3, 5]), "expected loss .*chunks"),
        ("confidence", _set(*_CHUNK, to=[2, 3, 5]), "expected confidence .*chunks"),
        ("confidence", _set("data_type", to="float32"), "expected confidence of float16"),
        ("prediction", _of_many_bytes("uint16"), "expected prediction of uint8, got uint16"),
        ("label", _set(*_CHUNK, to=[0]), "damaged"),
        ("label", _set("data_type", to="int32"), "expected label of int64"),
        ("label", _set("shape", to=[10**12]), "expected 1 to 10000000 labels, got 1000000000000"),
        ("label", _set("shape", to=[]), "damaged"),
        ("index", _set("shape", to=[10**12]), "expected index of shape"),
        ("accuracy", _set("shape", to=[3, 4]), "expected accuracy of shape"),
        ("dy", _set("data_type", to="float64"), "damaged"),
        (".", _set("attributes", "max_shift", to=[10**9, 10**9]), "max-shift must be at most"),
        (".", _set("attributes", "max_shift", to=[16_000, 16_000]), "makes 256,032,001 shifts, expected at most"),
        (".", _set("attributes", "max_shift", to=[5_000, 5_000]), "expected prediction of shape"),
        (".", _set("attributes", "n_classes", to=300), "expected prediction of uint16, got uint8"),
        (".", lambda _: [], "not the metadata"),
    ],
)
def test_a_damaged_sweep_is_one_line(tmp_path: Path, array: str, change: Callable[[Any], Any], says: str) -> None:
    small.fill(small.create(tmp_path / "s.zarr"))
    file = tmp_path / "s.zarr" / array / "zarr.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(StoreError, match=says) as caught:
        open_sweep(tmp_path / "s.zarr")
    assert str(caught.value).isprintable()
    assert "s.zarr" in str(caught.value)


def test_a_prediction_of_fractions_is_one_line(tmp_path: Path) -> None:
    small.fill(small.create(tmp_path / "s.zarr"))
    file = tmp_path / "s.zarr" / "prediction" / "zarr.json"
    changed = _of_many_bytes("float32")(json.loads(file.read_text()))
    file.write_text(json.dumps(changed | {"fill_value": "NaN"}))
    with pytest.raises(StoreError, match="expected prediction of uint8, got float32"):
        open_sweep(tmp_path / "s.zarr")


@pytest.mark.parametrize("place", [".", "loss"])
def test_metadata_nested_without_end_is_one_line(tmp_path: Path, place: str) -> None:
    small.fill(small.create(tmp_path / "s.zarr"))
    (tmp_path / "s.zarr" / place / "zarr.json").write_text('{"attributes": ' * 100_000)
    with pytest.raises(StoreError, match=r"s\.zarr") as caught:
        open_sweep(tmp_path / "s.zarr")
    assert str(caught.value).isprintable()


# ---- resuming another question


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"model_digest": "sha256:other", "model": "m2"},
            r"another model: net.py:factory \(sha256:aaaa\), this run has m2 \(sha256:other\)",
        ),
        ({"data_digest": "sha256:other"}, "another data"),
        ({"grid": ShiftGrid((2, 6), 2)}, r"another max-shift .*: \[2, 4\], this run has \[2, 6\]"),
        ({"grid": ShiftGrid((2, 4), 1)}, "another step: 2, this run has 1"),
        ({"fill": Fill.parse("mean")}, "another fill: 0.123.*, this run has mean"),
        # The same name by rounding, other numbers.
        ({"fill": Fill(small.HEADER.fill.name, (0.1234561,))}, "another fill"),
        (
            {"model_digest": "sha256:other", "preprocessing": Preprocessing((0.4,), (0.25,))},
            r"another preprocessing: mean \[0.5\].*, this run has mean \[0.4\]",
        ),
    ],
)
def test_a_sweep_of_another_question_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(StoreError, match=says) as caught:
        small.header(**changes).refuse_other(small.header(), "s.zarr")
    assert str(caught.value).startswith("s.zarr holds")


def test_what_does_not_change_the_answer_is_no_reason_to_refuse() -> None:
    small.header(model="./net.py:factory", training={}, class_names=()).refuse_other(small.header(), "s.zarr")


def test_another_torch_is_refused_with_the_reason() -> None:
    stored = small.header(software={"torch": "1.0.0"})
    with pytest.raises(StoreError, match=r"begun with torch 1\.0\.0, this is torch .* last bits"):
        stored.refuse_other_torch("s.zarr")
    small.header().refuse_other_torch("s.zarr")


@pytest.mark.parametrize("package", ["shiftlens", "pillow"])
def test_another_version_of_what_makes_the_numbers_is_refused_with_the_reason(package: str) -> None:
    software = dict(small.HEADER.software)
    small.header(software=software).refuse_other_torch("s.zarr")
    with pytest.raises(StoreError, match=rf"begun with {package} 0\.0\.1, this is {package} .* last bits"):
        small.header(software=software | {package: "0.0.1"}).refuse_other_torch("s.zarr")
    # NumPy and Zarr do not compute, and what a sweep does not name had no part or was not written down then.
    small.header(software=software | {"numpy": "0.0.1", "zarr": "0.0.1"}).refuse_other_torch("s.zarr")
    small.header(software={"torch": software["torch"]}).refuse_other_torch("s.zarr")


def test_pillow_is_named_where_it_makes_the_pixels_and_only_there(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 7), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    for k in range(2):
        Image.fromarray(pixels[k].transpose(1, 2, 0)).save(tmp_path / "a" / f"{k}.png")
    arrays, files = ImageSet(pixels, [0, 1]), load_images(f"folder:{tmp_path}")
    model = wrap(small.Net(), mean=0.5, std=0.25).at((6, 8))
    for images, named in ((arrays, False), (arrays.fitted((5, 5)), True), (files, True)):
        header = describe(model, images, (6, 7), ShiftGrid((1, 1)), Fill.parse("black"), small.PLAN, CLASSIFICATION)
        software = header.software

        assert ("pillow" in software) == named


@pytest.mark.parametrize("name", ["~", "~root", "a::b", "memory:"])
def test_a_path_is_a_path_whatever_it_looks_like(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # xarray would look for `~` in the home folder, Zarr and fsspec beyond `::` in an address.
    home = tmp_path / "home"
    small.fill(small.create(home / "s.zarr", model="of the home folder"))
    monkeypatch.setenv("HOME", str(home))
    here = tmp_path / "here"
    (here / name).mkdir(parents=True)
    monkeypatch.chdir(here)
    path = Path(name) / "s.zarr"
    with output_lock(path):
        result = small.numbers(7, seed=5)
        store = small.create(path)
        for chunk in range(3):
            store.main.write(chunk, small.cut(result, store.main.span(chunk)))
        store.main.finish()
    sweep = open_sweep(path)
    assert sweep.header.model == "net.py:factory"
    np.testing.assert_array_equal(sweep.dataset.loss.values, result["loss"])
    assert (here / name / "s.zarr" / "zarr.json").is_file()
    assert sorted(p.name for p in home.iterdir()) == ["s.zarr"]
    assert sweep.attrs["model"] == "net.py:factory"
