"""`report`: everything that was measured, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell


def report(
    shell: Shell,
    items: Annotated[
        list[Path] | None,
        typer.Argument(metavar="S.zarr F.zarr ...", help="Sweeps, feature runs, JSON of inspect and compare."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The file, ending in .html.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option("--title", help="Title of the page (default: model and images).")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data set of the images that fail, to show them (default: digits only)."),
    ] = None,
    data_root: o.DataRoot = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Also report the layer arithmetic of this model, as inspect does.")
    ] = None,
    code: o.Code = None,
    size: o.Size = None,
    metric: o.Metric = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Compare sweeps of different images by those that all hold.")
    ] = False,
    seed: o.Seed = 0,
) -> o.Answer:
    """Write one self-contained HTML file: verdict, maps, findings, feature maps, layer arithmetic, comparison.

    Items are told apart by their kind. Two sweeps or more are compared where they can be; the first is the baseline.
    The file needs no network and opens from disk.

    Example: shiftlens report vgg.zarr features.zarr --model runs/vgg --data cifar10 --out report.html
    """
    from shiftlens import arithmetic, reporting
    from shiftlens.errors import InputError
    from shiftlens.models.skeletons import load_skeleton
    from shiftlens.reporting.given_items import given

    if size is not None and model is None:
        raise InputError("--size is the input of --model: give a model too, or leave it out")
    everything: list[reporting.Item] = [*(items or ())]
    if model is not None:
        skeleton, sweeps = load_skeleton(model, code), given(everything).sweeps if everything and size is None else ()
        pixels = o.size(size, "--size") or (sweeps[0].header.image_size if sweeps else None)
        everything.append(arithmetic.inspect(skeleton, pixels))
    with shell.progress("reporting", "parts") as step:
        made = reporting.report(
            everything,
            out,
            title=title,
            images=data,
            data_root=data_root,
            metric=metric,
            partial=partial,
            seed=seed,
            progress=step,
        )
    return made.to_dict(), made.lines()
