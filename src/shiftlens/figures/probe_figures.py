"""The picture of a probe: the model's confidence over the positions of one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftlens.figures.drawing import COLOURS, new_figure, short, suptitle
from shiftlens.position_map import PositionMap
from shiftlens.styling import default_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@default_style()
def probe_map(found: PositionMap) -> Figure:
    """The confidence by the position of the object's centre in the frame, and its means over columns and rows."""
    (h, w), (oh, ow) = found.size, found.object_size
    x, y = found.xs + ow / 2, found.ys + oh / 2
    figure = new_figure(10.4, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
    step = [float(each[1] - each[0]) if len(each) > 1 else 1.0 for each in (x, y)]
    ends = (x[0] - step[0] / 2, x[-1] + step[0] / 2, y[-1] + step[1] / 2, y[0] - step[1] / 2)
    left.set_facecolor("0.85")
    drawn = left.imshow(found.confidence, cmap=COLOURS, vmin=0, vmax=1, extent=ends, interpolation="nearest")
    left.set(xlim=(0, w), ylim=(h, 0), xlabel="x of the object's centre (px)", ylabel="y of the object's centre (px)")
    figure.colorbar(drawn, ax=left, label="confidence (0 to 1)", shrink=0.85)
    right.plot(x, found.confidence.mean(0), label="mean over y, left to right")
    right.plot(y, found.confidence.mean(1), "--", label="mean over x, top to bottom")
    right.set(ylim=(0, 1.02), xlabel="position of the centre (px)", ylabel="confidence")
    right.grid(alpha=0.25)
    right.legend(fontsize=8, frameon=False)
    share = 100 * float(np.mean(found.found))
    what = "found" if found.task == "detection" else "predicted"
    title = (
        f"{short(found.label_name, 30)}, {oh}x{ow} px, {what} at {share:.1f} % of {found.confidence.size:,} positions"
    )
    suptitle(figure, title, 11)
    return figure
