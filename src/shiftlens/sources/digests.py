"""A model's digest: the same for the same net in another process, another for anything that could change a result."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_KNOWN_PACKAGES = ("torch", "torchvision", "timm", "shiftlens")


def state_digest(state: Mapping[str, Any]) -> str:
    """Digest of named tensors: name, dtype, shape and bytes of each, whatever their order or device.

    Returns
    -------
    str
        `sha256:` and 64 hexadecimal digits.
    """
    hasher = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if not isinstance(value, Tensor):
            hasher.update(f"{name}|{value!r}\n".encode())
            continue
        hasher.update(f"{name}|{value.dtype}|{list(value.shape)}\n".encode())
        plain = value.detach().dequantize() if value.is_quantized else value.detach()
        hasher.update(plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{hasher.hexdigest()}"


def structure(module: nn.Module) -> str:
    """The net as text: its tree of layers with their settings, and the code of every class that is the user's own.

    The settings are what layers print of themselves and every public attribute that is a number, text, True, False,
    None or a tuple of these: many layers print only some of what their `forward` uses. The code matters because two
    nets can have the same layers and another `forward`; comments and layout do not count. Memory addresses are taken
    out. What plain functions outside those classes do is not seen.
    """
    tree = _without_addresses(repr(module))
    settings = [
        f"{path}.{name}={_without_addresses(repr(value))}"
        for path, part in module.named_modules()
        for name, value in sorted(vars(part).items())
        if name != "training" and not name.startswith("_") and _is_plain(value)
    ]
    classes = {type(part) for part in module.modules()}
    own = (cls for cls in classes if cls.__module__.partition(".")[0] not in _KNOWN_PACKAGES)
    return "\n".join([tree, *settings, *sorted(_code(cls) for cls in own)])


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _code(cls: type) -> str:
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(cls))))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return cls.__qualname__  # typed into a session: no source to read


def model_digest(module: nn.Module, preprocessing: str) -> str:
    """Digest over structure, weights and preprocessing; training or evaluation mode and the device do not count."""
    parts = (structure(module), state_digest(module.state_dict()), preprocessing)
    return f"sha256:{hashlib.sha256('||'.join(parts).encode()).hexdigest()}"
