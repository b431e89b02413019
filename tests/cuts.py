"""Parts of a sweep: fewer images, fewer rows or columns of shifts."""

from __future__ import annotations

from dataclasses import replace

from shiftlens.analysis.arrays import SweepArrays

ALL = slice(None)


def cut(made: SweepArrays, *, images: slice = ALL, rows: slice = ALL, columns: slice = ALL) -> SweepArrays:
    where = (images, rows, columns)
    return replace(
        made,
        variables={name: cells[where] for name, cells in made.variables.items()},
        labels=made.labels[images],
        dys=made.dys[rows],
        dxs=made.dxs[columns],
    )
