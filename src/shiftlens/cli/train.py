"""`train`: the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(train)


def train(
    out: Annotated[Path, typer.Option("--out", help="The run directory.")],
    data: o.DataSpec = "digits",
    arch: Annotated[str, typer.Option("--arch", help="vgg8 or vgg6.")] = "vgg8",
    padding: Annotated[
        str,
        typer.Option(
            "--padding", help="zeros, replicate, reflect, symmetric, circular, partial, distribution, random or full."
        ),
    ] = "zeros",
    downsample: Annotated[
        str,
        typer.Option("--downsample", help="max, avg, max3, stride, blur, polyphase, stride-blur or stride-polyphase."),
    ] = "max",
    head: Annotated[str, typer.Option("--head", help="gap, max or flatten.")] = "gap",
    size: Annotated[str, typer.Option("--size", help="The net's input, H or HxW pixels.")] = "32",
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the images.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Fit the schedule to this time instead.")] = None,
    limit: o.Limit = None,
    data_root: o.DataRoot = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Train a VGG; stopped at any point, the same command goes on from the last epoch.

    Example: shiftlens train --data cifar10 --minutes 30 --out runs/vgg
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens import training
        from shiftlens.data.images import load_images

        pixels = o.size(size, "--size") or (32, 32)
        settings = training.TrainSettings(
            arch=arch, padding=padding, downsample=downsample, head=head, size=pixels, epochs=epochs, minutes=minutes
        )
        images = load_images(data, split="train", data_root=data_root, limit=o.positive(limit, "--limit"))
        test = load_images(data, split="test", data_root=data_root)
        with shell.progress("training", "steps") as report:
            result = training.train(images, test, out=out, seed=seed, device=device, settings=settings, progress=report)
    shell.result(result.to_dict(), result.lines())
