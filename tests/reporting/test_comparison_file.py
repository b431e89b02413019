"""What `compare --json` printed is a part of a report: the same table, sentences and answer, and no maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reporting.planted import Page, sweep
from shiftlens.cli import main
from shiftlens.errors import StoreError
from shiftlens.narrative.comparing import compare
from shiftlens.narrative.comparison_result import Comparison
from shiftlens.reporting import report
from shiftlens.reporting.comparison_file import comparison_in
from shiftlens.reporting.comparison_part import comparison_part, summary


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def made(place: Path) -> Comparison:
    # The second reaches the edge of its grid: its area is a lower limit, and a difference has an open end.
    sweeps = [sweep(place / "one.zarr", 40, 5), sweep(place / "wide.zarr", 40, 5, edge=9.0)]
    return compare([*sweeps, sweep(place / "less.zarr", 40, 5, edge=2.0)])


@pytest.fixture(scope="module")
def saved(place: Path, made: Comparison) -> Path:
    path = place / "compared.json"
    path.write_text(json.dumps(made.to_dict() | {"files": []}))
    return path


def test_it_comes_back_as_it_was(saved: Path, made: Comparison) -> None:
    found = comparison_in(saved)
    assert found is not None
    assert (found.names, found.baseline, found.n_images, found.unit) == (made.names, 0, 40, made.unit)
    assert found.n_shifts == 121
    assert made.improved
    assert made.got_worse
    assert [each.to_dict() for each in found.findings] == [each.to_dict() for each in made.findings]
    assert summary(found) == summary(made)
    old, new = comparison_part(made, 0).view, comparison_part(found, 0).view
    for key in ("rows", "groups", "names", "baseline", "n", "n_shifts", "pixels_of"):
        assert new[key] == old[key], key
    assert any("at least" in cell for row in new["rows"] for cell in row)
    assert old["maps"]
    assert not new["maps"]


def test_the_page_and_the_command(saved: Path, made: Comparison, place: Path) -> None:
    out = place / "page.html"
    assert main(["report", str(saved), str(place / "one.zarr"), "--out", str(out), "-q"]) == 0
    page = Page(out)
    assert all(each.statement in page.visible for each in made.findings)
    assert "comes from a file of numbers and sentences" in page.visible
    assert page.data["comparisons"] == [{"maps": []}]
    assert "map-comparison-0" not in {attributes.get("id") for _, attributes in page.tags}
    assert made.improved[0].statement in page.visible
    alone = report(str(saved), place / "alone.html")
    assert alone.title == "Comparison of sweeps"


def test_one_without_a_kind_is_none(saved: Path, place: Path) -> None:
    values = json.loads(saved.read_text())
    assert values.pop("kind") == "comparison"
    older = place / "older.json"
    older.write_text(json.dumps(values))
    assert comparison_in(older) is None
    (place / "no.json").write_text(json.dumps({"kind": "inspection", "baseline": 0, "against": []}))
    assert comparison_in(place / "no.json") is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: v | {"rows": []}, "different names"),
        (lambda v: v | {"rows": [v["rows"][0]] * 2}, "different names"),
        (lambda v: v | {"baseline": "nobody"}, "ValueError"),
        (lambda v: v | {"n_images": True}, "whole number"),
        (lambda v: v | {"n_images": -1}, "whole number"),
        (lambda v: {k: v[k] for k in v if k != "findings"}, "KeyError: 'findings'"),
        (lambda v: v | {"findings": [v["findings"][0] | {"severity": "<b>"}]}, "severity"),
        (lambda v: v | {"findings": [v["findings"][0] | {"statement": 3}]}, "expected a text"),
        (lambda v: v | {"rows": [v["rows"][0] | {"accuracy": "0.5"}]}, "expected a number"),
        (lambda v: v | {"rows": [v["rows"][0] | {"accuracy": float("inf")}]}, "expected a number"),
        (lambda v: v | {"rows": [v["rows"][0] | {"accuracy": 10**400}]}, "OverflowError"),
        (lambda v: v | {"rows": [v["rows"][0] | {"accuracy": None, "skipped": {"accuracy": "x"}}]}, "in every row"),
        (lambda v: v | {"against": ["x"]}, "TypeError"),
    ],
)
def test_a_damaged_one_is_refused_in_one_line(
    saved: Path, place: Path, change: Callable[[Any], Any], text: str
) -> None:
    path = place / "changed.json"
    path.write_text(json.dumps(change(json.loads(saved.read_text()))))
    with pytest.raises(StoreError, match=f"changed.json cannot be reported on .*{text}.*: expected a sweep") as caught:
        comparison_in(path)
    assert "\n" not in str(caught.value)


def test_a_strangers_texts_stay_text(saved: Path, place: Path) -> None:
    text = "<img src=x onerror=alert(1)>{{ 7 * 7 }}"
    values = json.loads(saved.read_text())
    values["findings"][0] |= {"statement": text, "evidence": text, "action": {"text": text, "command": [text]}}
    path = place / "hostile.json"
    path.write_text(json.dumps(values))
    page = Page(report(path, place / "hostile.html").path)
    assert text in page.visible
    assert not [attributes for attributes in page.all_of("img") if attributes.get("src") == "x"]
