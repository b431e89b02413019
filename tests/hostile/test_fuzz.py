"""Each parser on noise and on lawful files that were mutated: only this tool's own errors come out, in one line.

Every run tries other examples; a failure prints its example and the run's `--hypothesis-seed`. `HOSTILE_EXAMPLES` says
how many tries each parser gets (by default few enough for a minute in all).
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as to_safetensors

from hostile.commands import Ground
from hostile.corpus_data import lawful, table
from shiftlens.cli import options
from shiftlens.data.decode import decode, read_header
from shiftlens.data.images import load_images
from shiftlens.data.preprocessing import parse_numbers, parse_size
from shiftlens.engine.plan import Plan
from shiftlens.errors import ShiftlensError
from shiftlens.lens.feature_store import open_features
from shiftlens.models.checkpoints import fit_weights, read_weights
from shiftlens.models.runs import build_net, load_run
from shiftlens.models.runspec import parse_spec
from shiftlens.nn import VGG
from shiftlens.nn.edits import carry_out
from shiftlens.reporting.saved_results import saved_result
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.sweep_result import open_sweep
from shiftlens.training.checkpoint import load_checkpoint, load_finished, save_checkpoint
from sweeps import small_sweeps as small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRIES = int(os.environ.get("HOSTILE_EXAMPLES", "25"))
USUAL = settings(
    max_examples=TRIES,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    derandomize=False,
    database=None,
)
QUICK = settings(USUAL, max_examples=10 * TRIES)

# ---- mutations

OPERATIONS = ("flip", "cut", "drop", "copy", "number", "noise")
Mutation = tuple[str, float, int]
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=5,
)
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)


def mutated(content: bytes, mutations: list[Mutation]) -> bytes:
    data = bytearray(content)
    for operation, share, value in mutations:
        if not data:
            break
        place = int(share * len(data))
        size = 1 + value % 64
        if operation == "flip":
            data[place] ^= 1 << (value % 8)
        elif operation == "cut":
            del data[place:]
        elif operation == "drop":
            del data[place : place + size]
        elif operation == "copy":
            start = value % len(data)
            data[place:place] = data[start : start + size]
        elif operation == "number":
            width = (1, 2, 4, 8)[value % 4]
            number = NUMBERS[value // 4 % len(NUMBERS)] % 256**width
            data[place : place + width] = number.to_bytes(width, "little" if value % 2 else "big")
        else:
            data[place : place + size] = np.random.default_rng(value).bytes(size)
    return bytes(data)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "..", "0.0", "\x1b[2J", "\ud800", "$\\frac{", "[" * 2000, "{}", "[1]", '"x"', "NaN", "1e999"]),
    st.lists(st.integers(-5, 2**64), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def altered(document: Any, choices: list[tuple[int, Any]]) -> Any:
    """The same document with some of its values, however deep, replaced or taken out."""
    copied = json.loads(json.dumps(document))
    for which, value in choices:
        places = list(_places(copied))
        if not places:
            break
        holder, key = places[which % len(places)]
        if which % 7 == 0 and isinstance(holder, dict):
            del holder[key]
        else:
            holder[key] = value
    return copied


def _places(document: Any) -> Any:
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(pairs):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)


CHOICES = st.lists(st.tuples(st.integers(0, 10_000), ODD), min_size=1, max_size=3)


def calm(call: Callable[[], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = ""
        try:
            call()
        except ShiftlensError as error:
            said = str(error).strip()
    assert "\n" not in said, said
    assert "MemoryError" not in said, said


def on_disk(content: bytes, name: str, call: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        calm(lambda: call(path))


# ---- weights

NET = VGG("vgg6", n_classes=3, width=1, size=8)


def _saved(**options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(NET.state_dict(), buffer, **options)
    return buffer.getvalue()


SAVES = {
    "zip": _saved(),
    "old": _saved(_use_new_zipfile_serialization=False),
    "safetensors": to_safetensors({name: value.contiguous() for name, value in NET.state_dict().items()}),
}


def _load_weights(path: Path) -> None:
    fit_weights(VGG("vgg6", n_classes=3, width=1, size=8), read_weights(path), "net")


@USUAL
@given(st.sampled_from(list(SAVES)), MUTATIONS)
@example("zip", [("flip", 0.25, 0)])  # a wrong checksum in the pickle, which zipfile says only as it is read
def test_weights(kind: str, mutations: list[Mutation]) -> None:
    on_disk(mutated(SAVES[kind], mutations), "w.pt", _load_weights)


@USUAL
@given(st.binary(max_size=400), st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x40\0\0\0\0\0\0\0{"]))
def test_noise_as_weights(noise: bytes, head: bytes) -> None:
    on_disk(head + noise, "w.safetensors", _load_weights)


@USUAL
@given(CHOICES)
def test_headers_of_safetensors(choices: list[tuple[int, Any]]) -> None:
    whole = SAVES["safetensors"]
    size = int.from_bytes(whole[:8], "little")
    header = json.dumps(altered(json.loads(whole[8 : 8 + size]), choices)).encode()
    on_disk(len(header).to_bytes(8, "little") + header + whole[8 + size :], "w.safetensors", _load_weights)


# ---- run directories


@QUICK
@given(CHOICES)
def test_facts_of_runs(ground: Ground, choices: list[tuple[int, Any]]) -> None:
    document = altered(json.loads((ground.run / "model.json").read_text()), choices)

    def build() -> None:
        spec = parse_spec(json.dumps(document), "model.json")
        with torch.device("meta"):
            build_net(spec.build, spec.edits)

    calm(build)


@QUICK
@given(MUTATIONS)
def test_bytes_of_facts(ground: Ground, mutations: list[Mutation]) -> None:
    calm(lambda: parse_spec(mutated((ground.run / "model.json").read_bytes(), mutations), "model.json"))


@USUAL
@given(st.sampled_from(["model.json", "model.safetensors"]), MUTATIONS)
def test_runs(ground: Ground, name: str, mutations: list[Mutation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(ground.run, Path(folder) / "run"))
        (run / name).write_bytes(mutated((run / name).read_bytes(), mutations))
        calm(lambda: load_run(run))


EDITS = [
    {"path": "0.0", "what": "padding", "before": "zeros", "after": "reflect", "way": "attribute"},
    {"path": "0.6", "what": "downsample", "before": "max", "after": "blur", "padding_mode": "symmetric"},
    {"path": "1.6", "what": "downsample", "before": "max", "after": "polyphase", "filter_size": 3, "leader": "0.6"},
    {"path": "", "what": "input padding", "before": [8, 8], "after": "reflect", "sides": [1, 1, 1, 1]},
]


@USUAL
@given(CHOICES)
def test_edits(choices: list[tuple[int, Any]]) -> None:
    edits = [edit for edit in altered(EDITS, choices) if isinstance(edit, dict)]  # `model.json` can hold no other
    calm(lambda: carry_out(VGG("vgg6", width=1), edits))


# ---- pictures and parquet


def _pictures() -> dict[str, bytes]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    made = {}
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"):
        buffer = io.BytesIO()
        try:
            image.save(buffer, kind)
        except (KeyError, OSError):
            continue  # this Pillow was built without it
        made[kind] = buffer.getvalue()
    for mode in ("P", "L", "1", "RGBA", "I;16"):
        buffer = io.BytesIO()
        image.convert("L" if mode == "I;16" else mode).convert(mode).save(buffer, "PNG")
        made[mode] = buffer.getvalue()
    return made


PICTURES = _pictures()


@QUICK
@given(st.sampled_from(list(PICTURES)), MUTATIONS)
def test_pictures(kind: str, mutations: list[Mutation]) -> None:
    data = mutated(PICTURES[kind], mutations)
    calm(lambda: read_header(data, "picture"))
    calm(lambda: decode(data, "picture"))


@QUICK
@given(st.binary(max_size=200), st.sampled_from(list(PICTURES)))
def test_noise_as_pictures(noise: bytes, kind: str) -> None:
    data = PICTURES[kind][:16] + noise
    calm(lambda: decode(data, "picture"))


PARQUET = table()(Path(tempfile.mkdtemp())).read_bytes()


@USUAL
@given(MUTATIONS)
def test_parquet(mutations: list[Mutation]) -> None:
    def read(path: Path) -> None:
        images = load_images(f"parquet:{path}")
        images.batch(np.arange(len(images)))

    on_disk(mutated(PARQUET, mutations), "x.parquet", read)


@USUAL
@given(MUTATIONS)
def test_rows_of_parquet(mutations: list[Mutation]) -> None:
    def read(path: Path) -> None:
        content = mutated(lawful(), mutations)
        file = table(images=[{"bytes": content, "path": "x"}] * 6)(path.parent)
        load_images(f"parquet:{file}").batch([0])

    on_disk(b"", "unused", read)


# ---- results

ATTRIBUTES = small.HEADER.to_attributes(complete=True)


@QUICK
@given(CHOICES)
def test_attributes_of_sweeps(choices: list[tuple[int, Any]]) -> None:
    calm(lambda: SweepHeader.from_attributes(altered(ATTRIBUTES, choices), "s.zarr"))


@QUICK
@given(st.sampled_from([key for key, value in ATTRIBUTES.items() if str(value)[:1] in "[{"]), CHOICES)
def test_nested_attributes_of_sweeps(key: str, choices: list[tuple[int, Any]]) -> None:
    value = ATTRIBUTES[key]
    nested = json.loads(value) if isinstance(value, str) else value
    made = json.dumps(altered({"x": nested}, choices).get("x"))
    calm(lambda: SweepHeader.from_attributes(ATTRIBUTES | {key: made}, "s.zarr"))


@QUICK
@given(CHOICES)
def test_plans(choices: list[tuple[int, Any]]) -> None:
    calm(lambda: Plan.from_json(json.dumps(altered(json.loads(small.PLAN.to_json()), choices))))


def _open_sweep(path: Path) -> None:
    sweep = open_sweep(path, partial=True)
    sweep.dataset.load()
    _ = sweep.accuracy, sweep.mean_loss, [sweep.control(name, partial=True) for name in sweep.controls]


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@USUAL
@given(st.integers(0, 1000), MUTATIONS)
def test_sweeps(ground: Ground, which: int, mutations: list[Mutation]) -> None:
    _mangle(ground.sweep, which, lambda content: mutated(content, mutations), _open_sweep)


@USUAL
@given(st.integers(0, 1000), CHOICES)
def test_metadata_of_sweeps(ground: Ground, which: int, choices: list[tuple[int, Any]]) -> None:
    _mangle(
        ground.sweep, which, lambda c: json.dumps(altered(json.loads(c), choices)).encode(), _open_sweep, "zarr.json"
    )


@USUAL
@given(st.integers(0, 1000), MUTATIONS)
def test_feature_runs(ground: Ground, which: int, mutations: list[Mutation]) -> None:
    _mangle(ground.features, which, lambda content: mutated(content, mutations), open_features)


@USUAL
@given(st.integers(0, 1000), CHOICES)
def test_metadata_of_feature_runs(ground: Ground, which: int, choices: list[tuple[int, Any]]) -> None:
    _mangle(
        ground.features,
        which,
        lambda c: json.dumps(altered(json.loads(c), choices)).encode(),
        open_features,
        "zarr.json",
    )


def _mangle(
    lawful: Path, which: int, change: Callable[[bytes], bytes], read: Callable[[Path], object], ending: str = ""
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(lawful, Path(folder) / "x.zarr"))
        files = [name for name in _files(path) if name.endswith(ending)]
        file = path / files[which % len(files)]
        file.write_bytes(change(file.read_bytes()))
        calm(lambda: read(path))


@QUICK
@given(CHOICES)
def test_layer_arithmetic(ground: Ground, choices: list[tuple[int, Any]]) -> None:
    document = altered(json.loads(ground.inspection.read_text()), choices)
    on_disk(json.dumps(document).encode(), "i.json", saved_result)


@USUAL
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_noise_as_layer_arithmetic(noise: bytes) -> None:
    on_disk(noise, "i.json", saved_result)


RECORD = {"kind": "training", "schema_version": 1, "complete": False, "epochs": [], "asked": {}, "schedule": {}}


@USUAL
@given(MUTATIONS)
def test_checkpoints_of_trainings(mutations: list[Mutation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        save_checkpoint(out, {"w": torch.zeros(3)}, {}, RECORD)
        file = out / "checkpoint.safetensors"
        file.write_bytes(mutated(file.read_bytes(), mutations))
        calm(lambda: load_checkpoint(out))
        (out / "model.json").write_text("{}")
        (out / "training.json").write_bytes(mutated(json.dumps(RECORD).encode(), mutations))
        calm(lambda: load_finished(out))


# ---- words

WORDS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="0123456789xX.,-+eE_ ", max_size=12),
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(["black", "mean", "edge", "wrap", "32x48", "0.5,0.5,0.5", "1e-400", "inf", "nan", "٣"]),
)


@QUICK
@given(WORDS)
def test_words(word: str) -> None:
    for read in (
        lambda: options.size(word, "--size"),
        lambda: parse_size(word),
        lambda: parse_numbers("mean", word),
        lambda: Fill.parse(word),
    ):
        calm(read)


@QUICK
@given(ODD, ODD)
def test_grids(max_shift: Any, step: Any) -> None:
    calm(lambda: ShiftGrid(max_shift, step).shape)


@QUICK
@given(ODD)
def test_fills(fill: Any) -> None:
    if isinstance(fill, str | float | int) or (isinstance(fill, list) and all(math.isfinite(v) for v in fill)):
        calm(lambda: Fill.parse(fill))
