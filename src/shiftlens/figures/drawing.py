"""What every picture of a sweep shares: axes in pixels, the origin's mark, colours, and files with fixed bytes."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import IntArray
from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.stats import FloatArray
from shiftlens.styling import default_style
from shiftlens.tasks.task import Variable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = "viridis"
"""Perceptually uniform and safe for colour-blind readers."""

NUMBER_COLOURS = "magma"
"""Perceptually uniform too; another, so that nobody takes a number for a share."""

DIVERGING = "RdBu_r"
"""For differences: white is 0, red is more, blue is less."""

LEAST_POINTS = 1.0
"""Smallest half range of a difference in points: below it, colours would shout about nothing."""

SUFFIXES = ("png", "svg")
DPI = 120

Shifts = tuple[IntArray, IntArray]
"""The grid's dys and dxs in px, ascending."""


def label_of(metric: Variable) -> str:
    """The metric with its unit for an axis or a colour bar, and which way is better where that is not up."""
    unit = f" ({metric.shown_unit})" if metric.shown_unit else ""
    return f"{metric.long_name or metric.called}{unit}{', lower is better' if metric.sign < 0 else ''}"


def colours_of(metric: Variable) -> str:
    """The colours of a metric's maps."""
    return COLOURS if metric.unit == "share" else NUMBER_COLOURS


def diverging(metric: Variable) -> str:
    """The colours of a metric's differences: red is better."""
    return DIVERGING if metric.sign > 0 else DIVERGING.removesuffix("_r")


def least_of(metric: Variable) -> float:
    """Smallest half range of a map of differences."""
    return LEAST_POINTS if metric.unit == "share" else 1e-9


def limits_of(metric: Variable, values: FloatArray) -> tuple[float, float]:
    """The range of a metric's maps as they are shown: its bounds where it has them, else the ends of the values.

    A number that is bounded on both sides, such as a cosine, has the range of its values: most hold a small part of it.
    """
    finite = values[np.isfinite(values)]
    ends = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if metric.unit != "share" and np.isfinite(metric.bounds).all():
        return ends[0], max(ends[1], ends[0] + 1e-9)
    low, high = (
        metric.factor * bound if np.isfinite(bound) else end for bound, end in zip(metric.bounds, ends, strict=True)
    )
    return low, max(high, low + 1e-9)


def range_of(limits: tuple[float, float]) -> str:
    """A range in words."""
    low, high = limits
    return f"range ±{high:.3g}" if low == -high else f"range {low:.3g} to {high:.3g}"


def colour_bar(
    figure: Figure, drawn: AxesImage, axes: Any, unit: str, limits: tuple[float, float], text: str = "", **how: Any
) -> None:
    """A colour bar with its unit, its range and what else there is to say."""
    what = f"{unit}, {range_of(limits)}{'; ' if text else ''}{text}"
    figure.colorbar(drawn, ax=axes, **how).set_label(what, parse_math=False)


def extent(shifts: Shifts) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of the matrix in px: dx to the right, dy downwards, as the picture moves."""
    dys, dxs = shifts
    half_y, half_x = (float(axis[1] - axis[0]) / 2 if len(axis) > 1 else 0.5 for axis in shifts)
    return float(dxs[0] - half_x), float(dxs[-1] + half_x), float(dys[-1] + half_y), float(dys[0] - half_y)


def heat_map(
    axes: Axes,
    values: FloatArray,
    shifts: Shifts,
    limits: tuple[float, float],
    colours: str = COLOURS,
    n_ticks: int = 7,
) -> AxesImage:
    """Draw a (dy, dx) matrix with the origin marked; cells without a number stay grey."""
    from matplotlib import colormaps
    from matplotlib.ticker import FixedLocator

    palette = colormaps[colours].with_extremes(bad="0.85")
    if limits[1] - limits[0] <= 2e-9 and is_constant(values):
        palette = colormaps["Greys"]  # its lowest end: white
    # A grid of one row or column would be a line: its cells are drawn as wide as the picture needs them.
    flat = min(values.shape) * 8 < max(values.shape)
    drawn = axes.imshow(
        np.ma.masked_invalid(values),
        extent=extent(shifts),
        cmap=palette,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
        aspect="auto" if flat else "equal",
    )
    axes.plot(0, 0, marker="+", color="white", markersize=11, markeredgewidth=2.8)
    axes.plot(0, 0, marker="+", color="black", markersize=9, markeredgewidth=1.2)
    for one, axis in ((shifts[0], axes.yaxis), (shifts[1], axes.xaxis)):
        axis.set_major_locator(FixedLocator(measured_ticks(one, n_ticks)))
    return drawn


def measured_ticks(shifts: IntArray, most: int) -> list[int]:
    """At most so many of the measured shifts, evenly spaced, 0 among them."""
    middle, n = int(np.flatnonzero(shifts == 0)[0]), len(shifts)
    every = next(k for k in range(1, n + 1) if middle // k + (n - 1 - middle) // k + 1 <= max(most, 1))
    return [int(d) for d in shifts[middle % every :: every]]


def outline(axes: Axes, cells: NDArray[Any], shifts: Shifts, colour: str = "black", width: float = 0.9) -> None:
    """Lines along the sides between cells of different mark: a contour would cut their corners."""
    left, right, bottom, top = extent(shifts)
    ys = np.linspace(top, bottom, cells.shape[0] + 1)
    xs = np.linspace(left, right, cells.shape[1] + 1)
    padded = np.pad(cells.astype(np.int8), 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]
    down = padded[1:-1, 1:] != padded[1:-1, :-1]
    segments = [((xs[c], ys[r]), (xs[c + 1], ys[r])) for r, c in np.argwhere(across)]
    segments += [((xs[c], ys[r]), (xs[c], ys[r + 1])) for r, c in np.argwhere(down)]
    if segments:
        from matplotlib.collections import LineCollection

        axes.add_collection(LineCollection(segments, colors=colour, linewidths=width))


def is_constant(values: NDArray[Any]) -> bool:
    """Whether a map is the same everywhere, up to rounding: its colours would say nothing."""
    finite = values[np.isfinite(values)]
    return not len(finite) or float(np.ptp(finite)) <= 1e-6 * max(float(np.abs(finite).max()), 1e-12)


def mirrored(values: NDArray[Any], along: IntArray, axis: int) -> FloatArray:
    """The map (dy, dx) whose cell d on an axis holds the value at -d; nan where -d is not on the grid."""
    place = {int(d): k for k, d in enumerate(along)}
    partner = np.array([place.get(-int(d), -1) for d in along])
    out: FloatArray = np.take(values, np.maximum(partner, 0), axis=axis).astype(np.float64)
    np.moveaxis(out, axis, 0)[partner < 0] = np.nan
    return out


def name_axes(axes: Axes, *, x: bool = True, y: bool = True, short: bool = False) -> None:
    """Label the axes in words."""
    if x:
        axes.set_xlabel("dx (px), right →" if short else "dx: image moved right (pixels)")
    if y:
        axes.set_ylabel("dy (px), ← down" if short else "dy: image moved down (pixels)")


def scale_of(values: FloatArray) -> tuple[float, float, str]:
    """Limits and colours of maps on one scale: from 0 where nothing is negative, else the same on both sides of 0."""
    low, high = float(values.min()), float(values.max())
    if low >= 0:
        return 0.0, max(high, 1e-12), COLOURS
    top = max(-low, high)
    return -top, top, DIVERGING


def balanced(values: FloatArray, least: float) -> tuple[float, float]:
    """Limits of a diverging map: the same on both sides of 0, at least `least`."""
    finite = np.abs(values[np.isfinite(values)])
    top = max(float(finite.max(initial=0.0)), least)
    return -top, top


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no window; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(h_pad=0.08, w_pad=0.08)  # type: ignore[call-arg]
    return figure


def panels(
    n: int,
    n_columns: int,
    cell: tuple[float, float],
    margin: tuple[float, float],
    *,
    least: float = 0,
    shared: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with `n` axes row by row; a cell and the margin in inches, the figure at least so many wide."""
    n_rows = -(-n // n_columns)
    figure = new_figure(max(margin[0] + cell[0] * n_columns, least), margin[1] + cell[1] * n_rows)
    every = list(figure.subplots(n_rows, n_columns, squeeze=False, sharex=shared, sharey=shared).ravel())
    for axes in every[n:]:
        axes.set_visible(False)
    return figure, every[:n]


def name_panels(every: list[Axes], n_columns: int) -> None:
    """Label the axes on the outside of a grid of panels."""
    for place, axes in enumerate(every):
        name_axes(axes, x=place + n_columns >= len(every), y=place % n_columns == 0, short=True)


def suptitle(figure: Figure, text: str, fontsize: float | str = "large") -> None:
    """A title over the whole figure. Names in it come from folders and files: dollar signs are no formulas."""
    figure.suptitle(text, parse_math=False, fontsize=fontsize)


def short(name: str, longest: int) -> str:
    """A name for a title: printable, and its end cut off where it is too long."""
    safe = "".join(c if c.isprintable() else "?" for c in name)
    return safe if len(safe) <= longest else f"{safe[: longest - 1]}…"


@contextmanager
def _fixed() -> Iterator[None]:
    """Whatever would make two runs' files differ, or a strange class name warn, is set aside."""
    import matplotlib as mpl

    with default_style(), mpl.rc_context({"svg.hashsalt": "shiftlens"}), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes: no reason to fail.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as a PNG in memory."""
    buffer = io.BytesIO()
    with _fixed():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": "shiftlens"})
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def check_format(name: str) -> str:
    """Return a picture format that can be written.

    Raises
    ------
    InputError
        Neither png nor svg.
    """
    if name not in SUFFIXES:
        raise unknown_name("picture format", name, SUFFIXES)
    return name


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG or SVG (by the path's ending).

    Raises
    ------
    InputError
        Another ending, or a path that cannot be written.
    """
    kind = check_format(path.suffix.removeprefix("."))
    metadata = {"Date": None} if kind == "svg" else {"Software": "shiftlens"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _fixed():
            figure.savefig(path, dpi=DPI, metadata=metadata)
    except OSError as error:
        raise InputError(f"cannot write the picture {path}: {error.strerror or error}") from None
    return path
