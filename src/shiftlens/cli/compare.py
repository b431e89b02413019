"""`compare`: sweeps side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.cli.look import Partial
from shiftlens.naming import count_of

if TYPE_CHECKING:
    from rich.table import Table

    from shiftlens.narrative.comparison_result import Comparison

WIDEST = 140


def compare(
    shell: Shell,
    sweeps: Annotated[list[Path], typer.Argument(metavar="S1.zarr S2.zarr ...", help="Two or more; first: baseline.")],
    names: Annotated[
        str | None, typer.Option("--names", help="A name for each sweep, separated by commas (default: file names).")
    ] = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="Directory for figures of the comparison.")] = None,
    format: o.Format = "png",  # noqa: A002
    metric: o.Metric = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Non-inferiority margin, in points (default: 0.3) or the unit of a number."),
    ] = None,
    partial: Partial = False,
    all: Annotated[bool, typer.Option("--all", help="Print every finding, not the summary only.")] = False,  # noqa: A002
    evidence: o.Evidence = False,
    seed: o.Seed = 0,
) -> o.Answer | None:
    """Compare sweeps of the same images: which is better, by how much, where, at what cost, what could not be told.

    Example: shiftlens compare zeros.zarr symmetric.zarr --names zeros,symmetric --plots pictures
    """
    from shiftlens.figures import check_format
    from shiftlens.narrative.comparing import compare as compare_sweeps

    check_format(format)
    called = None if names is None else names.split(",")
    with shell.progress("comparing", "sweeps") as report:
        made = compare_sweeps(
            sweeps, names=called, metric=metric, margin=margin, partial=partial, seed=seed, progress=report
        )
    files = () if plots is None else made.plot(plots, format=format).files
    if shell.as_json:
        return made.to_dict() | {"files": [str(path) for path in files]}, []
    _show(shell, made, evidence, everything=all or evidence)
    shell.result({}, o.wrote(*files))
    return None


def _show(shell: Shell, made: Comparison, evidence: bool, *, everything: bool) -> None:
    from rich.text import Text

    from shiftlens.narrative.comparison_notes import doubts
    from shiftlens.narrative.rendering import as_rich
    from shiftlens.narrative.words import plain

    out = shell.stdout
    title = (
        f"{len(made.names)} sweeps on the same {count_of(made.n_images, 'image')} x {count_of(made.n_shifts, 'shift')}"
    )
    out.print(title, style="bold", markup=False)
    for question, answer in made.summary:
        out.print(Text.assemble((f"{question}: ", "bold"), plain(answer)))
    out.print()
    # A table squeezed into 80 characters cannot be read: where there are fewer than it needs, lines run on.
    wide = Console(file=out.file, width=max(out.width, WIDEST), highlight=False)
    wide.print(_table(made))
    whose, what = "the source image" if made.unit == "source" else "the baseline's input", made.metric
    units = f" in {what.shown_unit}, differences in {what.difference_unit}" if what.shown_unit else ""
    out.print(
        f"{what.called}{units}; 4 px: at each image's worst shift up to 4 px; area, radius: retained at 95 %, px of "
        f"{whose}, * at least; difference: {plain(made.near)}",
        style="dim",
        markup=False,
    )
    # What casts doubt on the comparison itself is never left out.
    sections = made.findings.by_section() if everything else [("Caveats", doubts(made.findings))]
    for heading, found in sections:
        if not found:
            continue
        out.print(f"\n{heading}", style="bold", markup=False)
        for finding in found:
            out.print(as_rich(finding.severity, finding.statement, None, finding.evidence if evidence else ""))
        # What to do is mostly the same for all of them: once is enough.
        for action in dict.fromkeys(each.action for each in found if each.action and each.severity != "info"):
            out.print(f"      -> {plain(str(action))}", markup=False)
    if not everything:
        out.print(
            f"\n{len(made.findings)} findings in all: --all prints them, --evidence how each was measured",
            style="dim",
        )


def _table(made: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    from shiftlens.narrative.words import digits_of
    from shiftlens.stats import Estimate, Skipped

    def number(value: Estimate | Skipped, sign: str = "") -> str:
        if isinstance(value, Skipped):
            return "-"
        n = {"share": 1, "points": 1, "px": 1}.get(value.unit, digits_of(value.value, value.unit))
        factor = 100 if value.unit == "share" else 1
        return f"{factor * value.value:{sign},.{n}f}{'*' if value.at_least else ''}"

    def apart(d: Estimate | Skipped) -> str:
        if isinstance(d, Skipped):
            return "-"
        n = 2 if d.unit == "points" else digits_of((d.hi - d.lo) / 2, d.unit)
        return f"{d.value:+.{n}f} [{d.lo:+.{n}f}, {d.hi:+.{n}f}]"

    def size(count: int | None) -> str:
        if count is None:
            return "-"
        return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sweep", overflow="fold", max_width=30)
    for head in ("(0, 0)", "area", "radius", "4 px", "right\n-left", "down\n-up", "param.", "MACs"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    for k, row in enumerate(made.rows):
        table.add_row(
            Text(row.name),
            *map(number, (row.unshifted, row.retained_area, row.retained_radius, row.worst_of_radius)),
            *(number(each, "+") for each in (row.asymmetry_lr, row.asymmetry_ud)),
            *map(size, (row.n_parameters, row.n_macs)),
            "baseline" if k == made.baseline else apart(row.difference),
        )
    return table
