"""Image strips: the same image under a few shifts side by side, with the boxes of an object and a number each."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shiftlens.figures.drawing import new_figure, suptitle
from shiftlens.styling import default_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Strip:
    """One row of pictures.

    Attributes
    ----------
    name
        Left of it.
    pictures
        [k, h, w, 3], 0 to 255.
    captions
        One a picture, below it.
    boxes
        [k, (left, top, right, bottom)] in pixels, or None.
    worst
        Which picture is marked.
    """

    name: str
    pictures: NDArray[np.uint8]
    captions: list[str]
    boxes: NDArray[np.float64] | None
    worst: int


@default_style()
def strips(rows: list[Strip], title: str) -> Figure:
    """Draw the rows below each other; the box and caption of the marked picture are red."""
    from matplotlib.patches import Rectangle

    n = max(len(row.pictures) for row in rows)
    _, h, w, _ = rows[0].pictures.shape
    cell = 1.25
    figure = new_figure(1.1 + cell * n, 0.7 + (cell * h / w + 0.42) * len(rows))
    every = figure.subplots(len(rows), n, squeeze=False)
    for row, line in zip(rows, every, strict=True):
        for k, axes in enumerate(line):
            axes.set_xticks([])
            axes.set_yticks([])
            if k >= len(row.pictures):
                axes.set_visible(False)
                continue
            marked = k == row.worst
            axes.imshow(row.pictures[k], interpolation="nearest")
            if row.boxes is not None:
                left, top, right, bottom = row.boxes[k] - 0.5
                shape = Rectangle((left, top), right - left, bottom - top, fill=False)
                shape.set(edgecolor="#ff4f4f" if marked else "#58d68d", linewidth=1.6)
                axes.add_patch(shape)
            axes.set_xlim(-0.5, w - 0.5)
            axes.set_ylim(h - 0.5, -0.5)
            colour, weight = ("#b0201a", "bold") if marked else ("black", "normal")
            axes.set_xlabel(row.captions[k], fontsize=8, color=colour, fontweight=weight, parse_math=False)
        line[0].set_ylabel(row.name, fontsize=8, parse_math=False)
    # About twelve letters of this size fit an inch.
    suptitle(figure, textwrap.fill(title, int(12 * figure.get_figwidth())), fontsize="medium")
    return figure
