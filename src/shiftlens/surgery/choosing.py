"""Which layers a repair is about: patterns, and nets that cannot be changed at all."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.surgery.repair_plan import within

Patterns = str | Sequence[str] | None


def _listed(patterns: Patterns) -> tuple[str, ...]:
    parts = patterns.split(",") if isinstance(patterns, str) else patterns or ()
    return tuple(part.strip() for part in parts if part.strip())


class Choice:
    """Whether a layer is asked for, by any of the names that the net has for it; see `repair` for the patterns.

    Raises
    ------
    InputError
        A pattern that nothing in the net has; suggests the nearest name.
    """

    def __init__(self, module: nn.Module, only: Patterns, exclude: Patterns) -> None:
        self._only, self._exclude = _listed(only), _listed(exclude)
        self._names: dict[int, list[str]] = {}
        named = [*module.named_modules(remove_duplicate=False)]
        for path, part in named:
            self._names.setdefault(id(part), []).append(path)
        paths, classes = [path for path, _ in named], {type(part).__name__ for _, part in named}
        for pattern in (*self._only, *self._exclude):
            if pattern not in classes and not any(_matches(pattern, path) for path in paths):
                raise unknown_name("layer", pattern, [*filter(None, paths), *sorted(classes)])

    def has(self, part: nn.Module) -> bool:
        """Whether a layer is asked for."""
        return self._asked(self._names.get(id(part), []), type(part).__name__)

    def has_path(self, path: str) -> bool:
        """The same for what is only a path, such as a function call."""
        return self._asked([path], "")

    def _asked(self, names: list[str], kind: str) -> bool:
        def hit(patterns: tuple[str, ...]) -> bool:
            return any(pattern == kind or any(_matches(pattern, name) for name in names) for pattern in patterns)

        return (not self._only or hit(self._only)) and not hit(self._exclude)


def _matches(pattern: str, path: str) -> bool:
    return within(path, pattern) or fnmatchcase(path, pattern)


def refuse_closed(module: nn.Module) -> None:
    """Refuse a net with a scripted or traced, a quantised, or a lazy layer, which cannot be changed; names it."""
    if not isinstance(module, nn.Module):
        raise InputError(f"repair expects an nn.Module, got {type(module).__name__}")
    for path, part in module.named_modules():
        where = path or "the model"
        home = type(part).__module__
        if isinstance(part, torch.jit.ScriptModule):
            raise InputError(f"{where} is TorchScript, whose layers cannot be changed: repair the net before scripting")
        if "quantized" in home.split(".") and "qat" not in home.split("."):
            raise InputError(
                f"{where} is quantised ({type(part).__name__}), its layers cannot be changed:"
                " repair the net before quantising"
            )
        if any(is_lazy(tensor) for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))):
            raise InputError(f"{where} has no shape yet (lazy): run one picture through the net first")
