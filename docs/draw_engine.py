"""Draw docs/images/engine.png, what the fast path shares: `python docs/draw_engine.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import shiftlens as sl
from shiftlens.engine.shared.program import Layout, Program
from shiftlens.engine.shared.states import shifted_axis, slide
from shiftlens.engine.shared.tracing import trace

OUT = Path(__file__).parent / "images" / "engine.png"


def main() -> None:
    """Write the figure."""
    figure, (table, cells) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1, 1.35), layout="constrained")
    # Left: one axis of 8 pixels, shifts -8 ... 8, after one 3-tap convolution with zero padding.
    shifts, n = np.arange(-8, 9), 8
    first = slide(shifted_axis(shifts, n, None), kernel=3, before=1, after=1, length=n)
    table.pcolormesh(first.axis.table, cmap="viridis", edgecolors="white", linewidth=0.6)
    for row in range(len(shifts)):
        for column in range(n):
            table.text(
                column + 0.5,
                row + 0.5,
                str(first.axis.table[row, column]),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if first.axis.table[row, column] < 0.7 * first.axis.n else "black",
            )
    table.set_xticks(np.arange(n) + 0.5, [str(k) for k in range(n)])
    table.set_yticks(np.arange(0, len(shifts), 4) + 0.5, [str(k) for k in shifts[::4]])
    table.set_xlabel("position in the feature map")
    table.set_ylabel("shift in pixels")
    table.set_title(
        f"One axis: {first.axis.table.size} windows' positions, {first.axis.n} different states", fontsize=10
    )
    # Right: the reference case.
    net = sl.nn.VGG("vgg8", width=1).eval()
    found = trace(net, (3, 32, 32))
    program = Program(found, len(found.steps), Layout.of(sl.ShiftGrid(32), (32, 32), None, (0.0, 0.0, 0.0)))
    names, all_windows, distinct = [], [], []
    for call_name, state in program.cells.items():
        step = next((s for s in found.steps if s.name == call_name), None)
        if step is None or len(step.shape) < 3 or step.shape[1] == 1:
            continue
        names.append(f"{step.shape[1]} x {step.shape[2]}")
        all_windows.append(state.rows.n_windows * state.columns.n_windows)
        distinct.append(state.rows.n * state.columns.n)
    at = np.arange(len(names))
    cells.bar(at - 0.2, all_windows, 0.4, label="every window on its own", color="#9aa5b1")
    cells.bar(at + 0.2, distinct, 0.4, label="each different cell once", color="#21918c")
    for k, (a, b) in enumerate(zip(all_windows, distinct, strict=True)):
        cells.text(k + 0.2, b * 1.1, f"{a / b:.0f}x" if a / b >= 10 else f"{a / b:.1f}x", ha="center", fontsize=8)
    cells.set_yscale("log")
    cells.set_xticks(at, names, rotation=45, ha="right")
    cells.set_xlabel("feature maps of vgg8, from the first convolution to the last pooling")
    cells.set_ylabel("cells for one image and all shifts")
    cells.set_title("32 x 32 pixels, 63 x 63 shifts that leave something in view", fontsize=10)
    cells.legend(frameon=False)
    for side in ("top", "right"):
        cells.spines[side].set_visible(False)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
