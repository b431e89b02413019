"""Feature runs that somebody edited are refused; what a killed run left is removed by the next one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch import nn

from shiftlens.data.imageset import ImageSet
from shiftlens.errors import StoreError
from shiftlens.lens import feature_store as store
from shiftlens.lens.feature_maps import features
from shiftlens.lens.feature_store import open_features
from shiftlens.models.wrapping import wrap


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two nets that differ in their weights."""
    place = tmp_path_factory.mktemp("made")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)  # of other weights, the maps of both nets may be zero
    for name in ("f", "other"):
        layers = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1)
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model = wrap(net, mean=0.5, std=0.25, name="net").at((8, 8))
        features(model, "black", average=ImageSet(pixels, [0, 1, 0, 1]), out=place / f"{name}.zarr")
    return place


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(file.read_text())
    change(document["attributes"])
    file.write_text(json.dumps(document))


def swap(a: Path, b: Path) -> None:
    a.rename(a.with_name("aside"))
    b.rename(a)
    a.with_name("aside").rename(b)


def copy(place: Path, name: str) -> None:
    shutil.rmtree(place / "f.zarr" / name)
    shutil.copytree(place / "other.zarr" / name, place / "f.zarr" / name)


def rewritten(array: Path) -> None:
    stored = zarr.open_array(array, mode="r+")
    stored[:] = stored[:] + 1


EDITS: dict[str, Callable[[Path], object]] = {
    "model": lambda p: edit(p / "f.zarr/zarr.json", lambda a: a.update(model="better")),
    "digest": lambda p: edit(p / "f.zarr/zarr.json", lambda a: a.update(model_digest="sha256:00")),
    "images": lambda p: edit(p / "f.zarr/zarr.json", lambda a: a.update(n_images=400)),
    "size": lambda p: edit(p / "f.zarr/zarr.json", lambda a: a.update(size=[9, 9])),
    "fewer layers": lambda p: edit(p / "f.zarr/zarr.json", lambda a: a.update(n_layers=1)),
    "no seal": lambda p: edit(p / "f.zarr/zarr.json", lambda a: a.pop("seal")),
    "first schema": lambda p: edit(p / "f.zarr/zarr.json", lambda a: a.update(schema_version=1)),
    "schema 0": lambda p: edit(p / "f.zarr/zarr.json", lambda a: a.update(schema_version=0)),
    "layer's path": lambda p: edit(p / "f.zarr/layer_000/zarr.json", lambda a: a.update(path="9")),
    "layer's images": lambda p: edit(p / "f.zarr/layer_000/zarr.json", lambda a: a.update(n_images=400)),
    "scores": lambda p: edit(p / "f.zarr/layer_000/zarr.json", lambda a: a.update(scores=a["average_scores"] + " ")),
    "no average": lambda p: edit(p / "f.zarr/layer_000/zarr.json", lambda a: a.pop("average_scores")),
    "layers swapped": lambda p: swap(p / "f.zarr/layer_000", p / "f.zarr/layer_001"),
    "a layer of another net": lambda p: copy(p, "layer_000"),
    "maps of another net": lambda p: copy(p, "layer_000/maps"),
    "mean as maps": lambda p: swap(p / "f.zarr/layer_000/mean", p / "f.zarr/layer_000/variance"),
    "numbers": lambda p: rewritten(p / "f.zarr/layer_001/maps"),
    "metadata of another net": lambda p: shutil.copy(p / "other.zarr/zarr.json", p / "f.zarr/zarr.json"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_feature_run_is_refused(name: str, made: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(made, tmp_path / "made"))
    open_features(place / "f.zarr")
    EDITS[name](place)
    with pytest.raises(StoreError, match=r"f\.zarr") as caught:
        open_features(place / "f.zarr")
    assert str(caught.value).isprintable()


def test_an_attribute_added_is_no_damage(made: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(made / "f.zarr", tmp_path / "f.zarr"))
    edit(path / "zarr.json", lambda a: a.update(comment="of my thesis"))
    right = open_features(made / "f.zarr")
    edit(path / "layer_000" / "zarr.json", lambda a: a.update(comment="x"))
    assert open_features(path).layers[0].scores == right.layers[0].scores
    np.testing.assert_array_equal(open_features(path).layers[1].maps, right.layers[1].maps)


def test_a_run_of_the_first_schema_is_refused_in_one_line_and_may_be_replaced(made: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(made / "f.zarr", tmp_path / "f.zarr"))
    edit(path / "zarr.json", lambda a: (a.update(schema_version=1), a.pop("seal")))
    with pytest.raises(StoreError, match="feature run of schema version 1, which this version no longer reads; make"):
        open_features(path)
    store.check_target(path)
    store.save_features(open_features(made / "f.zarr"), path)
    assert open_features(path).layers[1].scores == open_features(made / "f.zarr").layers[1].scores


def test_what_a_killed_run_left_is_removed_and_an_older_result_is_whole_until_the_new_one_is(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_features(made / "f.zarr")
    stray = tmp_path / f".f.zarr.{'ab' * 16}.building"
    (stray / "layer_000").mkdir(parents=True)
    kept = tmp_path / f".g.zarr.{'ab' * 16}.building"
    kept.mkdir()
    out = store.save_features(run, tmp_path / "f.zarr").path
    assert out is not None
    assert not stray.exists()
    assert kept.exists()

    removed = []

    def dies(path: Path, *args: Any, **options: Any) -> None:
        removed.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shiftlens.storage.existing.shutil.rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            store.save_features(run, out)
    # Whatever it was about to remove when it died lies elsewhere: the place holds a whole result.
    assert out not in removed
    np.testing.assert_array_equal(open_features(out).layers[0].maps, run.layers[0].maps)
    store.save_features(run, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".f.zarr.lock", kept.name, "f.zarr"]
