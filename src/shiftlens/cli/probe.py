"""`probe`: one object at every position."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.errors import InputError


def probe(
    shell: Shell,
    model: o.ModelOptions,
    pasted: Annotated[Path, typer.Option("--object", help="Image file of the object, transparent where it is none.")],
    background: Annotated[str, typer.Option("--background", help="An image file, or black, grey or white.")] = "black",
    box: Annotated[
        str | None, typer.Option("--box", help="LEFT,TOP,RIGHT,BOTTOM of the object in its file (default: all of it).")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Grey image of the object's opacity, as large as its file.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Class, by name or number (default: what it is in the middle).")
    ] = None,
    task: Annotated[str, typer.Option("--task", help="classification or detection.")] = "classification",
    step: Annotated[int, typer.Option("--step", help="Distance between positions in pixels.")] = 1,
    batch_size: o.BatchSize = None,
    picture: o.Picture = None,
    seed: o.Seed = 0,
) -> o.Answer:
    """Paste one object at every position of a background, and measure the model's confidence there.

    Example: shiftlens probe --model net.py:make --task detection --object cup.png --background table.png --label cup
    """
    import torch

    from shiftlens import pasting

    torch.manual_seed(seed)
    size = o.size(model.input_size, "--input-size")
    loaded = model.load(shell)
    with shell.progress("probing", "positions") as report:
        found = pasting.probe(
            loaded,
            pasted,
            background if background in pasting.PLAIN else Path(background),
            mask=mask,
            box=_box(box),
            label=label,
            task=task,
            step=step,
            size=size,
            device=model.device,
            batch_size=batch_size,
            progress=report,
        )
    files: list[str] = []
    if picture is not None:
        from shiftlens.figures.drawing import save
        from shiftlens.figures.probe_figures import probe_map

        files = [str(save(probe_map(found), picture))]
    return found.to_dict() | {"files": files}, [*found.lines(), *o.wrote(*files)]


def _box(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        left, top, right, bottom = (int(each) for each in text.split(","))
    except ValueError:
        raise InputError(f"--box must be LEFT,TOP,RIGHT,BOTTOM in pixels, got {text!r:.40}") from None
    return left, top, right, bottom
