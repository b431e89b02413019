"""The learning curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shiftlens.styling import default_style
from shiftlens.training.checkpoint import write_whole

CURVE = "learning-curve.png"


@default_style()
def save_curve(out: Path, epochs: Sequence[Mapping[str, Any]], title: str) -> Path:
    """Draw training loss and accuracy over the epochs into `learning-curve.png`; same numbers, same bytes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    at = [row["epoch"] for row in epochs]
    (loss,) = axes.plot(
        at, [row["train_loss"] for row in epochs], color="#3b528b", marker="o", markersize=3, label="training loss"
    )
    axes.set(xlabel="epoch", ylabel="training loss (nats)", title=title)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = [loss]
    seen = [(row["epoch"], 100 * row["accuracy"]) for row in epochs if row["accuracy"] is not None]
    if seen:
        right = axes.twinx()
        (accuracy,) = right.plot(
            *zip(*seen, strict=True), color="#c2410c", marker="s", markersize=3, ls="--", label="accuracy, validation"
        )
        right.set(ylabel="accuracy (%)", ylim=(0, 100))
        lines.append(accuracy)
    axes.legend(handles=lines, loc="center right")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120, metadata={"Software": None})
    write_whole(out / CURVE, drawn.getvalue())
    return out / CURVE
