"""Pictures of path counts (foveation) and of mean kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftlens.figures.drawing import COLOURS, DIVERGING, new_figure, panels, suptitle
from shiftlens.lens.kernels import Kernels
from shiftlens.stats import FloatArray, Skipped
from shiftlens.styling import default_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TILES = 60


@default_style()
def foveation_map(counts: FloatArray, title: str) -> Figure:
    """Path counts relative to the middle of the picture, and along its middle row and column."""
    h, w = counts.shape
    middle = float(counts[h // 2, w // 2])
    relative = counts / middle if middle > 0 else counts
    figure = new_figure(10.4, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
    top = max(float(relative.max()), 1e-12)
    drawn = left.imshow(relative, cmap=COLOURS, vmin=0.0, vmax=top, interpolation="nearest")
    left.set_xlabel("x (pixels)")
    left.set_ylabel("y (pixels)")
    figure.colorbar(drawn, ax=left, label=f"paths, middle pixel = 1 (range 0 to {top:.3g})", shrink=0.85)
    right.plot(np.arange(w), relative.mean(0), label="mean over rows, left to right")
    right.plot(np.arange(h), relative.mean(1), "--", label="mean over columns, top to bottom")
    right.set_ylim(0, None)
    right.set_xlabel("position (pixels)")
    right.set_ylabel("paths, middle pixel = 1")
    right.grid(alpha=0.25)
    right.legend(fontsize=8, frameon=False)
    suptitle(figure, f"{title}: paths by which each pixel contributes", 11)
    return figure


@default_style()
def kernel_tiles(run: Kernels) -> Figure:
    """One tile a layer: the mean kernel, colours around 0, each tile on its own scale."""
    layers = run.layers[:MOST_TILES]
    figure, every = panels(len(layers), min(len(layers), 8), (1.55, 2.0), (0.6, 0.8))
    for axes, layer in zip(every, layers, strict=True):
        axes.set(xticks=[], yticks=[])
        top = max(float(np.abs(layer.kernel).max()), 1e-12)
        axes.imshow(layer.kernel, cmap=DIVERGING, vmin=-top, vmax=top, interpolation="nearest")
        axes.set_title(layer.path[-22:], fontsize=7, parse_math=False)
        marks = [
            f"{word} {value:.2f}{'*' if p is not None and p <= 0.05 else ''}"
            for word, value, p in (("lr", layer.asymmetry_lr, layer.p_lr), ("ud", layer.asymmetry_ud, layer.p_ud))
            if not isinstance(value, Skipped)
        ]
        axes.set_xlabel(f"{'  '.join(marks)}\n±{top:.2g}", fontsize=7)
    left_out = "" if len(layers) == len(run.layers) else f" (first {len(layers)} of {len(run.layers)})"
    about = "Red +, blue -; odd share left/right and up/down, * p <= 0.05 corrected"
    suptitle(figure, f"{run.model}: mean kernels{left_out}. {about}", 10)
    return figure
