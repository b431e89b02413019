"""A study as one HTML page and its pictures, and its claims as a Markdown page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from shiftlens.figures.drawing import data_uri, png_bytes, save
from shiftlens.reporting.page import policy, web, written_whole
from shiftlens.stats import Skipped
from shiftlens.storage.locking import disk_errors
from shiftlens.studies.forest import pictures, shown_measures
from shiftlens.studies.study_result import StudyResult, contrast_row, digits_for
from shiftlens.training.checkpoint import write_whole

TEMPLATE = "study.html.j2"
CLAIMS = "claims.md.j2"


def write_page(result: StudyResult) -> list[Path]:
    """Write `study.html` and `pictures` into the study's directory."""
    page, folder = result.path / "study.html", result.path / "pictures"
    drawn = pictures(result)
    if folder.exists():
        shutil.rmtree(folder)  # a contrast that is gone leaves no picture behind
    files = [save(figure, folder / f"{name}.png") for name, figure in drawn.items()]
    view = {
        "result": result,
        "study": result.study,
        "policy": policy([]),
        "style": Markup(web("report.css")),
        "notes": result.notes,
        "shown": shown_measures(result),
        "arms": [{"name": arm, "cells": _cells(result, arm, shown_measures(result))} for arm in result.study.variants],
        "rest": _rest(result),
        "contrasts": [_contrast(each) for each in result.contrasts],
        "claims": _claims(result),
        "pictures": [(name, data_uri(png_bytes(figure, 90))) for name, figure in drawn.items()],
    }
    with written_whole(page) as building, disk_errors(page, "write"):
        building.write_bytes(_environment(escaped=True).get_template(TEMPLATE).render(**view).encode("utf-8"))
    return [page, *files]


def write_claims(result: StudyResult, out: str | Path) -> Path:
    """Write one paragraph a claim as Markdown: what the source says, what was done, estimates, verdict."""
    path = Path(out)
    text = (
        _environment(escaped=False)
        .get_template(CLAIMS)
        .render(result=result, study=result.study, claims=_claims(result), notes=result.notes)
    )
    with disk_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode("utf-8"))
    return path


def _environment(*, escaped: bool) -> Environment:
    return Environment(
        loader=FunctionLoader(web), autoescape=escaped, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _cells(result: StudyResult, arm: str, measures: list[str]) -> list[str]:
    found = []
    for measure in measures:
        made = result.mean(arm, measure)
        if not made.n:
            found.append("-")
            continue
        n = digits_for(float(made.hi - made.lo) / 2)
        ends = "" if np.isnan(made.lo) else f" [{float(made.lo):.{n}f}, {float(made.hi):.{n}f}]"
        found.append(f"{float(made.mean):.{n}f}{ends}")
    return found


def _rest(result: StudyResult) -> list[dict[str, Any]]:
    """All other measures: one row each, one column an arm."""
    names = [name for name in result.study.measures if name not in shown_measures(result)]
    return [
        {"name": name, "unit": result.study.measures[name].unit,
         "cells": [_cells(result, arm, [name])[0] for arm in result.study.variants]}
        for name in names
    ]  # fmt: skip


def _contrast(made: Any) -> dict[str, Any]:
    if isinstance(made, Skipped):
        return {"name": made.site, "skipped": made.why, "verdict": "undecided"}
    name, estimate, interval, n, holm_p, verdict, least = contrast_row(made)
    c = made.contrast
    other = ""
    if c.is_paired:
        other = f" less {c.against_measure or c.measure} of {c.against or c.arm}"
    side = "non-inferior: " if c.margin is not None else ""
    return {
        "name": name,
        "skipped": None,
        "what": f"{c.measure} of {c.arm}{other}",
        "asked": f"{side}{c.expect} {c.bound:g}",
        "estimate": estimate,
        "interval": interval,
        "n": n,
        "holm_p": holm_p,
        "verdict": verdict,
        "detectable": least,
    }


def _claims(result: StudyResult) -> list[dict[str, Any]]:
    out = []
    for name, claim in result.study.claims.items():
        verdict, found = result.of_claim(name)
        out.append({"id": name, "claim": claim, "verdict": verdict, "contrasts": [_contrast(each) for each in found]})
    return out
