"""The comparison's part of the page: which sweeps can be compared, their table, difference maps, sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shiftlens.analysis.comparable import opened, refuse_unlike
from shiftlens.errors import InputError
from shiftlens.figures.drawing import balanced, least_of
from shiftlens.naming import one_line
from shiftlens.narrative.comparing import compared
from shiftlens.narrative.comparison_result import Compared, Comparison
from shiftlens.narrative.comparison_rows import heads
from shiftlens.narrative.words import capital, plain
from shiftlens.reporting.encoding import Data, figure_uri, packed
from shiftlens.reporting.page_findings import sorted_out
from shiftlens.reporting.page_maps import difference
from shiftlens.reporting.sweep_part import Part, spaced_table
from shiftlens.sweeps.sweep_result import Sweep


def comparisons(
    sweeps: Sequence[Sweep], names: Sequence[str], seed: int, metric: str | None = None, *, partial: bool = False
) -> tuple[list[Comparison], list[str]]:
    """Compare what asks the same question, each group against its first; and say why the rest is not compared."""
    if len(sweeps) < 2:
        return [], []
    made: list[Comparison] = []
    reasons: dict[str, str] = {}
    partial = partial or not all(sweep.complete for sweep in sweeps)
    waiting = opened(list(sweeps), list(names), partial=True)
    while len(waiting) > 1:
        group, others, waiting = waiting[:1], waiting[1:], []
        for other in others:
            try:
                refuse_unlike(group[0], other, partial=partial)
                group.append(other)
            except InputError as error:
                waiting.append(other)
                # Said once, against the first that it does not fit.
                reasons.setdefault(other.name, f"{one_line(error, 400)}.")
        if len(group) > 1:
            try:
                made.append(compared(group, metric=metric, partial=partial, seed=seed))
            except InputError as error:
                names_of = ", ".join(each.name for each in group)
                reasons.setdefault(names_of, f"{names_of} are not compared: {one_line(error, 400)}.")
    return made, [plain(reason) for reason in reasons.values()]


def comparison_part(made: Compared, number: int) -> Part:
    """Lay out a comparison; a saved one has no maps."""
    base = plain(made.names[made.baseline])
    view: Data = {
        "number": number,
        "id": f"comparison-{number}",
        "baseline": base,
        "names": [plain(name) for name in made.names],
        "n": made.n_images,
        "n_shifts": made.n_shifts,
        "pixels_of": "the source image" if made.unit == "source" else "the baseline's input",
        "metric": plain(made.metric.called),
        "difference_unit": plain(made.metric.difference_unit),
        "summary": [{"question": question, "answer": plain(answer)} for question, answer in made.summary],
        "n_findings": len(made.findings),
        "heads": [plain(head) for head in heads(made.metric, made.near)],
        "rows": [row.cells(k == made.baseline) for k, row in enumerate(made.rows)],
        "groups": [{"name": heading, "findings": sorted_out(found)} for heading, found in made.findings.by_section()],
    }
    if not isinstance(made, Comparison):
        nothing: Data = {"static": [], "maps": [], "tables": []}
        return Part(view | nothing, {"maps": []})
    seen, data = _looks(made, base)
    return Part(view | seen, data)


def _looks(made: Comparison, base: str) -> tuple[Data, Data]:
    """Maps, pictures and tables of the differences: for the template and for the page's script."""
    limits = balanced(np.stack([each.map.value for each in made.against]), least_of(made.metric))
    about = f"{capital(made.metric.called)}, paired; interval of each shift by itself. Red: better than {base}."
    maps, tables = [], []
    for each in made.against:
        name, label, found = f"against-{each.which}", f"{plain(each.name)} minus {base}", each.map
        values = (found.value, found.lo, found.hi)
        shown = difference(made.metric, name, label, about, values, found.n, limits=limits)
        maps.append(shown.data | {"marked": packed(found.better | found.worse)})
        tables.append({"label": label} | spaced_table(made.dys, made.dxs, values, made.metric.difference_unit))
    view: Data = {
        "static": [{"name": name, "uri": figure_uri(figure)} for name, figure in made.plot().items()],
        "maps": [{"id": each["id"], "label": each["label"]} for each in maps],
        "tables": tables,
    }
    data: Data = {
        "name": f"against {base}",
        "dys": made.dys.tolist(),
        "dxs": made.dxs.tolist(),
        "n": made.n_images,
        "blank": packed(made.blank),
        "region": None,
        "maps": maps,
    }
    return view, data


def summary(made: Compared) -> list[str]:
    """What a comparison found, in a few lines: first gain and loss, and whether fine-tuning has a part in it."""
    lines = []
    for group in (made.findings.in_section("improved"), made.findings.in_section("worse")):
        more = f" {len(group) - 1} more such below." if len(group) > 1 else ""
        lines += [f"{group[0].statement}{more}"] if group else []
    if not lines:
        nothing = f"No significant improvement, and nothing significantly worse ({len(made.names)} sweeps compared)."
        lines = [nothing, *(each.statement for each in made.findings.in_section("inconclusive")[:1])]
    return [*lines, *(each.statement for each in made.findings.of_kind("fine-tuned"))]
