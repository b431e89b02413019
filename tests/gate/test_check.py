"""`check`: what passes, what fails, what is refused, and the forms of its result."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import shiftlens as sl
from comparison.pairs import plateau
from gate.gate_sweeps import REACH, drawn_pair, worse_on_one_side, written
from gate.junit_schema import faults
from made_once import once
from shiftlens.errors import InputError, StoreError
from shiftlens.gate.limits import Gate, Within


@pytest.fixture(scope="session")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep, one like it, one that a repair has made worse on one side, one of other images, one not complete."""

    def make(folder: Path) -> None:
        mean = plateau(REACH, edge=5.0)
        base, again, lopsided = drawn_pair(1500, means=[mean, mean, worse_on_one_side(mean)])
        written(folder / "base.zarr", base)
        written(folder / "again.zarr", again)
        written(folder / "lopsided.zarr", lopsided)
        few = drawn_pair(200)[0]
        written(folder / "others.zarr", few, first=5000)
        written(folder / "half.zarr", few, complete=False)

    return once(tmp_path_factory, "gate_sweeps", make)


def test_absolute_limits_that_are_clearly_kept_pass_and_those_clearly_broken_fail(sweeps: Path) -> None:
    kept: dict[str, Any] = {
        "min_unshifted": 0.9,
        "min_near": 0.5,
        "min_retained_radius": 1.5,
        "max_drop": (40, 4),
        "max_side_difference": 5,
        "min_consistency": 0.5,
        "max_confidence_swing": (0.9, 4),
    }
    found = sl.check(sweeps / "base.zarr", **kept)
    assert found.passed, str(found)
    assert bool(found) is True
    assert found.exit_code == 0
    assert len(found.conditions) == 7
    assert {each.proven for each in found.conditions} == {"kept"}
    broken = {
        "min_unshifted": 0.99,
        "min_near": 0.95,
        "min_retained_radius": 5.5,
        "max_drop": (1, 5),
        "min_consistency": 0.99,
        "max_confidence_swing": (0.01, 4),
    }
    failed = sl.check(sweeps / "base.zarr", mode="lenient", **broken)
    assert not any(each.passed for each in failed.conditions), str(failed)
    assert {each.proven for each in failed.conditions} == {"breached"}
    assert failed.exit_code == 1


def test_values_are_those_of_the_findings_and_of_the_comparison(sweeps: Path) -> None:
    base, other = sl.open_sweep(sweeps / "base.zarr"), sl.open_sweep(sweeps / "again.zarr")
    asked = {"min_unshifted": 0.1, "min_near": 0.1, "min_retained_radius": 1, "max_drop": (50, 3)}
    allowed = {"unshifted": 1, "near": 1, "side_difference": 1, "drop": "1@3"}
    found = sl.check(other, baseline=base, allowed=allowed, **asked)
    values = {(each.name, each.against): each.value for each in found.conditions}
    compared = sl.compare([base, other])
    row = compared.rows[1]
    assert values["unshifted", None] == pytest.approx(row.unshifted.value)
    assert values["near", None] == pytest.approx(row.near.value)
    assert values["retained_radius", None] == pytest.approx(row.retained_radius.value)
    difference = compared.against[0].differences
    assert values["unshifted", "base"] == pytest.approx(-difference["at-rest"].estimate.value)
    assert values["near", "base"] == pytest.approx(-difference["near"].estimate.value)
    sides = [difference[name].estimate.value for name in ("side-x", "side-y")]
    assert values["side_difference", "base"] == pytest.approx(max(sides), abs=1e-4)
    dy, dx = np.meshgrid(base.grid.dys, base.grid.dxs, indexing="ij")
    near = np.hypot(dy, dx) <= 3
    maps = [np.asarray(each.accuracy) for each in (base, other)]
    drop = 100 * (maps[1][REACH, REACH] - maps[1][near].min())
    assert values["drop within 3 px", None] == pytest.approx(drop, abs=1e-4)
    assert values["drop within 3 px", "base"] == pytest.approx(100 * (maps[0] - maps[1])[near].max(), abs=1e-4)


def test_strict_asks_for_proof_and_lenient_fails_on_proof(sweeps: Path) -> None:
    value = float(sl.open_sweep(sweeps / "base.zarr").accuracy.sel(dy=0, dx=0))
    for limit in (value - 0.001, value + 0.001):
        strict = sl.check(sweeps / "base.zarr", min_unshifted=limit)
        lenient = sl.check(sweeps / "base.zarr", min_unshifted=limit, mode="lenient")
        assert not strict.passed
        assert lenient.passed
        assert strict.conditions[0].proven == lenient.conditions[0].proven == "neither"


def test_conditions_are_corrected_together(sweeps: Path) -> None:
    value = float(sl.open_sweep(sweeps / "base.zarr").accuracy.sel(dy=0, dx=0))
    limit = value - 0.012
    alone = sl.check(sweeps / "base.zarr", min_unshifted=limit)
    assert 0.01 < alone.conditions[0].p_value < 0.05
    assert alone.passed
    # Beside conditions that nothing can prove, the same one has a part of the 5 % only.
    beside = sl.check(sweeps / "base.zarr", min_unshifted=limit, max_side_difference=0, min_consistency=1, min_near=1)
    one = next(each for each in beside.conditions if each.name == "unshifted")
    assert one.p_value == pytest.approx(4 * alone.conditions[0].p_value, rel=1e-6)
    assert not one.passed


def test_a_repair_that_makes_one_side_worse_fails_against_the_sweep_before(sweeps: Path) -> None:
    found = sl.check(sweeps / "lopsided.zarr", baseline=sweeps / "base.zarr", mode="lenient")
    failed = {each.name for each in found.conditions if not each.passed}
    assert "side_difference" in failed
    assert sl.check(sweeps / "again.zarr", baseline=sweeps / "base.zarr", mode="lenient").passed
    strict = sl.check(sweeps / "again.zarr", baseline=sweeps / "base.zarr", allowed={"near": 5, "retained_radius": 2})
    assert strict.passed, str(strict)
    assert strict.conditions[0].power == 1.0
    # Power is of interest where a condition fails.
    assert "chance if nothing has changed" not in str(strict) + strict.markdown() + strict.junit()
    unsure = sl.check(sweeps / "again.zarr", baseline=sweeps / "base.zarr", allowed={"near": 0.01})
    assert not unsure.passed
    assert re.search(r"neither proven.*; passes with \d+ % chance if nothing has changed", str(unsure))
    better = sl.check(sweeps / "base.zarr", baseline=sweeps / "lopsided.zarr", allowed={"near": 1})
    value, (lo, _) = better.conditions[0].value, better.conditions[0].interval or (0, 0)
    assert value is not None
    assert value < 0
    assert f"{-value:.2f} points better (bounds {-lo:.2f} points better" in str(better)
    lenient = sl.check(sweeps / "again.zarr", baseline=sweeps / "base.zarr", mode="lenient")
    assert lenient.conditions[0].power is not None
    assert "chance if nothing has changed" not in str(lenient) + lenient.markdown() + lenient.junit()


def test_several_sweeps_and_several_metrics_are_checked_together(sweeps: Path) -> None:
    gate = {"min_unshifted": 0.9, "metrics": {"loss": {"max_near": 2.0}}}
    found = sl.check([sweeps / "base.zarr", sweeps / "again.zarr"], gate=gate)
    assert [(each.sweep, each.metric) for each in found.conditions] == [
        ("base", "accuracy"),
        ("base", "loss"),
        ("again", "accuracy"),
        ("again", "loss"),
    ]
    assert "base: accuracy: unshifted" in str(found)


def test_a_gate_is_read_from_a_file_and_what_is_given_goes_first(sweeps: Path, tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    text = f"""mode = "lenient"\nmin_unshifted = 0.99\nmax_drop = "60@4"\nbaseline = "{sweeps / "base.zarr"}"
    [allowed]\nnear = 3\ndrop = [4, 2]\n[metrics.loss]\nmax_near = 3.0\n"""
    file.write_text(text)
    found = sl.check(sweeps / "again.zarr", gate=file, min_unshifted=0.8)
    assert found.mode == "lenient"
    titles = {each.title for each in found.conditions}
    assert titles == {
        "unshifted at least 80.00 %",
        "drop within 4 px at most 60.00 points",
        "near at most 3 nats",
        "near at most 3.00 points worse than base",
        "drop within 2 px at most 4.00 points worse than base",
    }
    assert sl.check(sweeps / "base.zarr", gate=Gate(max_drop=Within(limit=60, px=4))).passed


Call = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda f: sl.check(f / "base.zarr"), "at least one condition"),
        (lambda f: sl.check([]), "at least one condition"),
        (lambda f: sl.check([], min_near=0.1), "at least one sweep"),
        (lambda f: sl.check(f / "base.zarr", gate={"min_retaind_radius": 3}), "did you mean 'min_retained_radius'"),
        (lambda f: sl.check(f / "base.zarr", gate={"allowed": {"unshiftd": 3}}), "did you mean 'unshifted'"),
        (lambda f: sl.check(f / "base.zarr", gate={"metrics": {"loss": {"max_nea": 3}}}), "did you mean 'max_near'"),
        (lambda f: sl.check(f / "base.zarr", gate={"metrics": {"los": {"max_near": 3}}}), "did you mean 'loss'"),
        (lambda f: sl.check(f / "base.zarr", metric="accurcy", min_near=0.5), "did you mean 'accuracy'"),
        (lambda f: sl.check(f / "base.zarr", min_retained_radius=30), "within the grid"),
        (lambda f: sl.check(f / "base.zarr", max_drop=(2, 30)), "within the grid, which reaches 6 px"),
        (lambda f: sl.check(f / "base.zarr", max_drop="2@"), "such as 2@4"),
        (lambda f: sl.check(f / "base.zarr", max_drop=(2, 0)), "distance above 0"),
        (lambda f: sl.check(f / "base.zarr", min_near=90), "from 0 to 1"),
        (lambda f: sl.check(f / "base.zarr", max_near=0.9), "expected min_near"),
        (lambda f: sl.check(f / "base.zarr", metric="loss", min_near=0.9), "expected max_near"),
        (lambda f: sl.check(f / "base.zarr", min_near=float("nan")), "expected a number"),
        (lambda f: sl.check(f / "base.zarr", mode="lax", min_near=0.5), "mode"),
        (lambda f: sl.check(f / "base.zarr", max_border_ratio=2), "rates by place"),
        (lambda f: sl.check(f / "base.zarr", allowed={"near": 1}), "expected a baseline"),
        (lambda f: sl.check(f / "base.zarr", baseline=f / "again.zarr", allowed={"near": -1}), "allowed.near"),
        (lambda f: sl.check(f / "base.zarr", baseline=f / "again.zarr", allowed={"border_ratio": 1}), "above 1 times"),
        (lambda f: sl.check(f / "base.zarr", baseline=f / "again.zarr", allowed={"border_ratio": 2}), "rates by place"),
        (lambda f: sl.check(f / "base.zarr", baseline=f / "again.zarr", metric="loss"), "how much worse loss may be"),
        (lambda f: sl.check(f / "base.zarr", baseline=f / "others.zarr"), "none the same"),
        (lambda f: sl.check(f / "base.zarr", gate=f / "nothing.toml"), "expected a file with limits"),
    ],
)
def test_bad_use_is_refused_with_what_was_expected(sweeps: Path, call: Call, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        call(sweeps)


def test_an_incomplete_sweep_is_refused_unless_what_is_there_is_asked_for(sweeps: Path) -> None:
    half = sweeps / "half.zarr"
    with pytest.raises(StoreError, match=r"175 of 200.*--partial"):
        sl.check(half, min_near=0.1)
    with pytest.raises(StoreError, match=r"175 of 200.*--partial"):
        sl.check(sl.open_sweep(half, partial=True), min_near=0.1)
    found = sl.check(half, min_near=0.1, partial=True)
    assert found.n_images == 175
    assert "half is not complete: 175 of 200 images are used" in str(found)


def test_what_cannot_be_measured_has_failed_when_strict_only(sweeps: Path, tmp_path: Path) -> None:
    flat = [plateau(REACH, edge=40.0)] * 2
    one, two = (written(tmp_path / f"{k}.zarr", each) for k, each in enumerate(drawn_pair(50, means=flat)))
    for mode, passes in (("strict", False), ("lenient", True)):
        found = sl.check(one, baseline=two, allowed={"retained_radius": 1}, mode=mode)
        assert found.passed is passes
        assert "both regions touch the grid's edge" in found.conditions[0].reason
        assert found.to_dict()["conditions"][0]["value"] is None


def test_the_json_has_the_keys_of_the_contract_and_no_infinite_number(sweeps: Path) -> None:
    found = sl.check(sweeps / "base.zarr", min_near=0.5, min_retained_radius=1.5).to_dict()
    assert {"passed", "conditions", "mode", "n_images"} <= set(found)
    for each in found["conditions"]:
        assert {"name", "metric", "limit", "value", "interval", "passed", "reason"} <= set(each)
        assert all(end is None or np.isfinite(end) for end in each["interval"])


def test_the_junit_file_is_as_the_schema_that_jenkins_publishes_says(sweeps: Path, tmp_path: Path) -> None:
    odd = tmp_path / 'a<b>&"ü\x1b.zarr'
    written(odd, drawn_pair(60)[0])
    found = sl.check([odd, sweeps / "base.zarr"], min_near=0.9, max_side_difference=30)
    root = ET.fromstring(found.junit())
    assert faults(root) == []
    assert [suite.get("tests") for suite in root] == ["2", "2"]
    failures = root.findall(".//failure")
    assert len(failures) == sum(not each.passed for each in found.conditions)
    assert sum(int(suite.get("failures", "0")) for suite in root) == len(failures)


def test_the_schema_check_finds_what_is_wrong() -> None:
    assert faults(ET.fromstring('<testsuites><testsuite name="a" tests="1" failures="0"/></testsuites>'))
    assert faults(ET.fromstring('<testsuite name="a" tests="1" failures="0" errors="0"><case/></testsuite>'))
    assert faults(ET.fromstring('<testsuite name="a" tests="1" failures="0" errors="0" time="soon"/>'))
    assert faults(ET.fromstring('<testsuites><testcase name="a"/></testsuites>'))


def test_names_from_strangers_cannot_leave_their_cell_or_their_annotation(tmp_path: Path) -> None:
    odd = tmp_path / "a|b<img>%0A::error::x,y:z.zarr"
    written(odd, drawn_pair(60)[0])
    found = sl.check(odd, min_near=1.0)
    row = next(line for line in found.markdown().splitlines() if line.startswith("| **FAIL**"))
    assert row.replace("\\|", "").count("|") == 7
    assert "<img>" not in found.markdown()
    assert "<img>" not in found._repr_html_()
    assert found._repr_html_().count("<tr>") == 2
    [line] = found.annotations()
    assert line.startswith("::error title=shiftlens a|b<img>%250A%3A%3Aerror%3A%3Ax%2Cy%3Az%3A near")
    assert "\n" not in line
