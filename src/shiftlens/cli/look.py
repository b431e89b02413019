"""`findings` and `plot`: what a sweep or a feature run says and shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.naming import count_of

if TYPE_CHECKING:
    from rich.table import Table

    from shiftlens.lens.feature_run import FeatureRun
    from shiftlens.narrative.finding import Findings
    from shiftlens.sweeps.sweep_result import Sweep
    from shiftlens.tiles.tile_result import TileReport

Partial = o.Partial


def opened(path: Path, partial: bool) -> Sweep | FeatureRun | TileReport:
    """A feature run, a tile report, or a sweep with at least one whole image; incomplete only where asked for."""
    from shiftlens.errors import StoreError
    from shiftlens.lens.feature_store import holds_features, open_features
    from shiftlens.sweeps.sweep_result import open_sweep
    from shiftlens.tiles.tile_store import holds_tiles, open_tiles

    if holds_features(path):
        return open_features(path)
    if holds_tiles(path):
        return open_tiles(path)
    sweep = open_sweep(path, partial=partial)
    if not sweep.n_written:
        raise StoreError(f"{path}: 0 of {sweep.n_images:,} images are there; run the same sweep again to resume it")
    return sweep


def findings(
    shell: Shell,
    results: Annotated[
        list[Path], typer.Argument(metavar="S.zarr ...", help="One or more sweeps, feature runs or tile reports.")
    ],
    partial: Partial = False,
    evidence: o.Evidence = False,
    small_map: Annotated[
        bool | None,
        typer.Option("--map/--no-map", help="Draw a small map of the metric (default: on a terminal only)."),
    ] = None,
    metric: o.Metric = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds", help="Sizes from which a significant difference is a warning: points=1,nats=0.1,px=0.5."
        ),
    ] = None,
    seed: o.Seed = 0,
) -> o.Answer | None:
    """State what a sweep, a feature run or a tile report shows, with numbers and intervals, and what misleads in it.

    Example: shiftlens findings vgg.zarr
    """
    from shiftlens.narrative.findings import findings as all_findings
    from shiftlens.narrative.words import plain
    from shiftlens.sweeps.sweep_result import Sweep

    sizes = o.numbers(thresholds, "--thresholds")
    made = []
    with shell.progress("measuring", "results") as report:
        for number, path in enumerate(results):
            result = opened(path, partial)
            shell.say(f"measuring {path}")
            made.append((path, result, all_findings(result, metric=metric, thresholds=sizes, seed=seed)))
            report(number + 1, len(results))
    if shell.as_json:
        rows = [
            {**each.to_dict(), "sweep": str(path), "metric": _metric_name(result, metric)}
            for path, result, found in made
            for each in found
        ]
        return {"findings": rows}, []
    small_map = shell.stdout.is_terminal if small_map is None else small_map
    for path, result, found in made:
        shell.stdout.print(plain(f"{path}: {_about(result)}"), style="bold", markup=False)
        if small_map and isinstance(result, Sweep):
            _show_map(shell, result, metric)
        _show(shell, found, evidence)
    return None


def _metric_name(result: Sweep | FeatureRun | TileReport, metric: str | None) -> str | None:
    """What its findings are about; None of what is no sweep."""
    from shiftlens.sweeps.sweep_result import Sweep

    return metric or result.metrics[0].name if isinstance(result, Sweep) else None


def _show_map(shell: Shell, sweep: Sweep, metric: str | None) -> None:
    import numpy as np

    from shiftlens.figures.terminal import text_map

    shown = next(each for each in sweep.metrics if metric in (None, each.name))
    out, values = shell.stdout, np.asarray(sweep.mean_of(shown), np.float64)
    colour = out.color_system is not None
    out.print(text_map(values, (sweep.grid.dys, sweep.grid.dxs), shown, colour=colour, width=out.width))


def _show(shell: Shell, found: Findings, evidence: bool) -> None:
    from shiftlens.narrative.finding_parts import SEVERITIES
    from shiftlens.narrative.rendering import as_rich

    for severity in SEVERITIES:
        for finding in found.with_severity(severity):
            action = None if severity == "info" else finding.action
            shell.stdout.print(as_rich(severity, finding.statement, action, finding.evidence if evidence else ""))
    if any(finding.value is not None for finding in found):
        shell.stdout.print(_table(found), soft_wrap=False)


def _about(result: Sweep | FeatureRun | TileReport) -> str:
    from shiftlens.sweeps.sweep_result import Sweep

    if not isinstance(result, Sweep):
        return repr(result).strip("<>")
    header = result.header
    size = f"{count_of(result.n_written, 'image')} x {count_of(result.grid.n_shifts, 'shift')}"
    return f"{header.model} on {header.data}, {size}"


def _table(found: Findings) -> Table:
    from rich.table import Table

    from shiftlens.narrative.rendering import value_text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("finding", no_wrap=True)
    table.add_column("")
    table.add_column("value [95 % interval]", justify="right")
    table.add_column("p, corrected", justify="right")
    for finding in found:
        if finding.value is not None:
            p_value = "" if finding.p_value is None else f"{finding.p_value:.2g}"
            table.add_row(finding.id, finding.severity, value_text(finding.estimate), p_value)
    return table


def plot(
    shell: Shell,
    result: Annotated[Path, typer.Argument(metavar="S.zarr", help="A sweep, a feature run or a tile report.")],
    out: Annotated[Path, typer.Option("--out", help="Directory for the figures, made if missing.")],
    format: o.Format = "png",  # noqa: A002
    metric: o.Metric = None,
    partial: Partial = False,
) -> o.Answer:
    """Draw a sweep (metrics, classes, profile, sides, controls), a feature run (each layer) or a tile report (seams).

    Example: shiftlens plot vgg.zarr --out pictures --format svg
    """
    from shiftlens import figures
    from shiftlens.errors import InputError
    from shiftlens.figures.feature_figures import plot_features
    from shiftlens.figures.tile_figures import plot_tiles
    from shiftlens.lens.feature_run import FeatureRun
    from shiftlens.tiles.tile_result import TileReport

    figures.check_format(format)
    shell.say(f"drawing {result}")
    found = opened(result, partial)
    if isinstance(found, FeatureRun | TileReport):
        if metric is not None:
            raise InputError(f"a metric is of a sweep: expected none, got {metric!r}")
        if isinstance(found, TileReport):
            made = plot_tiles(found, out, format=format)
        else:
            made = plot_features(found, out, format=format)
    else:
        made = figures.plot(found, out, metric=metric, format=format)
    files = [str(path) for path in made.files]
    return {"files": files, "metric": _metric_name(found, metric)}, o.wrote(*files)
