"""Pictures of a sweep. Functions return matplotlib figures; `save` writes them with the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shiftlens.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from shiftlens.sweeps.result import Sweep

COLOURS = "viridis"
"""Perceptually uniform and safe for colour-blind readers."""


def _matrix(values: xr.DataArray, title: str, label: str, limits: tuple[float, float]) -> Figure:
    """A (dy, dx) matrix as a heat map; dx to the right, dy downwards, as the picture moves."""
    from matplotlib.figure import Figure

    dys, dxs = np.asarray(values["dy"]), np.asarray(values["dx"])
    half_y, half_x = ((np.diff(axis).min() / 2 if len(axis) > 1 else 0.5) for axis in (dys, dxs))
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(
        np.asarray(values),
        extent=(dxs[0] - half_x, dxs[-1] + half_x, dys[-1] + half_y, dys[0] - half_y),
        cmap=COLOURS,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )
    axes.plot(0, 0, marker="+", color="white", markersize=12, markeredgewidth=2.6)
    axes.plot(0, 0, marker="+", color="black", markersize=10, markeredgewidth=1.2)
    axes.set_xlabel("dx: picture moved right (pixels)")
    axes.set_ylabel("dy: picture moved down (pixels)")
    axes.set_title(title)
    figure.colorbar(drawn, ax=axes, label=label)
    return figure


def _subtitle(sweep: Sweep) -> str:
    return f"{len(sweep.dataset['label']):,} images, fill {sweep.fill.name}"


def accuracy_matrix(sweep: Sweep) -> Figure:
    """Accuracy over (dx, dy) in per cent, on the fixed range 0 to 100."""
    return _matrix(
        100 * sweep.accuracy, f"Accuracy under every shift\n{_subtitle(sweep)}", "accuracy (%)", (0.0, 100.0)
    )


def loss_matrix(sweep: Sweep) -> Figure:
    """Mean cross-entropy over (dx, dy) in nats, from 0 to the map's largest value."""
    top = float(sweep.mean_loss.max())
    title = f"Mean loss under every shift\n{_subtitle(sweep)}"
    return _matrix(sweep.mean_loss, title, f"cross-entropy (nats), 0 to {top:.2f}", (0.0, max(top, 1e-9)))


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG or SVG (by the path's ending).

    Raises
    ------
    InputError
        The path cannot be written.
    """
    import matplotlib as mpl

    # Dates and random element ids would make every run's files differ.
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": "shiftlens"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({"svg.hashsalt": "shiftlens"}):
            figure.savefig(path, dpi=120, metadata=metadata)
    except OSError as error:
        raise InputError(f"cannot write the picture {path}: {error.strerror or error}") from None
    return path
