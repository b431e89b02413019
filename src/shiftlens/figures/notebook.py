"""How a notebook shows a sweep or a feature run: what it is of, and its main pictures."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from shiftlens.figures.feature_figures import depth, overview
from shiftlens.figures.gallery import image_html
from shiftlens.figures.heatmaps import metric_matrix
from shiftlens.figures.tile_figures import plot_tiles
from shiftlens.naming import count_of

if TYPE_CHECKING:
    from shiftlens.lens.feature_run import FeatureRun
    from shiftlens.sweeps.sweep_result import Sweep
    from shiftlens.tiles.tile_result import TileReport


def sweep_html(sweep: Sweep) -> str:
    """A sweep as HTML; every text in it is escaped, since names come from whoever named a file or a class."""
    header = sweep.header
    names = ", ".join(header.class_names[:20]) + (", …" if len(header.class_names) > 20 else "")
    rows = (
        ("model", header.model),
        ("images", f"{header.data}: {sweep.n_written:,} of {sweep.n_population:,} measured"),
        ("shifts", f"{sweep.grid.n_shifts:,}, {header.grid.step} px apart, fill {header.fill.name}"),
        ("controls", ", ".join(sweep.controls) or "none"),
        ("classes", names or "not named"),
        ("file", str(sweep.path)),
    )
    pictures = (image_html(metric_matrix(sweep, each), each.called, 64) for each in sweep.metrics[:2])
    return f"{_table(rows)}<p>{''.join(pictures)}</p>"


def features_html(run: FeatureRun) -> str:
    """A feature run as HTML; every text in it is escaped."""
    start, nowhere = run.start, "no layer" if len(run.silent) < len(run) else "not known: every map is zero"
    rows = (
        ("model", run.model),
        ("shown", f"{run.input}, {run.size[0]}x{run.size[1]} px"),
        ("average", f"{count_of(run.n_images, 'image')} of {run.data}" if run.n_images else "none"),
        ("border artefacts start at", nowhere if start is None else f"{start.name} ({start.kind})"),
        ("layers", str(len(run))),
    )
    pictures = image_html(overview(run), "channel means of every layer", 64) + image_html(depth(run), "over depth", 64)
    return f"{_table(rows)}<p>{pictures}</p>"


def tiles_html(report: TileReport) -> str:
    """A tile report as HTML; every text in it is escaped."""
    lines = "".join(f"<br>{escape(line)}" for line in report.lines())
    pictures = "".join(image_html(figure, name, 64) for name, figure in plot_tiles(report).items())
    return f"<p>{lines.removeprefix('<br>')}</p><p>{pictures}</p>"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in rows
    )
    return f"<table>{cells}</table>"
