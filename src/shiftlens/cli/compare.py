"""`compare` and `consistency`: sweeps side by side, and the measures of papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks
from shiftlens.cli.look import Partial
from shiftlens.cli.measure import load
from shiftlens.naming import printable

if TYPE_CHECKING:
    from rich.table import Table

    from shiftlens.narrative.comparison_result import Comparison

WIDEST = 140


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(compare)
    app.command()(consistency)


def compare(
    sweeps: Annotated[list[Path], typer.Argument(metavar="S1.zarr S2.zarr ...", help="Two or more; first: baseline.")],
    names: Annotated[
        str | None, typer.Option("--names", help="One a sweep, with commas (default: the files').")
    ] = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="Directory for pictures of the comparison.")] = None,
    format: Annotated[str, typer.Option("--format", help="png or svg.")] = "png",  # noqa: A002
    margin: Annotated[float, typer.Option("--margin", help="Points behind that still count as good.")] = 0.3,
    partial: Partial = False,
    evidence: Annotated[bool, typer.Option("--evidence", help="Also how each number was measured.")] = False,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Compare sweeps of the same images: paired differences with intervals, what improved, what got worse.

    Example: shiftlens compare zeros.zarr symmetric.zarr --names zeros,symmetric --plots pictures
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens.devices import resolve_device
        from shiftlens.figures import check_format
        from shiftlens.narrative.comparing import compare as compare_sweeps

        resolve_device(device)
        check_format(format)
        called = None if names is None else names.split(",")
        with shell.progress("comparing", "sweeps") as report:
            made = compare_sweeps(sweeps, names=called, margin=margin, partial=partial, seed=seed, progress=report)
        files = () if plots is None else made.plot(plots, format=format).files
    if json:
        shell.result(made.to_dict() | {"files": [str(path) for path in files]}, [])
        return
    _show(shell, made, evidence)
    for path in files:
        shell.stdout.print(f"wrote {printable(str(path))}", markup=False)


def _show(shell: Shell, made: Comparison, evidence: bool) -> None:
    from shiftlens.narrative.rendering import as_rich
    from shiftlens.narrative.words import plain

    out = shell.stdout
    n_shifts = len(made.dys) * len(made.dxs)
    title = f"{len(made.names)} sweeps on the same {made.n_images:,} images x {n_shifts:,} shifts"
    out.print(title, style="bold", markup=False)
    # A table squeezed into 80 characters cannot be read: where there are fewer than it needs, lines run on.
    wide = Console(file=out.file, width=max(out.width, WIDEST), highlight=False)
    wide.print(_table(made))
    whose = "the source picture" if made.unit == "source" else "the baseline's input"
    out.print(
        f"acc.: accuracy at (0, 0), 4 px: right under every shift up to 4 px, in %; area, radius: retained at 95 %, px "
        f"of {whose}, * at least; difference: mean accuracy within 8 px, points",
        style="dim",
        markup=False,
    )
    for heading, found in made.findings.by_section():
        out.print(f"\n{heading}", style="bold", markup=False)
        for finding in found:
            out.print(as_rich(finding.severity, finding.statement, None, finding.evidence if evidence else ""))
        # What to do is mostly the same for all of them: once is enough.
        for action in dict.fromkeys(each.action for each in found if each.action and each.severity != "info"):
            out.print(f"      -> {plain(str(action))}", markup=False)


def _table(made: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    from shiftlens.stats import Estimate, Skipped

    def number(value: Estimate | Skipped, digits: int, factor: float = 1, sign: str = "") -> str:
        if isinstance(value, Skipped):
            return "-"
        return f"{factor * value.value:{sign},.{digits}f}{'*' if value.at_least else ''}"

    def size(count: int | None) -> str:
        if count is None:
            return "-"
        return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sweep", overflow="fold", max_width=30)
    for head in ("acc.", "area", "radius", "4 px", "right\n-left", "down\n-up", "param.", "MACs"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    for k, row in enumerate(made.rows):
        against = "baseline"
        if k != made.baseline:
            d = row.difference
            against = "-" if isinstance(d, Skipped) else f"{d.value:+.2f} [{d.lo:+.2f}, {d.hi:+.2f}]"
        table.add_row(
            Text(row.name),
            number(row.accuracy, 1, 100),
            number(row.retained_area, 0),
            number(row.retained_radius, 1),
            number(row.worst_of_radius, 1, 100),
            number(row.asymmetry_lr, 1, sign="+"),
            number(row.asymmetry_ud, 1, sign="+"),
            size(row.n_parameters),
            size(row.n_macs),
            against,
        )
    return table


def consistency(
    model: o.ModelSpec,
    data: o.DataSpec = "digits",
    protocol: Annotated[str, typer.Option("--protocol", help="roll, zero-pad or crop.")] = "roll",
    fill: Annotated[
        str, typer.Option("--fill", help="What zero-pad pads with: black, mean or pixel values.")
    ] = "black",
    passes: Annotated[int, typer.Option("--passes", help="Pairs of views drawn for each image.")] = 5,
    limit: o.Limit = None,
    data_root: o.DataRoot = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    input_size: o.InputSize = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Consistency by the protocols of papers: how often two random views get the same prediction.

    Example: shiftlens consistency --model runs/vgg --data cifar10 --protocol roll
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        import torch

        from shiftlens import protocols

        torch.manual_seed(seed)
        protocols.check_request(protocol, fill, passes)
        loaded, images = load(
            shell,
            model,
            data,
            data_root=data_root,
            limit=limit,
            weights=weights,
            mean=mean,
            std=std,
            input_size=input_size,
            device=device,
        )
        with shell.progress("measuring", "images") as report:
            result = protocols.consistency(
                loaded, images, protocol, fill=fill, n_passes=passes, seed=seed, device=device, progress=report
            )
    for note in images.notes:
        shell.say(f"note: {note}")
    shell.result(result.to_dict(), result.lines())
