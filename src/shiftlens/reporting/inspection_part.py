"""Layer arithmetic's part of the page: the table, and what follows from it."""

from __future__ import annotations

from shiftlens.arithmetic import Inspection
from shiftlens.arithmetic.layers import Layer
from shiftlens.graph import Sides
from shiftlens.graph.sites import Pair
from shiftlens.narrative.artefacts import artefacts
from shiftlens.narrative.words import plain
from shiftlens.reporting.encoding import Data
from shiftlens.reporting.page_findings import sorted_out
from shiftlens.stats import Skipped

HEADS = ("layer", "kind", "kernel", "stride", "in", "out", "left", "right", "top", "bottom", "unused", "reach", "field")


def inspection_view(found: Inspection, number: int) -> Data:
    """What the template shows of layer arithmetic; rows of layers that treat opposite sides differently are marked."""
    return {
        "number": number,
        "id": f"inspection-{number}",
        "model": plain(found.model),
        "size": f"{found.size[0]}x{found.size[1]}",
        "heads": HEADS,
        "rows": [{"cells": _row(layer), "uneven": not layer.is_even} for layer in found.layers],
        "summary": [plain(line) for line in found.summary()[1:]],
        "findings": sorted_out(artefacts(found)),
        "n_uneven": len(found.uneven),
    }


def _row(layer: Layer) -> list[str]:
    used, reach, field = layer.used, layer.border_reach, layer.receptive_field
    if layer.merged:
        sides = ["in next", "", "", ""]
    elif isinstance(used, Sides):
        sides = [str(side) for side in (used.left, used.right, used.top, used.bottom)]
    else:
        sides = ["?"] * 4
    return [
        plain(layer.name),
        plain(layer.kind),
        _sized(layer.kernel) + (f" dilated {_sized(layer.dilation)}" if layer.dilation != (1, 1) else ""),
        _sized(layer.stride),
        _sized(layer.in_size),
        _sized(layer.out_size),
        *sides,
        "?" if isinstance(layer.unused, Skipped) else _sized(layer.unused),
        "?" if isinstance(reach, Skipped) else str(max(reach.left, reach.right, reach.top, reach.bottom)),
        "?" if isinstance(field, Skipped) else _sized(field),
    ]


def _sized(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"
