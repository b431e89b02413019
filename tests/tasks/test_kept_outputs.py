"""Outputs that a sweep keeps: those of the net at every shift, within bounds, resumed, mended and verified."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shiftlens as sl
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError, StoreError
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeps import request
from shiftlens.sweeps.integrity import verify_sweep
from shiftlens.sweeps.request import kept_of
from shiftlens.tasks import kept_outputs
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.kept_outputs import NO_BOX, kept_task
from shiftlens.tasks.segmentation import Segmentation
from sweeps import small_sweeps as small
from tasks.small_tasks import CASES, PIXELS, H, N, W, raw
from tasks.test_durable_tasks import GRID, swept

KEEPING = {"keep_outputs": 2}


def outputs(name: str, image: int, dx: int, dy: int) -> torch.Tensor:
    """What the net gives for one moved image, by itself."""
    moved = torch.from_numpy(sl.translate(PIXELS[[image]], dx, dy)).float() / 255
    with torch.no_grad():
        return raw(CASES[name][0](), (moved - 0.5) / 0.25)[0]


def places() -> list[tuple[int, int, int, int]]:
    return [(iy, ix, int(dy), int(dx)) for iy, dy in enumerate(GRID.dys) for ix, dx in enumerate(GRID.dxs)]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", ["segmentation", "segmentation of a small map"])
def test_masks_are_those_of_the_net(name: str, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_outputs, "LARGEST_MAP", -(-W // every))
    kept = swept(name, tmp_path / "s.zarr", **KEEPING).kept
    assert kept is not None
    settings = kept.header.task.settings
    assert settings == {"rows": -(-H // every), "columns": -(-W // every), "every": every}
    maps = kept.dataset["class_map"].values
    assert maps.dtype == np.uint8
    assert len(maps) == 2
    for image in (0, 1):
        for iy, ix, dy, dx in places():
            whole = outputs(name, image, dx, dy).argmax(0).numpy()
            middle = (every - 1) // 2
            found = maps[image, :, iy, ix].reshape(settings["rows"], settings["columns"])
            rows, columns = ([min(middle + every * k, side - 1) for k in range(-(-side // every))] for side in (H, W))
            assert (found == whole[np.ix_(rows, columns)]).mean() > 0.99  # rounding may decide a near tie


@pytest.mark.parametrize("name", ["detection", "detection without boxes"])
def test_boxes_are_those_of_the_net(name: str, tmp_path: Path) -> None:
    made = swept(name, tmp_path / "s.zarr", **KEEPING)
    assert made.kept is not None
    stored = made.kept.dataset.load()
    assert made.kept.header.task.settings == {"score_threshold": 0.5}
    n_boxes = 0
    for image in (0, 1):
        for iy, ix, dy, dx in places():
            table = outputs(name, image, dx, dy).numpy()
            sides = np.clip(table[:, :4], 0, [W, H, W, H])
            area = (sides[:, 2] - sides[:, 0]).clip(0) * (sides[:, 3] - sides[:, 1]).clip(0)
            chosen = (table[:, 4] >= 0.5) & (area > 0)
            here = stored.isel(image=image, dy=iy, dx=ix)
            there = here.kept_class.values < NO_BOX
            assert there.tolist() == [k < chosen.sum() for k in range(100)]
            assert here.kept_class.values[there].tolist() == table[chosen, 5].astype(int).tolist()
            names = ("kept_left", "kept_top", "kept_right", "kept_bottom")
            found = np.stack([here[each].values[there] for each in names], axis=1)
            assert found / 10 == pytest.approx(sides[chosen], abs=0.0501)
            assert here.kept_score.values[there] / 1000 == pytest.approx(table[chosen, 4], abs=0.000501)
            n_boxes += int(chosen.sum())
    assert n_boxes > 20


@pytest.mark.parametrize("name", ["detection", pytest.param("segmentation without masks", marks=pytest.mark.slow)])
def test_kept_outputs_are_resumed_added_mended_and_verified(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", GRID.n_shifts)
    whole = small.tree(swept(name, tmp_path / "whole.zarr", **KEEPING).path)
    n_main = N * GRID.n_shifts

    def stop(done: int, total: int) -> None:
        if done > n_main:
            raise KeyboardInterrupt

    path = tmp_path / "part.zarr"
    with pytest.raises(KeyboardInterrupt):
        swept(name, path, progress=stop, **KEEPING)
    with pytest.raises(StoreError, match=r"1 of 2 images are there"):
        assert sl.open_sweep(path).kept
    found = verify_sweep(path)
    assert [(fault.control, fault.what, fault.chunk) for fault in found.faults] == [("kept_outputs", "absent", 1)]
    assert "absent: chunk 1 of the kept outputs" in str(found)
    # What is asked for later is computed then, and what is there already never again; fewer are there already.
    seen: list[int] = []
    assert small.tree(swept(name, path, progress=lambda done, _: seen.append(done), **KEEPING).path) == whole
    assert seen[0] == n_main
    assert seen[-1] == n_main + GRID.n_shifts
    assert small.tree(swept(name, path, keep_outputs=1).path) == whole

    torn = next(p for p in (path / "kept_outputs").glob("*/c/1/**/*") if p.is_file() and "checksum" not in str(p))
    torn.write_bytes(torn.read_bytes()[:-3])
    assert [fault.what for fault in verify_sweep(path).faults] == ["torn"]
    assert small.tree(swept(name, path, **KEEPING).path) == whole
    # More than there are take the place of what is there; so does what belongs to another sweep.
    more = swept(name, path, keep_outputs=3)
    assert more.kept is not None
    assert more.kept.n_images == 3
    other = swept(name, tmp_path / "other.zarr", fill="mean", **KEEPING)
    (path / "kept_outputs").rename(tmp_path / "aside")
    (other.path / "kept_outputs").rename(path / "kept_outputs")
    assert "outputs of another sweep" in str(verify_sweep(path))
    assert small.tree(swept(name, path, **KEEPING).path) == whole
    assert verify_sweep(path).ok


def test_of_a_task_of_ones_own_nothing_is_kept() -> None:
    from tasks.test_swept_task import DRIFT

    with pytest.raises(InputError, match=r"keeps nothing of the task drift: masks .* and boxes .* are kept"):
        kept_task(DRIFT)


@pytest.mark.parametrize(
    ("task", "n", "grid", "why"),
    [
        ("classification", 1, GRID, "of the task classification: the page can drag every image"),
        ("dense", 1, GRID, r"of the task dense: masks \(segmentation\) and boxes \(detection\) are kept"),
        ("embedding", 1, GRID, "of the task embedding: masks"),
        (Segmentation(shape=(3, 500, 400)), 61, GRID, "from 0 to 60, got 61"),
        (Segmentation(shape=(3, 500, 400)), -1, GRID, "from 0 to 60, got -1"),
        (Segmentation(shape=(3, 500, 400)), True, GRID, "from 0 to 60, got True"),
        (Segmentation(shape=(3, 500, 400)), 60, ShiftGrid(64), r"take 12.5 GB .* 1.1 GB that are kept: .* at most 5"),
        (Segmentation(shape=(3, 500, 400)), 1, ShiftGrid(500), "sweep fewer shifts"),
        (Segmentation(shape=(2**15 + 1, 8, 8)), 1, GRID, r"masks of 32,769 classes .* at most 32,768"),
        (Detection(size=(900, 7000), shape=(100, 6)), 1, GRID, "at most 6,553 px, these are 900 x 7000"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_reason(task: Any, n: Any, grid: ShiftGrid, why: str) -> None:
    from shiftlens.tasks.stored_form import known_task

    with pytest.raises(InputError, match=why) as caught:
        kept_of(known_task(task), n, 100, grid)
    assert "\n" not in str(caught.value)
    assert kept_of(known_task(task), 0, 100, grid) == (None, 0)


def test_it_is_said_before_how_much_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    swept("segmentation", tmp_path / "s.zarr", keep_outputs=1)
    windows, n_bytes = GRID.n_shifts, GRID.n_shifts * H * W
    said = f"keeping the outputs of 1 image: {windows} windows are evaluated once more, {n_bytes / 1e6:.1f} MB before"
    assert said in caplog.text


CHILD = """
import os, signal, sys
from pathlib import Path
from tasks.test_durable_tasks import GRID, N, swept

def die(done, total):
    if done > N * GRID.n_shifts:
        os.kill(os.getpid(), signal.SIGKILL)

swept("detection", Path(sys.argv[1]), progress=die, keep_outputs=2)
"""


@pytest.mark.slow
def test_a_kill_while_outputs_are_kept_changes_nothing(tmp_path: Path) -> None:
    found = os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)}
    ended = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "s.zarr")], env=found, check=False)
    assert ended.returncode == -signal.SIGKILL
    again, whole = (small.tree(swept("detection", tmp_path / path, **KEEPING).path) for path in ("s.zarr", "w.zarr"))
    assert again == whole


@pytest.mark.slow
def test_workers_keep_the_same_bytes(tmp_path: Path) -> None:
    images = sl.load_images("digits-scenes", limit=2)
    options: dict[str, Any] = {"engine": "direct", "batch_size": 8, "dtype": "float32", "task": "detection"}
    one, two = (
        sl.sweep(
            "pretrained:detector-digits", images, ShiftGrid(8, 8), out=tmp_path / f"{cluster}.zarr", cluster=cluster,
            keep_outputs=1, **options,
        )
        for cluster in (None, "local:1")
    )  # fmt: skip
    assert small.tree(one.path) == small.tree(two.path)


def test_an_image_set_without_enough_images_keeps_all(tmp_path: Path) -> None:
    made = swept("detection", tmp_path / "s.zarr", keep_outputs=50)
    assert made.kept is not None
    assert made.kept.n_images == N == len(ImageSet(PIXELS))
