"""Pictures of a feature run: each layer's filters, all layers side by side, and what the scores say over depth."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.figures.drawing import COLOURS, check_format, is_constant, new_figure, save, scale_of, short, suptitle
from shiftlens.figures.gallery import Pictures
from shiftlens.lens.feature_run import FeatureRun, LayerMaps
from shiftlens.lens.map_scores import Scores
from shiftlens.naming import count_of
from shiftlens.stats import FloatArray, Skipped
from shiftlens.styling import default_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MOST_FILTERS = 64
MOST_COLUMNS = 14
LONGEST_NAME = 48
LONGEST_MODEL = 40
NOT_JUDGED = "not judged, since the map is zero everywhere"
LONGEST_LINE, MOST_LINES = 16, 4
"""Characters of a line, and lines, above a map of the overview."""


def plot_features(run: FeatureRun, out: str | Path | None = None, *, format: str = "png") -> Pictures:  # noqa: A002
    """Draw a feature run: an overview, the scores over depth, and one picture a layer; write them when told where.

    Parameters
    ----------
    run
        From `shiftlens.features` or `open_features`.
    out
        Directory, made if it is not there; None writes nothing.
    format
        "png" or "svg".

    Returns
    -------
    Pictures
        `overview`, `depth`, then `layer-000-NAME` for each layer; `.files` says what was written.

    Raises
    ------
    InputError
        Another format, or a directory that cannot be written.

    Examples
    --------
    >>> list(plot_features(sl.open_features("features.zarr")))[:3]
    ['overview', 'depth', 'layer-000-0.0']
    """
    kind = check_format(format)
    made = Pictures({"overview": overview(run), "depth": depth(run)}).saved(out, kind)
    layers = {_file(number, layer): layer for number, layer in enumerate(run.layers)}
    if out is None:
        return Pictures({**made, **{name: filters(run, layer) for name, layer in layers.items()}})
    # One at a time: a deep net has a hundred of them.
    files = [save(filters(run, layer), Path(out) / f"{name}.{kind}") for name, layer in layers.items()]
    return Pictures(made, (*made.files, *files))


def picked(run: FeatureRun, most: int) -> list[LayerMaps]:
    """At most so many layers, evenly over depth, the first and the last among them."""
    n = len(run.layers)
    places = range(n) if n <= most else sorted({round(k * (n - 1) / (most - 1)) for k in range(most)})
    return [run.layers[k] for k in places]


def range_text(share: float) -> str:
    """The range of a map as a share of its largest value, in per cent: how much there is to see."""
    return "constant" if not share else f"range {share:.0f} %" if share >= 10 else f"range {share:.2g} %"


def _file(number: int, layer: LayerMaps) -> str:
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in layer.name)
    return f"layer-{number:03d}-{safe}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"…{name[-LONGEST_NAME + 1 :]}"


def _map(axes: Axes, values: FloatArray, limits: tuple[float, float], colours: str | Colormap) -> AxesImage:
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")


@default_style()
def filters(run: FeatureRun, layer: LayerMaps) -> Figure:
    """Every filter of a layer on one scale, and their mean on its own; the average over pictures where there is one."""
    from matplotlib import colormaps

    values = np.asarray(layer.maps if layer.average is None else layer.average.mean, np.float64)
    shown = values[:MOST_FILTERS]
    figure = new_figure(11.2, 6.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    low, high, colours = scale_of(shown)
    palette = colormaps[colours].with_extremes(bad="white")
    drawn = _map(left, mosaic(shown), (low, high), palette)
    if is_constant(shown):
        drawn.set_cmap(_flat())
    _number_filters(left, shown)
    left.set_title(f"{count_of(len(shown), 'filter')}, numbered row by row from 0", fontsize=10)
    figure.colorbar(drawn, ax=left, label=f"activation, all filters {low:.3g} to {high:.3g}", shrink=0.8)
    mean = values.mean(0)
    # The mean's own range, from its lowest to its highest value: here, small differences are what is looked for.
    span = (float(mean.min()), float(mean.max()))
    span = span if span[1] - span[0] > 1e-9 * max(abs(span[1]), 1e-12) else (span[0] - 0.5, span[1] + 0.5)
    drawn = _map(right, mean, span, _flat() if is_constant(mean) else COLOURS)
    right.set_title(
        f"mean over {count_of(len(values), 'channel')}{' (constant)' if is_constant(mean) else ''}", fontsize=10
    )
    figure.colorbar(drawn, ax=right, label=f"{mean.min():.4g} to {mean.max():.4g}", shrink=0.75)
    seen = run.shown if layer.average is None else f"average of {count_of(run.n_images, 'image')} of {run.data}"
    count = "" if len(values) <= MOST_FILTERS else f" (first {MOST_FILTERS} of {len(values)} filters)"
    title = f"{short(run.model, LONGEST_MODEL)}, {layer.label}: {seen}{count}"
    suptitle(figure, f"{title}\n{_verdict(run, layer)}", 11)
    return figure


def _flat() -> Colormap:
    """One grey: where a map is constant, colours would show what is not there."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(["0.88"])


def _number_filters(axes: Axes, maps: FloatArray) -> None:
    n, h, w = maps.shape
    columns, gap_h, gap_w = math.ceil(math.sqrt(n)), max(1, round(h / 16)), max(1, round(w / 16))
    for k in range(n):
        axes.annotate(
            str(k),
            ((k % columns) * (w + gap_w) - 0.5, (k // columns) * (h + gap_h) - 0.5),
            xytext=(1, -1),
            textcoords="offset points",
            ha="left",
            va="top",
            fontsize=6,
            color="black",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )


def mosaic(maps: FloatArray) -> FloatArray:
    """Maps [c, h, w] side by side in a square, a gap between them: one picture is drawn much faster than many."""
    n, h, w = maps.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    gap_h, gap_w = max(1, round(h / 16)), max(1, round(w / 16))
    out = np.full((rows * (h + gap_h) - gap_h, columns * (w + gap_w) - gap_w), np.nan)
    for k, values in enumerate(maps):
        top, start = (k // columns) * (h + gap_h), (k % columns) * (w + gap_w)
        out[top : top + h, start : start + w] = values
    return out


def _verdict(run: FeatureRun, layer: LayerMaps) -> str:
    """Scores, each under the name that table and findings have for what it is of."""
    lines = [_scores(layer.scores, run.shown)]
    if layer.average is not None:
        lines.append(_scores(layer.average.scores, run.averaged))
    return "\n".join(filter(None, lines))


def _scores(scores: Scores, of: str) -> str:
    if isinstance(scores.artefact_energy, Skipped):
        return f"{of}: {NOT_JUDGED}" if not isinstance(scores.reach_cells, Skipped) else ""
    parts = [f"artefact energy {scores.artefact_energy:.2g}"]
    if not isinstance(scores.reach_cells, Skipped):
        parts.append(f"border reach {scores.reach_cells} cells ({scores.reach_pixels:.0f} px)")
    if not isinstance(scores.contrast_lr, Skipped) and not isinstance(scores.contrast_ud, Skipped):
        parts.append(f"odd left/right {scores.contrast_lr:.2f}, up/down {scores.contrast_ud:.2f}")
    return f"{of}: {', '.join(parts)}"


@default_style()
def overview(run: FeatureRun) -> Figure:
    """Mean over channels of every layer: of the one picture above, of the average over pictures (if any) below."""
    layers = picked(run, MOST_COLUMNS)
    stacks: list[tuple[str, list[NDArray[Any]]]] = [(run.shown, [layer.maps for layer in layers])]
    averages = [layer.average for layer in layers if layer.average is not None]
    if averages:
        stacks.append((f"average of {count_of(run.n_images, 'image')}", [average.mean for average in averages]))
    rolled = [average.rolled for average in averages if average.rolled is not None]
    if rolled:
        stacks.append((run.averaged, rolled))
    rows = [(name, [np.asarray(maps, np.float64).mean(0) for maps in of_layers]) for name, of_layers in stacks]
    side = min(2.4, max(1.25, 5.0 / len(layers)))
    figure = new_figure(max(side * len(layers) + 1.2, 4.6), (side + 0.45) * len(rows) + 1.5)
    shaded: AxesImage | None = None
    grid = figure.subplots(len(rows), len(layers), squeeze=False)
    for r, (row, maps) in enumerate(rows):
        for c, (layer, values) in enumerate(zip(layers, maps, strict=True)):
            axes = grid[r][c]
            spread, top = float(np.ptp(values)), max(float(np.abs(values).max()), 1e-12)
            constant = is_constant(values)
            span = (values.min() - 1, values.min() + 1) if constant else (values.min(), values.max())
            drawn = _map(axes, values, span, _flat() if constant else COLOURS)
            shaded = shaded if constant else drawn
            if r == 0:
                name = f"{_wrapped(layer.label)}\n{values.shape[0]}x{values.shape[1]}"
                axes.set_title(name, fontsize=7, parse_math=False)
            ends = f"{values.min():.2g}" if constant else f"{values.min():.2g} to {values.max():.2g}"
            axes.set_xlabel(f"{ends}\n{range_text(0.0 if constant else 100 * spread / top)}", fontsize=7)
        grid[r][0].set_ylabel(row, fontsize=8, parse_math=False)
    if shaded is not None:
        bar = figure.colorbar(shaded, ax=grid.ravel().tolist(), fraction=0.02, pad=0.01, ticks=shaded.get_clim())
        bar.ax.set_yticklabels(["lowest", "highest"], fontsize=7)
    kept = "" if len(layers) == len(run.layers) else f" ({len(layers)} of {count_of(len(run.layers), 'layer')})"
    about = "mean over channels, each map on its own scale\nrange: a share of its largest value; grey: constant"
    suptitle(figure, f"{_title(run)}{kept}\n{about}", 9)
    return figure


def _title(run: FeatureRun) -> str:
    """Model and images."""
    images = "" if run.data is None else f" on {count_of(run.n_images, 'image')} of {short(run.data, LONGEST_MODEL)}"
    return f"{short(run.model, LONGEST_MODEL)}{images}"


def _wrapped(label: str) -> str:
    """A layer's label in lines that are no wider than its map; only a path without a place to break is cut."""
    lines = textwrap.wrap(label.replace(".", ". "), LONGEST_LINE, break_long_words=True)
    return "\n".join(line.replace(". ", ".") for line in lines[:MOST_LINES])


@default_style()
def depth(run: FeatureRun) -> Figure:
    """Artefact energy, border reach and side contrast, layer by layer."""
    names = [_short(layer.label) for layer in run.layers]
    x = np.arange(len(names), dtype=np.float64)
    scores = [layer.scores for layer in run.layers]
    averages = [None if layer.average is None else layer.average.scores for layer in run.layers]
    # Names stand upright below the last axes: the longest decides how much room they take.
    figure = new_figure(max(6.4, 0.24 * len(names) + 3.0), 6.4 + 0.06 * max(map(len, names)))
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    floor = 1e-8
    _line(top, x, [max(_number(s.artefact_energy), floor) for s in scores], run.shown, "o-", "C0")
    if any(a is not None for a in averages):
        energies = [np.nan if a is None else max(_number(a.artefact_energy), floor) for a in averages]
        noise = [np.nan if a is None or a.noise is None else max(a.noise, floor) for a in averages]
        _line(top, x, energies, run.averaged, "s-", "C1")
        _line(top, x, noise, "expected by chance", ":", "0.5")
    top.set_yscale("log")
    top.set_ylabel("artefact energy\n(1e-8: constant)", fontsize=8)
    _legend(top)
    reach = [np.nan if isinstance(s.artefact_energy, Skipped) else _number(s.reach_pixels) for s in scores]
    _line(middle, x, reach, "from a border", "o-", "C0")
    middle.axhline(min(run.size) / 2, color="0.6", linestyle="--", linewidth=1)
    middle.set_ylabel("border reach (px)\n- - half the image", fontsize=8)
    of_average = [a for a in averages if a is not None and not run.is_empty]
    across, down = (run.mirrored, run.averaged) if of_average else (run.shown, run.shown)
    _line(bottom, x, [_number(s.contrast_lr) for s in of_average or scores], f"left/right, {across}", "o-", "C0")
    _line(bottom, x, [_number(s.contrast_ud) for s in of_average or scores], f"up/down, {down}", "^-", "C3")
    bottom.set_ylim(-0.03, 1.03)
    bottom.set_ylabel("odd share\nof the variation", fontsize=8)
    _legend(bottom)
    for axes in (top, middle, bottom):
        drawn = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        if not any(np.isfinite(np.asarray(line.get_ydata(), np.float64)).any() for line in drawn):
            axes.text(0.5, 0.5, "not judged for this input", transform=axes.transAxes, ha="center", fontsize=8)
    step = max(1, len(names) // 40)
    bottom.set_xticks(x[::step], names[::step], rotation=90, fontsize=7)
    suptitle(figure, f"{_title(run)}\nArtefacts over depth", 11)
    return figure


def _number(value: float | Skipped) -> float:
    return float("nan") if isinstance(value, Skipped) else float(value)


def _legend(axes: Axes) -> None:
    for text in axes.legend(fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)  # an image's name may come from anybody


def _line(axes: Axes, x: FloatArray, y: list[float], label: str, style: str, colour: str) -> None:
    axes.plot(x, y, style, color=colour, label=label, markersize=3.5, linewidth=1.2)
    axes.grid(alpha=0.25)
