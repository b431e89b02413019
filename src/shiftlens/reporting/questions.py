"""The four questions of a reader, each answered in a line from what the report holds, or how to get the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shiftlens.narrative.artefacts import artefacts, is_strided, less_dependent
from shiftlens.narrative.comparison_result import Compared
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import QUESTIONS, Action, Question
from shiftlens.narrative.rendering import action_html
from shiftlens.narrative.setting import Named, Setting
from shiftlens.narrative.tile_findings import named_of, tile_findings
from shiftlens.reporting.comparison_part import summary
from shiftlens.reporting.encoding import Data
from shiftlens.reporting.given_items import Given
from shiftlens.reporting.sweep_part import SweepPart
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tiles.tile_result import TileReport

Answer = tuple[list[str | Action], tuple[str, str]]
"""Sentences and actions, and where on the page they are worked out: the name of that place and its id, or `NOWHERE`."""

NOWHERE = ("", "")

WITHOUT_TRAINING = (
    "To see whether the padding is to blame, make a copy with another one: its weights stay as they are, since "
    "fine-tuning here is for classifiers"
)


def questions(found: Given, sweeps: Sequence[SweepPart], compared: Sequence[Compared]) -> list[Data]:
    """Return A to D, and E of tiles: the question, an answer in a few lines, and where on the page it is worked out."""
    setting = Setting.of(found.sweeps[0]) if found.sweeps else None
    if setting:
        named = setting.named
    elif found.runs:
        named = Named.of_run(found.runs[0])
    else:
        named = named_of(found.tiles[0]) if found.tiles else Named()
    answers: dict[Question, Answer] = {
        "A": _translation(found, sweeps, named),
        "B": _artefacts(found, sweeps, named),
        "C": _cause(found, sweeps, setting, named),
        "D": _repair(found, compared, setting, named),
    }
    if found.tiles:
        answers["E"] = _tiles(found.tiles[0])
    return [
        {
            "letter": letter,
            "asked": QUESTIONS[letter],
            "answer": [action_html(line) for line in lines],
            "where": where,
        }
        for letter, (lines, where) in answers.items()
    ]


def _tiles(report: TileReport) -> Answer:
    made = tile_findings(report)
    largest = max(made.of_kind("tile-cause"), key=lambda each: abs(each.value or 0), default=None)
    return _statements(made.named("tile-mismatch"), largest, made.named("tile-recipe")), ("Tiles", "tiles-0")


def _missing(*words: str, how: str = "make it") -> Action:
    return Action(f"Not in this report; {how} and pass it to shiftlens report as well", ("shiftlens", *words))


def _task_words(found: Given) -> tuple[str, ...]:
    """What a sweep of a net is told that only a tile report names."""
    return () if found.sweeps or found.runs or not found.tiles else ("--task", found.tiles[0].task)


def _translation(given: Given, sweeps: Sequence[SweepPart], named: Named) -> Answer:
    if not sweeps:
        words = (*named.model_words, "--data", named.data, *named.data_words, *_task_words(given))
        how = "make it (with --label-map FILE, unless the images' labels are the model's classes)"
        return [_missing("sweep", *words, "--out", "S.zarr", how=how)], NOWHERE
    found = sweeps[0].findings
    lines = _statements(found.named("retained-95"))
    warned, asymmetries = found.with_severity("warn"), found.of_kind("asymmetry")
    # What holds without the dataset bias says more of the model; a mean over a side, more than one pair of shifts.
    sides = sorted(warned.of_kind("asymmetry", "centre"), key=_weight)
    if sides:
        others = f" {len(sides) - 1} more such under Findings." if len(sides) > 1 else ""
        lines.append(f"Not the same in all directions, corrected for all tests: {sides[0].statement}{others}")
    elif any(each.test is not None and each.test.holds for each in asymmetries):
        lines.append("Opposite directions differ significantly, by too little for a warning: see Findings.")
    elif asymmetries:
        lines.append("No difference between opposite directions is significant after correction for all tests.")
    if n := len(warned.of_kind("irregular", "aliasing")):
        lines.append(f"{n} significant irregularit{'ies' if n > 1 else 'y'} with growing shift: see Findings.")
    lines += _statements(*found.of_kind("object-swing", "border-rate"))
    lines += _statements(*found.of_kind("placement-effect", "lost-content")[:2])
    return lines, ("Findings", f"findings-{sweeps[0].view['id']}")


def _weight(finding: Finding) -> tuple[bool, bool, bool]:
    of = finding.quantity
    return of is not None and of.shift is not None, of is None or of.control is None, finding.kind == "centre"


def _statements(*found: Finding | None) -> list[str | Action]:
    return [each.statement for each in found if each is not None]


def _artefacts(found: Given, sweeps: Sequence[SweepPart], named: Named) -> Answer:
    lines = _statements(*(part.findings.named("blank-limit") for part in sweeps[:1]))
    if not found.runs:
        words = (*named.model_words, "--average", named.data, *named.data_words)
        return [*lines, _missing("features", *words, "--out", "F.zarr")], NOWHERE
    shown = artefacts(found.runs[0]).of_kind("artefact-start", "artefact-energy", "average-energy")
    return [*lines, *_statements(*shown[:2])], ("Feature maps", "features-0")


def _cause(found: Given, sweeps: Sequence[SweepPart], setting: Setting | None, named: Named) -> Answer:
    if found.inspections:
        lines, where = _statements(artefacts(found.inspections[0])[0]), ("Layer arithmetic", "inspection-0")
    else:
        how = "save what this prints as arithmetic.json"
        size = setting.header.image_size if setting else found.runs[0].size if found.runs else None
        words = () if size is None else ("--size", f"{size[0]}x{size[1]}")
        lines, where = [_missing("inspect", *named.skeleton_words, *words, "--json", how=how)], NOWHERE
    measured = _statements(*(each for part in sweeps for each in part.findings if each.question == "C"))
    if measured:
        return [*lines, *measured[:2]], where if found.inspections else ("Findings", "findings-sweep-0")
    if setting is not None and setting.header.control is None and setting.may_have("canvas"):
        # Evenly used or not, padding may still be the cause: only a sweep without it tells.
        text = "What the padding costs is not measured here. Sweep without it, and with nothing else changed"
        lines.append(Action(text, setting.sweep_command(control="canvas")))
    return lines, where


def _repair(found: Given, compared: Sequence[Compared], setting: Setting | None, named: Named) -> Answer:
    if compared:
        return [line for each in compared for line in summary(each)], ("Comparison", "comparison-0")
    words = (
        "--model",
        "REPAIRED",
        *named.code_words,
        "--data",
        named.data,
        *named.data_words,
        *_task_words(found),
        "--out",
        "REPAIRED.zarr",
    )
    path, sweep, size, strides = "SWEEP.zarr", ("shiftlens", "sweep", *words), (32, 32), False
    if setting:
        path, size, strides = str(setting.path), setting.header.image_size, bool(setting.header.strides)
        sweep = setting.sweep_command(model="REPAIRED", out="REPAIRED.zarr")
    elif found.runs:
        size, strides = found.runs[0].size, is_strided(found.runs[0])
    trains = not _task_words(found) and (setting is None or setting.header.task.name == CLASSIFICATION.name)
    repair = (
        less_dependent(named, "REPAIRED", size=size, strides=strides)
        if trains
        else Action(WITHOUT_TRAINING, named.repair_command("REPAIRED", padding="reflect"))
    )
    return [
        replace(repair, text=f"Not in this report. {repair.text}"),
        Action("Measure it in the same way", sweep),
        Action("Compare the two", ("shiftlens", "report", path, "REPAIRED.zarr", "--partial", "--out", "both.html")),
    ], NOWHERE
