"""The layout page names all that is written, and `verify --schema` holds a file against it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import zarr
from torch import nn

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.lens.feature_store import FeatureHeader, LayerHeader
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.layout import array_names
from shiftlens.tasks.stored_form import KNOWN_TASKS
from shiftlens.tiles.tile_store import _ARRAYS, TilesHeader

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "zarr-layout.md"
MADE_OTHERWISE = {"grid"}
"""A field of a sweep's header that the file has as `max_shift` and `step`."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    out = tmp_path_factory.mktemp("schema") / "s.zarr"
    model = sl.wrap(net, mean=(0.5,) * 3, std=(0.5,) * 3)
    sl.sweep(model, sl.load_images("digits", limit=4), sl.ShiftGrid((1, 1)), out=out, controls=("occlusion",))
    return out


def test_the_page_names_every_attribute_and_array() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE.read_text()))
    headers = (SweepHeader, FeatureHeader, LayerHeader, TilesHeader)
    attributes = {name for header in headers for name in header.attribute_names().values()} - MADE_OTHERWISE
    arrays = {name for task in KNOWN_TASKS.values() for name in array_names(task)} - {
        f"mean_{each.name}" for each in KNOWN_TASKS["detection-consistency"].variables
    }
    assert (attributes | arrays | set(_ARRAYS)) - named == set()


def test_a_whole_file_is_listed(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(swept), "--schema", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["schema_version"]) == ("sweep", 3)
    loss = {"dimensions": ["image", "dy", "dx"], "shape": [4, 3, 3], "chunks": [4, 3, 3], "dtype": "float32"}
    assert found["arrays"]["loss"] == found["arrays"]["control_occlusion/loss"] == loss
    assert main(["verify", str(swept), "--schema"]) == 0
    assert "  loss: float32 (image 4, dy 3, dx 3), in chunks of 4 x 3 x 3" in capsys.readouterr().out


def test_a_file_that_is_not_as_declared_is_refused(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = zarr.open_group(swept, mode="r+")
    del group["control_occlusion/confidence"]
    group.create_array("control_occlusion/confidence", shape=(4, 3, 3), chunks=(4, 3, 3), dtype="float64")
    assert main(["verify", str(swept), "--schema"]) == 2
    assert "confidence" in capsys.readouterr().err
    assert main(["verify", str(swept.parent), "--schema"]) == 2
