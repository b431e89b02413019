"""The four answers: which side, what is seen in nothing, is padding the cause, what to do; and no line twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reporting.planted import sweep
from shiftlens.analysis.paired import Difference
from shiftlens.arithmetic import inspect
from shiftlens.narrative.comparing import compare
from shiftlens.narrative.finding import Finding, Findings
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


def answers(made: list[Any]) -> dict[str, str]:
    return {each["letter"]: " | ".join("".join(text for _, text in line) for line in each["answer"]) for each in made}


def with_findings(part: SweepPart, *found: Finding) -> SweepPart:
    return replace(part, findings=Findings(found))


def test_a_names_the_side_and_prefers_the_mean_over_a_side_to_one_pair(one: Sweep, part: SweepPart) -> None:
    said = answers(questions(given(one), [part], []))
    # The region's middle is at dy = 2.
    assert "Not the same on all sides, corrected for all tests: The model bears moves down better" in said["A"]
    warned = [each for each in part.findings if each.id.startswith(("asymmetry", "centre")) and each.severity == "warn"]
    assert len(warned) > 1
    assert f"{len(warned) - 1} more such under Findings." in said["A"]
    own = Finding("asymmetry-x-model", "A", "warn", "The model itself leans.")
    both = with_findings(part, *part.findings, own)
    assert "all tests: The model itself leans." in answers(questions(given(one), [both], []))["A"]
    calm = with_findings(part, Finding("asymmetry-x", "A", "info", "Right and left do not differ."))
    told = answers(questions(given(one), [calm], []))["A"]
    assert "No difference between opposite sides holds" in told
    assert "irregularit" not in told
    twice = [Finding(name, "A", "warn", "It rises again.") for name in ("irregular-loss", "aliasing-x-2")]
    told = answers(questions(given(one), [with_findings(part, *twice)], []))["A"]
    assert "2 irregularities on the way out" in told


def test_b_says_what_is_answered_to_nothing(one: Sweep, part: SweepPart) -> None:
    blank = Finding("blank-limit", "A", "note", "Where nothing is left, the model answers 'cat'.")
    said = answers(questions(given(one), [with_findings(part, blank)], []))
    assert said["B"].startswith("Where nothing is left, the model answers 'cat'.")
    assert "Not in this report: make it with shiftlens features --model net.py:make --average digits" in said["B"]


def test_c_does_not_take_even_padding_for_an_answer(one: Sweep, part: SweepPart) -> None:
    even = inspect(VGG("vgg6", width=4).eval(), 32)
    assert even.is_even
    said = answers(questions(given([one, even]), [part], []))["C"]
    assert "use as much padding on one side as on the other" in said
    assert "Whether the padding costs accuracy is not measured here." in said
    assert "--control canvas" in said
    cause = Finding("padding-effect", "C", "warn", "The padding costs 3 points.")
    told = answers(questions(given([one, even]), [with_findings(part, cause)], []))["C"]
    assert told.endswith("The padding costs 3 points.")
    assert "not measured" not in told


def test_d_gives_the_way_from_the_repair_to_its_proof(one: Sweep, part: SweepPart) -> None:
    made = questions(given(one), [part], [])
    lines = next(each["answer"] for each in made if each["letter"] == "D")
    codes = [text for line in lines for is_code, text in line if is_code]
    assert [code.split()[1] for code in codes] == ["repair", "sweep", "report"]
    assert "--model REPAIRED --data digits --limit 60 --max-shift 5x5 --out REPAIRED.zarr" in codes[1]
    assert codes[2].split()[2:4] == [str(one.path), "REPAIRED.zarr"]


def test_a_repair_that_helps_here_and_harms_there_is_not_a_success(tmp_path: Path) -> None:
    one = sweep(tmp_path / "one.zarr", 60, 5)
    other = sweep(tmp_path / "other.zarr", 60, 5, edge=4.5)
    made = compare([one, other])
    assert made.improved
    # The same difference with its verdict turned for one quantity.
    against = made.against[0]
    first = next(iter(against.better))
    better = against.differences[first]
    assert isinstance(better, Difference)
    worse = replace(better, verdict="worse")
    turned = replace(made, against=(replace(against, differences=against.differences | {first: worse}),))
    said = summary(turned)
    assert len(said) == 2
    assert said[0].startswith(turned.improved[0].statement)
    assert said[1].startswith(turned.got_worse[0].statement)
    same = compare([one, one], names=["a", "b"])
    assert summary(same)[0] == "Nothing is shown to have improved, and nothing to have got worse (2 sweeps compared)."


def test_a_command_that_was_given_is_named_by_the_option_that_decides() -> None:
    sweep_it = "`shiftlens sweep --model m --control occlusion --out x`"
    again = (None, None, f"Again: {sweep_it}.", f"First: {sweep_it}", "`shiftlens train --out y`")
    remedies = (f"First: {sweep_it}", *again)
    made = sorted_out([Finding(str(k), "A", "warn", "It is.", remedy=text) for k, text in enumerate(remedies)])
    shown = ["".join(text for _, text in each["remedy"]) for each in made]
    assert shown == [
        "First: shiftlens sweep --model m --control occlusion --out x",
        "",
        "",
        "Again: as above, with --control occlusion.",
        "as above",
        "shiftlens train --out y",
    ]


def test_no_line_of_the_findings_is_there_twice() -> None:
    base = Finding("a", "A", "warn", "It is 5.3 points [1.6, 8.9] higher.", -5.3, "points", (-8.9, -1.6), 0.004)
    found = [
        replace(base, evidence="Corrected (Holm) p = 0.004: it holds.", remedy="Find out: `shiftlens sweep --x`"),
        replace(base, id="b", evidence="Same.", remedy="Again: `shiftlens sweep --x`"),
        replace(base, id="c", evidence="Same.", remedy="Look at the map: `shiftlens plot x --out pictures`"),
        Finding("d", "A", "info", "All 13 layers are even.", 0.0, "layers", evidence="Same."),
        Finding("e", "A", "info", "Ripples.", 1.5, "points", (1.0, 2.0), 0.2, "Not the same."),
    ]
    first, second, third, fourth, fifth = sorted_out(found)
    assert [each["value"] for each in (first, second, third, fourth)] == [""] * 4
    assert fifth["value"] == "1.50 points [1.00, 2.00]"
    assert (first["p"], second["p"], fifth["p"]) == ("", "p = 0.004", "p = 0.2")
    assert first["remedy"] == [(False, "Find out: "), (True, "shiftlens sweep --x")]
    assert second["remedy"] == [(False, "Again: "), (False, "as above")]
    assert third["remedy"] == []
    assert [each["evidence"] for each in (second, third, fourth)] == ["Same.", "", ""]
    assert fifth["evidence"] == "Not the same."
