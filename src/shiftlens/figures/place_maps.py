"""A task's rate by the place in the frame: as a map, and by the distance to the nearest border."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.places import Places
from shiftlens.figures.drawing import COLOURS, new_figure, range_of, suptitle
from shiftlens.styling import default_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@default_style()
def place_map(places: Places, about: str, frame: NDArray[np.uint8] | None = None) -> Figure:
    """Draw a rate over (x, y) of the frame, and its mean at each distance from the border.

    A `frame` [h, w, 3] as an example of the images shows through the map.
    """
    from matplotlib import colormaps

    what = places.what
    factor, unit = (100.0, " (%)") if what.unit == "share" else (1.0, f" ({what.unit})" if what.unit else "")
    shown = factor * places.map
    finite = shown[np.isfinite(shown)]
    limits = (0.0, max(float(finite.max(initial=0.0)), 1e-9))
    figure = new_figure(10.0, 4.6)
    left, right = figure.subplots(1, 2)
    palette = colormaps[COLOURS].with_extremes(bad="0.85")
    if frame is not None:
        left.imshow(frame)
    drawn = left.imshow(
        np.ma.masked_invalid(shown),
        cmap=palette,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
        alpha=None if frame is None else 0.6,
    )
    left.set_xlabel("x (pixels)")
    left.set_ylabel("y (pixels)")
    label = f"{unit.strip(' ()')}, {what.better} is better, {range_of(limits)}".removeprefix(", ")
    figure.colorbar(drawn, ax=left).set_label(label, parse_math=False)
    right.plot(places.distance, factor * places.profile, marker="o", markersize=3)
    right.axvline(places.border - 0.5, color="0.5", linestyle="--", linewidth=1)
    right.set_xlabel("distance to the nearest border (pixels)")
    right.set_ylabel(f"{what.name}{unit}")
    right.set_ylim(bottom=0)
    name = f"{what.name[:1].upper()}{what.name[1:]}"
    over = "" if frame is None else ", over an example image"
    suptitle(figure, f"{name}, by the place in the frame, over all shifts{over}\n{about}")
    return figure
