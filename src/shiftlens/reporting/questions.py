"""The four questions of a reader, each answered in a line from what the report holds, or how to get the answer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from shiftlens.narrative.artefacts import artefacts
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import plain
from shiftlens.reporting.comparison_part import AnyComparison, summary
from shiftlens.reporting.encoding import Data
from shiftlens.reporting.given_items import Given
from shiftlens.reporting.page_findings import parts
from shiftlens.reporting.sweep_part import SweepPart

ASKED = {
    "A": "How far may the picture move, and is it the same on all sides?",
    "B": "What does the net see that is not in the picture?",
    "C": "Which layers use their padding unevenly, and is padding the cause?",
    "D": "What does a repair change?",
}


def questions(found: Given, sweeps: Sequence[SweepPart], compared: Sequence[AnyComparison]) -> list[Data]:
    """Return A to D: the question, an answer in a few lines, and where on the page it is worked out.

    Parameters
    ----------
    found
        What the report is about.
    sweeps
        Their parts, in order.
    compared
        The comparisons on the page.
    """
    setting = Setting.of(found.sweeps[0]) if found.sweeps else Setting()
    model = setting.model if found.sweeps else next((run.model for run in found.runs), "MODEL")
    answers = {
        "A": _translation(sweeps, setting, model),
        "B": _artefacts(found, sweeps, setting, model),
        "C": _cause(found, sweeps, setting, model),
        "D": _repair(compared, setting, model),
    }
    return [
        {"letter": letter, "asked": ASKED[letter], "answer": [parts(text) for text in lines], "where": where}
        for letter, (lines, where) in answers.items()
    ]


Answer = tuple[list[str], tuple[str, str]]
"""Lines, and where on the page they are worked out: the name of that place and its id, or `NOWHERE`."""

NOWHERE = ("", "")


def _command(*words: str, into: str = "") -> str:
    return f"`{shlex.join(['shiftlens', *words])}{f' > {into}' if into else ''}`"


def _added(*words: str, into: str = "") -> str:
    made = _command(*words, into=into)
    return f"Not in this report: make it with {made} and name it to `shiftlens report` as well."


def _translation(sweeps: Sequence[SweepPart], setting: Setting, model: str) -> Answer:
    if not sweeps:
        return [_added("sweep", "--model", model, "--data", setting.data, "--out", "S.zarr")], NOWHERE
    found = sweeps[0].findings
    said = [_statement(found, "retained-95")]
    sides = [each for each in found if each.id.startswith(("asymmetry-", "centre-")) and each.severity == "warn"]
    # What holds without the data's own part says more of the model; a mean over a side, more than one pair of shifts.
    sides.sort(key=lambda each: (each.id.endswith("-pairs"), "-model" not in each.id, each.id.startswith("centre-")))
    if sides:
        others = f" {len(sides) - 1} more such under Findings." if len(sides) > 1 else ""
        said.append(f"Not the same on all sides, corrected for all tests: {plain(sides[0].statement)}{others}")
    elif any(each.id.startswith("asymmetry-") for each in found):
        said.append("No difference between opposite sides holds after correction for all tests.")
    warned = [each for each in found if each.severity == "warn"]
    if n := sum(each.id.startswith(("irregular-", "aliasing-")) for each in warned):
        said.append(f"{n} irregularit{'ies' if n > 1 else 'y'} on the way out, corrected for all tests: see Findings.")
    misleads = [each.statement for each in found if each.id in ("placement-effect", "lost-content")]
    lines = [text for text in (*said, *map(plain, misleads[:2])) if text]
    return lines, ("Findings", f"findings-{sweeps[0].view['id']}")


def _statement(found: Findings, name: str) -> str:
    finding = found.named(name)
    return "" if finding is None else plain(finding.statement)


def _artefacts(found: Given, sweeps: Sequence[SweepPart], setting: Setting, model: str) -> Answer:
    answered = [text for part in sweeps[:1] if (text := _statement(part.findings, "blank-limit"))]
    if not found.runs:
        return [*answered, _added("features", "--model", model, "--average", setting.data, "--out", "F.zarr")], NOWHERE
    said = artefacts(found.runs[0])
    wanted = ("artefact-start", "artefact-energy", "average-energy")
    layers = [text for text in (_statement(said, name) for name in wanted) if text][:2]
    return [*answered, *layers], ("Feature maps", "features-0")


def _cause(found: Given, sweeps: Sequence[SweepPart], setting: Setting, model: str) -> Answer:
    if found.inspections:
        lines = [plain(each.statement) for each in artefacts(found.inspections[0])][:1]
        where = ("Layer arithmetic", "inspection-0")
    else:
        lines, where = [_added("inspect", "--model", model, "--json", into="arithmetic.json")], NOWHERE
    measured = [plain(each.statement) for part in sweeps for each in part.findings if each.question == "C"]
    if measured:
        return [*lines, *measured[:2]], where if found.inspections else ("Findings", "findings-sweep-0")
    if sweeps and setting.control is None and setting.fill_values is not None:
        # Evenly used or not, padding may still be the cause: only taking it away tells.
        lines.append(
            "Whether the padding costs accuracy is not measured here. This takes it away and changes nothing else: "
            f"{setting.sweep_command(control='canvas')}"
        )
    return lines, where


def _repair(compared: Sequence[AnyComparison], setting: Setting, model: str) -> Answer:
    if compared:
        return [line for each in compared for line in summary(each)], ("Comparison", "comparison-0")
    repaired = replace(setting, model="REPAIRED", path="REPAIRED.zarr", mean=None, std=None)
    made = _command("repair", "--model", model, "--padding", "symmetric", "--out", "REPAIRED")
    both = _command("report", setting.path, "REPAIRED.zarr", "--out", "both.html")
    return [
        f"Not in this report: make a copy with another padding, for example {made}",
        f"Measure it in the same way: {repaired.sweep_command()}",
        f"See what improved and what got worse: {both}",
    ], NOWHERE
