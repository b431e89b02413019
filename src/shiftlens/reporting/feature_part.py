"""A feature run's part of the page: the maps of the empty picture beside the averages, layer by layer, and scores."""

from __future__ import annotations

import math

import numpy as np

from shiftlens.figures.drawing import COLOURS, is_constant, scale_of
from shiftlens.figures.feature_figures import NOT_JUDGED, depth, mosaic, picked, range_text
from shiftlens.lens.feature_run import FeatureRun, LayerMaps
from shiftlens.lens.map_scores import Scores
from shiftlens.naming import count_of
from shiftlens.narrative.artefacts import artefacts
from shiftlens.narrative.words import plain
from shiftlens.reporting.encoding import Data, coloured, enlarged, figure_uri, png_uri
from shiftlens.reporting.page_findings import sorted_out
from shiftlens.reporting.sweep_part import Part
from shiftlens.stats import FloatArray, Skipped, per_cent

MOST_LAYERS = 48
"""Layers with pictures, evenly over depth: a deep net has hundreds."""

MOST_FILTERS = 64
MOST_CELLS = 70_000
"""Cells of one mosaic, about: 64 filters of 32 x 32. Beyond, fewer filters are shown."""

CELLS_IN_ALL = 2_500_000
"""Of all mosaics of a run, about: the pictures of a deep net share this, so that the file stays light."""

ZERO = ("zeros", "mean")
"""Empty pictures that are 0 after normalisation, as zero padding is."""

GAP = 150
"""Grey between the filters of a mosaic, 0 to 255."""

LARGEST_MAP = 64
"""Cells a side: larger maps are thinned."""


def feature_part(run: FeatureRun, number: int) -> Part:
    """Lay out a feature run, with averages or without."""
    few = picked(run, MOST_LAYERS)
    average = any(layer.average is not None for layer in run.layers)
    input_name = plain(run.shown)
    average_name = f"average over {count_of(run.n_images, 'image')} of {plain(run.data or '')}" if average else ""
    most_cells = min(MOST_CELLS, CELLS_IN_ALL // (len(few) * (2 if average else 1)))
    view = {
        "number": number,
        "id": f"features-{number}",
        "model": plain(run.model),
        "size": f"{run.size[0]}x{run.size[1]}",
        "input": input_name,
        "is_empty": run.is_empty,
        "is_zero": run.input in ZERO,
        "average": average_name,
        "n_layers": len(run.layers),
        "n_picked": len(few),
        "strip": [_strip(layer) for layer in few],
        "strip_rows": _strip_rows(run),
        "depth": figure_uri(depth(run)),
        "rows": [_row(layer) for layer in run.layers],
        "energies": [f"artefact energy of the {plain(of)}" for of in (run.shown, run.averaged or "average")],
        "findings": sorted_out(artefacts(run)),
        "start": None if run.start is None else plain(run.start.name),
        "provenance": _provenance(run),
        "first": next((k for k, layer in enumerate(few) if layer is run.start), 0),
    }
    data = {
        "model": plain(run.model),
        "layers": [_layer(layer, most_cells) for layer in few],
        "input": input_name,
        "average": average_name,
    }
    return Part(view, data)


def _layer(layer: LayerMaps, most_cells: int) -> Data:
    maps = np.asarray(layer.maps, np.float64)
    c, h, w = maps.shape
    one = {"name": plain(layer.name), "kind": plain(layer.kind), "shape": f"{count_of(c, 'filter')} of {h}x{w} cells"}
    average = None
    if layer.average is not None:
        scores = _scores(layer.average.scores)
        if layer.average.rolled is not None and scores:
            # The map is the plain average; the scores are of the controls that take content out.
            scores = f"content taken out (rolled evenly, mirrored for left/right): {scores}"
        average = _shown(np.asarray(layer.average.mean, np.float64), most_cells) | {"scores": scores}
    return one | {"empty": _shown(maps, most_cells) | {"scores": _scores(layer.scores)}, "average": average}


def _shown(maps: FloatArray, most_cells: int) -> Data:
    """All filters on one scale, and their mean on its own: pictures, and the ranges of both in words."""
    few = thinned(maps, most_cells)
    low, high, colours = scale_of(few)
    # Gaps of the mosaic are grey, whatever the scale: no colour of a scale, and calm on light and dark paper.
    tiled = mosaic(few)
    filters = coloured(tiled, low, high, colours)
    if is_constant(few):  # one grey: colours would show what is not there
        filters = coloured(np.full_like(tiled, 0.2), 0.0, 1.0, "Greys")
    filters[np.isnan(tiled)] = GAP
    mean, low_mean, high_mean = _mean(maps)
    which = "all" if len(few) == len(maps) else f"the first {len(few)} of"
    words = f"constant, {low_mean:.3g}" if low_mean == high_mean else f"{low_mean:.3g} to {high_mean:.3g}"
    return {
        "filters": png_uri(enlarged(filters)),
        "filters_range": f"{which} {count_of(len(maps), 'filter')}, one scale: {low:.3g} to {high:.3g}",
        "mean": mean,
        "mean_range": f"mean over {count_of(len(maps), 'filter')}, its own scale: {words}",
    }


def _mean(maps: FloatArray) -> tuple[str, float, float]:
    """The mean over channels as a picture, and its range; a range of nothing where only rounding varies."""
    mean = thinned(maps.mean(0)[None])[0]
    low, high = float(mean.min()), float(mean.max())
    if high - low > 1e-9 * max(abs(high), 1e-12):
        return png_uri(enlarged(coloured(mean, low, high, COLOURS))), low, high
    return png_uri(enlarged(coloured(np.full_like(mean, low), low - 0.2, low + 0.8, "Greys"))), low, low


def _strip(layer: LayerMaps) -> Data:
    """One layer's column of the overview: means over channels, each on its own scale, and how much there is to see."""
    average = layer.average
    stacks = (layer.maps, None if average is None else average.mean, None if average is None else average.rolled)
    cells = []
    for maps in (np.asarray(each, np.float64) for each in stacks if each is not None):
        uri, low, high = _mean(maps)
        share = 100 * (high - low) / max(abs(low), abs(high), 1e-12)
        cells.append({"uri": uri, "range": range_text(share)})
    h, w = layer.maps.shape[1:]
    return {"name": plain(layer.name), "size": f"{h}x{w}", "cells": cells}


def _strip_rows(run: FeatureRun) -> list[str]:
    averages = [layer.average for layer in run.layers if layer.average is not None]
    rows = [plain(run.shown), *([f"average of {count_of(run.n_images, 'image')}"] if averages else [])]
    return [*rows, *([run.averaged] if any(average.rolled is not None for average in averages) else [])]


def thinned(maps: FloatArray, most_cells: int = MOST_CELLS) -> FloatArray:
    """At most `MOST_FILTERS` maps of at most `LARGEST_MAP` cells a side, about `most_cells` in all, but at least four.

    Larger maps keep every k-th row and column, from both borders inwards: the border itself stays.
    """
    small = maps
    for axis in (1, 2):
        n = maps.shape[axis]
        if n > LARGEST_MAP:
            keep = np.rint(np.linspace(0, n - 1, LARGEST_MAP)).astype(np.int64)
            small = np.take(small, keep, axis=axis)
    most = max(4, min(MOST_FILTERS, most_cells // (small.shape[1] * small.shape[2])))
    side = math.isqrt(most)
    return small[: side * side]


def _number(value: float | Skipped, form: str) -> str:
    return "-" if isinstance(value, Skipped) else format(value, form)


def _per_cent(share: float | Skipped) -> str:
    return "-" if isinstance(share, Skipped) else per_cent(share)


def _scores(scores: Scores) -> str:
    if isinstance(scores.artefact_energy, Skipped):
        return NOT_JUDGED if not isinstance(scores.reach_cells, Skipped) else ""
    made = [f"artefact energy {per_cent(scores.artefact_energy)}"]
    if not isinstance(scores.reach_cells, Skipped):
        cells = "1 cell" if scores.reach_cells == 1 else f"{scores.reach_cells} cells"
        made.append(f"borders reach {cells} ({_number(scores.reach_pixels, '.0f')} px)")
    across, down = _per_cent(scores.contrast_lr), _per_cent(scores.contrast_ud)
    if "-" not in (across, down):
        made.append(f"odd share left/right {across}, up/down {down}")
    return ", ".join(made)


def _row(layer: LayerMaps) -> list[str]:
    scores, average = layer.scores, layer.average
    c, h, w = layer.maps.shape
    energies = (scores.artefact_energy, Skipped("", "") if average is None else average.scores.artefact_energy)
    reach = _number(scores.reach_cells, "d"), _number(scores.reach_pixels, ".0f")
    odd = map(_per_cent, (scores.contrast_lr, scores.contrast_ud))
    return [plain(layer.name), plain(layer.kind), f"{c} x {h} x {w}", *map(_per_cent, energies), *reach, *odd]


def _provenance(run: FeatureRun) -> list[tuple[str, str]]:
    rows = [
        ("file", run.path.name if run.path is not None else "in memory"),
        ("model", run.model),
        ("model digest", run.model_digest),
        ("input", f"{run.input}, {run.size[0]}x{run.size[1]} px"),
        ("images of the average", f"{run.data}, {run.n_images:,}" if run.n_images else ""),
        ("data digest", run.data_digest or ""),
        ("maps taken", "after each layer's activation" if run.after else "before the activation"),
        ("versions", ", ".join(f"{name} {number}" for name, number in sorted(run.software.items()))),
    ]
    return [(name, plain(text)) for name, text in rows if text]
