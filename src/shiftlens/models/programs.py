"""Files that hold a whole program in place of weights, and the factory by which each is audited all the same."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

from shiftlens.errors import InputError

_TORCHSCRIPT = """
import torch


def make():
    net = torch.jit.load({path!r}, map_location="cpu").eval()
    return lambda images: net(images)
"""

_EXPORT = """
import torch


def make():
    net = torch.export.load({path!r}).module()
    return lambda images: torch.cat([net(image) for image in images.split(1)])  # 1: the batch size of the export
"""

_ONNX = """
import onnxruntime, torch

def make():
    net = onnxruntime.InferenceSession({path!r})
    run = lambda image: torch.from_numpy(net.run(None, {{net.get_inputs()[0].name: image.numpy()}})[0])
    return lambda images: torch.cat([run(image) for image in images.split(1)])  # 1: the batch size of the export
"""

FACTORIES = {"TorchScript program": _TORCHSCRIPT, "torch.export program": _EXPORT, "ONNX model": _ONNX}
"""Kinds of programs, and a Python file whose function `make` serves one as a model."""


def refuse_program(path: Path, what: str) -> None:
    """Refuse a program where a `what` file is expected; the error's note is a factory that serves it as a model."""
    kind = _kind_of_program(path)
    if kind is None:
        return
    error = InputError(
        f"{what}: {path} is a {kind}, expected weights (save model.state_dict()) or a factory: put these lines into "
        "net.py, and audit it as --model net.py:make"
    )
    error.add_note(FACTORIES[kind].strip("\n").format(path=str(path)))
    raise error


def _kind_of_program(path: Path) -> str | None:
    with suppress(OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.namelist()
            if any(entry.endswith("/constants.pkl") for entry in entries):
                return "TorchScript program"
            if any(entry.endswith(("/archive_format", "serialized_exported_program.json")) for entry in entries):
                return "torch.export program"
        elif path.suffix.lower() == ".onnx":
            with path.open("rb") as file:
                return "ONNX model" if file.read(1) == b"\x08" else None  # its first field, the version
    return None
