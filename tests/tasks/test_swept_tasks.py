"""Segmentation, dense outputs, embeddings, detection: swept from a model to a file, held against a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shiftlens as sl
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError, StoreError
from shiftlens.models.loading import wrap
from shiftlens.shifts import ShiftGrid, translate
from shiftlens.sweeping import sweep
from shiftlens.sweeps.request import targets_of
from shiftlens.sweeps.sweep_result import open_sweep
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.embedding import Embedding
from shiftlens.tasks.task import OBJECT
from tasks.small_tasks import BOXES, CASES, GRID, MASKS, PIXELS, H, N, W, detector, raw, unet, vectors, wrapped


def own_detections(tables: Tensor) -> list[dict[str, Any]]:
    """The detections of a score of at least 0.5, as boxes that are followed."""
    found: list[dict[str, Any]] = []
    for table in tables.detach().double().tolist():
        cut = [[min(max(x, 0), limit) for x, limit in zip(row[:4], (W, H, W, H), strict=True)] for row in table]
        kept = [k for k, b in enumerate(cut) if table[k][4] >= 0.5 and b[2] > b[0] and b[3] > b[1]]
        found.append({"boxes": [cut[k] for k in kept], "labels": [int(table[k][5]) for k in kept]})
    assert any(each["labels"] for each in found)
    return found


@pytest.mark.parametrize(
    ("control", "name"),
    [
        *((control, name) for control in (None, "flip") for name in CASES),
        *(("occlusion", name) for name in ("segmentation", "dense", "detection")),
    ],
)
def test_a_sweep_is_a_plain_loop_over_images_and_shifts(name: str, control: str | None, tmp_path: Path) -> None:
    make, targets, task = CASES[name]
    images, net = ImageSet(PIXELS, targets), make()
    made = sweep(wrapped(net), images, GRID, out=tmp_path / "s.zarr", task=task, controls=(control,) if control else ())
    found = made if control is None else made.control(control)
    x = torch.from_numpy(PIXELS).float() / 255
    x = x.flip(-1) if control == "flip" else x
    bound = made.header.task
    shape = (3, H, W) if "segmentation" in name or name == "dense" else (100, 6)
    if hasattr(bound, "shape"):
        detects = name.startswith("detection")
        # A quarter of the frame; the smallest net sees 3 px to a side.
        margin = {"margin": 3 if name == "segmentation of a small map" else 6}
        assert bound.settings == (task.settings if detects else margin)
        limits = {"size": (H, W)} if detects else {}
        bound = type(bound)(**{**bound.settings, "shape": shape, **limits})
    if name == "detection without boxes":
        plain = torch.from_numpy(PIXELS).float() / 255
        with torch.no_grad():
            images = ImageSet(PIXELS, own_detections(raw(net, (plain - 0.5) / 0.25)))
    truth = torch.from_numpy(np.array(targets_of(images, bound)))
    truth = bound.mirrored(truth) if control == "flip" else truth
    if isinstance(bound, Embedding):
        assert bound.settings == {"n_gallery": N, "gallery_digest": images.digest}
        with torch.no_grad():
            bound = bound.with_gallery(raw(net, (torch.from_numpy(PIXELS).float() / 255 - 0.5) / 0.25))
    with torch.no_grad():
        unshifted = raw(net, (x - 0.5) / 0.25).flatten(1)
        largest = float(unshifted.abs().max())
        state = bound.prepare(unshifted, truth)
        for k in range(N):
            mine = {key: each[[k]] for key, each in state.items()}
            for (iy, dy), (ix, dx) in ((y, z) for y in enumerate(GRID.dys) for z in enumerate(GRID.dxs)):
                window = translate(x[[k]], int(dx), int(dy), fill="black")
                if control == "occlusion":  # what is out of the frame is blank, and all else where it was
                    window = translate(window, -int(dx), -int(dy), fill="black")
                out = raw(net, (window - 0.5) / 0.25).flatten(1)
                if control == "occlusion" and name.startswith("detection"):
                    table = out.reshape(100, 6).clone()
                    limits = torch.tensor([W, H, W, H])
                    table[:, :4] = table[:, :4].clamp(min=0).minimum(limits) + torch.tensor([dx, dy, dx, dy])
                    out = table.reshape(1, -1)
                elif control == "occlusion" and not isinstance(bound, Embedding):
                    out = translate(out.reshape(1, *shape), int(dx), int(dy), fill="black").flatten(1)
                rows = bound.outcome(out, torch.tensor([[dx, dy]]), mine)
                for each in bound.variables:
                    if each.is_accumulator:
                        continue
                    got = found.cells(each.name)[k : k + 1][0]
                    got = got[: int(found.dataset.n_objects[k])] if each.dims == OBJECT else got
                    got = got[..., iy, ix]
                    expected = rows[each.name][0].numpy()
                    expected = expected[: len(got)] if np.ndim(got) else expected
                    # Differences of outputs have the rounding of the outputs, which reach thousands.
                    atol = max(1e-5, 1e-6 * largest) if each.unit == "px" or name == "dense" else 1e-5
                    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=atol, err_msg=f"{each.name} {dx} {dy}")


@pytest.mark.parametrize("name", CASES)
def test_findings_plots_and_the_report_take_every_task(name: str, tmp_path: Path) -> None:
    make, targets, task = CASES[name]
    made = sweep(wrapped(make()), ImageSet(PIXELS, targets), GRID, out=tmp_path / "s.zarr", task=task)
    assert open_sweep(tmp_path / "s.zarr").header.task == made.header.task
    text = str(sl.findings(made))
    assert "nan" not in text
    commands = [each.action.command for each in sl.findings(made) if each.action is not None]
    assert not [
        c for c in commands if "--control" in c and c[c.index("--control") + 1] not in made.header.task.controls
    ]
    assert ("The confidence of the same object swings by" in text) == name.startswith("detection")
    together = {"detection": "AP50 of all images", "dense": "PSNR of all images", "embedding": ""}
    expected = together.get(name, "self-consistency AP50 of" if "detection" in name else "mean IoU of all")
    assert ("images together is" in text) == (name not in ("embedding", "segmentation without masks"))
    assert name == "segmentation without masks" or expected.lower() in text.lower()
    assert ("self-consistency recall" in text.lower()) == (name == "detection without boxes")
    assert ("px of a border, the" in text) == (name != "embedding")
    assert ("by-place" in sl.plot(made)) == (name != "embedding")
    assert sl.report([made], tmp_path / "r.html").path.exists()


def test_another_setting_of_a_task_is_another_sweep(tmp_path: Path) -> None:
    images = ImageSet(PIXELS, BOXES)
    sweep(wrapped(detector()), images, GRID, out=tmp_path / "s.zarr", task=Detection(score_threshold=0.4))
    with pytest.raises(StoreError, match=r"detection with other settings: .*0\.4.*, this run has .*0\.5"):
        sweep(wrapped(detector()), images, GRID, out=tmp_path / "s.zarr", task="detection")


@pytest.mark.parametrize(
    ("make", "targets", "task", "why"),
    [
        (
            unet,
            None,
            "detection",
            "detection needs lists of boxes, scores and labels, the model gives numbers of shape",
        ),
        (detector, BOXES, "segmentation", "segmentation needs a map over the image, the model gives lists of boxes"),
        (vectors, None, "dense", r"dense needs a map over the image, the model gives numbers of shape \[12\]"),
        (unet, None, "embedding", "an embedding is a vector for each image"),
        (unet, MASKS[:, :10], "segmentation", "masks of images are 10x32, its images 24x32"),
        (
            unet,
            BOXES,
            "classification",
            "images has no class labels but boxes.*name the task, such as --task detection",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    make: Callable[[], nn.Module], targets: Any, task: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=why) as caught:
        sweep(wrapped(make()), ImageSet(PIXELS, targets), GRID, out=tmp_path / "s.zarr", task=task)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (MASKS[:2], "masks of images must be as many as the images: expected 3, got 2"),
        (MASKS.astype(np.float32), "must be whole numbers from 0 to 255"),
        (BOXES[:2], "tables of boxes of images must be as many as the images: expected 3, got 2"),
        ([{"boxes": [[0, 0, 1, 1]]}] * 3, "image 0 of images needs labels"),
        ([{"boxes": [[5, 0, 1, 1]], "labels": [0]}] * 3, r"box 0 of image 0 of images is \[5.0, 0.0, 1.0, 1.0\]"),
        ([{"boxes": [[0, 0, 1, float("nan")]], "labels": [0]}] * 3, "box 0 of image 0"),
        ([{"boxes": [[0, 0, 1, 1]], "labels": [-1]}] * 3, "must be whole numbers from 0"),
        ([{"boxes": [[0, 0, 1, 1]], "labels": [0, 1]}] * 3, r"needs boxes \[k, 4\] and labels \[k\]"),
    ],
)
def test_targets_that_are_none_are_refused(targets: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        ImageSet(PIXELS, targets)


def test_a_box_outside_of_its_image_is_refused(tmp_path: Path) -> None:
    outside = [*BOXES[:2], {"boxes": [[0, 0, 5, 5], [0, 0, 40, 20]], "labels": [1, 1]}]
    with pytest.raises(InputError, match=r"box 1 of image 2 of images is .* outside of the image of 24x32"):
        sweep(wrapped(detector()), ImageSet(PIXELS, outside), GRID, out=tmp_path / "s.zarr", task="detection")


def test_targets_are_part_of_a_sets_digest() -> None:
    other = MASKS.copy()
    other[1, 3, 4] += 1
    digests = {ImageSet(PIXELS, targets).digest for targets in (None, MASKS, other, BOXES, [0, 0, 0])}
    assert len(digests) == 4, "no labels and labels 0 show the same"
    whole = ImageSet(PIXELS, MASKS)
    assert whole.subset([2, 0]).targets is not None
    np.testing.assert_array_equal(whole.subset([2, 0]).targets.masks, MASKS[[2, 0]])


BOTH = [{**boxes, "mask": mask} for boxes, mask in zip(BOXES, MASKS, strict=True)]


def test_images_with_masks_and_boxes_serve_both_tasks_alike(tmp_path: Path) -> None:
    both = ImageSet(PIXELS, BOTH)
    assert both.targets is not None
    assert both.targets.kind == "masks and boxes"
    assert len({ImageSet(PIXELS, targets).digest for targets in (BOTH, MASKS, BOXES)}) == 3
    for make, alone, task, name in (
        (unet, MASKS, "segmentation", "mean_iou"),
        (detector, BOXES, "detection", "recall"),
    ):
        found = [
            sweep(wrapped(make()), images, GRID, out=tmp_path / f"{task}{k}.zarr", task=task)
            for k, images in enumerate((both, ImageSet(PIXELS, alone)))
        ]
        np.testing.assert_array_equal(found[0].cells(name)[:], found[1].cells(name)[:])
    some = both.subset([2]).targets
    assert some is not None
    assert some.masks is not None
    assert some.boxes is not None
    np.testing.assert_array_equal(some.masks, MASKS[[2]])
    assert some.boxes[0, 0].tolist() == [0, 0, 20, 20, 1]


def test_masks_beside_boxes_are_checked() -> None:
    with pytest.raises(InputError, match="image 1 of images needs a mask, as image 0 has one"):
        ImageSet(PIXELS, [BOTH[0], BOXES[1], BOTH[2]])
    with pytest.raises(InputError, match=r"all of one size, got \(3, 32\) for image 2"):
        ImageSet(PIXELS, [*BOTH[:2], {**BOXES[2], "mask": MASKS[2, :3]}])
    with pytest.raises(InputError, match="must be whole numbers from 0 to 255"):
        ImageSet(PIXELS, [{**each, "mask": each["mask"] / 2} for each in BOTH])


@pytest.mark.parametrize(("make", "task"), [(unet, "segmentation"), (detector, "detection")])
def test_boxes_and_masks_follow_a_resize(make: Callable[[], nn.Module], task: str, tmp_path: Path) -> None:
    model = wrap(make(), mean=0.5, std=0.25, size=(2 * H, 2 * W))
    found = sweep(model, ImageSet(PIXELS, BOTH), ShiftGrid((1, 1), 1), out=tmp_path / "s.zarr", task=task)
    larger = ImageSet(PIXELS).fitted((2 * H, 2 * W)).batch(range(len(PIXELS)))
    both = [{"boxes": 2.0 * np.asarray(each["boxes"]), "labels": each["labels"]} for each in BOTH]
    masks = [{"mask": each["mask"].repeat(2, 0).repeat(2, 1)} for each in BOTH]
    scaled = ImageSet(larger, [first | second for first, second in zip(both, masks, strict=True)])
    expected = sweep(model, scaled, ShiftGrid((1, 1), 1), out=tmp_path / "e.zarr", task=task)
    for name in set(found.dataset.data_vars) - {"checksum"}:
        np.testing.assert_array_equal(found.dataset[name].values, expected.dataset[name].values, err_msg=str(name))


def test_a_task_without_targets_takes_resized_images_that_have_some(tmp_path: Path) -> None:
    model = wrap(vectors(), mean=0.5, std=0.25, size=(2 * H, 2 * W))
    sweep(model, ImageSet(PIXELS, BOTH), ShiftGrid((1, 1), 1), out=tmp_path / "s.zarr", task="embedding")
