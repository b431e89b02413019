"""Hostile files of weights, built when they are needed."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from hostile.machinery import Case, outside
from hostile.payloads import Payload, by_eval, pickled

Build = Callable[[Path], Path]


def state() -> dict[str, torch.Tensor]:
    """Of the net that the commands build: see `net.py` in `commands.py`."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return dict(net.state_dict())


def written(name: str, content: Callable[[Path], bytes]) -> Build:
    def build(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content(folder))
        return path

    return build


def saved(content: Callable[[Path], Any], name: str = "w.pt", **options: Any) -> Build:
    def build(folder: Path) -> Path:
        path = folder / name
        torch.save(content(folder), path, **options)
        return path

    return build


def safetensors_bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def lying(change: Callable[[dict[str, Any]], object], data: Callable[[bytes], bytes] = lambda b: b) -> Build:
    """A lawful file whose header is changed (or replaced by what `change` returns)."""

    def content(folder: Path) -> bytes:
        whole = to_safetensors(state())
        n = struct.unpack("<Q", whole[:8])[0]
        header = json.loads(whole[8 : 8 + n])
        other = change(header)
        return safetensors_bytes(header if other is None else other, data(whole[8 + n :]))

    return written("w.safetensors", content)


def _set(name: str, **facts: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(facts)


def _twice(header: dict[str, Any]) -> bytes:
    first = json.dumps({"0.bias": header["0.bias"]})[:-1]
    return (first + ", " + json.dumps(header)[1:]).encode()


def _changed(**values: object) -> Callable[[Path], dict[str, Any]]:
    def content(folder: Path) -> dict[str, Any]:
        tensors: dict[str, Any] = state()
        for name, value in values.items():
            tensors[name.replace("_", ".")] = value
        return tensors

    return content


def _broken(value: float) -> Callable[[Path], dict[str, torch.Tensor]]:
    def content(folder: Path) -> dict[str, torch.Tensor]:
        tensors = state()
        tensors["3.weight"][1, 2] = value
        return tensors

    return content


def zipped(entries: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED, name: str = "w.pt") -> Build:
    def build(folder: Path) -> Path:
        path = folder / name
        with zipfile.ZipFile(path, "w", compression) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
        return path

    return build


def reduce_in_a_zip(folder: Path) -> Path:
    entries = {"archive/data.pkl": pickled(folder), "archive/version": b"3\n", "archive/byteorder": b"little"}
    return zipped(entries, name="w.zip")(folder)


def entries_of_a_save(content: object | None = None) -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(state() if content is None else content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_entry(ending: str, content: bytes) -> Build:
    def build(folder: Path) -> Path:
        entries = entries_of_a_save()
        for name in entries:
            if name.endswith(ending):
                entries[name] = content
        return zipped(entries)(folder)

    return build


def zip_bomb(n_bytes: int) -> Build:
    """A save whose storage is `n_bytes` of zeros, compressed: torch itself never compresses."""

    def build(folder: Path) -> Path:
        path = folder / "bomb.pt"
        entries = entries_of_a_save()
        piece = bytes(2**20)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in entries.items():
                if name.endswith("/data/0"):
                    with archive.open(name, "w", force_zip64=True) as entry:
                        for _ in range(n_bytes // len(piece)):
                            entry.write(piece)
                else:
                    archive.writestr(name, content)
        return path

    return build


def overlapping_zip(folder: Path) -> Path:
    """Two thousand entries that are all the same bytes: what is unpacked is far more than there is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(2**16))
    whole = buffer.getvalue()
    end = whole.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", whole[end + 16 : end + 20])[0]
    directory = whole[start:end]
    n = 2000
    second = directory[directory.index(b"PK\x01\x02", 4) :]
    directory += second * n
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, n + 2, n + 2, len(directory), start, 0)
    path = folder / "overlap.pt"
    path.write_bytes(whole[:start] + directory + tail)
    return path


def lying_zip(folder: Path) -> Path:
    """The directory says that an entry has 1 TB."""
    path = zipped(entries_of_a_save())(folder)
    whole = bytearray(path.read_bytes())
    place = whole.rindex(b"/data/0") - 46 - len(b"w") + 1
    place = whole.rindex(b"PK\x01\x02", 0, place + 46)
    whole[place + 20 : place + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    path.write_bytes(bytes(whole))
    return path


def broken_directory(folder: Path) -> Path:
    path = zipped(entries_of_a_save())(folder)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"PK\x01\x02", b"PK\x09\x09"))
    return path


def legacy_tar(folder: Path) -> Path:
    path = folder / "w.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            content = pickled(folder)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def fifo(folder: Path, name: str = "w.pt") -> Path:
    os.mkfifo(folder / name)
    return folder / name


def link(target: str, name: str = "w.pt") -> Build:
    def build(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return build


def a_folder(folder: Path) -> Path:
    (folder / "w.pt").mkdir()
    return folder / "w.pt"


def to_a_secret(folder: Path) -> Path:
    (folder / "w.pt").symlink_to(outside(folder) / "nothing there")
    return folder / "w.pt"


def _stretched() -> torch.Tensor:
    return torch.zeros(1).expand(2**20, 2**20)


def _deep() -> bytes:
    return b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."


WEIGHTS: dict[str, Case] = {
    # code
    "reduce in a .pt": Case(saved(Payload), says="would run code"),
    "reduce beside weights in a .pth": Case(
        saved(lambda f: {"state_dict": state(), "x": Payload(f)}, "w.pth"), says="would run code"
    ),
    "reduce in the old format": Case(saved(Payload, _use_new_zipfile_serialization=False), says="would run code"),
    "reduce in a zip made by hand": Case(reduce_in_a_zip, says="would run code"),
    "reduce in a tar": Case(legacy_tar, says="no readable"),
    "pickle named .safetensors": Case(written("w.safetensors", pickled), says="would run code"),
    "pickle of protocol 4": Case(written("w.pt", lambda f: pickled(f, 4)), says="plain pickle"),
    "pickle of protocol 0": Case(written("w.pkl", lambda f: pickled(f, 0)), says="would run code"),
    "eval in a pickle": Case(written("w.bin", by_eval), says="would run code"),
    "eval in a zip": Case(lambda f: with_entry("/data.pkl", by_eval(f))(f), says="would run code"),
    "whole pickled module": Case(saved(lambda f: nn.Linear(2, 2)), says="would run code"),
    "a program": Case(zipped({"s/data.pkl": b"", "s/constants.pkl": b""}), says="TorchScript"),
    # archives
    "zip bomb": Case(zip_bomb(64 * 2**20), says="compressed or overlapping"),
    "zip of overlapping entries": Case(overlapping_zip, says="compressed or overlapping"),
    "zip that says 4 GB": Case(lying_zip, says="compressed or overlapping"),
    "zip without a directory": Case(broken_directory, says="no readable"),
    "zip cut short": Case(
        lambda f: written("w.pt", lambda g: zipped(entries_of_a_save())(g).read_bytes()[:-70])(f), says="no readable"
    ),
    "unknown byte order": Case(with_entry("/byteorder", b"middle"), says="no readable"),
    "the other byte order": Case(with_entry("/byteorder", b"big"), "either"),
    "storage too short": Case(with_entry("/data/0", b"\0" * 4), says="no readable"),
    "pickle a hundred thousand deep": Case(with_entry("/data.pkl", _deep()), says="holds list"),
    # safetensors
    "header of 2**62 bytes": Case(
        written("w.safetensors", lambda f: safetensors_bytes(b"{}", length=2**62)), says="no readable"
    ),
    "header longer than the file": Case(
        written("w.safetensors", lambda f: safetensors_bytes(b"{}", length=4096)), says="no readable"
    ),
    "header that is no JSON": Case(lying(lambda h: b"{nonsense"), says="no readable"),
    "header a thousand deep": Case(lying(lambda h: b'{"a":' * 1000 + b"1" + b"}" * 1000), says="no readable"),
    "overlapping offsets": Case(lying(_set("3.bias", data_offsets=[0, 12])), says="no readable"),
    "offsets backwards": Case(lying(_set("3.bias", data_offsets=[12, 0])), says="no readable"),
    "offsets beyond the file": Case(lying(_set("3.bias", data_offsets=[2**40, 2**40 + 12])), says="no readable"),
    "negative shape": Case(lying(_set("3.bias", shape=[-3])), says="no readable"),
    "shape that overflows": Case(lying(_set("3.bias", shape=[2**40, 2**40])), says="no readable"),
    "nothing of 2**62 columns": Case(
        written(
            "w.safetensors",
            lambda f: safetensors_bytes({"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}),
        ),
        says="4 missing (first: 0.weight)",
    ),
    "dtype that lies": Case(lying(_set("3.bias", dtype="F64")), says="no readable"),
    "dtype that nobody knows": Case(lying(_set("3.bias", dtype="PICKLE")), says="no readable"),
    "small floats": Case(lying(_set("3.bias", dtype="F8_E4M3", shape=[12])), says="of another shape"),
    "duplicate names": Case(lying(_twice), "either"),
    "metadata that is no text": Case(lying(lambda h: h.update({"__metadata__": {"a": [1]}})), says="no readable"),
    "the other byte order in safetensors": Case(
        lying(lambda h: None, lambda data: b"".join(data[k : k + 4][::-1] for k in range(0, len(data), 4))), "either"
    ),
    # tensors
    "NaN": Case(saved(_broken(float("nan"))), says="NaN or infinite"),
    "infinity": Case(saved(_broken(float("-inf"))), says="NaN or infinite"),
    "a terabyte of one number": Case(saved(_changed(**{"3_weight": _stretched()})), says="of another shape"),
    "whole numbers": Case(saved(_changed(**{"3_bias": torch.zeros(3, dtype=torch.int64)})), "either"),
    "complex numbers": Case(saved(_changed(**{"3_bias": torch.zeros(3, dtype=torch.complex64)})), "either"),
    "sparse": Case(saved(_changed(**{"3_bias": torch.zeros(3).to_sparse()})), "either"),
    "no memory behind it": Case(saved(_changed(**{"3_bias": torch.zeros(3, device="meta")})), "either"),
    "names that steer a terminal": Case(
        saved(_changed(**{"\x1b[2J\x07\n[red]\u202e": torch.zeros(1)})), says=r"unexpected (first: \x1b[2J"
    ),
    "a name of a megabyte": Case(saved(_changed(**{"x" * 2**20: torch.zeros(1)})), says="unexpected"),
    "keys that are no text": Case(
        saved(lambda f: {1: torch.zeros(1), (2, 3): torch.zeros(1)}), says="2 unexpected (first: 1)"
    ),
    "wrapped for ever": Case(
        saved(lambda f: {"model": {"model": {"model": {"model": {"model": state()}}}}}), says="too deeply"
    ),
    # places
    "empty": Case(written("w.pt", lambda f: b""), says="no readable"),
    "nine bytes": Case(written("w.pt", lambda f: b"\0" * 8 + b"{"), says="no readable"),
    "one letter": Case(written("w.pt", lambda f: b"r"), says="no readable"),
    "a storage that is not there": Case(
        lambda f: written(
            "w.pt", lambda g: saved(lambda h: state(), _use_new_zipfile_serialization=False)(g).read_bytes()[:-300]
        )(f),
        says="no readable",
    ),
    "text": Case(written("w.pt", lambda f: b"weights\n" * 100), says="no readable"),
    "a folder": Case(a_folder, says="is a folder"),
    "a pipe": Case(fifo, says="does not exist"),
    "link to endless zeros": Case(link("/dev/zero"), says="does not exist"),
    "link to what cannot be read": Case(link("/proc/self/mem"), says="cannot be read"),
    "link in a circle": Case(link("w.pt"), says="does not exist"),
    "link to nothing outside": Case(to_a_secret, says="does not exist"),
    "a name that steers a terminal": Case(
        written("\x1b[31m[bold]\n\u202ew.pt", lambda f: b"x"), says=r"\x1b[31m[bold] \u202ew.pt"
    ),
    "a name that is no text": Case(written(os.fsdecode(b"\xff\xfe.pt"), lambda f: b"x"), says=r"\udcff\udcfe.pt"),
}
