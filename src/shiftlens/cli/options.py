"""The options that several commands share, and how sizes and numbers are read from text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from shiftlens.errors import InputError

_MODEL = typer.Option(
    "--model", help="Run directory, pretrained:NAME, torchvision:NAME, timm:NAME, file.py:factory or module:factory."
)
ModelSpec = Annotated[str, _MODEL]
SweptModel = Annotated[str | None, _MODEL]
DataSpec = Annotated[
    str,
    typer.Option("--data", help="digits, cifar10, folder:PATH, parquet:PATH or torchvision:NAME."),
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Where data sets lie (else $SHIFTLENS_DATA, else downloaded).")
]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Only the first N images of a fixed order that keeps class shares.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        help="Images in a forward pass (default: the fastest). 1 is for models whose answer depends on the batch.",
    ),
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Weights file for a factory; 'random' for torchvision: or timm:.")
]
Mean = Annotated[str | None, typer.Option("--mean", help="Pixel means that the model wants, range 0 to 1: 0.5,0.5,0.5")]
Std = Annotated[str | None, typer.Option("--std", help="Pixel standard deviations that the model wants, 0 to 1.")]
InputSize = Annotated[str | None, typer.Option("--input-size", help="The model's input, H or HxW pixels.")]
Fill = Annotated[
    str,
    typer.Option("--fill", help="What enters: black, mean, edge, reflect, symmetric, wrap, or pixel values (0 to 1)."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything random.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No remarks, no progress.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]


def numbers(text: str | None, what: str) -> tuple[float, ...] | None:
    """`0.5` or `0.5,0.4,0.3` as numbers.

    Raises
    ------
    InputError
        Text that is no list of numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{what} must be numbers with commas between them, got {text!r}") from None


def size(text: str | None, what: str, least: int = 1, most: int = 999_999) -> tuple[int, int] | None:
    """`H` or `HxW` as `(h, w)` in pixels.

    Raises
    ------
    InputError
        Anything else, or numbers below `least` or above `most`.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,99})(?:x(\d{1,99}))?", text.strip())
    if not match:
        raise InputError(f"{what} must be H or HxW whole pixels, got {text!r}")
    h = int(match[1])
    w = int(match[2]) if match[2] else h
    if min(h, w) < least:
        raise InputError(f"{what} must be at least {least}, got {text!r}")
    if max(h, w) > most:
        raise InputError(f"{what} must be at most {most} pixels, got {text!r}")
    return h, w


def positive(value: int | None, what: str) -> int | None:
    """A count that must be at least 1 when it is given.

    Raises
    ------
    InputError
        Zero or a negative number.
    """
    if value is not None and value < 1:
        raise InputError(f"{what} must be at least 1, got {value}")
    return value
