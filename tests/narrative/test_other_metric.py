"""A metric in millimetres, lower is better: findings, comparisons and their commands say it and nothing of shares."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shiftlens as sl
from narrative import millimetres as mm
from narrative.diagnosed import said_of
from shiftlens.analysis.arrays import from_sweep
from shiftlens.cli import main
from shiftlens.errors import InputError
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.words import level_text, number_text, with_interval
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.classification import ACCURACY, LOSS
from shiftlens.tasks.task import Variable


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return mm.sweep(tmp_path_factory.mktemp("one") / "one.zarr", controls=("occlusion", "flip", "canvas"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return mm.sweep(tmp_path_factory.mktemp("two") / "two.zarr", scale=1.2, lean=0.1)


def texts(found: Findings) -> str:
    return "\n".join(f"{each} {each.evidence} {each.remedy}" for each in found)


def test_findings_are_in_the_metrics_name_unit_and_direction(one: Sweep) -> None:
    found = sl.findings(one)
    mm.says_nothing_of_shares(texts(found))
    said, mean = {each.id: each for each in found}, one.mean_of("mae")
    at_origin = float(mean.sel(dx=0, dy=0))
    assert said["mae-at-rest"].value == pytest.approx(at_origin)
    assert (
        said["mae-at-rest"].statement
        == f"Unshifted, MAE is {with_interval(at_origin, *said['mae-at-rest'].interval, 'mm')}."
    )
    assert said["mae-worst"].value == pytest.approx(float(mean.max()))
    assert said["mae-worst"].statement.startswith("MAE is highest, ")
    assert said["signed_bias-worst"].statement.startswith("Signed bias is lowest, ")
    assert said["retained-95"].statement.startswith("MAE stays at or below 1.05 times its unshifted value within ")
    # Planted: moves to the right are worse, the region lies to the left, padding and position cost something.
    assert said["asymmetry-x"].statement.startswith("MAE is ")
    assert "higher for shifts to the right than for shifts to the left" in said["asymmetry-x"].statement
    assert "0 are better to the right and 78 better to the left" in said["asymmetry-x-pairs"].evidence
    assert said["centre-x"].value < -0.3
    for name in ("asymmetry-x", "placement-effect", "padding-effect"):
        assert (said[name].severity, said[name].unit) == ("warn", "mm")
        assert said[name].value > 0
    assert " worse on average" in said["padding-effect"].statement
    assert {each.quantity.metric for each in found if each.id.startswith(("asymmetry", "placement"))} == {"mae"}


def test_another_metric_of_the_sweep_is_asked_for_by_name(one: Sweep) -> None:
    said = {each.id: each for each in sl.findings(one, metric="signed_bias")}
    assert list(said)[:3] == ["signed_bias-at-rest", "mae-at-rest", "signed_bias-mean"]
    assert "positive is better to the right" in said["asymmetry-x"].evidence
    plots = [each.action.command for each in said.values() if each.action and each.action.command[1] == "plot"]
    assert plots
    assert all("--metric signed_bias" in " ".join(command) for command in plots)
    with pytest.raises(InputError, match=r"unknown metric 'mea'; did you mean 'mae'\? \(known: mae, signed_bias\)"):
        sl.findings(one, metric="mea")


def test_what_is_left_of_nothing_is_said_of_any_metric(one: Sweep) -> None:
    arrays = replace(from_sweep(one), picture_size=(6, 6), controls={})
    said = {each.id: each for each in said_of(arrays, n_resamples=50)}
    assert re.search(r"\(48 shifts of the grid\), MAE is 0\.\d+ mm \[", said["blank-limit"].statement)
    assert said["blank-limit"].unit == "mm"


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (ACCURACY, 0.9, "at or above 95 % of"),
        (LOSS, 0.4, "at or below 1.05 times"),
        (mm.BIAS, 0.2, "at or above 0.95 times"),
        (mm.BIAS, -0.2, "at or above 1.05 times"),
        (replace(ACCURACY, better="lower"), 0.1, "at or below 105 % of"),
    ],
)
def test_a_level_is_kept_on_the_better_side(metric: Variable, value: float, text: str) -> None:
    assert level_text(metric, value, 0.95) == text


def test_numbers_have_the_digits_that_their_interval_asks_for() -> None:
    assert number_text(0.1234, "mm") == "0.123 mm"
    assert with_interval(0.1234, 0.1, 0.15, "mm") == "0.123 mm [0.100, 0.150]"
    assert with_interval(12.34, 10.1, 14.5, "dB") == "12.3 dB [10.1, 14.5]"
    assert with_interval(3.0, np.nan, np.nan, "mm") == "3 mm [nan, nan]"
    assert number_text(3.0, "") == "3"


def test_a_comparison_is_in_the_metrics_unit(one: Sweep, two: Sweep) -> None:
    made = sl.compare([one, two], margin=0.001)
    mm.says_nothing_of_shares(texts(made.findings) + made._repr_html_())
    rows, told = made.to_dict()["rows"], made.to_dict()["metric"]
    assert (told["name"], told["unit"], told["better"]) == ("mae", "mm", "lower")
    assert rows[1]["mae"] == pytest.approx(float(two.mean_of("mae").sel(dx=0, dy=0)))
    assert {"mae_interval", "mae_within_8px", "worst_of_radius", "difference"} <= rows[1].keys()
    worse = made.findings.named("difference-near-1")
    near = "mean MAE within 8 px, to 6 px along each axis"
    assert worse.statement.startswith(f"Got worse: 'two' exceeds 'one' in {near} (")
    assert (worse.unit, worse.severity) == ("mm", "warn")
    assert "worse at 169 of 169 shifts" in made.findings.named("difference-map-1").statement
    assert "chosen for the lowest MAE at (0, 0)" in made.findings.named("winner-at-rest").statement
    assert "is not shown to be non-inferior" in made.findings.named("as-good-near-1").statement


def test_a_number_has_no_margin_unless_one_is_given(one: Sweep, two: Sweep) -> None:
    assert not sl.compare([one, two]).findings.of_kind("as-good")
    with pytest.raises(InputError, match="expected a margin above 0 mm, got -1"):
        sl.compare([one, two], margin=-1)
    with pytest.raises(InputError, match="unknown metric 'loss'; expected one of mae, signed_bias"):
        sl.compare([one, two], metric="loss")


def test_the_commands_take_a_metric(one: Sweep, two: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = str(one.path), str(two.path)
    assert main(["findings", first, "--no-map", "-q"]) == 0
    assert main(["compare", first, second, "-q"]) == 0
    out = capsys.readouterr().out
    mm.says_nothing_of_shares(out)
    assert main(["findings", first, "--map", "-q"]) == 0
    assert "MAE, ' ' below 0.0257 mm, '@' 0.231 mm and above" in capsys.readouterr().out
    assert "MAE in mm, differences in mm; 4 px: at each image's worst shift" in out
    assert main(["findings", first, "--metric", "signed_bias", "--json", "-q"]) == 0
    assert {each["metric"] for each in json.loads(capsys.readouterr().out)["findings"]} == {"signed_bias"}
    assert main(["compare", first, second, "--metric", "signed_bias", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"]["name"] == "signed_bias"
    assert main(["plot", first, "--out", str(tmp_path), "--metric", "signed_bias", "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metric"] == "signed_bias"
    assert Path(told["files"][0]).name == "signed_bias.png"
    for command in (["findings", first], ["plot", first, "--out", str(tmp_path)], ["compare", first, second]):
        assert main([*command, "--metric", "signed bias", "-q"]) == 2
        assert "unknown metric 'signed bias'; did you mean 'signed_bias'?" in capsys.readouterr().err
