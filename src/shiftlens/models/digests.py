"""A model's digest: the same for the same net in another process, another for anything that could change a result."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from shiftlens.models.own_code import own_parts, tensor_bytes
from shiftlens.models.source_code import KNOWN, plain_source, without_addresses, without_place
from shiftlens.nn.repair_mark import without_mark


def state_digest(state: Mapping[str, Any]) -> str:
    """`sha256:...` of named tensors: name, dtype, shape and bytes of each, whatever their order or device."""
    hasher = hashlib.sha256()
    state = without_mark(state)  # it says nothing that the structure does not
    for name in sorted(state):
        value = state[name]
        if not isinstance(value, Tensor):
            hasher.update(f"{name}|{value!r}\n".encode())
            if isinstance(value, tuple | list):  # a quantised layer's weights, of which `repr` shows the corners
                inner = {str(k): each for k, each in enumerate(value) if isinstance(each, Tensor)}
                hasher.update(state_digest(inner).encode() if inner else b"")
            continue
        hasher.update(f"{name}|{value.dtype}|{list(value.shape)}\n".encode())
        hasher.update(tensor_bytes(value))
    return f"sha256:{hasher.hexdigest()}"


def structure(module: nn.Module) -> str:
    """The net as text: its tree of layers with their settings, and the code of every class that is the user's own.

    The settings are what layers print of themselves and every public attribute that is a number, text, True, False,
    None or a tuple of these: many layers print only some of what their `forward` uses. The code matters because two
    nets can have the same layers and another `forward`; comments, layout and docstrings do not count. Memory addresses
    and the folders of absolute paths are taken out. What is not in these classes is found by `own_parts`.
    """
    tree = without_addresses(repr(module))
    settings = [
        f"{path}.{name}={without_addresses(repr(without_place(value) if isinstance(value, str) else value))}"
        for path, part in module.named_modules()
        for name, value in sorted(vars(part).items())
        if name != "training"
        and not name.startswith("_")
        and _is_plain(value)
        # In a user's own layer None is mostly room for what the first call keeps: no setting, before or after it.
        and not (value is None and _is_own(type(part)))
    ]
    classes = {type(part) for part in module.modules()}
    own = (cls for cls in classes if _is_own(cls))
    return "\n".join([tree, *settings, *sorted(_code(cls) for cls in own)])


def _is_own(cls: type) -> bool:
    return cls.__module__.partition(".")[0] not in KNOWN


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def _code(cls: type) -> str:
    try:
        tree = plain_source(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        tree = None
    return cls.__qualname__ if tree is None else ast.unparse(tree)  # typed into a session: no source to read


def model_digest(module: nn.Module, preprocessing: str) -> str:
    """Digest over structure, weights, preprocessing and what `own_parts` finds; neither mode nor device count."""
    parts = [structure(module), state_digest(module.state_dict()), preprocessing]
    own = own_parts(module)
    if own:  # a net of known classes keeps the digest that it had before these were looked at
        parts.append("\n".join(own))
    return f"sha256:{hashlib.sha256('||'.join(parts).encode(errors='surrogatepass')).hexdigest()}"
