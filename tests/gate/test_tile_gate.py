"""A gate on tile reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import shiftlens as sl
from gate.gate_sweeps import drawn_pair, written
from shiftlens.errors import InputError
from tiles.planted_causes import images, model


def test_the_mismatch_of_a_tile_report_is_held_against_limits_and_a_baseline(tmp_path: Path) -> None:
    sl.tile_report(model(), images(8), tile=24, overlap=4, out=tmp_path / "tiles.zarr")
    report = sl.open_tiles(tmp_path / "tiles.zarr")
    value = float((report.off[:, 0] / report.span).mean())
    found = sl.check(tmp_path / "tiles.zarr", max_tile_mismatch=2 * value, max_tile_mismatch_with_overlap=value)
    assert found.passed, str(found)
    assert found.n_images == 8
    assert [(each.sweep, each.name, each.metric) for each in found.conditions] == [
        ("tiles", "tile_mismatch", "output"),
        ("tiles", "tile_mismatch_with_overlap", "output"),
    ]
    assert found.conditions[0].value == pytest.approx(value)
    assert not sl.check(report, max_tile_mismatch=value / 2, mode="lenient").passed
    worse = replace(report, off=2 * report.off)
    allowed = {"tile_mismatch": 50 * value}  # points: half of what it is
    against = sl.check(worse, baseline=report, allowed=allowed, mode="lenient")
    assert not against.passed
    assert against.conditions[0].value == pytest.approx(100 * value)
    assert "points worse than tiles" in against.conditions[0].title
    assert sl.check(report, baseline=report, allowed=allowed).passed
    other = replace(report, index=report.index + 1)
    with pytest.raises(InputError, match="baseline of the same images"):
        sl.check(report, baseline=other, allowed=allowed)


def test_each_item_needs_a_condition_of_its_kind(tmp_path: Path) -> None:
    sweep = written(tmp_path / "s.zarr", drawn_pair(30)[0])
    report = sl.tile_report(model(), images(2), tile=24)
    both = sl.check([sweep, report], min_near=0.1, max_tile_mismatch=1, mode="lenient")
    assert [each.name for each in both.conditions] == ["near", "tile_mismatch"]
    for call, expected in (
        (lambda: sl.check(sweep, min_near=0.1, max_tile_mismatch=0.1), "expected a tile report"),
        (lambda: sl.check(sweep, max_tile_mismatch=0.1), "s: expected a condition on a sweep"),
        (lambda: sl.check(report, min_near=0.1), "expected a condition on a tile report"),
        (lambda: sl.check(report, max_tile_mismatch=2), "from 0 to 1"),
        (lambda: sl.check(report, baseline=sweep, allowed={"tile_mismatch": 1}), "condition on a tile report"),
        (lambda: sl.assert_robust(model(), images(2), gate={"max_tile_mismatch": 0.1}), "no limit on a tile"),
        (lambda: sl.assert_robust(model(), images(2), baseline=sweep, allowed={"border_ratio": 2}), "a whole sweep"),
    ):
        with pytest.raises(InputError, match=expected):
            call()
