"""The options of a call: kept as JSON values, and written again as words of a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODEL_OPTIONS = ("code", "weights", "weights_key", "mean", "std", "input_size", "resize", "crop", "interpolation")
"""Options that decide which model `load_model` makes, by name."""

CHANGED: Mapping[str, Any] = {"changed": "in Python"}
"""Options of a model that was changed after it was loaded: no command line makes it."""

_SIZES = ("input_size", "crop", "resize")


def as_given(**options: Any) -> dict[str, Any]:
    """The options that are not None, by name: text, numbers and lists of numbers; paths as they were given."""
    return {name: _plain(value) for name, value in options.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def option_words(options: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """These of the options as a command line takes them.

    Examples
    --------
    >>> option_words({"mean": [0.5, 0.25], "input_size": [32, 48], "limit": 3}, MODEL_OPTIONS)
    ('--mean', '0.5,0.25', '--input-size', '32x48')
    """
    found: list[str] = []
    for name in names:
        if name in options:
            value = options[name]
            text = ("x" if name in _SIZES else ",").join(map(str, value)) if isinstance(value, list) else str(value)
            found += [f"--{name.replace('_', '-')}", "LABELS.json" if isinstance(value, dict) else text]
    return tuple(found)
