"""`inspect`: layer arithmetic."""

from __future__ import annotations

from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks

Size = Annotated[str | None, typer.Option("--size", help="The input, H or HxW pixels (default: the model's own).")]


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(inspect)


def inspect(
    model: o.ModelSpec,
    size: Size = None,
    uneven: Annotated[bool, typer.Option("--uneven", help="In the table, only the layers that are uneven.")] = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Where padding is used unevenly, which sizes are even, how far borders reach; needs no weights and no images.

    Columns: cells of padding used left, right, top, bottom (negative: rows or columns of the map are dropped); rows and
    columns left over at the end; how many cells from a border can depend on padding; pixels of the picture that a cell
    sees.

    Example: shiftlens inspect --model torchvision:resnet18 --size 224
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens import arithmetic
        from shiftlens.devices import resolve_device
        from shiftlens.errors import InputError
        from shiftlens.models.skeletons import load_skeleton

        resolve_device(device)
        wanted = o.size(size, "--size")
        skeleton = load_skeleton(model)
        pixels = wanted or skeleton.input_size
        if pixels is None:
            raise InputError(f"{model} declares no input size: give one (--size)")
        found = arithmetic.inspect(skeleton, pixels)
    shell.result(found.to_dict(), found.lines(only_uneven=uneven))
