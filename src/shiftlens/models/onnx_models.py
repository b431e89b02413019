"""`onnx:FILE`: a graph of ONNX as a torch module, or where that cannot be made as a callable of onnxruntime."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError
from shiftlens.models.loaded import Loaded
from shiftlens.naming import one_line, printable
from shiftlens.paths import read_file, with_home

_TRIED_SIZES = ((64, 64), (224, 224))
"""Sizes (h, w) at which a graph of any size is compared, the first that it takes."""

MOST_DIFFERENCE = 1e-4
"""Of the torch module and onnxruntime on random numbers, as a share of the largest output and 0.1."""

_FLOAT = 1  # onnx.TensorProto.FLOAT
_EXTERNAL = 1  # onnx.TensorProto.EXTERNAL


class OnnxSession:
    """A graph in onnxruntime, on the CPU: images [n, c, h, w] to its output, or its outputs by name.

    A graph that is made for one image is called once for each.

    Attributes
    ----------
    content
        Digest of the file.
    """

    def __init__(self, data: bytes, one_by_one: bool, name: str) -> None:
        runtime = _library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what goes wrong is raised
        self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._one_by_one = one_by_one
        self.content = hashlib.sha256(data).hexdigest()
        self.__name__ = name

    def __call__(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Outputs on the device of the images."""
        parts = [image[None] for image in images] if self._one_by_one else [images]
        rows = [self._session.run(None, {self._input: part.detach().cpu().numpy()}) for part in parts]
        joined = [torch.cat([torch.from_numpy(row[k]) for row in rows]).to(images.device) for k in range(len(rows[0]))]
        return joined[0] if len(joined) == 1 else dict(zip(self._outputs, joined, strict=True))


def load_onnx(name: str) -> Loaded:
    """The graph of a file, as a torch module where onnx2torch makes one that answers as onnxruntime does.

    The file is data: it names no code that would be run. Its preprocessing is not in it.

    Raises
    ------
    InputError
        onnxruntime is not installed; the file is no graph, keeps weights elsewhere than beside it, or takes another
        input than one batch of float32 images [n, c, h, w].
    """
    path = with_home(name)
    onnx = _library("onnx")
    data = read_file(path, str(path))
    try:
        graph = onnx.load_model_from_string(data)
        _join_weights(onnx, graph, path)
        (entry,) = [each for each in graph.graph.input if each.name not in {w.name for w in graph.graph.initializer}]
        shape = [dim.dim_value or None for dim in entry.type.tensor_type.shape.dim]
        kind = entry.type.tensor_type.elem_type
    except InputError:
        raise
    except Exception as error:  # protobuf and onnx raise many kinds for what is no graph
        raise InputError(f"model: {printable(str(path))} is no ONNX graph of one input: {one_line(error)}") from None
    if len(shape) != 4 or kind != _FLOAT or (shape[1] not in (1, 3, None)):
        raise InputError(
            f"model: {printable(str(path))} takes {kind and onnx.TensorProto.DataType.Name(kind)} {shape}, expected "
            "FLOAT [n, c, h, w] with 1 or 3 channels: serve it with a factory of your own (file.py:factory)"
        )
    whole = graph.SerializeToString()
    try:
        session = OnnxSession(whole, shape[0] == 1, path.name)
    except InputError:
        raise
    except Exception as error:  # onnxruntime raises its own kinds
        raise InputError(f"model: onnxruntime does not take {printable(str(path))}: {one_line(error)}") from None
    height, width = shape[2:]
    size = None if height is None or width is None else (height, width)
    module, why = _as_module(onnx, graph, session, shape)
    said = "onnx2torch turned it into a torch module" if module is not None else f"it runs in onnxruntime: {why}"
    made: Any = module if module is not None else session
    return Loaded(made, Preprocessing(size=size), notes=(f"onnx:{name}: {said}",))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError("ONNX models need onnxruntime and onnx: pip install 'shiftlens[onnx]'") from None


def _join_weights(onnx: Any, graph: Any, path: Path) -> None:
    """Read weights that lie in files beside the graph; `InputError` for a place elsewhere."""
    for tensor in graph.graph.initializer:
        if tensor.data_location != _EXTERNAL:
            continue
        place = {each.key: each.value for each in tensor.external_data}.get("location", "")
        if not place or Path(place).name != place or (path.parent / place).is_symlink():
            raise InputError(
                f"model: {printable(str(path))} keeps weights in {place!r:.80}, expected a file in its own folder"
            )
    onnx.load_external_data_for_model(graph, str(path.parent))


def _as_module(onnx: Any, graph: Any, session: OnnxSession, shape: list[int | None]) -> tuple[nn.Module | None, str]:
    """The graph as a torch module; None, and why, where there is none that answers alike."""
    try:
        converter: Any = importlib.import_module("onnx2torch")
    except ImportError:
        return None, "onnx2torch is not installed"
    logger = logging.getLogger("onnx2torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        module: nn.Module = converter.convert(with_initializers(onnx, graph)).eval()
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(
                tensor
            )  # its own memory, strides as usual
        _compare(module, session, shape)
    except Exception as error:  # a converter that is not complete fails in any way
        return None, f"onnx2torch does not make a module of it ({one_line(error, 120)})"
    finally:
        logger.setLevel(level)
    return module, ""


def with_initializers(onnx: Any, graph: Any) -> Any:
    """The same graph with its constants as initializers, where onnx2torch looks for weights."""
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    kept = []
    for node in other.graph.node:
        value = next((each for each in node.attribute if each.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            other.graph.initializer.append(tensor)
        else:
            kept.append(node)
    kept = [_copied(onnx, node) for node in kept]
    del other.graph.node[:]
    other.graph.node.extend(kept)
    return other


def _copied(onnx: Any, node: Any) -> Any:
    other = onnx.NodeProto()
    other.CopyFrom(node)
    return other


def _compare(module: Callable[[Tensor], Any], session: OnnxSession, shape: list[int | None]) -> None:
    """Raise where the module and onnxruntime differ on two random images."""
    height, width = shape[2:]
    sizes = _TRIED_SIZES if height is None or width is None else ((height, width),)
    generator = torch.Generator().manual_seed(0)
    failed: Exception | None = None
    for size in sizes:
        x = torch.rand(2, shape[1] or 3, *size, generator=generator)
        try:
            expected = session(x)
        except Exception as error:  # it may not take this size
            failed = error
            continue
        with torch.no_grad():
            found = module(x)
        if isinstance(expected, Tensor):
            expected, found = {"": expected}, {"": found}
        elif isinstance(found, list | tuple):
            found = dict(zip(expected, found, strict=True))
        for key, value in expected.items():
            most = MOST_DIFFERENCE * (float(value.abs().max()) + 0.1)
            if found[key].shape != value.shape or not float((found[key] - value).abs().max()) <= most:
                raise InputError("it answers otherwise than onnxruntime")
        return
    raise failed or InputError("it takes no size that was tried")
