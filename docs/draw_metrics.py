"""Draw the figures of docs/metrics.md: `make demo`, then `python docs/draw_metrics.py [demo-out]`.

All are of the demo's own net and sweep; controls are swept here, on a few images.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import shiftlens as sl
from shiftlens.analysis.arrays import SweepArrays, from_sweep
from shiftlens.analysis.irregularity import FRAME, rays
from shiftlens.analysis.summary import Metrics, all_metrics
from shiftlens.figures.drawing import COLOURS, DIVERGING, NUMBER_COLOURS, heat_map, name_axes, save
from shiftlens.figures.profile import SWEEP_COLOUR

OUT = Path(__file__).parent / "images"
N_IMAGES = 60
CONTROLS = ("occlusion", "flip", "canvas")
INK = "#d1003f"


def bare(axes: Axes) -> None:
    """No frame where there is no measurement."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def regions(metrics: Metrics) -> plt.Figure:
    """How far an image may shift: the three retained regions; a cell's interval and the band along one row."""
    arrays = metrics.sweep
    shifts = (arrays.dys, arrays.dxs)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(1, 1.25), layout="constrained")
    drawn = heat_map(left, 100 * metrics.profile("accuracy").map.value, shifts, (0.0, 100.0), COLOURS)
    for each, colour in zip(metrics.retained, ("white", "#ffb000", INK), strict=True):
        outline(left, each.region, shifts, colour)
        size = f"{each.area.value:,.0f} px², radius {each.radius.value:.1f}"
        left.plot([], [], color=colour, label=f"{each.level:.0%}: {size}")
    left.set_xlim(-18, 18)
    left.set_ylim(18, -18)
    left.legend(loc="lower center", fontsize=8, facecolor="0.6", labelcolor="black", framealpha=0.9)
    left.set_title("Retained area: connected to (0, 0), at this share of its accuracy", fontsize=10)
    name_axes(left, short=True)
    figure.colorbar(drawn, ax=left, label="accuracy (%)", shrink=0.85)
    row = int(np.flatnonzero(arrays.dys == 0)[0])
    accuracy = metrics.profile("accuracy").map
    right.fill_between(
        arrays.dxs,
        100 * accuracy.band_lo[row],
        100 * accuracy.band_hi[row],
        step="mid",
        color=SWEEP_COLOUR,
        alpha=0.25,
        linewidth=0,
        label="band: all cells of the map together",
    )
    half = 100 * np.abs(np.stack([accuracy.lo[row], accuracy.hi[row]]) - accuracy.value[row])
    right.errorbar(
        arrays.dxs, 100 * accuracy.value[row], half, fmt=".", color=SWEEP_COLOUR, label="each cell's own interval"
    )
    right.set_xlim(-20, 20)
    right.set_ylim(0, 102)
    right.set_xlabel("dx (px) along dy = 0")
    right.set_ylabel("accuracy (%)")
    right.set_title("An interval for a shift chosen beforehand, a band for a search", fontsize=10)
    right.legend(frameon=False, fontsize=8)
    bare(right)
    return figure


def outline(axes: Axes, region: np.ndarray[Any, Any], shifts: tuple[Any, Any], colour: str) -> None:
    """Along the sides of the region's cells."""
    dys, dxs = shifts
    for row, column in np.argwhere(region):
        y, x = dys[row], dxs[column]
        for (dr, dc), line in (
            ((-1, 0), ((x - 0.5, x + 0.5), (y - 0.5, y - 0.5))),
            ((1, 0), ((x - 0.5, x + 0.5), (y + 0.5, y + 0.5))),
            ((0, -1), ((x - 0.5, x - 0.5), (y - 0.5, y + 0.5))),
            ((0, 1), ((x + 0.5, x + 0.5), (y - 0.5, y + 0.5))),
        ):
            r, c = row + dr, column + dc
            if not (0 <= r < len(dys) and 0 <= c < len(dxs)) or not region[r, c]:
                axes.plot(*line, color=colour, linewidth=1.6, solid_capstyle="projecting")


def sides(metrics: Metrics) -> plt.Figure:
    """Is it the same on both sides: one pair on the map, and all pairs."""
    arrays = metrics.sweep
    found = metrics.asymmetry_x
    shifts = (arrays.dys, arrays.dxs)
    accuracy = 100 * metrics.profile("accuracy").map.value
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    drawn = heat_map(left, accuracy, shifts, (0.0, 100.0), COLOURS)
    k = int(np.argmax(np.abs(found.effect)))
    dx, dy = int(found.dxs[k]), int(found.dys[k])
    for x, note in ((dx, "right"), (-dx, "left")):
        value = accuracy[np.flatnonzero(arrays.dys == dy)[0], np.flatnonzero(arrays.dxs == x)[0]]
        left.plot(x, dy, "o", markerfacecolor="none", markeredgecolor="white", markersize=9, markeredgewidth=2)
        left.annotate(
            f"{note}: {value:.1f} %",
            (x, dy),
            (x, dy - 12 if dy < 0 else dy + 12),
            color="white",
            ha="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "white"},
        )
    left.set_title("A pair of opposite shifts along x", fontsize=10)
    figure.colorbar(drawn, ax=left, label="accuracy (%)", shrink=0.85)
    difference = accuracy - accuracy[:, ::-1]
    top = float(np.abs(difference).max())
    drawn = heat_map(right, difference, shifts, (-top, top), DIVERGING)
    overall = found.overall
    right.set_title(
        f"All pairs: this minus its mirror image; right minus left on\naverage {overall.value:+.2f} points "
        f"[{overall.lo:.2f}, {overall.hi:.2f}] over {len(found.dxs):,} pairs",
        fontsize=10,
    )
    figure.colorbar(drawn, ax=right, label="points", shrink=0.85)
    for axes in (left, right):
        name_axes(axes, short=True)
    return figure


def irregular(metrics: Metrics) -> plt.Figure:
    """Falls and recoveries: the rays and frames on the map of the loss, and the loss along them."""
    arrays = metrics.sweep
    shifts = (arrays.dys, arrays.dxs)
    loss = metrics.profile("loss").map.value
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(1, 1.25), layout="constrained")
    drawn = heat_map(left, loss, shifts, (0.0, float(loss.max())), NUMBER_COLOURS)
    for ray in rays(arrays):
        if ray.name == FRAME:
            for r in (8, 16, 24):
                left.plot([-r, r, r, -r, -r], [-r, -r, r, r, -r], color="white", linewidth=0.8, linestyle=":")
            continue
        left.plot(ray.shifts[:, 0], ray.shifts[:, 1], color="white", linewidth=0.9)
        x = np.abs(ray.shifts).max(axis=1)
        y = [loss.ravel()[cells].mean() for cells in ray.cells]
        right.plot(x, y, color="0.75", linewidth=1)
    left.set_title("Eight rays, and frames (dotted)", fontsize=10)
    figure.colorbar(drawn, ax=left, label="loss (nats)", shrink=0.85)
    name_axes(left, short=True)
    right.plot([], [], color="0.75", label="along each ray")
    found = metrics.profile("loss").irregular.reversals
    if found:
        strongest = found[0]
        (ray,) = (each for each in rays(arrays) if each.name == strongest.ray)
        x = np.abs(ray.shifts).max(axis=1)
        y = np.array([loss.ravel()[cells].mean() for cells in ray.cells])
        right.plot(x, y, color=SWEEP_COLOUR, linewidth=2, label=f"{strongest.ray}: the strongest that holds")
        for shift, word, away in (
            (strongest.start, "start", (-4, 9)),
            (strongest.dip, "dip", (2, 8)),
            (strongest.recovery, "recovery", (2, -14)),
        ):
            k = int(np.flatnonzero((ray.shifts == shift).all(axis=1))[0])
            right.plot(x[k], y[k], "o", color=INK)
            right.annotate(word, (x[k], y[k]), away, textcoords="offset points", color=INK, fontsize=9)
    right.set_xlabel("distance along the ray (px, the larger of |dx| and |dy|)")
    right.set_ylabel("loss (nats)")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, fontsize=8)
    right.set_title("A fall of performance, and a recovery further out", fontsize=10)
    bare(right)
    return figure


def ripple() -> plt.Figure:
    """Aliasing: a trend, a ripple of the net's stride on it, and what the second difference leaves."""
    d = np.arange(-32, 33)
    trend, stride = 95 - 0.04 * d**2, 4
    curve = trend + 2 * np.cos(2 * np.pi * d / stride)
    rest = (curve[2:-2] - (curve[:-4] + curve[4:]) / 2) / 2
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    left.plot(d, curve, color=SWEEP_COLOUR, marker=".", label="accuracy")
    left.plot(d, trend, color="0.6", linestyle="--", label="trend")
    left.plot(d[d % stride == 0], curve[d % stride == 0], "o", color=INK, label=f"multiples of the stride, {stride}")
    left.set_ylabel("accuracy (%)")
    left.set_title("An accuracy that is higher where the shift fits the stride", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    right.plot(d[2:-2], rest, color=SWEEP_COLOUR, marker=".")
    right.axhline(0, color="0.8", linewidth=1)
    right.set_ylabel("points")
    right.set_title("Minus its neighbours half a period away: no trend is left", fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("dx (px)")
        bare(axes)
    return figure


def agreement(mirrored: SweepArrays) -> plt.Figure:
    """Accuracy beside agreement on mirrored digits: a net that is often wrong can still say the same."""
    shifts = (mirrored.dys, mirrored.dxs)
    said = np.asarray(mirrored.prediction[slice(0, mirrored.n_images)])
    row, column = mirrored.origin
    same = 100 * (said == said[:, row, column][:, None, None]).mean(axis=0)
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained")
    for axes, values, title in zip(
        panels,
        (100 * mirrored.correct.mean(axis=0), same),
        ("Accuracy: right", "Agreement: the same as at (0, 0), right or wrong"),
        strict=True,
    ):
        drawn = heat_map(axes, values, shifts, (0.0, 100.0), COLOURS)
        axes.set_title(title, fontsize=10)
        name_axes(axes, short=True)
    figure.colorbar(drawn, ax=panels, label="share of images (%)", shrink=0.85)
    return figure


def swept(demo: Path) -> SweepArrays:
    """A coarse sweep of the demo's net with all controls."""
    model = sl.load_model(str(demo / "run"))
    images = sl.load_images("digits", split="test", limit=N_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "s.zarr"
        made = from_sweep(sl.sweep(model, images, sl.ShiftGrid(16, step=2), out=out, controls=CONTROLS))
        for each in (made, *made.controls.values()):
            # Read while the file is there.
            each.variables["prediction"] = np.asarray(each.prediction[slice(0, each.n_images)])
    return made


def controls(arrays: SweepArrays) -> plt.Figure:
    """The input of the sweep and of each control at one shift, and the accuracy that results."""
    maps = [100 * each.correct.mean(axis=0) for each in (arrays, *(arrays.controls[name] for name in CONTROLS))]
    images = sl.load_images("digits", split="test", limit=N_IMAGES)
    dx, dy, wide = 9, -4, 16
    image = images.batch([1])[0]
    moved = sl.translate(image[None], dx, dy)[0]
    blanked = image.copy()
    blanked[:, :, -dx:] = 0
    blanked[:, :-dy] = 0
    mirrored = sl.translate(image[None, :, :, ::-1].copy(), dx, dy)[0]
    around = np.pad(moved, ((0, 0), (wide, wide), (wide, wide)))
    shown = (
        ("Sweep: shifted by (9, -4)", moved, "padding starts at the frame"),
        ("Occlusion: the same pixels\nlost, the rest in place", blanked, "no shift"),
        ("Flip: mirrored, then shifted", mirrored, "removes the dataset bias"),
        ("Canvas: the same image,\nsurrounded by fill", around, "padding is out of reach"),
    )
    figure, panels = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
    for k, (title, pixels, note) in enumerate(shown):
        top, below = panels[:, k]
        top.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
        if k == 3:
            top.add_patch(plt.Rectangle((wide - 0.5, wide - 0.5), 32, 32, fill=False, edgecolor=INK, linewidth=1.6))
        else:
            for side in top.spines.values():
                side.set_color(INK)
                side.set_linewidth(1.6)
        top.set_xticks([])
        top.set_yticks([])
        top.set_title(title, fontsize=10)
        top.set_xlabel(note, fontsize=9)
        drawn = heat_map(below, maps[k], (arrays.dys, arrays.dxs), (0.0, 100.0), COLOURS, n_ticks=5)
        name_axes(below, y=k == 0, short=True)
    figure.colorbar(drawn, ax=panels[1], label="accuracy (%)", shrink=0.9)
    return figure


def main() -> None:
    """Write the figures."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    metrics = all_metrics(from_sweep(sl.open_sweep(demo / "digits.zarr")))
    arrays = swept(demo)
    made = {
        "metrics-regions": regions(metrics),
        "metrics-sides": sides(metrics),
        "metrics-irregular": irregular(metrics),
        "metrics-ripple": ripple(),
        "metrics-agreement": agreement(arrays.controls["flip"]),
        "metrics-controls": controls(arrays),
    }
    for name, figure in made.items():
        save(figure, OUT / f"{name}.png")


if __name__ == "__main__":
    main()
