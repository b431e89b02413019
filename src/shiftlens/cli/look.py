"""`findings` and `plot`: what a sweep says and shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks

if TYPE_CHECKING:
    from rich.table import Table

    from shiftlens.diagnosis import Finding, Findings
    from shiftlens.sweeps.result import Sweep

TAGS = {"warn": "bold red", "note": "yellow", "info": "dim"}

Partial = Annotated[bool, typer.Option("--partial", help="Take what is there of a sweep that is not complete.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(findings)
    app.command()(plot)


def opened(path: Path, partial: bool) -> Sweep:
    """A sweep with at least one whole image; an incomplete one only when that is asked for.

    Raises
    ------
    StoreError
        Nothing is there, it is no sweep, or not enough of it; says how much.
    """
    from shiftlens.errors import StoreError
    from shiftlens.sweeps.result import open_sweep

    sweep = open_sweep(path, partial=True)
    if sweep.complete:
        return sweep
    there = f"{path} is not complete: {sweep.n_written:,} of {sweep.n_images:,} images are there"
    if not sweep.n_written:
        raise StoreError(f"{there}; run the same sweep again to go on with it")
    if not partial:
        raise StoreError(f"{there}; run the same sweep again to finish it, or take what is there with --partial")
    return sweep


def findings(
    sweeps: Annotated[list[Path], typer.Argument(metavar="S.zarr ...", help="One or more sweeps.")],
    partial: Partial = False,
    evidence: Annotated[bool, typer.Option("--evidence", help="Also how each number was measured.")] = False,
    small_map: Annotated[
        bool | None, typer.Option("--map/--no-map", help="A small map of accuracy (default: only on a terminal).")
    ] = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """What a sweep says, in sentences with number, unit and 95 % interval, and what misleads in it.

    Example: shiftlens findings vgg.zarr
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens import diagnosis
        from shiftlens.devices import resolve_device

        resolve_device(device)
        made = []
        with shell.progress("measuring", "sweeps") as report:
            for number, path in enumerate(sweeps):
                sweep = opened(path, partial)
                shell.say(f"measuring {path}")
                made.append((path, sweep, diagnosis.findings(sweep, seed=seed)))
                report(number + 1, len(sweeps))
    if json:
        rows = [{**finding.to_dict(), "sweep": str(path)} for path, _, found in made for finding in found]
        shell.result({"findings": rows}, [])
        return
    for path, sweep, found in made:
        _show(shell, path, sweep, found, evidence, shell.stdout.is_terminal if small_map is None else small_map)


def _show(shell: Shell, path: Path, sweep: Sweep, found: Findings, evidence: bool, small_map: bool) -> None:
    import numpy as np

    from shiftlens.diagnosis.words import plain

    header, out = sweep.header, shell.stdout
    title = f"{path}: {header.model} on {header.data}, {sweep.n_written:,} images x {sweep.grid.n_shifts:,} shifts"
    out.print(plain(title), style="bold", markup=False)
    if small_map:
        from shiftlens.figures.terminal import text_map

        colour = out.color_system is not None
        shifts = (sweep.grid.dys, sweep.grid.dxs)
        out.print(text_map(np.asarray(sweep.accuracy, np.float64), shifts, colour=colour, width=out.width))
    for severity in ("warn", "note", "info"):
        for finding in found.with_severity(severity):
            _sentence(shell, finding, evidence)
    out.print(_table(found), soft_wrap=False)


def _sentence(shell: Shell, finding: Finding, evidence: bool) -> None:
    from rich.text import Text

    from shiftlens.diagnosis.words import plain

    # What a file says of its model and classes may hold a terminal's own commands.
    line = Text.assemble((f"{finding.severity}  ", TAGS[finding.severity]), plain(finding.statement))
    if finding.remedy and finding.severity != "info":
        line.append(f"\n      -> {plain(finding.remedy)}")
    if evidence and finding.evidence:
        line.append(f"\n      {plain(finding.evidence)}", "dim")
    shell.stdout.print(line)


def _table(found: Findings) -> Table:
    from rich.table import Table

    from shiftlens.diagnosis.finding import value_text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("finding", no_wrap=True)
    table.add_column("")
    table.add_column("value [95 % interval]", justify="right")
    table.add_column("p, corrected", justify="right")
    for finding in found:
        if finding.value is not None:
            p_value = "" if finding.p_value is None else f"{finding.p_value:.2g}"
            table.add_row(finding.id, finding.severity, value_text(finding), p_value)
    return table


def plot(
    sweep: Annotated[Path, typer.Argument(metavar="S.zarr", help="A sweep.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for the pictures; made if it is not there.")],
    format: Annotated[str, typer.Option("--format", help="png or svg.")] = "png",  # noqa: A002
    partial: Partial = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Draw a sweep: accuracy, loss, classes, profile, one side against the other, controls.

    Example: shiftlens plot vgg.zarr --out pictures --format svg
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens import figures
        from shiftlens.devices import resolve_device

        resolve_device(device)
        figures.check_format(format)
        shell.say(f"drawing {sweep}")
        made = figures.plot(opened(sweep, partial), out, format=format)
    files = [str(path) for path in made.files]
    shell.result({"files": files}, [f"wrote {path}" for path in files])
