"""A mark in the weights of a repaired net: loaded into the net as it was, they fail and say why.

Another padding mode changes no name and no shape, so that nothing else would tell the two nets apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

MARK = "repaired by shiftlens: padding or strides differ, use shiftlens.load_model(run)"
"""The name of one more entry of the state dict, which the error of a strict load shows."""


def without_mark(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict but for the mark."""
    return {name: value for name, value in state.items() if not name.endswith(MARK)}


def mark_repaired(module: nn.Module) -> None:
    """Let a net's state dict have the mark, and let the net take one with it or without it, as before its repair."""
    if _add not in module._state_dict_hooks.values():
        module.register_state_dict_post_hook(_add)  # type: ignore[no-untyped-call]
        module.register_load_state_dict_pre_hook(_take)  # type: ignore[no-untyped-call]


def _add(module: nn.Module, state: dict[str, Any], prefix: str, about: Any) -> None:
    state[f"{prefix}{MARK}"] = torch.zeros(0, dtype=torch.uint8)


def _take(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.pop(f"{prefix}{MARK}", None)
