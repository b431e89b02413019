"""`export`: a model as files that run without shiftlens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.errors import InputError


def export(
    shell: Shell,
    model: o.OptionalModel,
    out: Annotated[Path, typer.Option("--out", help="A folder (torch) or a file (onnx).")],
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Run directory, or another --model.")] = None,
    format: Annotated[  # noqa: A002
        str | None,
        typer.Option(
            "--format", metavar="torch|onnx", help="torch: net.py and weights.pt (default: by the name of --out)."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Number of images, where a net cannot take any number of them.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was exported there before.")] = False,
) -> o.Answer:
    """Export a model as files that run without shiftlens, checked against it under shifts.

    Example: shiftlens export runs/vgg-symmetric --format onnx --out vgg.onnx
    """
    from shiftlens.exporting import export as export_model

    if (run is None) == (not model.model):
        raise InputError("expected a model to export: a run directory, or --model SPEC")
    loaded = (model if run is None else replace(model, model=run)).load(shell)
    found = export_model(loaded, out, format, batch=batch, overwrite=overwrite)  # type: ignore[arg-type]
    return found.to_dict(), found.lines()
