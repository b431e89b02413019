"""One sweep's part of the page: verdict, findings, maps, profile, images, tables, provenance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shiftlens import figures
from shiftlens.analysis.arrays import IntArray, SweepArrays
from shiftlens.analysis.directions import directions
from shiftlens.analysis.radii import discs
from shiftlens.analysis.regions import Retained
from shiftlens.analysis.summary import Metrics
from shiftlens.figures.drawing import label_of
from shiftlens.figures.profile import profile, rings
from shiftlens.naming import count_of
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.findings import measured
from shiftlens.narrative.performance import chosen_first, kept_text
from shiftlens.narrative.words import capital, digits_of, plain, quoted
from shiftlens.reporting.encoding import Data, figure_uri, finite, packed
from shiftlens.reporting.page_findings import sorted_out
from shiftlens.reporting.page_maps import Ends, mean_with_ends, offered
from shiftlens.reporting.task_part import task_part
from shiftlens.reporting.thumbnails import CHOICE, Source, gallery
from shiftlens.reporting.verdict import verdict, worse_side
from shiftlens.stats import Skipped
from shiftlens.tasks.task import Variable

if TYPE_CHECKING:
    from shiftlens.sweeps.sweep_result import Sweep

TABLE_ROWS = 4
"""Rows and columns of the coarse table to each side of (0, 0), at most."""


@dataclass(frozen=True)
class Part:
    """A piece of the page.

    Attributes
    ----------
    view
        What the template shows; texts that it escapes.
    data
        What the page's script reads.
    """

    view: Data
    data: Data


@dataclass(frozen=True)
class SweepPart(Part):
    """A sweep's piece, with what the rest of the page says of it."""

    verdict: tuple[str, str, str]
    findings: Findings
    note: str
    metric: str


def sweep_part(sweep: Sweep, number: int, name: str, source: Source, seed: int, metric: str | None = None) -> SweepPart:
    """Measure a sweep and lay out what the page shows of it; its `number` on the page is part of every id."""
    metrics, found = measured(sweep, metric, seed)
    arrays, values = metrics.sweep, metrics.sweep.values(metrics.metric)
    header, chosen = sweep.header, [each.metric for each in chosen_first(metrics)]
    said = verdict(metrics, directions(values), header.model, header.data, found)
    images, why = gallery(sweep, metrics, source)
    maps, n_classes_left_out = offered(metrics)
    value, lo, hi = (metrics.metric.factor * each for each in mean_with_ends(values))
    circles, strong, called = discs(values), metrics.retained[0], plain(metrics.metric.called)
    view = {
        "number": number,
        "id": f"sweep-{number}",
        "name": plain(name),
        "model": plain(header.model),
        "data": plain(header.data),
        "n": arrays.n_images,
        "n_missing": arrays.n_missing,
        "n_shifts": len(arrays.dys) * len(arrays.dxs),
        "fill": plain(header.fill.name),
        "size": f"{header.image_size[0]}x{header.image_size[1]} px",
        "control": header.control,
        "verdict": said,
        "cards": _cards(metrics),
        "metric": called,
        "title": capital(called),
        "kept": kept_text(metrics, 0.95),
        "map": figure_uri(figures.metric_matrix(arrays, metrics.metric)),
        "profile": figure_uri(figures.radial_profile(arrays, chosen)) if arrays.shape != (1, 1) else None,
        "stills": [each.still() for each in maps[1:]],
        "n_classes_left_out": n_classes_left_out,
        "maps": [each.data for each in maps],
        "reach": int(circles.radius[-1]),
        "radius": _first_radius(metrics, arrays),
        "step": max(arrays.step),
        "table": spaced_table(arrays.dys, arrays.dxs, (value, lo, hi), metrics.metric.shown_unit),
        "table_unit": plain(capital(label_of(metrics.metric))),
        "task": task_part(sweep, values, source),
        "findings": sorted_out(found),
        "n_images_shown": images["n"] if images else 0,
        "choice": CHOICE if images and images["n"] < arrays.n_images else "",
        "without_pictures": plain(why),
        "provenance": provenance(sweep, arrays),
    }
    data = {
        "name": plain(name),
        "metric": called,
        "better": metrics.metric.better,
        "dys": arrays.dys.tolist(),
        "dxs": arrays.dxs.tolist(),
        "n": arrays.n_images,
        "blank": packed(arrays.blank),
        "region": packed(strong.region) if isinstance(strong, Retained) else None,
        "maps": [each.data for each in maps],
        "profile": _profiles(arrays, chosen),
        "discs": {name: [finite(value) for value in getattr(circles, name)] for name in circles.__dataclass_fields__},
        "images": images,
    }
    return SweepPart(view, data, said, found, why, metrics.metric.name)


def _cards(metrics: Metrics) -> list[Data]:
    """The numbers of the first screen: what, value with interval, and what the sentences beside do not say."""
    strong, metric = metrics.retained[0], metrics.metric
    rest = metrics.profile(metric.name).at_origin
    about = f"{'share of' if metric.is_share else 'mean over'} images: {metric.long_name or metric.called}"
    about += "" if metric.sign > 0 else "; lower is better"
    value, about = ("not measured", plain(rest.why)) if isinstance(rest, Skipped) else (quoted(rest), about)
    cards = [(f"{capital(metric.called)}, unshifted", value, about)]
    if isinstance(strong, Retained):
        about = f"a circle as large as the area retained at 95 %. Straight: {_straight(metrics, strong)}"
        cards.append(("Retained radius", quoted(strong.radius), about))
    else:
        cards.append(("Retained radius", "not measured", plain(strong.why)))
    cards.append(("Worse side", *worse_side(metrics)))
    return [_card(*card) for card in cards]


def _straight(metrics: Metrics, strong: Retained) -> str:
    """How far the region goes from (0, 0) straight to each side that the grid has, as the line on the map shows it."""
    sweep = metrics.sweep
    if strong.region.sum() == 1 and sweep.shape != (1, 1):
        return f"less than one step ({max(sweep.step)} px) to every side."
    row, column = sweep.origin
    sides = (
        ("left", strong.region[row, column::-1], -sweep.dxs[column::-1]),
        ("right", strong.region[row, column:], sweep.dxs[column:]),
        ("up", strong.region[row::-1, column], -sweep.dys[row::-1]),
        ("down", strong.region[row:, column], sweep.dys[row:]),
    )
    made = []
    for name, kept, away in sides:
        if len(kept) > 1:
            lost = np.flatnonzero(~kept)
            last = int(away[lost[0] - 1 if len(lost) else -1])
            made.append(f"{name} {last}" if len(lost) else f"{name} at least {last}")
    return f"{', '.join(made)} px."


def _card(title: str, value: str, about: str) -> Data:
    # A name in three words is shown large, and so is a number; its interval is not.
    number, bracket, interval = value.partition(" [")
    return {"title": title, "value": number, "interval": f"[{interval}" if bracket else "", "about": about}


def spaced_table(dys: IntArray, dxs: IntArray, ends: Ends, unit: str) -> Data:
    """A map (dy, dx) with its intervals at evenly spaced shifts, for readers who do not see it."""
    rows, columns, (value, lo, hi) = _spaced(dys), _spaced(dxs), ends
    n = 1 if unit in ("%", "points") else digits_of(float(np.nanmax(np.abs(value), initial=0.0)), unit)
    cells = [[f"{value[r, c]:.{n}f} [{lo[r, c]:.{n}f}, {hi[r, c]:.{n}f}]" for c in columns] for r in rows]
    return {"dys": [int(dys[r]) for r in rows], "dxs": [int(dxs[c]) for c in columns], "cells": cells}


def _spaced(axis: IntArray) -> list[int]:
    """Positions of at most nine shifts, (0) and the ends among them where they fit."""
    origin = int(np.flatnonzero(axis == 0)[0])
    every = max(1, -(-max(origin, len(axis) - 1 - origin) // TABLE_ROWS))
    return [k for k in range(len(axis)) if (k - origin) % every == 0]


def _profiles(arrays: SweepArrays, metrics: list[Variable]) -> list[Data]:
    """Every metric over rings with their bands, the occlusion control's beside."""
    if arrays.shape == (1, 1):
        return []
    shown = [("shifted", arrays)]
    if "occlusion" in arrays.controls:
        shown.append(("same pixels lost, rest in place", arrays.controls["occlusion"]))
    made: list[Data] = []
    for metric in metrics:
        for label, each in shown:
            line = profile(each.values(metric))
            numbers = {key: [*map(finite, getattr(line, key))] for key in ("radius", "value", "lo", "hi")}
            made.append({"map": metric.name, "label": label} | numbers)
    # (dy, dx) which ring a cell belongs to, counted from 1; 0 for none: the page averages other maps over them.
    made[0]["ring"] = packed(np.sum([k * ring for k, ring in enumerate(rings(arrays), start=1)], axis=0))
    return made


def _first_radius(metrics: Metrics, arrays: SweepArrays) -> int:
    """Where the radius slider starts: the retained radius, on the slider's own steps and at least one of them."""
    strong, step = metrics.retained[0], max(arrays.step)
    if not isinstance(strong, Retained):
        return 0
    return max(1, int(min(strong.radius.value, float(np.abs(arrays.dxs).max())) // step)) * step


def provenance(sweep: Sweep, arrays: SweepArrays) -> list[tuple[str, str]]:
    """Where every number comes from, as rows of name and text."""
    header = sweep.header
    plan, rule = header.plan, header.preprocessing
    numbers = {"parameters": header.n_parameters, "multiply-adds": header.n_macs}
    known = [f"{value:,} {name}" for name, value in numbers.items() if value is not None]
    written = f"{arrays.n_images:,} of {arrays.n_images + arrays.n_missing:,}"
    reach = f"dx -{header.grid.max_x} to {header.grid.max_x}, dy -{header.grid.max_y} to {header.grid.max_y} px"
    rows = [
        ("file", sweep.path.name + (f", control {header.control}" if header.control else "")),
        ("model", header.model + (f" ({', '.join(known)})" if known else "")),
        ("model digest", header.model_digest),
        ("notes on the model", "; ".join(header.model_notes)),
        ("images", f"{header.data}, {written} measured"),
        ("data digest", header.data_digest),
        ("notes on the images", "; ".join(header.data_notes)),
        ("input", f"{header.image_size[0]}x{header.image_size[1]} px, mean {_list(rule.mean)}, std {_list(rule.std)}"),
        ("shift grid", f"{reach} in steps of {header.grid.step}: {count_of(header.grid.n_shifts, 'shift')}"),
        ("fill", header.fill.name),
        ("controls", ", ".join(sweep.controls) or "none"),
        ("plan", f"engine {plan.engine}, {plan.dtype}, batches of {plan.batch_size}, {plan.device} ({plan.machine})"),
        ("versions", ", ".join(f"{name} {number}" for name, number in sorted(header.software.items()))),
    ]
    return [(name, plain(text)) for name, text in rows if text]


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
