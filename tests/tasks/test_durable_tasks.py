"""What holds of a sweep holds for every task: resume, repair of a torn chunk, reuse, limits, workers; known answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shiftlens as sl
from shiftlens import sequential
from shiftlens.cli.measure import _without_objects
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError, ModelOutputError, StoreError
from shiftlens.models.loading import wrap
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import run_sweep, sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.integrity import verify_sweep
from sweeps import small_sweeps as small
from tasks.small_tasks import BOXES, CASES, MASKS, PIXELS, H, N, W, detector, unet, wrapped

GRID = ShiftGrid((4, 4), 4)
SLOW = ("segmentation", "segmentation without masks", "dense", "embedding")
SWEPT = ["detection", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


# One plan for all runs: a measured one may differ from run to run, and with it the last bits.
PLAN: dict[str, Any] = {"engine": "direct", "batch_size": 4, "dtype": "float32"}


def swept(name: str, path: Path, n: int = N, images: ImageSet | None = None, **options: Any) -> sl.Sweep:
    make, targets, task = CASES[name]
    images = images or ImageSet(PIXELS, targets).subset(np.arange(n))
    return sweep(wrapped(make()), images, GRID, out=path, task=task, **PLAN, **options)


@pytest.fixture
def single_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one image."""
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", GRID.n_shifts)


def stop(done: int, total: int) -> None:
    if done > total / 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", SWEPT)
@pytest.mark.usefixtures("single_images")
def test_a_sweep_is_resumed_mended_and_reused_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    controls = ("flip",)
    whole = small.tree(swept(name, tmp_path / "whole.zarr", controls=controls).path)
    with pytest.raises(KeyboardInterrupt):
        swept(name, tmp_path / "part.zarr", progress=stop)  # the control is added later
    assert 0 < sl.open_sweep(tmp_path / "part.zarr", partial=True).n_written < N
    assert small.tree(swept(name, tmp_path / "part.zarr", controls=controls).path) == whole
    assert verify_sweep(tmp_path / "part.zarr").ok

    torn = CASES[name][2].variables[-1].name
    next(p for p in (tmp_path / "part.zarr" / torn / "c" / "1").rglob("*") if p.is_file()).unlink()
    assert [fault.what for fault in verify_sweep(tmp_path / "part.zarr").faults] == ["torn"]
    assert small.tree(swept(name, tmp_path / "part.zarr", controls=controls).path) == whole

    swept(name, tmp_path / "few.zarr", n=2, controls=controls)
    if name == "embedding":
        # Ranks stay those in the gallery of the fewer images; who asks for another gallery is told of both.
        more = swept(name, tmp_path / "reused.zarr", reuse=tmp_path / "few.zarr", controls=controls)
        all_of, few = (sl.open_sweep(tmp_path / f"{each}.zarr") for each in ("whole", "few"))
        assert more.header.task.settings == few.header.task.settings != all_of.header.task.settings
        for control in (None, "flip"):
            found, before, complete = (s if control is None else s.control(control) for s in (more, few, all_of))
            np.testing.assert_array_equal(found.cells("rank")[:2], before.cells("rank")[:])
            np.testing.assert_array_equal(found.cells("cosine")[:], complete.cells("cosine")[:])
        digest = few.header.task.gallery_digest
        with pytest.raises(StoreError, match=f"embedding with other settings: .*{digest}.*, this run has .*sha256"):
            swept(name, tmp_path / "reused.zarr", controls=controls)
        note = sl.compare([all_of, more]).findings.named("other-gallery")
        assert note is not None
        assert f"3 ({all_of.header.task.gallery_digest[:19]}), 'reused' 2 ({digest[:19]})" in note.statement
        assert sl.compare([all_of, all_of]).findings.named("other-gallery") is None
        return
    reused = swept(name, tmp_path / "reused.zarr", reuse=tmp_path / "few.zarr", controls=controls)
    assert small.tree(reused.path) == whole


@pytest.mark.usefixtures("single_images")
@pytest.mark.parametrize("name", SWEPT)
def test_a_half_width_stops_a_sweep_which_is_resumed_to_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential, "FIRST_LOOK", 3)
    _, targets, task = CASES[name]
    wide, said = {"embedding": 1.9, "dense": 1e6}.get(name, 99.0), list[str]()
    many = ImageSet(
        np.random.default_rng(5).integers(0, 256, (3 * N, 1, H, W), dtype=np.uint8),
        None if targets is None else np.concatenate([targets] * 3) if name == "segmentation" else targets * 3,
    )
    whole = swept(name, tmp_path / "whole.zarr", images=many, half_width=0, controls=("flip",))
    metric = next(each for each in whole.metrics if np.isfinite(whole.mean_of(each)).any())
    some, stats = run_sweep(
        wrapped(CASES[name][0]()),
        many,
        GRID,
        out=tmp_path / "s.zarr",
        half_width=wide,
        task=task,
        announce=said.append,
        **PLAN,
    )
    assert (some.n_images, some.n_population, whole.half_width) == (3, 3 * N, 0)
    assert 0 < some.half_width <= wide
    assert (stats.metric, stats.unit) == (metric.name, metric.difference_unit)
    assert any(f"of 9 images every {metric.called} is known to ±" in text for text in said)
    with np.errstate(all="ignore"):
        means = np.array([np.nanmean(whole.cells(metric.name)[:3], axis=0, dtype=np.float64)])
    np.testing.assert_array_equal(some.mean_of(metric).values[None], means)
    if name in ("dense", "embedding"):
        found = sl.findings(some).of_kind("adaptive")
        assert f"confidence band for {metric.called} over all of them is ±" in found[0].statement
        assert found[0].estimate.unit == metric.difference_unit
    with pytest.raises(InputError, match=r"half-width in .*, from 0 \(all images\) to below"):
        swept(name, tmp_path / "s.zarr", images=many, half_width=-1)
    again = swept(name, tmp_path / "s.zarr", images=many, half_width=0, controls=("flip",))
    assert small.tree(again.path) == small.tree(whole.path)


CHILD = """
import os, signal, sys
from pathlib import Path
from tasks.test_durable_tasks import GRID, swept
from shiftlens.sweeps import request

request.CHUNK_EVALUATIONS = GRID.n_shifts

def die(done, total):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

swept(sys.argv[1], Path(sys.argv[2]), progress=die, half_width=eval(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "half_width"), [("detection", None), ("detection", 0), ("dense", 0), ("embedding", 0)]
)
@pytest.mark.usefixtures("single_images")
def test_a_killed_sweep_is_resumed_to_the_same_bytes(name: str, half_width: float | None, tmp_path: Path) -> None:
    found = os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)}
    arguments = [name, str(tmp_path / "s.zarr"), repr(half_width)]
    ended = subprocess.run([sys.executable, "-c", CHILD, *arguments], env=found, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert 0 < sl.open_sweep(tmp_path / "s.zarr", partial=True).n_written < N
    again, whole = (swept(name, tmp_path / path, half_width=half_width) for path in ("s.zarr", "whole.zarr"))
    assert small.tree(again.path) == small.tree(whole.path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "task", "half_width"),
    [
        ("detector", "detection", None),
        ("detector", "detection", 0),
        ("unet", "segmentation", 0),
        ("unet", "dense", None),
    ],
)
def test_workers_compute_the_same_bytes(net: str, task: str, half_width: float | None, tmp_path: Path) -> None:
    images = sl.load_images("digits-scenes", limit=3)
    model = sl.load_model(f"pretrained:{net}-digits")
    options: dict[str, Any] = {"engine": "direct", "batch_size": 8, "dtype": "float32", "task": task}
    options["half_width"] = half_width
    one, two = (
        sweep(model, images, ShiftGrid((8, 8), 8), out=tmp_path / f"{cluster}.zarr", cluster=cluster, **options)
        for cluster in (None, "local:1")
    )
    assert small.tree(one.path) == small.tree(two.path)


# ---- known answers


class Circular(nn.Module):
    """Moves along with its input, exactly: weights are powers of two, so that no sum is rounded."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", stride=stride)
        torch.manual_seed(0)
        for values in self.conv.parameters():
            values.data = torch.randint(-2, 3, values.shape).float()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        repeats = x.shape[-1] // maps.shape[-1]
        return maps.repeat_interleave(repeats, 2).repeat_interleave(repeats, 3)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_circular_net_moves_along_exactly_at_multiples_of_its_stride(stride: int, tmp_path: Path) -> None:
    model = wrap(Circular(stride), mean=0, std=1 / 255, size=(H, W))  # pixels stay whole numbers
    made = {
        task: sweep(model, ImageSet(PIXELS), ShiftGrid((4, 4)), out=tmp_path / f"{task}.zarr", fill="wrap", task=task)
        for task in ("segmentation", "dense")
    }
    agreement, mse = made["segmentation"].mean_of("pixel_agreement"), made["dense"].mean_of("mse")
    psnr = made["dense"].of_dataset("psnr")
    on_grid = (agreement.dy % stride == 0) & (agreement.dx % stride == 0)
    assert (agreement == 1).where(on_grid, True).all()
    assert (agreement == 1).all() == (stride == 1)
    assert ((mse == 0) == on_grid).all()
    assert (np.isinf(psnr) == on_grid).all()
    if stride == 1:
        told = sl.evaluate(model, ImageSet(PIXELS), shift=sl.Shift(3, -2), fill="wrap", task="dense")
        assert any(line.startswith("PSNR infinite") for line in told.lines())


class Constant(nn.Module):
    """Sees the same box everywhere."""

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        box = torch.tensor([[10.0, 8.0, 20.0, 16.0]])
        found = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
        return [found for _ in x]


def test_a_detector_of_constants_has_recall_by_overlap_alone(tmp_path: Path) -> None:
    boxes = [{"boxes": [[10, 8, 20, 16]], "labels": [1]}] * N
    model = wrap(Constant(), mean=0.5, std=0.25, size=(H, W))
    made = sweep(model, ImageSet(PIXELS, boxes), ShiftGrid((4, 6)), out=tmp_path / "s.zarr", task="detection")
    recall, confidence, ap50 = made.mean_of("recall"), made.mean_of("confidence"), made.of_dataset("ap50")
    for dy in made.grid.dys.tolist():
        for dx in made.grid.dxs.tolist():
            common = max(10 - abs(dx), 0) * max(8 - abs(dy), 0)
            reached = common / (160 - common) >= 0.5
            at = {"dy": dy, "dx": dx}
            assert float(recall.sel(at)) == reached
            assert float(confidence.sel(at)) == pytest.approx(0.9 * reached)
            assert float(ap50.sel(at)) == reached


# ---- bad input


def test_an_image_without_boxes_has_no_recall_and_is_counted(tmp_path: Path) -> None:
    made = swept("detection", tmp_path / "s.zarr")
    assert _without_objects(made) == ["1 image has no objects: left out of recall, which is not defined there"]
    recall = made.cells("recall")[:]
    assert np.isnan(recall[1]).all()
    assert np.isfinite(recall[[0, 2], 1, 1]).all()
    centre = np.nanmean(recall[:, 1, 1])
    assert float(made.mean_of("recall").sel(dy=0, dx=0)) == pytest.approx(centre)


class Broken(nn.Module):
    """Answers in another way from the second batch on."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.net, self.change, self.n_calls = detector(), change, 0

    def forward(self, x: Tensor) -> Any:
        self.n_calls += 1
        found = self.net(x)
        return found if self.n_calls < 4 else self.change(found)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda found: [{**each, "scores": each["scores"] * torch.nan} for each in found], "not finite"),
        (lambda found: torch.zeros(len(found), 3), "expected a list of boxes, scores and labels, got Tensor"),
        (lambda found: [{"boxes": each["boxes"]} for each in found], "expected a list of boxes, scores and labels"),
        (lambda found: found[1:], "1 rows of logits for a batch of 2"),
    ],
)
def test_a_detector_that_changes_its_answer_is_refused(change: Any, why: str, tmp_path: Path) -> None:
    model = wrap(Broken(change), mean=0.5, std=0.25, size=(H, W))
    with pytest.raises(ModelOutputError, match=why) as caught:
        sweep(model, ImageSet(PIXELS, BOXES), GRID, out=tmp_path / "s.zarr", task="detection", batch_size=4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda found: found * torch.nan, "not finite"),
        (lambda found: found[:, :2], r"expected scores \(\d+, 2304\) for a batch of \d+, the model gave \(\d+, 1536\)"),
        (lambda found: [{"boxes": found}], "expected a tensor as for the first images, got list"),
    ],
)
def test_a_segmenter_that_changes_its_answer_is_refused(change: Any, why: str, tmp_path: Path) -> None:
    net = Broken(change)
    net.net = unet()
    model = wrap(net, mean=0.5, std=0.25, size=(H, W))
    with pytest.raises(ModelOutputError, match=why):
        sweep(model, ImageSet(PIXELS, MASKS), GRID, out=tmp_path / "s.zarr", task="segmentation", batch_size=4)


def test_class_numbers_with_gaps_are_kept(tmp_path: Path) -> None:
    class Far(nn.Module):
        def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
            box = torch.tensor([[2.0, 3.0, 12.0, 11.0], [15.0, 10.0, 30.0, 22.0]])
            return [{"boxes": box, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([7, 90])} for _ in x]

    boxes = [{"boxes": [[2, 3, 12, 11], [15, 10, 30, 22]], "labels": [7, 90]}] * N
    model = wrap(Far(), mean=0.5, std=0.25, size=(H, W))
    made = sweep(model, ImageSet(PIXELS, boxes), ShiftGrid((0, 1)), out=tmp_path / "s.zarr", task="detection")
    assert float(made.mean_of("recall").sel(dy=0, dx=0)) == 1
    assert float(made.of_dataset("ap").sel(dy=0, dx=0)) == 1
    assert made.objects("object_class").values[:2, 0, 1].tolist() == [7, 90]


def test_a_mask_of_a_class_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    masks = MASKS.copy()
    masks[2, 0, 0] = 9
    with pytest.raises(InputError, match="mask of image 2 of images has class 9, the model has the classes 0 to 2"):
        sweep(wrapped(unet()), ImageSet(PIXELS, masks), GRID, out=tmp_path / "s.zarr", task="segmentation")
    assert not list(tmp_path.iterdir())
