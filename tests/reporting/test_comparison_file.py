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
from shiftlens.narrative.comparison_result import Compared, Comparison
from shiftlens.reporting import report
from shiftlens.reporting.comparison_part import comparison_part, summary
from shiftlens.reporting.saved_results import saved_result


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
    found = saved_result(saved)
    assert isinstance(found, Compared)
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


def test_one_without_a_kind_is_refused_and_one_of_another_kind_is_read_as_that(saved: Path, place: Path) -> None:
    values = json.loads(saved.read_text())
    assert values.pop("kind") == "comparison"
    older = place / "older.json"
    older.write_text(json.dumps(values))
    with pytest.raises(StoreError, match=r"kind: Field required.*expected a sweep"):
        saved_result(older)
    (place / "no.json").write_text(json.dumps(values | {"kind": "inspection"}))
    with pytest.raises(StoreError, match="model: Field required"):
        saved_result(place / "no.json")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: v | {"rows": []}, "rows: .* at least 1 item"),
        (lambda v: v | {"rows": [v["rows"][0]] * 2}, "different names"),
        (lambda v: v | {"baseline": "nobody"}, "the baseline among them"),
        (lambda v: v | {"n_images": True}, "n_images: .* valid integer"),
        (lambda v: v | {"n_images": -1}, "n_images: .* greater than or equal to 0"),
        (lambda v: {k: v[k] for k in v if k != "findings"}, "findings: Field required"),
        (lambda v: v | {"findings": [v["findings"][0] | {"severity": "<b>"}]}, "severity"),
        (lambda v: v | {"findings": [v["findings"][0] | {"statement": 3}]}, "statement: .* valid string"),
        (lambda v: v | {"rows": [v["rows"][0] | {"accuracy": "0.5"}]}, "accuracy: .* valid number"),
        (lambda v: v | {"rows": [v["rows"][0] | {"accuracy": float("inf")}]}, "accuracy: .* finite number"),
        (lambda v: v | {"rows": [v["rows"][0] | {"accuracy": 10**400}]}, "accuracy: .* finite number"),
        (
            lambda v: v | {"rows": [v["rows"][0] | {"accuracy": None, "skipped": {"accuracy": "x"}}]},
            "accuracy: .* valid number",
        ),
        (lambda v: v | {"against": ["x"]}, r"against\.0: .* should be an object"),
        (lambda v: v | {"rows": [v["rows"][0] | {"difference_interval": None, "interval": None}]}, "difference"),
        (lambda v: v | {"rows": [v["rows"][0] | {"retained_area": None}]}, "why it was skipped: retained_area"),
        (lambda v: v | {"findings": [v["findings"][0] | {"unit": None, "value": 1.0}]}, "expected a unit"),
        (lambda v: v | {"findings": [v["findings"][0] | {"section": "<b>"}]}, "section"),
    ],
)
def test_a_damaged_one_is_refused_in_one_line(
    saved: Path, place: Path, change: Callable[[Any], Any], text: str
) -> None:
    path = place / "changed.json"
    path.write_text(json.dumps(change(json.loads(saved.read_text()))))
    with pytest.raises(StoreError, match=f"changed.json cannot be reported on .*{text}.*: expected a sweep") as caught:
        saved_result(path)
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
