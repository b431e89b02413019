"""`export`: a model as files that run without shiftlens, checked against the model under shifts."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from shiftlens.errors import InputError, StoreError
from shiftlens.exporting.plain_source import SOURCE, Normalised, program_of, read_source, write_source
from shiftlens.models.loading import as_model
from shiftlens.models.wrapping import Model
from shiftlens.naming import Printed, one_line, unknown_name
from shiftlens.paths import kind_of
from shiftlens.shifts import translate

Format = Literal["torch", "onnx"]
FORMATS = ("torch", "onnx")
TOLERANCE = 1e-5
"""Largest difference of an output, absolute up to 1 and relative beyond."""

SHIFTS = ((0, 0), (1, 0), (0, -1), (-3, 2))
_ONNX = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True, repr=False)
class ExportResult(Printed):
    """What was written, and how near it is to the model.

    Attributes
    ----------
    files
        Paths.
    format
        "torch" or "onnx".
    difference
        Largest difference of an output from the model's, over shifted images and two batch sizes.
    """

    files: tuple[Path, ...]
    format: Format
    difference: float

    def lines(self) -> list[str]:
        """The files, then the difference."""
        return [
            *(f"wrote {file}" for file in self.files),
            f"outputs differ from the model's by at most {self.difference:.1g}, on images under {len(SHIFTS)} shifts",
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"files": [str(file) for file in self.files], "format": self.format, "difference": self.difference}


def export(
    model: Model | nn.Module | str | Path,
    path: str | Path,
    format: Format | None = None,  # noqa: A002
    *,
    batch: int | None = None,
    overwrite: bool = False,
) -> ExportResult:
    """Export a model, such as a repaired one, as files that run without shiftlens.

    The files take float32 images [batch, channel, row, column] of the model's input size with pixel values from 0 to 1,
    and normalise them. They are run on shifted images before this returns: what differs from the model is an error.

    Parameters
    ----------
    model
        A `Model`, an `nn.Module` whose input size is known (`wrap`), or a spec as `load_model` takes it.
    path
        `"torch"`: a folder for `net.py`, plain PyTorch, and `weights.pt`, its state dict. `"onnx"`: the file.
    format
        By default `"onnx"` where the path ends with `.onnx`, else `"torch"`.
    batch
        The number of images, where a net cannot be exported for any number of them.
    overwrite
        Replace what was exported there before.

    Returns
    -------
    ExportResult
        The files, and the largest difference.

    Raises
    ------
    InputError
        A callable or a net that torch cannot trace, an unknown input size, a missing package, or outputs that differ.
    StoreError
        Something is there, or it cannot be written.

    Examples
    --------
    >>> [file.name for file in export("runs/vgg-symmetric", "exported").files]
    ['net.py', 'weights.pt']
    """
    target = Path(path)
    chosen = format or ("onnx" if target.suffix == ".onnx" else "torch")
    if chosen not in FORMATS:
        raise unknown_name("format", chosen, FORMATS)
    if batch is not None and batch < 1:
        raise InputError(f"expected a batch of at least 1 image, got {batch}")
    if chosen == "onnx":
        _need_onnx()
    found = as_model(model, None)
    module, size = found.module, found.input_size
    if not isinstance(module, nn.Module):
        raise InputError(f"{found.name} is a plain callable: expected a net (nn.Module) to export")
    if size is None:
        raise InputError(f"the input size of {found.name} is not known: expected one (wrap(..., size=), --input-size)")
    shape = (found.n_channels, *size)
    mean, std = (
        tuple(values) * (1 if len(values) == shape[0] else shape[0])
        for values in (found.preprocessing.mean, found.preprocessing.std)
    )
    net = Normalised(copy.deepcopy(module).cpu().eval(), mean, std).eval()
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    images = _images(shape, batch or 2)
    program = program_of(net, images, dynamic=batch is None)
    _refuse_existing(target, chosen, overwrite)
    try:
        if chosen == "torch":
            target.mkdir(parents=True, exist_ok=True)
            files = write_source(program, target, f"{found.name}, exported by shiftlens.", shape)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            files = _write_onnx(program, target, images)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}") from None
    run = _run_torch(target / SOURCE) if chosen == "torch" else _run_onnx(target)
    try:
        difference = _largest_difference(net, run, shape, (batch,) if batch else (1, 5))
    except InputError:
        for file in files:
            file.unlink()
        raise
    return ExportResult(tuple(files), chosen, difference)


def _need_onnx() -> None:
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}: pip install 'shiftlens[onnx]'")


def _refuse_existing(target: Path, chosen: str, overwrite: bool) -> None:
    kind = kind_of(target)
    if chosen == "onnx" and kind == "folder":
        raise StoreError(f"{target} is a folder, expected a new file")
    if chosen == "torch" and kind == "file":
        raise StoreError(f"{target} is a file, expected a new folder")
    there = target if chosen == "onnx" else target / SOURCE
    if kind_of(there) != "nothing" and not overwrite:
        raise StoreError(f"{there} is there already: choose a new name, or replace it (--overwrite, overwrite=True)")
    if chosen == "torch" and kind == "folder" and kind_of(there) == "nothing" and any(target.iterdir()):
        raise StoreError(f"{target} holds something else; choose a new name")


def _images(shape: tuple[int, ...], n: int) -> Tensor:
    """Random images in the range 0 to 1: pixels as 8 bits have them."""
    pixels = np.random.default_rng(n).integers(0, 256, (n, *shape)).astype(np.float32) / 255
    return torch.from_numpy(pixels)


def _write_onnx(program: torch.export.ExportedProgram, target: Path, images: Tensor) -> list[Path]:
    try:
        made = torch.onnx.export(program, (images,), dynamo=True, input_names=["images"], verbose=False)
    except Exception as error:
        raise InputError(f"torch.onnx cannot export this net: {one_line(error)}") from error
    assert made is not None
    made.save(str(target), external_data=False)
    return [target]


def _run_torch(source: Path) -> Run:
    net = read_source(source)

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(tree_leaves(net(images)))

    return run


def _run_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    return lambda images: [torch.from_numpy(each) for each in session.run(None, {given.name: images.numpy()})]


def _largest_difference(net: nn.Module, run: Run, shape: tuple[int, ...], batches: tuple[int, ...]) -> float:
    """Of any output, over shifted images.

    Raises
    ------
    InputError
        It is too large, or the outputs are of other shapes.
    """
    largest = 0.0
    for n in batches:
        for dx, dy in SHIFTS:
            images = translate(_images(shape, n), dx, dy)
            with torch.no_grad():
                expected = [each for each in tree_leaves(net(images)) if isinstance(each, Tensor)]
            got = run(images)
            if [each.shape for each in expected] != [each.shape for each in got]:
                raise InputError("the exported net returns other shapes than the model: nothing was written")
            for a, b in zip(expected, got, strict=True):
                apart = (a - b).abs() if a.is_floating_point() else (a != b).float()
                if bool((apart > TOLERANCE * (1 + a.abs())).any()) or not bool(torch.isfinite(apart).all()):
                    raise InputError(
                        f"the exported net differs from the model by {float(apart.max()):.2g} for images moved by "
                        f"({dx}, {dy}): nothing was written"
                    )
                largest = max(largest, float(apart.max()))
    return largest
