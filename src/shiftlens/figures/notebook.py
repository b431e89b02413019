"""How a notebook shows a sweep: what it is of, and its two matrices."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from shiftlens.figures.gallery import image_html
from shiftlens.figures.maps import accuracy_matrix, loss_matrix

if TYPE_CHECKING:
    from shiftlens.sweeps.result import Sweep


def sweep_html(sweep: Sweep) -> str:
    """A sweep as HTML; every text in it is escaped, since names come from whoever named a file or a class."""
    header = sweep.header
    names = ", ".join(header.class_names[:20]) + (", …" if len(header.class_names) > 20 else "")
    rows = (
        ("model", header.model),
        ("images", f"{header.data}: {sweep.n_written:,} of {sweep.n_images:,} measured"),
        ("shifts", f"{sweep.grid.n_shifts:,}, {header.grid.step} px apart, fill {header.fill.name}"),
        ("controls", ", ".join(sweep.controls) or "none"),
        ("classes", names or "not named"),
        ("file", str(sweep.path)),
    )
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in rows
    )
    pictures = image_html(accuracy_matrix(sweep), "accuracy", 64) + image_html(loss_matrix(sweep), "loss", 64)
    return f"<table>{cells}</table><p>{pictures}</p>"
