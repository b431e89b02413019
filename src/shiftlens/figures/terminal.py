"""A small map of a metric for a terminal, in colours or, where there are none, in signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftlens.analysis.arrays import IntArray
from shiftlens.figures.drawing import Shifts, colours_of, limits_of
from shiftlens.stats import FloatArray
from shiftlens.tasks.task import Variable

if TYPE_CHECKING:
    from rich.text import Text

SIGNS = " .:-=+*#%@"
"""From the lower end of the range to the upper one, in steps of a tenth."""


def text_map(values: FloatArray, shifts: Shifts, metric: Variable, *, colour: bool, width: int = 80) -> Text:
    """Return a metric over (dx, dy) as text: dx to the right, dy downwards, the origin marked.

    Parameters
    ----------
    values
        (dy, dx), in the metric's unit.
    shifts
        The grid's dys and dxs.
    metric
        What is shown, within its bounds where it has them.
    colour
        Half blocks in colours, two rows of shifts a line; otherwise one sign a shift and every second row left out,
        since a character is twice as high as wide.
    width
        Characters that fit; a wider map leaves out shifts evenly, never the origin.
    """
    every = max(1, -(-values.shape[1] // max(width, 8)))
    columns = _around(shifts[1], every)
    rows = _around(shifts[0], every if colour else 2 * every)
    low, high = limits_of(metric, metric.factor * values)
    place = np.nan_to_num((metric.factor * values[np.ix_(rows, columns)] - low) / (high - low))
    centre = (int(np.flatnonzero(shifts[0][rows] == 0)[0]), int(np.flatnonzero(shifts[1][columns] == 0)[0]))
    text = _colours(place, centre, colours_of(metric)) if colour else _signs(place, centre)
    px = int(shifts[1][columns][1] - shifts[1][columns][0]) if len(columns) > 1 else 1
    unit, span = f" {metric.shown_unit}".rstrip(), high - low
    ends = f"dark: {low:.3g}{unit}, bright: {high:.3g}{unit}"
    if not colour:
        below, above = (f"{low + part * span:.3g}{unit}" for part in (0.1, 0.9))
        ends = f"'{SIGNS[0]}' below {below}, '{SIGNS[-1]}' {above} and above"
    text.append(f"{metric.called}, {ends}; X is (0, 0), right is dx > 0, down is dy > 0, {px} px a column")
    return text


def _around(axis: IntArray, every: int) -> IntArray:
    """Positions on an axis: every so many, the origin among them."""
    origin = int(np.flatnonzero(axis == 0)[0])
    return np.arange(origin % every, len(axis), every)


def _signs(values: FloatArray, centre: tuple[int, int]) -> Text:
    from rich.text import Text

    number = np.clip((values * 10).astype(int), 0, len(SIGNS) - 1)
    lines = [[SIGNS[k] for k in row] for row in number]
    lines[centre[0]][centre[1]] = "X"
    return Text("".join("".join(line) + "\n" for line in lines))


def _colours(values: FloatArray, centre: tuple[int, int], colours: str) -> Text:
    from matplotlib import colormaps
    from rich.text import Text

    rgb = (255 * np.asarray(colormaps[colours](np.clip(values, 0, 1)))[..., :3]).round().astype(int)
    text = Text()
    for top in range(0, len(values), 2):
        for column in range(values.shape[1]):
            upper = "rgb({},{},{})".format(*rgb[top, column])
            lower = "rgb({},{},{})".format(*rgb[top + 1, column]) if top + 1 < len(values) else None
            if centre[1] == column and centre[0] in (top, top + 1):
                text.append("X", f"black on {upper if centre[0] == top else lower}")
            else:
                text.append("▀", f"{upper} on {lower}" if lower else upper)
        text.append("\n")
    return text
