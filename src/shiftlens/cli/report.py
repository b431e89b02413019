"""`report`: everything that was measured, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks
from shiftlens.cli.inspect_command import Size

if TYPE_CHECKING:
    from shiftlens.arithmetic import Inspection
    from shiftlens.sweeps.sweep_result import Sweep


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(report)


def report(
    items: Annotated[
        list[Path] | None,
        typer.Argument(metavar="S.zarr F.zarr ...", help="Sweeps, feature runs, JSON of inspect and compare."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The file, ending in .html.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option("--title", help="Of the page (default: model and images).")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Where pictures of failing images come from (default: digits only)."),
    ] = None,
    data_root: o.DataRoot = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Also the layer arithmetic of this model; spelled as for inspect.")
    ] = None,
    size: Size = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Write one self-contained HTML file: verdict, maps, findings, feature maps, layer arithmetic, comparison.

    What is given is told apart by its kind. Two sweeps or more are compared where they can be; the first is the
    baseline. The file needs no network and opens from disk.

    Example: shiftlens report vgg.zarr features.zarr --model runs/vgg --data cifar10 --out report.html
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens import reporting
        from shiftlens.devices import resolve_device
        from shiftlens.errors import InputError
        from shiftlens.reporting.given_items import given

        resolve_device(device)
        if size is not None and model is None:
            raise InputError("--size is the input of --model: give a model too, or leave it out")
        found = given([*(items or ()), *(() if model is None else (_inspected(model, size, items or []),))])
        everything: list[reporting.Item] = [*found.sweeps, *found.runs, *found.inspections, *found.comparisons]
        with shell.progress("reporting", "parts") as step:
            made = reporting.report(
                everything, out, title=title, images=data, data_root=data_root, seed=seed, progress=step
            )
    shell.result(made.to_dict(), made.lines())


def _inspected(model: str, size: str | None, items: list[Path]) -> Inspection:
    """Layer arithmetic at the size asked for, else at that of the first sweep, else at the model's own."""
    from shiftlens import arithmetic
    from shiftlens.errors import InputError
    from shiftlens.models.skeletons import load_skeleton
    from shiftlens.reporting.given_items import given

    skeleton = load_skeleton(model)
    sweeps: tuple[Sweep, ...] = given(items).sweeps if items and size is None else ()
    pixels = o.size(size, "--size") or (sweeps[0].header.image_size if sweeps else skeleton.input_size)
    if pixels is None:
        raise InputError(f"{model} declares no input size: give one (--size)")
    return arithmetic.inspect(skeleton, pixels)
