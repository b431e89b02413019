"""`Sweep`: opened lazily, complete or not, with its controls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_sweeps as small
import xarray as xr

from shiftlens.errors import InputError, StoreError
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.sweep_result import open_sweep


def test_a_complete_sweep_gives_its_numbers(tmp_path: Path) -> None:
    result = small.fill(small.create(tmp_path / "s.zarr"))
    sweep = open_sweep(str(tmp_path / "s.zarr"))
    right = result["prediction"] == small.labels(7)[:, None, None]
    assert sweep.complete
    assert (sweep.n_images, sweep.n_written) == (7, 7)
    assert sweep.written.all()
    assert sweep.grid == small.HEADER.grid
    assert sweep.fill == small.HEADER.fill
    assert sweep.header == small.HEADER
    assert sweep.attrs["kind"] == "sweep"
    assert sweep.controls == ()
    assert sweep.path == tmp_path / "s.zarr"
    assert sweep.accuracy.dims == sweep.mean_loss.dims == ("dy", "dx")
    np.testing.assert_array_equal(sweep.accuracy, right.mean(axis=0))
    np.testing.assert_allclose(sweep.mean_loss, result["loss"].astype(np.float64).mean(axis=0), rtol=1e-14)
    assert float(sweep.accuracy.sel(dy=2, dx=-4)) == right[:, 2, 0].mean()
    assert repr(sweep) == "<Sweep of net.py:factory on digits: 7 images x 3 x 5 shifts>"


def test_the_dataset_is_lazy_and_keeps_the_types_on_disk(tmp_path: Path) -> None:
    small.fill(small.create(tmp_path / "s.zarr"))
    data = open_sweep(tmp_path / "s.zarr").dataset
    assert isinstance(data, xr.Dataset)
    assert not data.prediction.variable._in_memory
    assert data.prediction[2:4, 1].values.dtype == np.uint8
    assert not data.prediction.variable._in_memory


def test_an_incomplete_sweep_says_how_much_is_there(tmp_path: Path) -> None:
    group = small.create(tmp_path / "s.zarr").main
    result = small.numbers(7)
    group.write(2, small.cut(result, group.span(2)))
    group.write(1, small.cut(result, group.span(1)))
    with pytest.raises(StoreError, match=r"s\.zarr is not complete: 4 of 7 images are there"):
        open_sweep(tmp_path / "s.zarr")
    sweep = open_sweep(tmp_path / "s.zarr", partial=True)
    assert not sweep.complete
    assert sweep.n_written == 4
    assert sweep.written.tolist() == [False] * 3 + [True] * 4
    right = (result["prediction"] == small.labels(7)[:, None, None])[3:]
    np.testing.assert_array_equal(sweep.accuracy, right.mean(axis=0))
    np.testing.assert_allclose(sweep.mean_loss, result["loss"][3:].astype(np.float64).mean(axis=0), rtol=1e-14)
    assert np.isnan(sweep.dataset.accuracy).all()
    assert (sweep.dataset.prediction[:3] == 255).all()
    assert "4 of 7 images so far" in repr(sweep)


@pytest.mark.parametrize("chunks", [(0, 1, 2), (2, 0), (1,), ()])
def test_cells_are_those_of_the_images_that_are_written(tmp_path: Path, chunks: tuple[int, ...]) -> None:
    group = small.create(tmp_path / "s.zarr").main
    result = small.numbers(7)
    for chunk in chunks:
        group.write(chunk, small.cut(result, group.span(chunk)))
    if len(chunks) == 3:
        group.finish()
    sweep = open_sweep(tmp_path / "s.zarr", partial=True)
    for name in ("prediction", "loss", "confidence"):
        right, cells = result[name][sweep.written], sweep.cells(name)
        assert cells.shape == right.shape
        for part in (slice(None), slice(1, 3), slice(3, 99), slice(5, 5)):
            assert cells[part].dtype == cells.dtype == sweep.dataset[name].dtype
            np.testing.assert_array_equal(cells[part], right[part])
    (tmp_path / "s.zarr" / "loss" / "c" / "1" / "0" / "0").unlink(missing_ok=True)
    if 1 in chunks:
        with pytest.raises(StoreError, match="is damaged: chunk 1"):
            sweep.cells("loss")[:]


def test_all_chunks_without_the_means_are_not_complete(tmp_path: Path) -> None:
    small.fill(small.create(tmp_path / "s.zarr"), finish=False)
    with pytest.raises(StoreError, match="7 of 7"):
        open_sweep(tmp_path / "s.zarr")


def test_an_empty_sweep_has_no_numbers(tmp_path: Path) -> None:
    small.create(tmp_path / "s.zarr")
    sweep = open_sweep(tmp_path / "s.zarr", partial=True)
    assert sweep.n_written == 0
    assert np.isnan(sweep.accuracy).all()
    assert np.isnan(sweep.mean_loss).all()


def test_controls(tmp_path: Path) -> None:
    store = small.create(tmp_path / "s.zarr", controls=("flip", "occlusion"))
    small.fill(store)
    result = small.fill(store, "occlusion")
    sweep = open_sweep(tmp_path / "s.zarr")
    assert sweep.controls == ("occlusion", "flip")
    occlusion = sweep.control("occlusion")
    np.testing.assert_array_equal(occlusion.dataset.prediction, result["prediction"])
    assert occlusion.header.control == "occlusion"
    assert occlusion.controls == ()
    assert repr(occlusion).startswith("<Sweep control=occlusion of")
    with pytest.raises(StoreError, match=r"control flip of .*s\.zarr is not complete: 0 of 7"):
        sweep.control("flip")
    assert sweep.control("flip", partial=True).n_written == 0
    with pytest.raises(InputError, match="no control 'canvas'; expected one of: occlusion, flip"):
        sweep.control("canvas")
    with pytest.raises(InputError, match="no control 'flip'"):
        occlusion.control("flip")


def test_a_control_opens_by_its_own_path(tmp_path: Path) -> None:
    store = small.create(tmp_path / "s.zarr", controls=("flip",))
    small.fill(store)
    small.fill(store, "flip")
    assert open_sweep(tmp_path / "s.zarr" / "control_flip").header.control == "flip"


def test_a_foreign_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no sweep at .*nothing"):
        open_sweep(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no sweep at"):
        open_sweep(tmp_path / "empty")
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(StoreError, match="it is a file"):
        open_sweep(tmp_path / "photo.png")


def test_a_torn_chunk_of_a_complete_sweep_is_named_when_it_is_read(tmp_path: Path) -> None:
    small.fill(small.create(tmp_path / "s.zarr"))
    (tmp_path / "s.zarr" / "loss" / "c" / "1" / "0" / "0").write_bytes(b"torn")
    with pytest.raises(StoreError, match=r"damaged: images 3 to 5"):
        SweepGroup(tmp_path / "s.zarr").means(range(3))


def test_opening_a_file_of_an_older_run_needs_no_torch_of_its_kind(tmp_path: Path) -> None:
    small.fill(small.create(tmp_path / "s.zarr", software={"torch": "1.0"}))
    assert open_sweep(tmp_path / "s.zarr").header.software == {"torch": "1.0"}


def test_attributes_in_the_file_win_over_nothing_in_memory(tmp_path: Path) -> None:
    small.fill(small.create(tmp_path / "s.zarr"))
    file = tmp_path / "s.zarr" / "zarr.json"
    document = json.loads(file.read_text())
    assert list(document["attributes"])[:3] == ["kind", "schema_version", "complete"]
    document["attributes"]["schema_version"] = 7
    file.write_text(json.dumps(document))
    with pytest.raises(StoreError, match="newer shiftlens"):
        open_sweep(tmp_path / "s.zarr")


def test_xarray_alone_opens_it_without_a_warning_in_a_fresh_process(tmp_path: Path) -> None:
    store = small.create(tmp_path / "s.zarr", controls=("flip",))
    small.fill(store)
    code = f"import xarray; print(float(xarray.open_zarr({str(store.path)!r}, consolidated=False).accuracy.mean()))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(open_sweep(store.path).accuracy.mean()))
