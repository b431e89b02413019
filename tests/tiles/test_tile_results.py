"""A tile report on disk, as findings, as pictures, on the page and on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import shiftlens as sl
from narrative.commands import parse
from shiftlens.cli.app import main
from tiles.planted_causes import images, model

UNET = ("--model", "pretrained:unet-digits", "--data", "digits-scenes", "--limit", "2")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> sl.TileReport:
    out = tmp_path_factory.mktemp("tiles") / "tiles.zarr"
    return sl.tile_report(model(norm="instance"), images(2), tile=24, stride=23, out=out)


def test_a_report_is_read_back_as_it_was(report: sl.TileReport) -> None:
    assert report.path is not None
    again = sl.open_tiles(report.path)
    assert again.to_dict() == report.to_dict()
    assert str(again) == str(report)
    for name in ("off", "map", "example", "by_distance", "by_phase"):
        np.testing.assert_array_equal(getattr(again, name), getattr(report, name))


def test_a_changed_number_and_a_foreign_folder_are_refused(report: sl.TileReport, tmp_path: Path) -> None:
    out = tmp_path / "t.zarr"
    from shiftlens.tiles.tile_store import save_tiles

    save_tiles(report, out)
    zarr.open_group(out, mode="r+")["off"][0, 0] = 7.0
    with pytest.raises(sl.StoreError, match="damaged"):
        sl.open_tiles(out)
    assert main(["verify", str(out)]) == 2
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("keep")
    with pytest.raises(sl.StoreError, match="left as it is"):
        sl.tile_report(model(), images(1), tile=24, out=other)


def test_tables_that_do_not_fit_together_are_refused(report: sl.TileReport, tmp_path: Path) -> None:
    from shiftlens.tiles.tile_store import save_tiles

    for wrong in (
        replace(report, off=report.off[:, :-1]),
        replace(report, off=report.off * np.nan),
        replace(report, causes_of_steps=("luck",) * 5),
        replace(report, size=(10**9, 10**9)),
        replace(report, stride=0),
        replace(report, recipe={**report.recipe, "overlap": "much"}),
    ):
        save_tiles(wrong, tmp_path / "t.zarr")
        with pytest.raises(sl.StoreError, match="fit together"):
            sl.open_tiles(tmp_path / "t.zarr")


def test_findings_name_causes_layers_and_what_to_do(report: sl.TileReport) -> None:
    found = sl.findings(report)
    norm = found.named("tile-cause-norm")
    assert norm is not None
    assert norm.question == "E"
    assert "up.1" in norm.statement
    assert norm.value == pytest.approx(next(c.share for c in report.causes if c.cause == "norm"))
    assert found.named("tile-cause-grid") is not None
    assert found.named("tile-overlap").severity == "note"  # type: ignore[union-attr]
    commands = [each.action.command for each in found if each.action is not None and each.action.command]
    assert [parse(command)[0] for command in commands] == ["tiles"]
    with pytest.raises(sl.InputError, match="metric"):
        sl.findings(report, metric="accuracy")


def test_pictures_and_page(report: sl.TileReport, tmp_path: Path) -> None:
    pictures = sl.plot_tiles(report, tmp_path)
    assert [path.name for path in pictures.files] == ["seams.png", "by-distance.png", "causes.png"]
    page = sl.report([report], tmp_path / "r.html")
    text = page.path.read_text(encoding="utf-8")
    assert "Tiled inference of planted" in text
    assert text.count('<section id="tiles-0"') == 1
    assert '<div data-question="E">' in text
    assert ">The questions<" in text
    for name in ("grid", "context", "norm"):
        assert f'<th scope="row">{name}</th>' in text


def test_a_net_without_mismatch_has_no_causes_to_draw(tmp_path: Path) -> None:
    from torch import nn

    same = sl.tile_report(sl.wrap(nn.Conv2d(1, 1, 1), mean=0.5, std=0.25), images(1), tile=24, out=tmp_path / "t.zarr")
    assert set(sl.plot_tiles(same)) == {"seams", "by-distance"}
    assert "to rounding" in sl.findings(same)[0].statement
    assert sl.open_tiles(tmp_path / "t.zarr").causes == ()


def test_the_command_writes_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.zarr"
    assert main(["tiles", *UNET, "--task", "segmentation", "--out", str(out), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    keys = "tile overlap overlap_measured grid exact passes mismatch mismatch_interval causes recipe"
    assert set(keys.split()) <= set(values)
    assert (values["grid"], values["exact"], values["passes"]) == (8, True, 1)
    assert {"tile", "overlap", "grid"} <= set(values["recipe"])
    assert [set(cause) for cause in values["causes"]] == [{"cause", "share", "interval", "layers", "layer_shares"}]
    for arguments in (["verify"], ["findings"], ["plot", "--out", str(tmp_path / "p")]):
        assert main([arguments[0], str(out), *arguments[1:]]) == 0
    assert "missing at a tile's border" in capsys.readouterr().out
    assert values["tile"] == 48  # half a scene
    assert main(["tiles", *UNET, "--overlap", "many", "--out", str(out)]) == 2
    assert "--overlap must be auto or whole pixels" in capsys.readouterr().err
