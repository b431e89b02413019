"""The page on a metric in millimetres, lower is better."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import shiftlens as sl
from narrative import millimetres as mm
from reporting.planted import Page, unpacked
from shiftlens.errors import InputError
from shiftlens.narrative.comparison_result import Compared
from shiftlens.reporting.saved_results import saved_result


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    where = tmp_path_factory.mktemp("page")
    one = mm.sweep(where / "one.zarr", controls=("occlusion", "flip", "canvas"))
    return [one.path, mm.sweep(where / "two.zarr", scale=1.2, lean=0.1).path]


@pytest.fixture(scope="module")
def seen(paths: list[Path]) -> Page:
    return Page(sl.report(paths, paths[0].parent / "r.html").path)


def test_the_page_says_the_metric_and_its_unit(seen: Page) -> None:
    attributes = " ".join(value for _, each in seen.tags for key, value in each.items() if key != "src" and value)
    mm.says_nothing_of_shares(f"{seen.visible} {attributes.replace('retained-as-accurate', '')}")
    for text in (
        "MAE of net.py:make is 0.1",
        "MAE stays at or below 1.05 times that over an area",
        "higher for shifts to the right than for shifts to the left, averaged over",
        "right minus left without the dataset bias ",
        "Solid line: inside, MAE stays at or below 1.05 times the unshifted value.",
        "MAE (mm), lower is better, with 95 % interval, n = 40",
        "mean over images: MAE; lower is better",
        "a circle as large as the area retained at 95 %. Straight: left ",
        "two minus one at some shifts as a table",
    ):
        assert text in seen.visible, text
    # Nothing says which images fail: there is no class that could be wrong.
    assert "Which images fail" not in seen.visible


def test_the_script_gets_the_metric(seen: Page, paths: list[Path]) -> None:
    sweep, comparison = seen.data["sweeps"][0], seen.data["comparisons"][0]
    assert (sweep["metric"], sweep["better"], sweep["images"]) == ("MAE", "lower", None)
    maps = {each["id"]: each for each in sweep["maps"]}
    assert next(iter(maps)) == "mae"
    assert {each["unit"] for each in maps.values()} == {"mm"}
    assert {each["colours"] for name, each in maps.items() if name.startswith(("sides", "difference"))} == {"RdBu"}
    assert "RdBu" in seen.data["colours"]
    mean = np.asarray(sl.open_sweep(paths[0]).mean_of(mm.MAE))
    assert np.allclose(unpacked(maps["mae"]["value"]), mean)
    assert (unpacked(maps["mae"]["lo"]) < mean).all()
    # Shifted minus control is worse everywhere but where the map starts.
    assert unpacked(maps["difference-canvas"]["value"]).min() > 0
    discs = sweep["discs"]
    assert discs["mean"][0] == discs["every"][0] == pytest.approx(mean[mm.REACH, mm.REACH], rel=1e-5)
    assert all(a <= b for a, b in zip(discs["every"], discs["every"][1:], strict=False))
    assert all(worst >= value for worst, value in zip(discs["every"], discs["mean"], strict=True))
    assert {each["map"] for each in sweep["profile"]} == {"mae", "signed_bias"}
    assert comparison["maps"][0]["unit"] == "mm"


def test_another_metric_and_an_unknown_one(paths: list[Path], tmp_path: Path) -> None:
    found = sl.report(paths[0], tmp_path / "r.html", metric="signed_bias")
    assert found.to_dict()["metric"] == "signed_bias"
    made = Page(found.path)
    assert made.data["sweeps"][0]["maps"][0]["id"] == "signed_bias"
    assert "Signed bias, unshifted" in made.visible
    with pytest.raises(InputError, match="unknown metric 'mse'; did you mean 'mae'"):
        sl.report(paths[0], tmp_path / "r.html", metric="mse")


def test_a_saved_comparison_is_read_in_its_unit(paths: list[Path], tmp_path: Path) -> None:
    made, file = sl.compare(paths), tmp_path / "c.json"
    file.write_text(json.dumps(made.to_dict()))
    read = saved_result(file)
    assert isinstance(read, Compared)
    assert (read.metric.called, read.metric.unit, read.metric.better) == ("MAE", "mm", "lower")
    assert [row.cells(False) for row in read.rows] == [row.cells(False) for row in made.rows]
    shown = Page(sl.report(file, tmp_path / "r.html").path)
    assert "MAE at (0, 0)" in shown.visible
    for key, value in (("name", "model_config;"), ("unit", "\x1b[31m"), ("better", "wider")):
        file.write_text(json.dumps(made.to_dict() | {"metric": made.to_dict()["metric"] | {key: value}}))
        with pytest.raises(sl.StoreError, match=rf"metric\.{key}"):
            saved_result(file)
