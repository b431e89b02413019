"""The four questions of a reader, each answered in a line from what the report holds, or how to get the answer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from shiftlens.comparison import Comparison
from shiftlens.diagnosis.artefacts import artefacts
from shiftlens.diagnosis.finding import Findings
from shiftlens.diagnosis.setting import Setting
from shiftlens.diagnosis.words import plain
from shiftlens.reporting.comparison_part import summary
from shiftlens.reporting.encoding import Data
from shiftlens.reporting.items import Given
from shiftlens.reporting.said import parts
from shiftlens.reporting.sweep_part import SweepPart

ASKED = {
    "A": "How far may the picture move, and is it the same on all sides?",
    "B": "What does the net see that is not in the picture?",
    "C": "Which layers use their padding unevenly, and is padding the cause?",
    "D": "What does a repair change?",
}


def questions(found: Given, sweeps: Sequence[SweepPart], compared: Sequence[Comparison]) -> list[Data]:
    """Return A to D: the question, an answer in a line or two, and where on the page it is worked out.

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
        "A": _translation(sweeps),
        "B": _artefacts(found),
        "C": _cause(found, sweeps),
        "D": ([summary(each) for each in compared], "comparison-0"),
    }
    commands = {
        "A": ["sweep", "--model", model, "--data", setting.data, "--out", "S.zarr"],
        "B": ["features", "--model", model, "--average", setting.data, "--out", "F.zarr"],
        "C": ["inspect", "--model", model, "--json"],
        "D": ["repair", "--model", model, "--padding", "symmetric", "--out", "REPAIRED"],
    }
    more = {
        "A": "",
        "B": "",
        "C": " > arithmetic.json",
        "D": "",
    }
    made = []
    for letter, (answer, place) in answers.items():
        command = f"`{shlex.join(['shiftlens', *commands[letter]])}{more[letter]}`"
        last = " then sweep the repaired net" if letter == "D" else ""
        missing = f"Not in this report: make it with {command}{last} and name it to `shiftlens report` as well."
        made.append(
            {
                "letter": letter,
                "asked": ASKED[letter],
                "answer": [parts(text) for text in answer] or [parts(missing)],
                "place": place if answer else "",
            }
        )
    return made


def _translation(sweeps: Sequence[SweepPart]) -> tuple[list[str], str]:
    if not sweeps:
        return [], ""
    first = sweeps[0]
    warned = [each for each in first.findings if each.question == "A" and each.severity == "warn"]
    counted = f"{len(warned)} irregularities or differences between sides hold after correction for all tests."
    if len(warned) == 1:
        counted = "1 irregularity or difference between sides holds after correction for all tests."
    if not warned:
        counted = "No irregularity and no difference between sides holds after correction for all tests."
    misleads = [each.statement for each in first.findings if each.id in ("placement-effect", "lost-content")]
    return [_statement(first.findings, "retained-95"), counted, *map(plain, misleads[:2])], "sweep-0"


def _statement(found: Findings, name: str) -> str:
    finding = found.named(name)
    return "" if finding is None else plain(finding.statement)


def _artefacts(found: Given) -> tuple[list[str], str]:
    if not found.runs:
        return [], ""
    said = artefacts(found.runs[0])
    wanted = ("artefact-start", "artefact-energy", "artefact-reach", "average-energy")
    return [text for text in (_statement(said, name) for name in wanted) if text][:3], "features-0"


def _cause(found: Given, sweeps: Sequence[SweepPart]) -> tuple[list[str], str]:
    said, place = [], ""
    if found.inspections:
        said = [each.statement for each in artefacts(found.inspections[0])][:1]
        place = "inspection-0"
    measured = [each for part in sweeps for each in part.findings if each.question == "C"]
    return [*said, *(each.statement for each in measured[:2])], place or ("sweep-0" if measured else "")
