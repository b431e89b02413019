"""Pictures of a tile report: the seams on an image, the mismatch by distance to a tile's border, and its causes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shiftlens.figures.drawing import NUMBER_COLOURS, check_format, new_figure, range_of, short, suptitle
from shiftlens.figures.gallery import Pictures
from shiftlens.figures.profile import CONTROL_COLOUR, SWEEP_COLOUR
from shiftlens.styling import default_style
from shiftlens.tiles.tile_result import SAID, TileReport
from shiftlens.tiles.tile_windows import plain_spans

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_SHOWN = 1e-6
"""Smaller differences, as a share of the output's range, are rounding: they are drawn at the bottom of the axis."""


def plot_tiles(report: TileReport, out: str | Path | None = None, *, format: str = "png") -> Pictures:  # noqa: A002
    """Draw a tile report, and write the figures when told where.

    Parameters
    ----------
    report
        From `tile_report` or `open_tiles`.
    out
        Directory, made if it is not there; None writes nothing.
    format
        "png" or "svg".

    Returns
    -------
    Pictures
        `seams` (the first image with its tiles, beside the mismatch), `by-distance` and, where there is a mismatch,
        `causes`.

    Raises
    ------
    InputError
        Another format, or a directory that cannot be written.

    Examples
    --------
    >>> list(plot_tiles(sl.open_tiles("tiles.zarr")))
    ['seams', 'by-distance', 'causes']
    """
    kind = check_format(format)
    made = {"seams": seams(report), "by-distance": by_distance(report)}
    if report.causes:
        made["causes"] = causes(report)
    return Pictures(made).saved(out, kind)


def _about(report: TileReport) -> str:
    h, w = report.size
    return short(f"{report.model}, {report.of_images}, {h}x{w} px, tiles of {report.tile} px", 110)


@default_style()
def seams(report: TileReport) -> Figure:
    """The first image with the borders of its tiles, beside |tiled - whole| at overlap 0."""
    h, w = report.size
    width = 10.0
    figure = new_figure(width, min(width * 0.42 * h / w + 1.1, 12.0))
    left, right = figure.subplots(1, 2)
    pixels = report.example.transpose(1, 2, 0)
    shown = pixels if pixels.shape[2] == 3 else pixels.mean(axis=2)
    left.imshow(shown, cmap=None if pixels.shape[2] == 3 else "gray", vmin=0, vmax=255, interpolation="nearest")
    left.set_title("image 1 and its tiles", parse_math=False)
    top = max(float(report.example_map.max()), 1e-30)
    drawn = right.imshow(
        report.example_map, cmap=NUMBER_COLOURS, vmin=0, vmax=top, interpolation="nearest", extent=(0, w, h, 0)
    )
    right.set_title("|tiled - whole|, mean over channels", parse_math=False)
    figure.colorbar(drawn, ax=right).set_label(f"output's unit, {range_of((0.0, top))}", parse_math=False)
    for axes, offset in ((left, -0.5), (right, 0.0)):
        for span in plain_spans(w, report.tile, report.stride)[1:]:
            axes.axvline(span.core_lo + offset, color="#21918c", linewidth=0.8, linestyle="--")
        for span in plain_spans(h, report.tile, report.stride)[1:]:
            axes.axhline(span.core_lo + offset, color="#21918c", linewidth=0.8, linestyle="--")
        axes.set_xlabel("x (pixels)")
        axes.set_ylabel("y (pixels)")
    suptitle(figure, f"Where tiles without overlap differ\n{_about(report)}")
    return figure


@default_style()
def by_distance(report: TileReport) -> Figure:
    """Mean and largest |difference| by distance to the nearest cut, and the overlaps that end it."""
    figure = new_figure(8.4, 4.6)
    axes = figure.subplots()
    span = float(report.span.mean()) or 1.0
    distance = np.arange(len(report.by_distance)) + 0.5
    for values, name, colour in (
        (report.largest_by_distance, "largest", CONTROL_COLOUR),
        (report.by_distance, "mean", SWEEP_COLOUR),
    ):
        there = np.isfinite(values)
        shown = np.maximum(values[there] / span, LEAST_SHOWN)
        axes.plot(distance[there], shown, label=f"{name} |tiled - whole|", color=colour)
    axes.axhline(report.tolerance, color="0.5", linewidth=1, linestyle=":", label=f"tolerance, {report.tolerance:.3g}")
    _mark(axes, report.overlap_measured, "overlap measured: enough on these images", "0.45", "--")
    if report.recipe.get("overlap") is not None:
        _mark(axes, int(report.recipe["overlap"]), "overlap guaranteed by the layers", "black", "-")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    lowest = np.nanmin(report.by_distance, initial=report.tolerance * span) / span
    axes.set_ylim(bottom=max(0.5 * float(lowest), 0.8 * LEAST_SHOWN))
    axes.set_xlabel("distance to the nearest side at which a tile cuts the image (pixels)")
    axes.set_ylabel("share of the output's range")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    suptitle(figure, f"Mismatch by distance to the tile's border, no layer frozen\n{_about(report)}")
    return figure


def _mark(axes: Axes, overlap: int | None, label: str, colour: str, style: str) -> None:
    if overlap is not None:
        axes.axvline(overlap, color=colour, linestyle=style, linewidth=1.2, label=f"{label}, {overlap} px")


@default_style()
def causes(report: TileReport) -> Figure:
    """One bar a cause, its share of the mismatch with a 95 % interval over images."""
    rows = list(report.causes)
    figure = new_figure(8.6, 1.7 + 0.62 * len(rows))
    axes = figure.subplots()
    places = np.arange(len(rows))
    shares = 100 * np.array([row.share for row in rows])
    axes.barh(places, shares, color=SWEEP_COLOUR, height=0.6)
    for place, row in zip(places, rows, strict=True):
        if row.interval is not None:
            lo, hi = (100 * end for end in row.interval)
            axes.plot([lo, hi], [place, place], color="black", linewidth=1.2, marker="|", markersize=7)
    axes.set_yticks(places, [f"{row.cause}: {SAID[row.cause]}" for row in rows])
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_xlim(min(0.0, float(shares.min()) * 1.1), max(105.0, float(shares.max()) * 1.05))
    axes.set_xlabel("share of the mean |tiled - whole| at overlap 0 (%)")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    suptitle(figure, f"Causes, each taken away after those above it\n{_about(report)}")
    return figure
