"""A net as one plain PyTorch file and its state dict: no layer of shiftlens, torchvision or timm is needed to run it.

`torch.export` gives the net as a list of calls of torch's own operators. They are written as Python, each weight under
its name in the state dict.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.naming import one_line, printable

SOURCE = "net.py"
WEIGHTS = "weights.pt"

_FILE = '''"""{title}

Plain PyTorch: this file and `{weights}` are all that is needed.

    from {stem} import load

    net = load()
    outputs = net(images)

Images: float32 [batch, {channels}, {height}, {width}], pixel values from 0 to 1; they are normalised inside.
"""

from pathlib import Path

import torch
from torch import nn
{imports}
PARAMETERS = {parameters}


class Net(nn.Module):
    """Made from its state dict, each entry under its own name."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *path, leaf = name.split(".")
            place = self
            for part in path:
                if part not in dict(place.named_children()):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            if name in PARAMETERS:
                place.register_parameter(leaf, nn.Parameter(value))
            else:
                place.register_buffer(leaf, value)

    def forward(self, images):
        state = self.state_dict(keep_vars=True)
        return compute(images, state)


def load(weights=Path(__file__).with_name({weights!r})):
    """The net with its weights, in evaluation mode."""
    return Net(torch.load(weights, map_location="cpu", weights_only=True)).eval()


def compute(images, state):
{body}
'''


class Normalised(nn.Module):
    """A net that takes pixel values from 0 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Any:
        """Outputs of the net for [batch, channel, row, column]."""
        return self.net((images - self.mean) / self.std)


def program_of(module: nn.Module, images: Tensor, *, dynamic: bool = True) -> torch.export.ExportedProgram:
    """The net as calls of torch's operators, for any number of images.

    Raises
    ------
    InputError
        torch cannot trace it, or not for any number of images.
    """
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    try:
        with torch.no_grad():
            return torch.export.export(module, (images,), dynamic_shapes=shapes)
    except Exception as error:
        how = (
            " for any number of images (a fixed number may do: batch=1, on the command line --batch 1)"
            if dynamic
            else ""
        )
        raise InputError(f"torch.export cannot trace this net{how}: {one_line(error)}") from error


def write_source(program: torch.export.ExportedProgram, folder: Path, title: str, size: tuple[int, ...]) -> list[Path]:
    """Write the file and its state dict into a folder; returns their paths."""
    state, names, parameters = {}, {}, []
    for spec in program.graph_signature.input_specs:
        target = spec.target
        if target is None:
            continue
        value = program.state_dict.get(target, program.constants.get(target))
        if not isinstance(value, Tensor):
            raise InputError(f"the net holds {target}, a {type(value).__name__}: expected tensors only")
        state[target] = value.detach().cpu().clone()
        names[spec.arg.name] = target
        if isinstance(value, nn.Parameter):
            parameters.append(target)
    body, imports = _body(program, names)
    channels, height, width = size
    text = _FILE.format(
        title=printable(title).replace("\\", "/").replace('"', "'"),
        weights=WEIGHTS,
        stem=Path(SOURCE).stem,
        channels=channels,
        height=height,
        width=width,
        imports=imports,
        parameters=_set(parameters),
        body=body,
    )
    source, weights = folder / SOURCE, folder / WEIGHTS
    source.write_text(text, encoding="utf-8")
    torch.save(state, weights)
    return [source, weights]


def _set(names: list[str]) -> str:
    return "{\n" + "".join(f"    {name!r},\n" for name in names) + "}" if names else "set()"


def _body(program: torch.export.ExportedProgram, names: dict[str, str]) -> tuple[str, str]:
    """The lines of `compute`, and what they import beside torch."""
    code = program.graph.python_code("self")
    lines = code.src.splitlines()
    start = next(k for k, line in enumerate(lines) if line.lstrip().startswith("def "))
    given = re.findall(r"(\w+)\s*(?::[^,)]*)?[,)]", lines[start].partition("(")[2])
    images = _images(program)
    found = [f"    {images} = images"] if images != "images" else []
    found += [f"    {argument} = state[{names[argument]!r}]" for argument in given if argument in names]
    for line in lines[start + 1 :]:
        text = line.split("  #")[0].rstrip()
        # Variables are not deleted by hand, and everything is made where the images are.
        text = re.sub(r";\s+\w+ = (?:\w+ = )*None$", "", text)
        text = re.sub(r"device\s*=\s*device\(type='cpu'\)", f"device = {images}.device", text)
        if text.strip():
            found.append(text)
    found[-1] = _returned(found[-1], program)
    used = "\n".join(found)
    text = ""
    for name, value in code.globals.items():
        if name == "torch" or not re.search(rf"\b{name}\b", used):
            continue
        if isinstance(value, float):  # inf and nan
            text += f"{name} = float({str(value)!r})\n"
        else:
            text += f"from {value.__module__} import {value.__name__} as {name}\n"
    return used, text


def _images(program: torch.export.ExportedProgram) -> str:
    [name] = program.graph_signature.user_inputs
    return str(name)


def _returned(line: str, program: torch.export.ExportedProgram) -> str:
    """The last line, with the outputs as the net itself returns them."""
    values = line.strip().removeprefix("return ").strip()
    inner = [each.strip() for each in values.strip("()[]").split(",") if each.strip()]
    spec = program.call_spec.out_spec
    if spec is None or spec.num_leaves != len(inner):
        raise InputError("expected a net that returns tensors only")
    made = torch.utils._pytree.tree_unflatten(inner, spec)
    return f"    return {_written(made)}"


def _written(made: Any) -> str:
    if isinstance(made, str):
        return made
    if isinstance(made, dict):
        return "{" + ", ".join(f"{key!r}: {_written(value)}" for key, value in made.items()) + "}"
    if type(made) in (tuple, list):
        inner = ", ".join(map(_written, made))
        return f"({inner},)" if isinstance(made, tuple) else f"[{inner}]"
    raise InputError(f"expected a net that returns tensors, in lists or tables at most, got a {type(made).__name__}")


def read_source(source: Path) -> nn.Module:
    """Run a file that `write_source` wrote."""
    name = f"_exported_net_{abs(hash(str(source)))}"
    found = importlib.util.spec_from_file_location(name, source)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    finally:
        sys.modules.pop(name, None)
    net: nn.Module = module.load()
    return net
