"""Hostile sweeps and feature runs: Zarr groups whose metadata and chunks were written by somebody else."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from hostile.machinery import Case, outside
from hostile.payloads import pickled
from shiftlens.lens import feature_store
from shiftlens.storage.checksums import checksums, seal_of, state_seal_of
from shiftlens.storage.entries import refuse_strange_entries, refuse_swollen
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.layout import KNOWN, state_of
from sweeps import small_sweeps as small

Facts = dict[str, Any]
Change = Callable[[Path, Path], object]
"""Of the hostile group and the case's folder."""

MARKUP = ["[red]\x1b[31mred[/]", "$\\frac{", "<script>alert(1)</script>\u202e"]
BIG = 10**12


# ---- sweeps


def sweep(*changes: Change, controls: tuple[str, ...] = (), sealed: bool = True) -> Callable[[Path], Path]:
    """A lawful sweep, then changed; `sealed` again, as a stranger would, so that what was changed is believed."""

    def build(folder: Path) -> Path:
        path = Path(shutil.copytree(_lawful(controls), folder / "s.zarr"))
        for change in changes:
            change(path, folder)
        for place in (path, *(path / f"control_{c}" for c in controls)) if sealed else ():
            with suppress(Exception):  # what cannot be read is refused before a seal is looked at
                seal_sweep(place)
        return path

    return build


_made = tempfile.TemporaryDirectory()


@cache
def _lawful(controls: tuple[str, ...]) -> Path:
    path = Path(_made.name) / f"{'-'.join(controls)}.zarr"
    store = small.create(path, controls=controls)
    for control in (None, *controls):
        small.fill(store, control)
    return path


def seal_sweep(path: Path) -> None:
    """Seals and checksums that fit what is there: they are no secret. Files that fit already stay as they are."""
    refuse_strange_entries(path)
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    header = SweepHeader.from_attributes(attributes, "here")
    known = []
    for name in KNOWN:
        array = zarr.open_array(str(path), path=name, mode="r", zarr_format=3)
        assert array.size < 1000
        refuse_swollen(path / name / "c" / "0", array.nbytes)
        known.append(np.asarray(array[:]))
    seal = seal_of({k: attributes[k] for k in header.to_attributes(complete=False) if k in attributes}, *known)
    seals = {"seal": seal, "state_seal": state_seal_of(seal, state_of(attributes))}
    if any(attributes.get(k) != v for k, v in seals.items()):
        edit(path / "zarr.json", lambda d: d["attributes"].update(seals))
    group = SweepGroup(path, writable=True)
    for chunk in range(group.n_chunks):
        span = group.span(chunk)
        with suppress(Exception):  # a torn one
            arrays = [group.read(name, span) for name in group.measured]
            right = checksums(seal, span, *arrays[:-1])
            if not np.array_equal(arrays[-1], right):
                group.array("checksum")[span] = right


def edit(file: Path, change: Callable[[Facts], object]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def attrs(**values: Any) -> Change:
    return lambda path, folder: edit(path / "zarr.json", lambda d: d["attributes"].update(values))


def nested(**values: Any) -> Change:
    """Attributes that are one string of JSON."""
    return attrs(**{key: json.dumps(value) for key, value in values.items()})


def without(key: str) -> Change:
    return lambda path, folder: edit(path / "zarr.json", lambda d: d["attributes"].pop(key))


def text(change: Callable[[str], str]) -> Change:
    def act(path: Path, folder: Path) -> None:
        file = path / "zarr.json"
        file.write_text(change(file.read_text()))

    return act


def array(name: str, change: Callable[[Facts], object]) -> Change:
    return lambda path, folder: edit(path / name / "zarr.json", change)


def codecs(*codec: Facts, of: str = "loss") -> Change:
    return array(of, lambda d: d.update(codecs=list(codec)))


def numbers(name: str, values: Any) -> Change:
    def act(path: Path, folder: Path) -> None:
        stored = zarr.open_array(str(path), path=name, mode="r+", zarr_format=3)
        stored[...] = np.broadcast_to(np.asarray(values, dtype=stored.dtype), stored.shape)

    return act


def everywhere(n: int, chunk: int | None = None) -> Change:
    """Every array says that there are `n` images; no chunk is there."""

    def act(path: Path, folder: Path) -> None:
        for name in ("prediction", "loss", "confidence", "label", "index"):

            def change(document: Facts, name: str = name) -> None:
                document["shape"][0] = n
                grid = document["chunk_grid"]["configuration"]["chunk_shape"]
                grid[0] = n if name in ("label", "index") else chunk or grid[0]

            edit(path / name / "zarr.json", change)

    return act


def put(name: str, make: Callable[[Path, Path], object]) -> Change:
    """Another thing in the place of a file or folder of the group."""

    def act(path: Path, folder: Path) -> None:
        place = path / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        elif place.exists():
            place.unlink()
        make(place, folder)

    return act


def linked(target: str) -> Callable[[Path, Path], object]:
    return lambda place, folder: place.symlink_to(target)


def to_the_secret(place: Path, folder: Path) -> None:
    place.symlink_to(outside(folder) / "secret.txt")


def to_the_outside(place: Path, folder: Path) -> None:
    place.symlink_to(outside(folder))


def pipe(place: Path, folder: Path) -> None:
    os.mkfifo(place)


def terabyte(place: Path, folder: Path) -> None:
    place.touch()
    os.truncate(place, 2**40)


def bytes_of(change: Callable[[bytes], bytes], chunk: str = "loss/c/1/0/0") -> Change:
    def act(path: Path, folder: Path) -> None:
        file = path / chunk
        file.write_bytes(change(file.read_bytes()))

    return act


def zstd_bomb(content: bytes) -> bytes:
    """A frame that says it holds 64 GB."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**36) + b"\x01\0\0"


def more(name: str, dimensions: list[str], shape: list[int]) -> Change:
    """One array more, of a size that no memory holds."""

    def act(path: Path, folder: Path) -> None:
        shutil.copytree(path / "label", path / name)
        shutil.rmtree(path / name / "c")

        def change(document: Facts) -> None:
            document["shape"] = shape
            document["chunk_grid"]["configuration"]["chunk_shape"] = shape
            document["dimension_names"] = dimensions

        edit(path / name / "zarr.json", change)

    return act


def consolidated(path: Path, folder: Path) -> None:
    """Metadata in the root that contradicts the arrays' own, and names what lies outside."""
    document = json.loads((path / "loss" / "zarr.json").read_text())
    document["shape"] = [BIG, 3, 5]
    inline = {"kind": "inline", "must_understand": False, "metadata": {"loss": document, "../outside": document}}
    edit(path / "zarr.json", lambda d: d.update(consolidated_metadata=inline))


def version_two(folder: Path) -> Path:
    path = folder / "s.zarr"
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text('{"kind": "sweep", "schema_version": 1}')
    (path / "loss").mkdir()
    (path / "loss" / ".zarray").write_text(
        json.dumps(
            {
                "zarr_format": 2,
                "shape": [1],
                "chunks": [1],
                "dtype": "|O",
                "fill_value": None,
                "order": "C",
                "filters": [{"id": "pickle", "protocol": 5}],
                "compressor": None,
            }
        )
    )
    (path / "loss" / "0").write_bytes(pickled(folder))
    return path


def pickle_filter(path: Path, folder: Path) -> None:
    """An array of Zarr version 2 with objects in the place of one of version 3."""
    version_two(folder / "v2" if (folder / "v2").mkdir() is None else folder)
    shutil.rmtree(path / "loss")
    shutil.copytree(folder / "v2" / "s.zarr" / "loss", path / "loss")


def other_codec(name: str, **configuration: Any) -> Facts:
    return {"name": name, "configuration": configuration}


def sharded(shape: list[int]) -> Facts:
    inner = [other_codec("bytes", endian="little")]
    index = [other_codec("bytes", endian="little"), {"name": "crc32c"}]
    return other_codec("sharding_indexed", chunk_shape=[3, 3, 5], codecs=inner, index_codecs=index)


def shards_of(n: int) -> Change:
    def change(document: Facts) -> None:
        document["chunk_grid"]["configuration"]["chunk_shape"] = [n, 3, 5]
        document["codecs"] = [sharded([n, 3, 5])]

    return array("loss", change)


def only(kind: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / "s.zarr"
        match kind:
            case "file":
                path.write_bytes(b"x")
            case "pipe":
                os.mkfifo(path)
            case "endless":
                path.symlink_to("/dev/zero")
            case "circle":
                path.symlink_to(path)
            case "empty":
                path.mkdir()
            case "strangers":
                path.mkdir()
                for k in range(3):
                    (path / f"\x1b[2J[red]\n{k}").touch()
        return path

    return build


def renamed(folder: Path) -> Path:
    return Path(sweep()(folder).rename(folder / "\x1b[31m[bold]$\\frac{\u202e\n.zarr"))


def a_link(folder: Path) -> Path:
    (folder / "link.zarr").symlink_to(sweep()(folder))
    return folder / "link.zarr"


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}

SWEEPS: dict[str, Case] = {
    # what it says of itself
    "another kind": Case(sweep(attrs(kind="\x1b[2Jother")), says=r"\x1b[2Jother"),
    "a later version": Case(sweep(attrs(schema_version=99)), says="schema version 99"),
    "version true": Case(sweep(attrs(schema_version=True)), says="schema version True"),
    "a version older than it is": Case(sweep(attrs(schema_version=1), sealed=False), says="schema version 1"),
    "NaN in the attributes": Case(sweep(attrs(n_parameters=float("nan"))), says="n_parameters"),
    "infinity in the attributes": Case(sweep(attrs(image_size=[float("inf"), 1])), says="image_size"),
    "attributes a hundred thousand deep": Case(
        sweep(text(lambda t: t.replace('"complete": true', '"complete": ' + "[" * 100_000 + "]" * 100_000))),
        says=("is not the metadata of a Zarr group", "zarr.json is damaged"),
    ),
    "keys twice": Case(sweep(text(lambda t: t.replace('"kind"', '"kind": "x", "kind"', 1))), "either"),
    "2**62 classes": Case(sweep(attrs(n_classes=2**62)), says="prediction"),
    "fewer names than classes": Case(sweep(nested(class_names=["a"])), "either"),
    "more names than classes": Case(sweep(nested(class_names=list("abcdefgh"))), "either"),
    "names with markup": Case(sweep(nested(class_names=MARKUP)), "fine", unread=("compare",)),
    "names of a megabyte": Case(
        sweep(nested(class_names=["x" * 2**20, "y" * 2**20, "z" * 2**20])), "fine", unread=("compare",)
    ),
    "names half a surrogate": Case(sweep(nested(class_names=["\ud800", "b", "c"])), "either"),
    "names all alike": Case(sweep(nested(class_names=["a", "a", "a"])), "either"),
    "model and data with markup": Case(sweep(attrs(model=MARKUP[1], data=MARKUP[0])), "either"),
    "notes with markup": Case(sweep(nested(model_notes=MARKUP, data_notes=MARKUP)), "fine"),
    "training that is nonsense": Case(
        sweep(nested(training={"augmentation": ["x"], "epochs": "\x1b[2J", "accuracy": {"a": [1]}})), "either"
    ),
    "augmentation that is nonsense": Case(
        sweep(nested(training={"augmentation": {"shift": "far", "mirror": 7, "shift_fill": [1]}})), "either"
    ),
    "augmentation out of range": Case(sweep(nested(training={"augmentation": {"shift": -(10**30)}})), "either"),
    "software that is nonsense": Case(sweep(nested(software={"torch": [1], "x": {"y": 1e308}})), "either"),
    "strides of 2**62": Case(sweep(nested(strides=[2**62, 1])), "either"),
    "a picture of 2**62": Case(sweep(attrs(image_size=[2**62, 2**62])), "either"),
    "a picture of one pixel": Case(sweep(attrs(image_size=[1, 1])), "either"),
    "preprocessing that is nonsense": Case(
        sweep(nested(preprocessing={"mean": "x"})),
        says="attributes cannot be read by this version: must be real number",
    ),
    "preprocessing with more": Case(
        sweep(nested(preprocessing={"__class__": 1})), says="unexpected keyword argument '__class__'"
    ),
    "a plan that is nonsense": Case(sweep(attrs(plan='{"engine": "os.system"}')), says="plan"),
    "a fill that is markup": Case(sweep(attrs(fill="\x1b[2J")), says="fill"),
    "fill values that lie": Case(sweep(nested(fill_values=[0.1, 0.2])), says="fill"),
    "shifts of 16384": Case(
        sweep(attrs(max_shift=[16384, 16384], step=1)), says="1,073,807,361 shifts, expected at most"
    ),
    "shifts of 2**62": Case(sweep(attrs(max_shift=[2**62, 2**62])), says="max-shift"),
    "a step of a billion": Case(sweep(attrs(step=10**9)), says="step"),
    "a control in itself": Case(sweep(attrs(control="occlusion")), "either"),
    "no model": Case(sweep(without("model")), says="'model'"),
    "a seal of nonsense": Case(sweep(attrs(seal="\x1b[2J"), sealed=False), says="not those it was made with"),
    "a seal that fits": Case(sweep(attrs(model=MARKUP[1], data=MARKUP[0])), "either"),
    "metadata of 17 MB": Case(sweep(attrs(notes="x" * (17 * 2**20))), says="zarr.json has 17,"),
    # what its arrays say
    "10**12 images": Case(sweep(everywhere(BIG)), says="labels"),
    "10**8 images": Case(sweep(everywhere(10**8)), says="labels"),
    "10**12 labels": Case(sweep(array("label", lambda d: d.update(shape=[BIG]))), says="labels"),
    "a chunk of 10**9 images": Case(sweep(everywhere(10**6, 10**9)), says="in chunks (1000000000, 3, 5)"),
    "objects": Case(
        sweep(array("loss", lambda d: d.update(data_type="|O"))), says="cannot be opened: ValueError: No Zarr data type"
    ),
    "text": Case(
        sweep(array("loss", lambda d: d.update(data_type="string"))),
        says="cannot be opened: ValueError: For string dtype",
    ),
    "complex numbers": Case(
        sweep(array("loss", lambda d: d.update(data_type="complex64"))), says="cannot be opened: TypeError"
    ),
    "no dimensions": Case(sweep(array("loss", lambda d: d.update(shape=[]))), says="the same number of dimensions"),
    "negative shape": Case(
        sweep(array("loss", lambda d: d.update(shape=[-7, 3, 5]))), says="all values to be non-negative"
    ),
    "other dimensions": Case(
        sweep(array("loss", lambda d: d.update(dimension_names=["dy", "image", "x"]))),
        says="expected loss over ('image', 'dy', 'dx')",
    ),
    "a dimension twice": Case(
        sweep(array("loss", lambda d: d.update(dimension_names=["a", "a", "a"]))),
        says="expected loss over ('image', 'dy', 'dx')",
    ),
    "dimensions without names": Case(
        sweep(array("loss", lambda d: d.pop("dimension_names"))), says="expected loss over ('image', 'dy', 'dx')"
    ),
    "a pickle as codec": Case(
        sweep(codecs(BYTES, other_codec("numcodecs.pickle", protocol=5))),
        says=("Unknown codec: 'numcodecs.pickle'", "codec 'numcodecs.pickle' is not available"),  # by version of zarr
    ),
    "a codec that nobody knows": Case(
        sweep(codecs(BYTES, other_codec("os.system"))),
        says=("Unknown codec: 'os.system'", "codec 'os.system' is not available"),
    ),
    "a codec of a hundred": Case(
        sweep(codecs(BYTES, *[other_codec("gzip", level=1)] * 100)),
        says="loss is damaged: expected arrays packed by bytes and zstd",
    ),
    "shards": Case(sweep(shards_of(9)), says="loss is damaged: expected arrays packed by bytes and zstd"),
    "shards of 10**12": Case(
        sweep(shards_of(3 * 10**11)), says="loss is damaged: expected arrays packed by bytes and zstd"
    ),
    "chunks named by a path": Case(
        sweep(array("loss", lambda d: d.update(chunk_key_encoding=other_codec("default", separator="/../../")))),
        says=("Got /../../", "got '/../../'"),
    ),
    "the other byte order": Case(
        sweep(codecs(other_codec("bytes", endian="big"), other_codec("zstd", level=3, checksum=True))), "either"
    ),
    "an offset and a scale": Case(
        sweep(array("prediction", lambda d: d.update(attributes={"scale_factor": 2, "add_offset": "\x1b[2J"}))),
        "either",
    ),
    "shifts that are dates": Case(
        sweep(array("dx", lambda d: d.update(attributes={"units": "days since 99999-99-99", "calendar": "none"}))),
        "fine",
    ),
    "a fill that hides": Case(
        sweep(array("label", lambda d: d.update(attributes={"_FillValue": 0, "missing_value": [1, 2]}))), "fine"
    ),
    "an array of 10**12 more": Case(sweep(more("more", ["more"], [BIG])), "fine"),
    "coordinates of 10**12": Case(sweep(more("image", ["image"], [BIG])), "fine"),
    "a name that climbs": Case(sweep(consolidated), "fine"),
    "objects of version 2": Case(sweep(pickle_filter), says="No array found"),
    "a group of version 2": Case(version_two, says=("must be a sweep or not exist", "holds nothing of this tool")),
    # its numbers
    "labels below 0": Case(sweep(numbers("label", -1)), says="label"),
    "labels beyond the classes": Case(sweep(numbers("label", 1000)), says="label"),
    "one index": Case(sweep(numbers("index", 5)), says="index"),
    "an index below 0": Case(sweep(numbers("index", [-1, -2, -3, -4, -5, -6, -7])), "either"),
    "shifts out of order": Case(sweep(numbers("dx", [4, 2, 0, -2, -4])), says="dx"),
    "shifts that are none": Case(sweep(numbers("dy", [1, 1, 1])), says="dy"),
    "predictions beyond the classes": Case(sweep(numbers("prediction", 200)), says="prediction"),
    "predictions never written": Case(
        sweep(numbers("prediction", 255)), says=("of prediction is torn", "torn: chunks 0 to 2")
    ),
    "loss NaN": Case(
        sweep(numbers("loss", np.nan)), says=("of loss is torn", "torn: chunks 0 to 2"), unread=("compare",)
    ),
    "loss infinite": Case(sweep(numbers("loss", np.inf)), "either"),
    "loss below 0": Case(sweep(numbers("loss", -1e30)), "either"),
    "accuracy of 1e300": Case(sweep(numbers("accuracy", 1e300)), "either"),
    "accuracy infinite": Case(sweep(numbers("accuracy", np.inf)), "either"),
    "confidence NaN": Case(sweep(numbers("confidence", np.nan)), "either"),
    # its files
    "a chunk cut": Case(
        sweep(bytes_of(lambda b: b[:-5])),
        says=("chunk 1 (images 3 to 5) of loss is torn", "torn: chunk 1"),
        unread=("compare",),
    ),
    "a chunk flipped": Case(
        sweep(bytes_of(lambda b: b[:30] + bytes([b[30] ^ 1]) + b[31:])),
        says=("chunk 1 (images 3 to 5) of loss is torn", "torn: chunk 1"),
        unread=("compare",),
    ),
    "a chunk emptied": Case(
        sweep(bytes_of(lambda b: b"")),
        says=("chunk 1 (images 3 to 5) of loss is torn", "torn: chunk 1"),
        unread=("compare",),
    ),
    "a chunk gone": Case(
        sweep(put("loss/c/1", lambda p, f: None)),
        says=("chunk 1 (images 3 to 5) of loss is torn", "torn: chunk 1"),
        unread=("compare",),
    ),
    "a chunk of 64 GB": Case(
        sweep(bytes_of(zstd_bomb)),
        says=("chunk 1 (images 3 to 5) of loss is torn", "torn: chunk 1"),
        unread=("compare",),
    ),
    "labels of 64 GB": Case(sweep(bytes_of(zstd_bomb, "label/c/0")), says="would unpack to 68719476736"),
    "a chunk is a pickle": Case(
        sweep(lambda p, f: (p / "loss/c/1/0/0").write_bytes(pickled(f))),
        says=("chunk 1 (images 3 to 5) of loss is torn", "torn: chunk 1"),
        unread=("compare",),
    ),
    "a chunk is a pipe": Case(sweep(put("loss/c/1/0/0", pipe)), says="loss/c/1/0/0"),
    "a chunk is endless": Case(sweep(put("loss/c/1/0/0", linked("/dev/zero"))), says="loss/c/1/0/0"),
    "a chunk is a terabyte": Case(sweep(put("loss/c/1/0/0", terabyte)), says="loss/c/1/0/0"),
    "a chunk lies outside": Case(sweep(put("loss/c/1/0/0", to_the_secret)), says="loss/c/1/0/0"),
    "chunks lie outside": Case(sweep(put("loss/c", to_the_outside)), says="loss/c"),
    "labels lie outside": Case(sweep(put("label/c/0", to_the_secret)), says="label/c/0"),
    "an array's facts are a pipe": Case(sweep(put("loss/zarr.json", pipe)), says="loss/zarr.json"),
    "an array's facts are endless": Case(sweep(put("loss/zarr.json", linked("/dev/zero"))), says="loss/zarr.json"),
    "an array's facts lie outside": Case(sweep(put("loss/zarr.json", to_the_secret)), says="loss/zarr.json"),
    "an array's facts are garbage": Case(
        sweep(put("loss/zarr.json", lambda p, f: p.write_bytes(b"\xff{"))), says="UnicodeDecodeError"
    ),
    "an array is gone": Case(sweep(put("loss", lambda p, f: None)), says="No array found"),
    "the facts are a pipe": Case(
        sweep(put("zarr.json", pipe)), says=("must be a sweep or not exist", "holds nothing of this tool")
    ),
    "the facts are endless": Case(
        sweep(put("zarr.json", linked("/dev/zero"))),
        says=("must be a sweep or not exist", "holds nothing of this tool"),
    ),
    "the facts cannot be read": Case(sweep(put("zarr.json", linked("/proc/self/mem"))), says="zarr.json is a link"),
    "the facts lie outside": Case(sweep(put("zarr.json", to_the_secret)), says="zarr.json is a link"),
    "a control outside": Case(sweep(put("control_flip", to_the_outside)), says="control_flip"),
    "a control of garbage": Case(
        sweep(put("control_flip/zarr.json", lambda p, f: p.write_text("[")), controls=("flip",)),
        says="cannot be opened: JSONDecodeError",
        unread=("compare",),
    ),
    "a control that is a pipe": Case(
        sweep(put("control_flip/zarr.json", pipe), controls=("flip",)), says="control_flip", unread=("compare",)
    ),
    "a control with other labels": Case(
        sweep(lambda p, f: numbers("label", -5)(p / "control_flip", f), controls=("flip",)),
        says="control_flip",
        unread=("compare",),
    ),
    # its place
    "a file": Case(only("file"), says=("but it is a file", "cannot be reported on")),
    "a pipe": Case(only("pipe"), says=("but it is a file", "holds nothing of this tool")),
    "endless": Case(only("endless"), says=("but it is a file", "holds nothing of this tool")),
    "a link in a circle": Case(only("circle"), says=("but it is a file", "nothing is at")),
    "empty": Case(only("empty"), says=("nothing is there", "holds nothing of this tool")),
    "a folder of strangers": Case(only("strangers"), says=("a directory with 3 entries", "holds nothing of this tool")),
    "a name that steers a terminal": Case(renamed, "fine"),
    "a link to a sweep": Case(a_link, "fine"),
}


# ---- feature runs


def features(*changes: Change) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / "f.zarr"
        shutil.copytree(WHERE["features"], path)
        for change in changes:
            change(path, folder)
        with suppress(Exception):  # what cannot be read is refused before the seal is looked at
            seal_features(path)
        return path

    return build


def seal_features(path: Path) -> None:
    """A seal that fits what is there; a file that fits already stays as it is."""
    refuse_strange_entries(path)
    group = zarr.open_group(str(path), mode="r", zarr_format=3, use_consolidated=False)
    attributes = group.attrs.asdict()
    layers = []
    for k in range(min(100, attributes["n_layers"])):
        inner: Any = group[f"layer_{k:03d}"]
        arrays = {name: np.asarray(array[:]) for name, array in feature_store._arrays_of(path, inner).items()}
        layers.append((inner.attrs.asdict(), arrays))
    seal = feature_store.seal_of_run(attributes, layers)
    if attributes["seal"] != seal:
        edit(path / "zarr.json", lambda d: d["attributes"].update(seal=seal))


WHERE: dict[str, Path] = {}
"""`features`: a lawful feature run with an average; filled in by the fixture `ground`."""

LAYER = "layer_000"


def layer(**values: Any) -> Change:
    return lambda path, folder: edit(path / LAYER / "zarr.json", lambda d: d["attributes"].update(values))


def scores(**values: Any) -> Change:
    def act(path: Path, folder: Path) -> None:
        def change(document: Facts) -> None:
            about = json.loads(document["attributes"]["scores"])
            about.update(values)
            document["attributes"]["scores"] = json.dumps(about)

        edit(path / LAYER / "zarr.json", change)

    return act


def maps(change: Callable[[Facts], object], name: str = "maps") -> Change:
    return array(f"{LAYER}/{name}", change)


def shape(*sides: int) -> Callable[[Facts], object]:
    def change(document: Facts) -> None:
        document["shape"] = list(sides)
        document["chunk_grid"]["configuration"]["chunk_shape"] = [max(1, s) for s in sides]

    return change


FEATURES: dict[str, Case] = {
    "a later version": Case(features(attrs(schema_version=99)), says="schema version 99"),
    "another kind": Case(features(attrs(kind="\x1b[2J")), says=r"\x1b[2J"),
    "a billion layers": Case(features(attrs(n_layers=10**9)), says="a whole number from 1 to 10000, got 1000000000"),
    "no layers": Case(features(attrs(n_layers=0)), says="a whole number from 1 to 10000, got 0"),
    "minus one layer": Case(features(attrs(n_layers=-1)), says="a whole number from 1 to 10000, got -1"),
    "size of text": Case(features(attrs(size=["\x1b[2J", 1])), says="two whole numbers [h, w] of at least 1, got ["),
    "size of nothing": Case(features(attrs(size=[0, -1])), says="two whole numbers [h, w] of at least 1, got [0, -1]"),
    "notes that are no list": Case(features(attrs(notes='{"\\u001b[2J": 1}')), says="must be a JSON list of texts"),
    "notes a hundred thousand deep": Case(features(attrs(notes="[" * 100_000)), says="must be a JSON list of texts"),
    "model that is no text": Case(features(attrs(model=["\x1b[2J"])), says="must be a text of at most 1000 letters"),
    "markup in every text": Case(
        features(attrs(model=MARKUP[1], input=MARKUP[0], data=MARKUP[2]), layer(kind=MARKUP[1], activation=MARKUP[0])),
        "fine",
    ),
    "a layer that climbs": Case(features(layer(path="../../../outside/x")), "fine"),
    "a layer of a megabyte": Case(features(layer(path="x" * 2**20)), says="must be a text of at most 1000 letters"),
    "scores that are text": Case(
        features(scores(artefact_energy="\x1b[2J")), says="artefact_energy is no finite number"
    ),
    "scores that are NaN": Case(
        features(scores(artefact_energy=float("nan"))), says="artefact_energy is no finite number"
    ),
    "scores that lack some": Case(
        features(layer(scores='{"skipped": {}, "channels": []}')), says="KeyError: 'borders'"
    ),
    "channels that are not there": Case(features(scores(channels=[[10**9, 1.0]])), "either"),
    "reach of 10**30": Case(features(scores(reach_cells=10**30, reach_pixels=1e308)), "either"),
    "maps of 10**12": Case(
        features(maps(shape(10**4, 10**4, 10**4))), says="expected maps of at most 268435456 fractions"
    ),
    "maps of 2**31": Case(
        features(maps(shape(2**7, 2**12, 2**12))), says="expected maps of at most 268435456 fractions"
    ),
    "maps of one axis": Case(
        features(maps(lambda d: [shape(8)(d), d.pop("dimension_names")])),
        says="fractions [c, h, w], got float32 (8,)",
    ),
    "maps of nothing": Case(features(maps(shape(0, 0, 0))), says="got float32 (0, 0, 0)"),
    "maps of objects": Case(features(maps(lambda d: d.update(data_type="|O"))), says="No Zarr data type"),
    "maps of text": Case(
        features(maps(lambda d: d.update(data_type="string", fill_value=""))), says="For string dtype"
    ),
    "maps of whole numbers": Case(
        features(maps(lambda d: d.update(data_type="int32", fill_value=0))),
        says="fractions [c, h, w], got int32",
    ),
    "maps of NaN": Case(features(numbers(f"{LAYER}/maps", np.nan)), "either"),
    "maps of infinity": Case(features(numbers(f"{LAYER}/maps", np.inf)), "either"),
    "maps of 1e38": Case(features(numbers(f"{LAYER}/maps", 3e38)), "either"),
    "averages of another shape": Case(
        features(maps(shape(1, 1, 1), "mean")), says="a chunk of 8 bytes would unpack to 4096"
    ),
    "averages without a mean": Case(
        features(put(f"{LAYER}/mean", lambda p, f: None)), says="an average has n_images, a mean and a variance"
    ),
    "a chunk is a pipe": Case(features(put(f"{LAYER}/maps/c/0/0/0", pipe)), says="c/0/0/0"),
    "a chunk is endless": Case(features(put(f"{LAYER}/maps/c/0/0/0", linked("/dev/zero"))), says="c/0/0/0"),
    "a chunk lies outside": Case(features(put(f"{LAYER}/maps/c/0/0/0", to_the_secret)), says="c/0/0/0"),
    "a chunk of 64 GB": Case(
        features(bytes_of(zstd_bomb, f"{LAYER}/maps/c/0/0/0")), says="would unpack to 68719476736"
    ),
    "a chunk flipped": Case(
        features(bytes_of(lambda b: b[:20] + bytes([b[20] ^ 1]) + b[21:], f"{LAYER}/maps/c/0/0/0")),
        says="decompression error",
    ),
    "a layer is gone": Case(features(put(LAYER, lambda p, f: None)), says="KeyError: 'layer_000'"),
    "a layer lies outside": Case(features(put(LAYER, to_the_outside)), says=LAYER),
    "images below 0": Case(features(attrs(n_images=-5)), says="a whole number from 0 to 2**63 - 1, got -5"),
}


# ---- layer arithmetic in a file


def facts(change: Callable[[Facts], object]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        document = json.loads(WHERE["inspection"].read_text())
        change(document)
        (folder / "i.json").write_text(json.dumps(document))
        return folder / "i.json"

    return build


def first(**values: Any) -> Callable[[Path], Path]:
    return facts(lambda d: d["layers"][0].update(values))


def bare(content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (folder / "i.json").write_bytes(content)
        return folder / "i.json"

    return build


ARITHMETIC: dict[str, Case] = {
    "a hundred thousand deep": Case(bare(b"[" * 100_000), says="recursion limit exceeded"),
    "not UTF-8": Case(bare(b'{"a": "\xff"}'), says="invalid unicode code point"),
    "a pickle": Case(bare(b"\x80\x02]."), says="Invalid JSON: expected value"),
    "a list": Case(bare(b"[]"), says="should be an object"),
    "markup": Case(facts(lambda d: d.update(model=MARKUP[2], notes=MARKUP)), "fine"),
    "a layer with markup": Case(first(path=MARKUP[0], kind=MARKUP[2]), "fine"),
    "another kind": Case(facts(lambda d: d.update(kind="\x1b[2J")), says=r"\x1b[2J"),
    "sizes of 10**30": Case(
        facts(lambda d: d.update(size=[10**30, 1])), says="less than or equal to 1000000000, got 1000000"
    ),
    "negative sizes": Case(
        first(in_size=[-1, -1], out_size=[0, 0]), says="in_size.0: Input should be greater than or equal to 1, got -1"
    ),
    "strides of 0": Case(
        first(stride=[0, 0], kernel=[0, 0]), says="kernel.0: Input should be greater than or equal to 1, got 0"
    ),
    "padding of 10**30": Case(
        first(padding={"left": 10**30, "right": 0, "top": 0, "bottom": 0}),
        says="padding.left: Input should be less than or equal to 1000000000",
    ),
    "sides that lack one": Case(first(used={"left": 1}), says="used.right: Field required"),
    "sides that are a list": Case(first(used=[1, 2, 3, 4]), says="used: Input should be an object"),
    "NaN": Case(
        facts(lambda d: d.update(size=[float("nan"), 1])), says="size.0: Input should be a valid integer, got nan"
    ),
    "no layers": Case(facts(lambda d: d.update(layers=[])), says="layers: Tuple should have at least 1 item"),
    "even sizes of text": Case(
        facts(lambda d: d.update(even_sizes={"h": ["\x1b"], "w": []})),
        says=r"even_sizes.h.0: Input should be a valid integer, got '\x1b'",
    ),
}
