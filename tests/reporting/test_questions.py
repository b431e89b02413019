"""The four answers: which side, what is seen in nothing, is padding the cause, what to do; and no line twice."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from narrative.commands import parse
from reporting.planted import sweep
from shiftlens.arithmetic import inspect
from shiftlens.narrative.comparing import compare
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import Action, Quantity, Significance, number
from shiftlens.nn.vgg import VGG
from shiftlens.reporting.comparison_part import summary
from shiftlens.reporting.given_items import given
from shiftlens.reporting.page_findings import sorted_out
from shiftlens.reporting.questions import questions
from shiftlens.reporting.sweep_part import SweepPart, sweep_part
from shiftlens.reporting.thumbnails import Source
from shiftlens.sweeps.sweep_result import Sweep


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return sweep(tmp_path_factory.mktemp("asked") / "one.zarr", 60, 5, centre=(0, 2))


@pytest.fixture(scope="module")
def part(one: Sweep) -> SweepPart:
    return sweep_part(one, 0, "one", Source(), 0)


def seen(html: str) -> str:
    return unescape(re.sub("<[^>]*>", "", html))


def answers(made: list[Any]) -> dict[str, str]:
    return {each["letter"]: " | ".join(map(seen, each["answer"])) for each in made}


def with_findings(part: SweepPart, *found: Finding) -> SweepPart:
    return replace(part, findings=Findings(found))


def test_a_names_the_side_and_prefers_the_mean_over_a_side_to_one_pair(one: Sweep, part: SweepPart) -> None:
    said = answers(questions(given(one), [part], []))
    # The region's middle is at dy = 2.
    assert "Not the same in all directions, corrected for all tests: Accuracy is" in said["A"]
    assert "higher for shifts down than for shifts up" in said["A"]
    warned = part.findings.of_kind("asymmetry", "centre").with_severity("warn")
    assert len(warned) > 1
    assert f"{len(warned) - 1} more such under Findings." in said["A"]
    leans = Quantity("accuracy", "x", control="flip")
    own = Finding("asymmetry", "The model itself leans.", leans, severity="warn", which="x-model")
    both = with_findings(part, *part.findings, own)
    assert "all tests: The model itself leans." in answers(questions(given(one), [both], []))["A"]
    calm = with_findings(part, Finding("asymmetry", "Right and left do not differ.", which="x"))
    told = answers(questions(given(one), [calm], []))["A"]
    assert "No difference between opposite directions is significant" in told
    assert "irregularit" not in told
    small = with_findings(part, Finding("asymmetry", "A little.", test=Significance(0.001, "all", True), which="x"))
    assert "differ significantly, by too little for a warning" in answers(questions(given(one), [small], []))["A"]
    twice = [Finding(kind, "It rises again.", severity="warn") for kind in ("irregular", "aliasing")]
    told = answers(questions(given(one), [with_findings(part, *twice)], []))["A"]
    assert "2 significant irregularities with growing shift" in told


def test_b_names_the_class_of_a_blank_input(one: Sweep, part: SweepPart) -> None:
    blank = Finding("blank-limit", "Where nothing is left, the predicted class is 'cat'.", severity="note")
    said = answers(questions(given(one), [with_findings(part, blank)], []))
    assert said["B"].startswith("Where nothing is left, the predicted class is 'cat'.")
    assert (
        "Not in this report; make it and pass it to shiftlens report as well: shiftlens features --model" in said["B"]
    )
    assert "--model net.py:make --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25 --average digits --limit 60" in said["B"]


def test_c_does_not_take_even_padding_for_an_answer(one: Sweep, part: SweepPart) -> None:
    even = inspect(VGG("vgg6", width=4).eval(), 32)
    assert even.is_even
    said = answers(questions(given([one, even]), [part], []))["C"]
    assert "use the same padding on opposite sides" in said
    assert "What the padding costs is not measured here." in said
    assert "--control canvas" in said
    cause = Finding("padding-effect", "The padding costs 3 points.", severity="warn", question="C")
    told = answers(questions(given([one, even]), [with_findings(part, cause)], []))["C"]
    assert told.endswith("The padding costs 3 points.")
    assert "not measured" not in told


def test_d_gives_the_way_from_the_repair_to_its_proof(one: Sweep, part: SweepPart, tmp_path: Path) -> None:
    def codes(part_of: Sweep) -> list[str]:
        made = questions(given(part_of), [part], [])
        lines = next(each["answer"] for each in made if each["letter"] == "D")
        return [seen(code) for line in lines for code in re.findall("<code>.*?</code>", line)]

    of_run = sweep(tmp_path / "run.zarr", 60, 5, model="runs/vgg")
    repair, again, report = codes(of_run)
    assert repair.startswith("shiftlens repair --model runs/vgg --downsample blur --finetune-epochs 2")
    assert "--model REPAIRED --data digits --limit 60 --max-shift 5x5 --out REPAIRED.zarr" in again
    assert report.split()[2:4] == [str(of_run.path), "REPAIRED.zarr"]
    # A run directory never holds a user's code: that is named again.
    repair, again, report = codes(one)
    assert repair.startswith("shiftlens repair --model net.py:make --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25 ")
    assert "--model REPAIRED --code net.py --data digits" in again
    assert report.split()[2:4] == [str(one.path), "REPAIRED.zarr"]


def test_every_command_of_the_questions_is_one_that_exists(one: Sweep, part: SweepPart) -> None:
    even = inspect(VGG("vgg6", width=4).eval(), 32)
    names = []
    for made in (questions(given(one), [part], []), questions(given([even]), [], [])):
        codes = [code for each in made for line in each["answer"] for code in re.findall("<code>.*?</code>", line)]
        names.append([parse(shlex.split(seen(code)))[0] for code in codes])
    assert names == [
        ["features", "inspect", "sweep", "repair", "sweep", "report"],
        ["sweep", "features", "repair", "sweep", "report"],
    ]


def test_a_repair_that_helps_here_and_harms_there_is_not_a_success(tmp_path: Path) -> None:
    one = sweep(tmp_path / "one.zarr", 60, 5)
    other = sweep(tmp_path / "other.zarr", 60, 5, edge=4.5)
    made = compare([one, other])
    assert made.improved
    # The same findings, the first of which got worse.
    first, *others = made.findings
    turned = replace(made, findings=Findings([replace(first, section="worse"), *others]))
    said = summary(turned)
    assert len(said) == 2
    assert said[0].startswith(turned.improved[0].statement)
    assert said[1].startswith(turned.got_worse[0].statement)
    same = compare([one, one], names=["a", "b"])
    assert summary(same)[0] == "No significant improvement, and nothing significantly worse (2 sweeps compared)."


def remedy(row: dict[str, Any]) -> str:
    return "".join(seen(text) for text in re.findall('<p class="remedy">What to do: (.*?)</p>', row["html"]))


def evidence(row: dict[str, Any]) -> str:
    return "".join(seen(text) for text in re.findall('<p class="evidence">(.*?)</p>', row["html"]))


def test_a_command_that_was_given_is_named_by_the_option_that_decides() -> None:
    command = ("shiftlens", "sweep", "--model", "m", "--control", "occlusion", "--out", "x")
    first, train = Action("First", command), Action("Train", ("shiftlens", "train", "--out", "y"))
    actions = (first, None, Action("Again", command), first, train, Action("Only words"))
    made = sorted_out([Finding(str(k), "It is.", action=action, severity="warn") for k, action in enumerate(actions)])
    assert [remedy(each) for each in made] == [
        "First: shiftlens sweep --model m --control occlusion --out x",
        "",
        "Again: as above, with --control occlusion.",
        "As above.",
        "Train: shiftlens train --out y",
        "Only words.",
    ]


def test_no_line_of_the_findings_is_there_twice() -> None:
    base = Finding("a", "It is 5.3 points higher.", estimate=number(5.3, "points"), severity="warn")
    sweep_it, plot = ("shiftlens", "sweep", "--x"), ("shiftlens", "plot", "x", "--out", "figures")
    found = [
        Finding("d", "All 13 layers are even.", estimate=number(0.0, "layers"), note="Same."),
        replace(base, test=Significance(0.004, "all 9 tests", True), action=Action("Find out", sweep_it)),
        replace(base, kind="b", note="Same.", action=Action("Again", sweep_it)),
        replace(base, kind="c", note="Same.", action=Action("Look at the map", plot)),
    ]
    made = sorted_out(found)
    assert [each["id"] for each in made] == ["a", "b", "c", "d"]
    assert [remedy(each) for each in made] == ["Find out: shiftlens sweep --x", "Again: as above.", "", ""]
    corrected = "Corrected for all 9 tests (Holm), p = 0.004: significant."
    assert [evidence(each) for each in made] == [corrected, "Same.", "", ""]
    assert "&lt;" in sorted_out([replace(base, statement="<b>")])[0]["html"]
