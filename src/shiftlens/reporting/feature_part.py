"""A feature run's part of the page: the maps of the empty picture beside the averages, layer by layer, and scores."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shiftlens.diagnosis.artefacts import artefacts
from shiftlens.diagnosis.words import plain
from shiftlens.figures.drawing import COLOURS, DIVERGING
from shiftlens.figures.feature_maps import depth, overview
from shiftlens.lens.result import FeatureRun, LayerMaps
from shiftlens.lens.scores import Scores
from shiftlens.reporting.encoding import Data, figure_uri, palette, png_uri
from shiftlens.reporting.said import sorted_out
from shiftlens.reporting.sweep_part import Part
from shiftlens.stats import FloatArray, Skipped

MOST_LAYERS = 48
"""Layers with pictures, evenly over depth: a deep net has hundreds."""

MOST_FILTERS = 64
MOST_CELLS = 40_000
"""Cells of one mosaic, about: beyond, fewer filters are shown, and maps of more than 64 cells a side are thinned."""

LARGEST_MAP = 64
SMALLEST_PICTURE = 128
"""px: small maps are enlarged by whole factors to at least this, so that they can be seen without a browser's help."""


def feature_part(run: FeatureRun, number: int) -> Part:
    """Lay out a feature run.

    Parameters
    ----------
    run
        Maps of one picture, with averages or without.
    number
        Of the run on the page, from 0.
    """
    picked = _picked(run)
    average = any(layer.average is not None for layer in run.layers)
    input_name = f"{'empty picture' if run.is_empty else 'picture'} ({plain(run.input)})"
    average_name = f"average over {run.n_images:,} images of {plain(run.data or '')}" if average else ""
    found = artefacts(run)
    view = {
        "number": number,
        "id": f"features-{number}",
        "model": plain(run.model),
        "size": f"{run.size[0]}x{run.size[1]}",
        "input": input_name,
        "is_empty": run.is_empty,
        "average": average_name,
        "n_layers": len(run.layers),
        "n_picked": len(picked),
        "overview": figure_uri(overview(run)),
        "depth": figure_uri(depth(run)),
        "rows": [_row(layer) for layer in run.layers],
        "findings": sorted_out(found),
        "start": None if run.start is None else plain(run.start.name),
        "provenance": _provenance(run),
    }
    first = next((k for k, layer in enumerate(picked) if run.start is not None and layer is run.start), 0)
    view["first"] = first
    data = {
        "model": plain(run.model),
        "layers": [_layer(layer) for layer in picked],
        "input": input_name,
        "average": average_name,
    }
    return Part(view, data)


def _picked(run: FeatureRun) -> list[LayerMaps]:
    n = len(run.layers)
    if n <= MOST_LAYERS:
        return list(run.layers)
    return [run.layers[k] for k in sorted({round(k * (n - 1) / (MOST_LAYERS - 1)) for k in range(MOST_LAYERS)})]


def _layer(layer: LayerMaps) -> Data:
    maps = np.asarray(layer.maps, np.float64)
    c, h, w = maps.shape
    one = {"name": plain(layer.name), "kind": plain(layer.kind), "shape": f"{c} filters of {h}x{w} cells"}
    out: Data = one | {"empty": _shown(maps) | {"scores": _scores(layer.scores)}, "average": None}
    if layer.average is not None:
        mean = np.asarray(layer.average.mean, np.float64)
        out["average"] = _shown(mean) | {"scores": _scores(layer.average.scores)}
    return out


def _shown(maps: FloatArray) -> Data:
    """All filters on one scale, and their mean on its own: pictures, and the ranges of both in words."""
    few = thinned(maps)
    # The scale is that of what is drawn; the mean is of all filters.
    filters, filter_range = _coloured(_mosaic(few), few, None)
    mean = thinned(maps.mean(0)[None])[0]
    low, high = float(mean.min()), float(mean.max())
    constant = high - low <= 1e-9 * max(abs(high), 1e-12)
    limits = (low - 0.5, low + 0.5) if constant else (low, high)
    pixels, _ = _coloured(mean, mean, limits)
    words = f"constant, {low:.3g}" if constant else f"{low:.3g} to {high:.3g}"
    return {
        "filters": png_uri(_enlarged(filters)),
        "filters_range": f"{len(few)} of {len(maps)} filters, one scale: {filter_range}",
        "mean": png_uri(_enlarged(pixels)),
        "mean_range": f"mean over {len(maps)} filters, its own scale: {words}",
    }


def thinned(maps: FloatArray) -> FloatArray:
    """At most `MOST_FILTERS` maps of at most `LARGEST_MAP` cells a side, about `MOST_CELLS` in all.

    Larger maps keep every k-th row and column, from both borders inwards: the border itself stays.
    """
    small = maps
    for axis in (1, 2):
        n = maps.shape[axis]
        if n > LARGEST_MAP:
            keep = np.rint(np.linspace(0, n - 1, LARGEST_MAP)).astype(np.int64)
            small = np.take(small, keep, axis=axis)
    most = max(4, min(MOST_FILTERS, MOST_CELLS // (small.shape[1] * small.shape[2])))
    side = math.isqrt(most)
    return small[: side * side]


def _mosaic(maps: FloatArray) -> FloatArray:
    """Maps [c, h, w] side by side, a gap of nan between them."""
    from shiftlens.figures.feature_maps import mosaic

    return mosaic(maps)


def _coloured(
    values: FloatArray, scale: FloatArray, limits: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], str]:
    """Pixels (h, w, 3) and the range in words; gaps are white."""
    low, high = float(scale.min()), float(scale.max())
    name = COLOURS
    if limits is not None:
        low, high = limits
    elif low >= 0:
        low, high = 0.0, max(high, 1e-12)
    else:
        high = max(-low, high)
        low, name = -high, DIVERGING
    place = np.nan_to_num((values - low) / (high - low)) * 255
    pixels = palette(name)[np.clip(np.rint(place), 0, 255).astype(np.int64)]
    pixels[np.isnan(values)] = 255
    return pixels, f"{low:.3g} to {high:.3g}"


def _enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = max(1, -(-SMALLEST_PICTURE // max(pixels.shape[:2])))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _number(value: float | Skipped, form: str) -> str:
    return "-" if isinstance(value, Skipped) else format(value, form)


def _scores(scores: Scores) -> str:
    made = []
    if not isinstance(scores.artefact_energy, Skipped):
        made.append(f"artefact energy {scores.artefact_energy:.2g}")
    if not isinstance(scores.reach_cells, Skipped) and not isinstance(scores.reach_pixels, Skipped):
        made.append(f"borders reach {scores.reach_cells} cells ({scores.reach_pixels:.0f} px)")
    if not isinstance(scores.contrast_lr, Skipped) and not isinstance(scores.contrast_ud, Skipped):
        made.append(f"odd share left/right {scores.contrast_lr:.2f}, up/down {scores.contrast_ud:.2f}")
    return ", ".join(made)


def _row(layer: LayerMaps) -> list[str]:
    scores, average = layer.scores, None if layer.average is None else layer.average.scores
    c, h, w = layer.maps.shape
    return [
        plain(layer.name),
        plain(layer.kind),
        f"{c} x {h} x {w}",
        _number(scores.artefact_energy, ".2g"),
        "-" if average is None else _number(average.artefact_energy, ".2g"),
        _number(scores.reach_cells, "d"),
        _number(scores.reach_pixels, ".0f"),
        _number(scores.contrast_lr, ".2f"),
        _number(scores.contrast_ud, ".2f"),
    ]


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
