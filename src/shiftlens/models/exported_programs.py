"""`pt2:FILE`: a program of `torch.export` as a plain callable."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError
from shiftlens.models.loaded import Loaded
from shiftlens.naming import one_line, printable
from shiftlens.paths import read_file, with_home


class ExportedNet:
    """A program on the CPU: images [n, c, h, w] to its outputs.

    Attributes
    ----------
    content
        Digest of the file.
    """

    def __init__(self, program: torch.export.ExportedProgram, batch: int | None, content: str, name: str) -> None:
        self._net = program.module()
        self._batch = batch
        self.content = content
        self.__name__ = name

    def __call__(self, images: Tensor) -> Any:
        """Outputs on the device of the images; as many images at a time as the program takes."""
        n, size = len(images), self._batch or len(images)
        given = images.detach().cpu()
        # A last batch that is not full is filled up with its own last image.
        given = torch.cat([given, given[-1:].expand(-n % size, *given.shape[1:])])
        with torch.no_grad():
            parts = [self._net(given[at : at + size]) for at in range(0, len(given), size)]
        flat = [tree_leaves(part) for part in parts]
        rows = iter([torch.cat(column)[:n].to(images.device) for column in zip(*flat, strict=True)])
        return tree_map_only(Tensor, lambda _: next(rows), parts[0])


def load_exported(name: str) -> Loaded:
    """The program of a file. Reading one can run code that the file holds, as importing a Python file does.

    Raises
    ------
    InputError
        The file is no such program, or it takes another input than one batch of float32 images [n, c, h, w].
    """
    path = with_home(name)
    data = read_file(path, str(path))
    try:
        program = torch.export.load(io.BytesIO(data))
    except Exception as error:  # of a file that is none, torch raises whatever its readers do
        raise InputError(f"model: {printable(str(path))} is no torch.export program: {one_line(error)}") from None
    inputs = set(program.graph_signature.user_inputs)
    entries = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    if len(entries) != 1 or not isinstance(entries[0], Tensor) or entries[0].dtype != torch.float32:
        raise InputError(f"model: {printable(str(path))} takes {len(entries)} inputs, expected one of float32 images")
    shape = [size if isinstance(size, int) else None for size in entries[0].shape]
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise InputError(
            f"model: {printable(str(path))} takes {shape}, expected [n, c, h, w] with 1 or 3 channels: serve it with a "
            "factory of your own (file.py:factory)"
        )
    size = None if shape[2] is None or shape[3] is None else (shape[2], shape[3])
    made = ExportedNet(program, shape[0], hashlib.sha256(data).hexdigest(), path.name)
    return Loaded(made, Preprocessing(size=size), notes=(f"pt2:{name}: a plain callable, whose layers are not seen",))
