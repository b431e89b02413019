"""Findings of a tile report: how large the mismatch is, its causes, and what makes tiles exact."""

from __future__ import annotations

from shiftlens.naming import count_of
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import Action, Quantity, number
from shiftlens.narrative.setting import Named, data_named, named_model
from shiftlens.narrative.words import capital, plain, sentence
from shiftlens.stats import Estimate, per_cent
from shiftlens.tiles.tile_result import SAID, TileReport, per_cent_of
from shiftlens.tiles.tile_shares import CauseShare

SMALL = 0.05
"""Causes with a smaller share are information, not a note."""

TRUTH = (
    "The whole image's output is taken for the truth. Causes are taken away one after another, each step keeping the "
    "earlier ones; a share is the fall in mean |difference| at its step."
)


def tile_findings(report: TileReport) -> Findings:
    """Return what a tile report shows (question E).

    Parameters
    ----------
    report
        From `tile_report` or `open_tiles`.
    """
    made = [_mismatch(report), *(_cause(report, cause) for cause in report.causes)]
    made += [_overlap(report), _recipe(report), *_edge(report)]
    made += [
        Finding("tile-note", sentence(note), severity="note", question="E", which=f"{k}")
        for k, note in enumerate(report.notes, 1)
    ]
    return Findings(made)


def named_of(report: TileReport) -> Named:
    """The model and the images of a tile report as a command line names them."""
    model = named_model(report.model, report.model_options)
    return Named(
        model, report.model_options, data_named(report.data, report.data_options), report.data_options, report.n_images
    )


def _command(report: TileReport, tile: int) -> tuple[str, ...]:
    named = named_of(report)
    data = ("--data", named.data, *named.data_words)
    task = () if report.task == "dense" else ("--task", report.task)
    return ("shiftlens", "tiles", *named.model_words, *data, "--tile", str(tile), *task, "--out", "TILES.zarr")


def _mismatch(report: TileReport) -> Finding:
    h, w = report.size
    where = f"tiles of {report.tile} px without overlap on images of {h}x{w} px"
    if not report.causes:
        text = f"The net's output on {where} is the whole image's output, to rounding."
        return Finding("tile-mismatch", text, Quantity("tile mismatch"), number(0.0, ""), question="E", note=TRUTH)
    text = (
        f"The net's output on {where} differs from the whole image's output by {report.mismatch.value:.3g} on average, "
        f"{per_cent(report.relative)} of its range: {report.number_text}."
    )
    return Finding(
        "tile-mismatch",
        text,
        Quantity("tile mismatch", of=f"tiles of {report.tile} px"),
        report.mismatch,
        action=_remedy(report),
        severity="note",
        question="E",
        note=TRUTH,
    )


def _remedy(report: TileReport) -> Action:
    tile, overlap = int(report.recipe["tile"]), report.recipe["overlap"]
    where = f"tiles of {tile} px with {overlap} px of real context on each side, cores on a grid of {_grid(report)} px"
    if report.exact:
        how = f"use {where}, and keep only their cores: the loop of the recipe, or predict_tiled"
    elif report.obstacles:
        how = f"no tiling is known to be exact; predict_tiled(exact=False) uses {where}"
    else:
        passes = "" if report.passes == 1 else f", in {report.passes} passes"
        how = f"use predict_tiled: {where}, only their cores kept{passes}"
    if report.fits_recipe:
        return Action(f"Pass these images whole: they are no larger than the tile of the recipe. On larger ones, {how}")
    # With the same tile the command measures the same again: it serves after a change of the net.
    why = "measure again after a change of the net" if tile == report.tile else "measure tiles of that size"
    return Action(f"{capital(how)}; {why}", _command(report, tile))


def _grid(report: TileReport) -> str:
    y, x = report.grid
    return str(y) if y == x else f"{y}x{x}"


def _cause(report: TileReport, cause: CauseShare) -> Finding:
    layers = ", ".join(plain(layer.path) for layer in cause.layers[:3])
    more = f" and {len(cause.layers) - 3} more" if len(cause.layers) > 3 else ""
    named = f" ({layers}{more})" if layers else ""
    text = f"{per_cent_of(cause.share)} of the mismatch is {SAID[cause.cause]}{named}."
    lo, hi = (cause.share, cause.share) if cause.interval is None else cause.interval
    n = 0 if cause.interval is None else report.n_images
    return Finding(
        "tile-cause",
        text,
        Quantity("share of the tile mismatch", layer=cause.layers[0].path if cause.layers else None, of=cause.cause),
        Estimate(cause.share, lo, hi, "share", n, "percentile bootstrap over images" if n else ""),
        action=_cure(report, cause.cause),
        severity="note" if abs(cause.share) >= SMALL else "info",
        question="E",
        which=cause.cause,
        note=TRUTH,
    )


def _cure(report: TileReport, cause: str) -> Action | None:
    if cause == "grid":
        return Action(f"Begin tiles at multiples of {_grid(report)} px, the last one too: never move it back to fit")
    if cause == "context":
        overlap = report.recipe["overlap"]
        return Action(f"Give each tile {overlap} px of the image around its core, and drop what the net says there")
    if cause == "resize":
        served = "" if report.obstacles else "Use predict_tiled, which gives a tile the cells at its place; or resize"
        how = served or "Resize"
        return Action(f"{how} by a whole factor with align_corners=False and fine-tune, since outputs change")
    if cause in ("norm", "pooling", "attention"):
        passes = f" in {report.passes} passes" if report.passes > 1 else ""
        other = "; or replace such norms: shiftlens repair --norm batch-renorm" if cause == "norm" else ""
        return Action(f"No overlap removes it: use predict_tiled{passes}, which freezes such layers if it can{other}")
    return None


def _overlap(report: TileReport) -> Finding:
    tolerance = per_cent(report.tolerance)
    if report.overlap_measured is None:
        text = f"No overlap up to {report.recipe['overlap']} px brought every pixel within {tolerance} of the range."
        return Finding("tile-overlap", text, Quantity("overlap measured"), severity="note", question="E")
    text = (
        f"An overlap of {report.overlap_measured} px was enough on these images for every pixel to stay within "
        f"{tolerance} of the range; the layers alone guarantee {report.recipe['overlap']} px"
        f"{'' if report.exact else ' for the local part of the net'}."
    )
    note = "The smaller one promises nothing about other images."
    estimate = number(float(report.overlap_measured), "px")
    return Finding("tile-overlap", text, Quantity("overlap measured"), estimate, question="E", note=note)


def _recipe(report: TileReport) -> Finding:
    recipe = report.recipe
    where = f"Tiles of {recipe['tile']} px with an overlap of {recipe['overlap']} px on a grid of {_grid(report)} px"
    if report.exact:
        text = f"{where} give the whole image's output for every image."
    elif report.obstacles:
        text = f"{where} do not give the whole image's output for every image: {plain(report.obstacles[0])}."
    else:
        passes = count_of(report.passes, "pass", "passes")
        text = f"{where} do not give the whole image's output by themselves; predict_tiled does, in {passes}."
    return Finding("tile-recipe", text, Quantity("recipe"), severity="info", question="E")


def _edge(report: TileReport) -> list[Finding]:
    saved = report.saved_alone.get("mirrored edge")
    if saved is None:
        return []
    text = f"Padding tiles with their own mirror image, not context, would save {per_cent_of(saved)} of the mismatch."
    return [
        Finding("tile-edge", text, Quantity("mismatch saved", of="mirrored edge"), number(saved, "share"), question="E")
    ]
