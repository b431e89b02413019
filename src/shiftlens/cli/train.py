"""`demo`, `train` and `train-scenes`: nets of the project's own recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell


def demo(
    shell: Shell,
    out: Annotated[Path, typer.Option("--out", help="Directory for everything the demo makes.")] = Path("demo-out"),
    task: Annotated[
        str, typer.Option("--task", help="classification (trains a VGG), segmentation or detection (a shipped net).")
    ] = "classification",
    device: o.Device = "auto",
    seed: o.Seed = 0,
) -> o.Answer:
    """Train a small VGG on embedded digits, sweep every shift, write a report (a few minutes, no download).

    Example: shiftlens demo --out demo-out

    A detector: shiftlens demo --task detection --out demo-detection
    """
    from shiftlens.demo import run, run_task

    if task == "classification":
        result = run(out, shell, device=device, seed=seed)
    else:
        result = run_task(task, out, shell, device=device, seed=seed)
    files = [str(path) for path in result.files]
    return {"files": files}, [*result.lines(), *o.wrote(*files)]


def train(
    shell: Shell,
    out: Annotated[Path, typer.Option("--out", help="The run directory.")],
    images: o.ImageOptions,
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
    width: Annotated[int, typer.Option("--width", min=1, help="Channels of the first level of a VGG.")] = 64,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Train this net instead: file.py:factory, module:factory, or torchvision:NAME, timm:NAME from random "
            "weights.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="The net's input, H or HxW pixels (default: 32; with --model the images' own)."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the images (default: the recipe's).")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Fit the schedule to this time instead.")] = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
) -> o.Answer:
    """Train a VGG or a net of your own; an interrupted training is resumed by the same command.

    Example: shiftlens train --model net.py:make --data folder:photos --epochs 20 --out runs/mine

    A VGG in half an hour: shiftlens train --data cifar10 --minutes 30 --out runs/vgg
    """
    from shiftlens import training
    from shiftlens.errors import InputError

    pixels = o.size(size, "--size")
    settings = training.TrainSettings(
        arch=arch,
        padding=padding,
        downsample=downsample,
        head=head,
        width=width,
        size=pixels or (32, 32),
        epochs=epochs,
        minutes=minutes,
    )
    if model is not None:
        usual = training.TrainSettings()
        given = [f"--{name}" for name in training.NET_SETTINGS if getattr(settings, name) != getattr(usual, name)]
        if given:
            raise InputError(f"{', '.join(given)} is of a VGG: {model} builds its own net")
    learnt = o.images_of(images.data, images.data_root, images.limit, images.split or "train")
    # What is learnt from cannot be validated on.
    test = o.images_of(images.data, images.data_root, split="test") if images.split in (None, "train") else None
    if model is not None and pixels is None:
        if learnt.size is None:
            raise InputError(f"the images of {learnt.name} differ in size: give the net's input with --size")
        settings = replace(settings, size=learnt.size)
    with shell.progress("training", "steps") as report:
        result = training.train(
            learnt, test, out=out, seed=seed, device=device, settings=settings, module=model, progress=report
        )
    return result.to_dict(), result.lines()


def train_scenes(
    shell: Shell,
    out: Annotated[Path, typer.Option("--out", help="The run directory.")],
    net: Annotated[str, typer.Option("--net", help="unet (segmentation) or detector.")] = "unet",
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of 16 scenes (default: the recipe's).")] = None,
    padding: Annotated[
        str,
        typer.Option(
            "--padding", help="zeros, replicate, reflect, symmetric, circular, partial, distribution, random."
        ),
    ] = "zeros",
    limit: Annotated[int | None, typer.Option("--limit", help="Use N scenes only.")] = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
) -> o.Answer:
    """Train a small U-Net or detector on digits-scenes (minutes, no download).

    Example: shiftlens train-scenes --net detector --out runs/detector
    """
    from shiftlens.training.scene_nets import train_on_scenes

    with shell.progress("training", "steps") as report:
        result = train_on_scenes(
            net, out=out, n_steps=steps, padding=padding, limit=limit, device=device, seed=seed, progress=report
        )
    return result.to_dict(), result.lines()
