"""AP, mean IoU and PSNR of the data set at each shift of a sweep, and `evaluate`: held against plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import shiftlens as sl
from reference_coco import data_set_ap, data_set_iou
from shiftlens.data.imageset import ImageSet
from shiftlens.devices import machine_kind
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.on_device import DeviceEvaluator
from shiftlens.engine.plan import Plan
from shiftlens.errors import InputError
from shiftlens.evaluation import TaskEvaluation, evaluate
from shiftlens.models.adapting import adapted, targets_of
from shiftlens.shifts import Fill, Shift, ShiftGrid, translate
from shiftlens.sweeping import sweep
from shiftlens.sweeps import sweep_result
from shiftlens.sweeps.request import images_per_chunk
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.stored_form import task_from_table, task_to_table
from shiftlens.tasks.task import OBJECT, Task, beyond, objects_of
from tasks.small_tasks import BOXES, CASES, MASKS, PIXELS, H, N, W, detector, raw, unet, vectors, wrapped

GRID = ShiftGrid((4, 4), 4)


def swept(name: str, path: Path) -> sl.Sweep:
    make, targets, task = CASES[name]
    return sweep(wrapped(make()), ImageSet(PIXELS, targets), GRID, out=path / "s.zarr", task=task)


def outputs(name: str, dx: int, dy: int) -> NDArray[Any]:
    x = torch.from_numpy(PIXELS).float() / 255
    with torch.no_grad():
        return raw(CASES[name][0](), (translate(x, dx, dy, fill="black") - 0.5) / 0.25).numpy()


def by_hand(name: str, dx: int, dy: int) -> dict[str, float]:
    found = outputs(name, dx, dy)
    if name == "detection":
        objects = [[[*box, label] for box, label in zip(each["boxes"], each["labels"], strict=True)] for each in BOXES]
        ap, ap50 = data_set_ap(list(zip(objects, found, strict=True)), (H, W), (dx, dy))
        return {"ap": ap, "ap50": ap50}
    if name == "segmentation":
        return {"dataset_mean_iou": data_set_iou(list(zip(MASKS, found.argmax(1), strict=True)), (dx, dy))}
    still = outputs(name, 0, 0)
    moved = np.roll(still, (dy, dx), axis=(2, 3))
    rows, columns = slice(max(dy, 0), H + min(dy, 0)), slice(max(dx, 0), W + min(dx, 0))
    mse = np.square((found - moved)[..., rows, columns].astype(np.float64)).mean(axis=(1, 2, 3)).mean()
    peak = float(still.max()) - float(still.min())
    return {"psnr": 10 * np.log10(peak**2 / mse) if mse else np.inf}


@pytest.mark.parametrize(("name", "memory"), [("detection", 400), ("segmentation", 2**25), ("dense", 30)])
def test_the_map_of_a_data_set_is_a_plain_loop(
    name: str, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_result, "DATASET_NUMBERS", memory)
    made = swept(name, tmp_path)
    maps = {each.name: made.of_dataset(each) for each in made.dataset_metrics}
    for dy in GRID.dys.tolist():
        for dx in GRID.dxs.tolist():
            expected = by_hand(name, dx, dy)
            found = {key: float(values.sel(dy=dy, dx=dx)) for key, values in maps.items()}
            if name == "dense" and dx == dy == 0:
                assert found["psnr"] > 120, "the batch is computed otherwise than each image alone: float32 rounds"
                continue
            assert found == pytest.approx(expected, rel=1e-5), (dx, dy)
    some = made.of_dataset(made.dataset_metrics[0], every=2)
    np.testing.assert_array_equal(some, maps[some.name].sel(dy=[0], dx=[0]))
    with pytest.raises(InputError, match="unknown metric of the data set 'accuracy'"):
        made.of_dataset("accuracy")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [None, 2])
def test_evaluate_is_a_cell_of_the_sweep(name: str, batch: int | None, tmp_path: Path) -> None:
    make, targets, task = CASES[name]
    result = evaluate(
        wrapped(make()), ImageSet(PIXELS, targets), shift=Shift(4, -4), task=task, batch_size=batch, fill="black"
    )
    assert isinstance(result, TaskEvaluation)
    made = swept(name, tmp_path) if batch is None else None
    for key, score in result.scores.items():
        assert score.interval is None or score.interval[0] <= score.value + 1e-9
        assert score.interval is None or score.value <= score.interval[1] + 1e-9
        if made is None:
            continue
        whole = key in {each.name for each in made.dataset_metrics}
        stored = made.of_dataset(key) if whole else made.mean_of(key)
        assert score.value == pytest.approx(float(stored.sel(dy=-4, dx=4)), rel=1e-5, abs=1e-7), key
        assert score.n == (N if whole else int(np.isfinite(made.cells(key)[:][:, 0, 2]).sum()))
    text = "\n".join(result.lines())
    assert "nan" not in text
    assert ("recall" in text) == name.startswith("detection")
    assert ("dataset mean IoU" in text) == (name in ("segmentation", "segmentation of a small map"))


def test_evaluate_says_what_is_left_out_and_what_is_infinite() -> None:
    result = evaluate(wrapped(detector()), ImageSet(PIXELS, BOXES), task="detection")
    assert isinstance(result, TaskEvaluation)
    assert result.scores["recall"].n == N - 1
    assert any("recall" in line and "without 1 image that does not have it" in line for line in result.lines())
    same = evaluate(wrapped(unet()), ImageSet(PIXELS), task="dense")
    assert "PSNR infinite dB: PSNR by the range of the reference" in same.lines()
    assert same.to_dict()["psnr"] is None
    assert same.to_dict()["mae"] == 0
    assert same.scores["mae"].interval is None
    assert any("MAE 0 (no interval: these images do not differ)" in line for line in same.lines())
    assert same.to_dict()["shift"] == [0, 0]


@pytest.mark.parametrize(
    ("make", "targets", "task", "why"),
    [
        (unet, None, "detection", "detection needs lists of boxes, scores and labels"),
        (unet, MASKS + 1, "segmentation", "mask of image 0 of images has class 3, the model has the classes 0 to 2"),
        (vectors, None, "segmentaton", "did you mean 'segmentation'"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(make: Any, targets: Any, task: Task | str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        evaluate(wrapped(make()), ImageSet(PIXELS, targets), task=task)


def test_without_boxes_all_is_called_self_consistency(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = ImageSet(PIXELS)
    made = sweep(wrapped(detector()), images, GRID, out=tmp_path / "s.zarr", task="detection")
    assert "images has no boxes: the model's own detections stand in, by the task detection-consistency" in caplog.text
    assert made.header.data_digest == images.digest, "what the model finds is no part of the data"
    names = {each.name for each in (*made.metrics, *made.dataset_metrics)}
    assert all(name.startswith("self_consistency_") for name in names), names
    assert made.header.task.by_place is not None
    assert made.header.task.by_place.name.startswith("self-consistency recall")
    assert float(made.mean_of("self_consistency_recall").sel(dy=0, dx=0)) == 1
    assert float(made.of_dataset("self_consistency_ap50").sel(dy=0, dx=0)) > 0.5
    told = evaluate(wrapped(detector()), images, task="detection", shift=Shift(4, 4))
    assert isinstance(told, TaskEvaluation)
    assert told.scores.keys() == names
    assert all("self-consistency" in line or "detection-consistency" in line for line in told.lines())

    class Blind(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            empty = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
            return [empty for _ in x]

    with pytest.raises(InputError, match=r"detects nothing of a score of at least 0.5 in it: nothing can be followed"):
        sweep(wrapped(Blind()), images, GRID, out=tmp_path / "none.zarr", task="detection")
    assert not (tmp_path / "none.zarr").exists()


@pytest.mark.parametrize("name", ["detection", "segmentation"])
def test_the_path_of_a_gpu_has_the_same_rows(name: str) -> None:
    make, targets, asked = CASES[name]
    images = ImageSet(PIXELS, targets)
    model, task = adapted(wrapped(make()).at((H, W)), asked, (H, W))
    plan = Plan("direct", "float32", 4, False, False, False, "cpu", machine_kind(torch.device("cpu")))
    found = [
        path(model, plan, GRID, Fill.parse("black"))(images.batch(slice(0, N)), targets_of(images, task), task=task)
        for path in (DirectEvaluator, DeviceEvaluator)
    ]
    for each in task.variables:
        of_objects = objects_of(task, targets_of(images, task)) if each.dims == OBJECT else None
        for rows in found:
            if of_objects is not None:
                rows[each.name][beyond(of_objects, rows[each.name].shape[1])] = 0  # what is there, nobody looks at
        np.testing.assert_allclose(found[0][each.name], found[1][each.name], rtol=1e-5, atol=1e-6, err_msg=each.name)


def test_a_sweep_made_before_there_were_ranks_is_read() -> None:
    table = task_to_table(Detection())
    later = ("object_class", "detection_score", "detection_class", "detection_hits", "detection_ignored")
    table["variables"] = [each for each in table["variables"] if each["name"] not in later]
    read = task_from_table(table)
    assert isinstance(read, Detection)
    assert [each.name for each in read.variables][-3:] == ["object_confidence", "found", "shown"]
    table["variables"][0]["unit"] = "px"
    with pytest.raises(InputError, match="expected the variables of detection, got others"):
        task_from_table(table)


def test_chunks_hold_fewer_images_where_much_is_stored_of_each_window() -> None:
    assert images_per_chunk(100, 4_225, None, 1_000) == 16
    assert images_per_chunk(100, 4_225, None, 1_000, n_numbers=400) == 2**23 // 400 // 4_225 == 4
    assert images_per_chunk(100, 4_225, None, 1_000, n_numbers=10**6) == 1
