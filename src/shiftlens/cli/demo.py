"""`demo`: the main job on embedded images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Directory for everything the demo makes.")] = Path("demo-out"),
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Train a small VGG on embedded digits, sweep every shift, write a report (a few minutes, no download).

    Example: shiftlens demo --out demo-out
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens.demo import run

        result = run(out, shell, device=device, seed=seed)
    files = [str(path) for path in result.files]
    shell.result({"files": files}, [*result.lines(), *(f"wrote {path}" for path in files)])
