"""Images with boxes and masks from files: COCO, YOLO, folders of masks, torch data sets in torchvision's form."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.data.images import load_images
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError
from shiftlens.models.matching import targets_for
from shiftlens.models.wrapping import wrap
from shiftlens.narrative.setting import Setting

RNG = np.random.default_rng(3)


def picture(path: Path, size: tuple[int, int] = (20, 30), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def mask_file(path: Path, classes: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(classes.astype(np.uint8))
    if palette:
        image = image.convert("P")
        image.putdata(classes.astype(np.uint8).ravel().tolist())
        image.putpalette([7 * k % 256 for k in range(768)])
    image.save(path)


def annotations() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 20, "width": 30},
            {"id": 3, "file_name": "sub/b.png"},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 90, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [2, 3, 10, 5], "segmentation": [[2, 3, 12, 3, 12, 8]]},
            {
                "id": 2,
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 30.4, 20],
                "iscrowd": 1,
                "segmentation": {"size": [20, 30], "counts": [590, 10]},
            },
        ],
    }


def coco(tmp_path: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> str:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/sub/b.png", (16, 24))
    content = annotations()
    change(content)
    (tmp_path / "ann.json").write_text(json.dumps(content))
    return f"coco:{tmp_path}/images,{tmp_path}/ann.json"


# ---- COCO


def test_coco_boxes_keep_category_ids_with_gaps_and_crowds_are_marked(tmp_path: Path) -> None:
    images = load_images(coco(tmp_path))
    assert images.targets is not None
    assert images.targets.boxes is not None
    assert images.targets.boxes[0].tolist() == [[2, 3, 12, 8, 90], [0, 0, 30, 20, -3]]  # clipped; -2 - 1: a crowd of 1
    assert (images.targets.boxes[1, :, 4] == -1).all()  # an image without objects
    assert (images.class_names[1], images.class_names[2], images.class_names[90]) == ("cat", "2", "dog")
    only = images.targets.only("boxes")
    assert only is not None
    assert only.classes == {1, 90}
    assert (images.size, images.labelled) == (None, False)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_coco_masks_are_drawn_as_cocos_own_code_draws_them(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    oracle = pytest.importorskip("pycocotools.mask")
    shape = (RNG.random((20, 30)) > 0.6).astype(np.uint8)
    packed = oracle.encode(np.asfortranarray(shape))

    def add(content: dict[str, Any]) -> None:
        code = {"size": [20, 30], "counts": packed["counts"].decode()}
        content["annotations"].insert(
            0, {"id": 3, "image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": code}
        )

    images = load_images(coco(tmp_path, add))
    assert images.targets is not None
    assert images.targets.masks is not None
    polygon = oracle.decode(oracle.merge(oracle.frPyObjects([[2, 3, 12, 3, 12, 8]], 20, 30)))
    expected = np.where(polygon == 1, 90, shape)
    expected = np.where(
        oracle.decode(oracle.frPyObjects({"size": [20, 30], "counts": [590, 10]}, 20, 30)), 255, expected
    )
    np.testing.assert_array_equal(images.targets.masks[[0]][0], expected)
    assert not images.targets.masks[[1]].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append({"id": 8, "file_name": "gone.png"}), "1 of 3 images .* not in .*: gone.png"),
        (lambda c: c["images"][0].update(file_name="../../etc/passwd"), "leads out of the folder"),
        (lambda c: c["images"][0].update(id=3), "image id 3 twice"),
        (lambda c: c["annotations"][0].update(bbox=[2, 3, -10, 5]), r"box 0 of a.png is \[2.0, 3.0, -10.0, 5.0\]"),
        (
            lambda c: c["annotations"][0].update(bbox=[2, 3, 40, 5]),
            r"box 0 of a.png is .*, outside of the image of 20x30",
        ),
        (lambda c: c["annotations"][0].update(bbox=[50, 3, 4, 5]), r"box 0 of a.png is .*, outside of the image"),
        (lambda c: c["annotations"][0].update(bbox=[2, 3]), r"annotations.0.bbox: "),
        (lambda c: c["annotations"][0].update(bbox=[2, float("nan"), 2, 2]), "box 0 of a.png"),
        (lambda c: c["annotations"][0].update(category_id=4), "annotation 0 has category id 4, which"),
        (lambda c: c["annotations"][0].update(image_id=5), "annotation 0 is of image 5, which"),
        (lambda c: c["categories"][0].update(id=10**9), "categories.0.id: "),
        (lambda c: c.pop("images"), "no COCO annotations: images: Field required"),
        (lambda c: c["images"].clear(), "lists no images"),
    ],
)
def test_coco_files_that_are_none_are_refused_in_a_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_images(coco(tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 200_000, b'{"images": 3}', b"\xff\xfe"])
def test_coco_files_that_are_no_json(tmp_path: Path, content: bytes) -> None:
    spec = coco(tmp_path)
    (tmp_path / "ann.json").write_bytes(content)
    with pytest.raises(InputError, match="no COCO annotations"):
        load_images(spec)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [20, 30], "counts": [1, 2]},
        {"size": [20, 30], "counts": "zzzzzzzzzzzzzzzzzzzzzzzz"},
        {"size": [10**6, 10**6], "counts": "0"},
        {"size": [20, 30], "counts": [10**12]},
        [[1, 2, 3]],
        [[0, 0, 1e30, 0, 5, 5]],
        "polygon",
    ],
)
def test_segmentations_that_are_none_are_refused_in_a_line(tmp_path: Path, segmentation: Any) -> None:
    pytest.importorskip("faster_coco_eval")
    images = load_images(coco(tmp_path, lambda c: c["annotations"][0].update(segmentation=segmentation)))
    assert images.targets is not None
    assert images.targets.masks is not None
    with pytest.raises(InputError, match=r"segmentation 0 of a\.png"):
        images.targets.masks[[0]]


@pytest.mark.parametrize("spec", ["coco:", "coco:a", "coco:,x.json", "masks:images", "masks:a,", "images:", "yolo:"])
def test_specs_that_lack_a_part(spec: str) -> None:
    with pytest.raises(InputError, match="expected"):
        load_images(spec)


# ---- resizing


def test_masks_and_boxes_follow_the_resized_images() -> None:
    mask = RNG.integers(0, 5, (41, 61), dtype=np.uint8)
    pixels = RNG.integers(0, 256, (41, 61, 3), dtype=np.uint8)
    boxes = np.array([[3, 4, 30, 35], [0, 0, 5, 8], [50, 10, 61, 40]], np.float64)
    target = {"boxes": boxes, "labels": [1, 2, 3], "mask": mask}
    images = ImageSet([pixels], [target]).fitted((24, 24), 28)
    assert images.targets is not None
    assert images.targets.masks is not None
    assert images.targets.boxes is not None
    both = (Image.fromarray(mask), tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(41, 61)))
    expected_mask, expected_boxes = (F.center_crop(F.resize(each, [28], interpolation=0), [24, 24]) for each in both)
    np.testing.assert_array_equal(images.targets.masks[0], np.asarray(expected_mask))
    shown = images.targets.boxes[0]
    np.testing.assert_allclose(shown[0, :4], expected_boxes[0].numpy(), atol=1e-4)
    assert shown[:, 4].tolist()[0] == 1
    assert (shown[:, :4] >= 0).all()
    assert (shown[:, :4] <= 24).all()
    # The last box has nothing left in view: torchvision leaves it without area, here it is left out.
    assert 3 not in shown[:, 4].tolist()


def test_images_of_several_sizes_get_one_with_their_masks(tmp_path: Path) -> None:
    for name, size in (("a", (20, 30)), ("b", (16, 24))):
        picture(tmp_path / f"images/{name}.jpg", size)
        mask_file(tmp_path / f"masks/{name}.png", RNG.integers(0, 3, size), palette=name == "b")
    images = load_images(f"masks:{tmp_path}/images,{tmp_path}/masks")
    assert images.size is None
    assert images.targets is not None
    with pytest.raises(InputError, match=r"masks must share one size, got 20x30 .*a.png.* 16x24 .*b.png"):
        images.targets.masks[:]
    fitted = images.fitted((16, 16))
    assert fitted.targets is not None
    assert fitted.targets.masks is not None
    assert fitted.targets.masks[:].shape == (2, 16, 16)
    assert set(np.unique(fitted.targets.masks[[1]])) <= {0, 1, 2}  # numbers of a palette, not colours
    assert fitted.digest != images.digest
    fitted.refuse_unfit_targets("masks")


# ---- folders of masks


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: (p / "masks/a.png").unlink(), "1 of 1 images .* have no mask in .*: a.jpg|holds no images"),
        (lambda p: mask_file(p / "masks/a.png", np.zeros((19, 30))), "a.png is 19x30, its image 20x30"),
        (lambda p: mask_file(p / "masks/a.png", 255 * RNG.integers(0, 2, (20, 30))), "only 0 and 255"),
        (lambda p: picture(p / "masks/a.png"), "has mode RGB; expected class numbers"),
        (lambda p: (p / "masks/a.png").write_bytes(b"no picture"), "a.png is no picture"),
        (lambda p: (p / "masks/a.png").write_bytes(bomb()), "too large to decode safely"),
    ],
)
def test_masks_that_do_not_fit_are_refused_in_a_line(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    picture(tmp_path / "images/a.jpg")
    mask_file(tmp_path / "masks/a.png", RNG.integers(0, 3, (20, 30)))
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_images(f"masks:{tmp_path}/images,{tmp_path}/masks").refuse_unfit_targets("masks")
    assert "\n" not in str(caught.value)


def bomb() -> bytes:
    """A PNG that claims 10^10 pixels."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    body = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def test_splits_of_masks_and_yolo_are_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / f"images/{split}/{split}.png")
        mask_file(tmp_path / f"masks/{split}/{split}.png", np.ones((20, 30)))
        label = tmp_path / f"labels/{split}/{split}.txt"
        label.parent.mkdir(parents=True)
        label.write_text("0 .5 .5 .2 .2\n")
    masks = f"masks:{tmp_path}/images,{tmp_path}/masks"
    for spec in (masks, f"yolo:{tmp_path}/images"):
        images = load_images(spec.replace("yolo:" + str(tmp_path) + "/images", f"yolo:{tmp_path}"), split="train")
        assert len(images) in (1, 2)
    assert len(load_images(masks)) == len(load_images(masks, split="train")) == 1
    assert len(load_images(masks, split="all")) == 2


# ---- YOLO


def yolo(tmp_path: Path, *lines: str, names: str = "names: [cat, dog]\n") -> str:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text(names)
    return f"yolo:{tmp_path}"


@pytest.mark.parametrize(
    "names",
    [
        "path: x\nnames: [cat, 'dog']\n",
        "names:\n  0: cat\n  1: dog\nnc: 2\n",
        "nc: 2\nnames:\n- cat\n- dog\n",
        "names:  # two\n  0: cat\n  1: dog",
    ],
)
def test_yolo_boxes_are_shares_of_the_image(tmp_path: Path, names: str) -> None:
    images = load_images(yolo(tmp_path, "1 0.5 0.5 0.2 0.4", "", "0 0.1 0.1 0.3 0.1 0.3 0.5", names=names))
    assert images.targets is not None
    assert images.targets.boxes is not None
    np.testing.assert_allclose(images.targets.boxes[0], [[12, 6, 18, 14, 1], [3, 2, 9, 10, 0]])
    assert images.class_names == ("cat", "dog")
    assert any("no object: 1" in note for note in images.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.2", "a.txt, line 1: expected class x y width height"),
        ("cat 0.5 0.5 0.2 0.2", "a.txt, line 1: expected class"),
        ("1 0.5 0.5 -0.2 0.2", "a.txt, line 1: expected a box with a width and a height above 0"),
        ("1 0.5 nan 0.2 0.2", "a.txt, line 1"),
        ("1.5 0.5 0.5 0.2 0.2", "a.txt, line 1: expected a class from 0"),
        ("-1 0.5 0.5 0.2 0.2", "a.txt, line 1: expected a class from 0"),
        ("1 0.9 0.5 0.4 0.2", r"a.txt: box 0 is .*, outside of the image of 20x30"),
        ("1 120 60 40 20", r"outside of the image"),
        ("7 0.5 0.5 0.2 0.2", "names 2 classes, and its boxes have class 7"),
    ],
)
def test_yolo_lines_that_are_none_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_images(yolo(tmp_path, line))
    assert "\n" not in str(caught.value)


# ---- without labels


def test_images_without_labels(tmp_path: Path) -> None:
    picture(tmp_path / "deep/er/a.png")
    picture(tmp_path / "b.jpg")
    images = load_images(f"images:{tmp_path}")
    assert (len(images), images.labelled, images.targets) == (2, False, None)
    (tmp_path / "empty").mkdir()
    for where, message in (("empty", "holds no images"), ("nowhere", "does not exist"), ("b.jpg", "is a file")):
        with pytest.raises(InputError, match=message):
            load_images(f"images:{tmp_path}/{where}")


# ---- torch data sets in torchvision's v2 form


class Items(torch.utils.data.Dataset):
    def __init__(self, targets: list[Any]) -> None:
        self.pixels = torch.from_numpy(RNG.integers(0, 256, (len(targets), 3, 8, 10), dtype=np.uint8))
        self.targets_of = targets

    def __len__(self) -> int:
        return len(self.targets_of)

    def __getitem__(self, k: int) -> tuple[Any, Any]:
        return self.pixels[k], self.targets_of[k]


def test_a_dataset_of_boxes_in_any_form() -> None:
    boxes = tv_tensors.BoundingBoxes([[1.0, 2.0, 4.0, 3.0]], format="XYWH", canvas_size=(8, 10))
    first = {"boxes": boxes, "labels": torch.tensor([4]), "masks": torch.ones(1, 8, 10, dtype=torch.bool)}
    second = {
        "boxes": torch.empty(0, 4),
        "labels": torch.empty(0, dtype=torch.int64),
        "masks": torch.zeros(0, 8, 10) > 0,
    }
    images = load_images(Items([first, second]))
    assert images.targets is not None
    assert images.targets.boxes is not None
    assert images.targets.boxes.tolist() == [[[1, 2, 5, 5, 4]], [[-1, -1, -1, -1, -1]]]
    assert images.targets.masks is not None
    assert images.targets.masks[:].max(axis=(1, 2)).tolist() == [4, 0]


def test_a_dataset_of_masks() -> None:
    masks = [tv_tensors.Mask(torch.from_numpy(RNG.integers(0, 4, (8, 10)))) for _ in range(3)]
    images = load_images(Items(list(masks)))
    assert images.targets is not None
    assert images.targets.masks is not None
    np.testing.assert_array_equal(images.targets.masks[[2]][0], masks[2].numpy())
    images.refuse_unfit_targets("masks")
    with pytest.raises(InputError, match="mask \\[h, w\\] of class numbers"):
        load_images(Items([torch.rand(8, 10)])).refuse_unfit_targets("masks")


@pytest.mark.parametrize("name", ["VOCDetection", "VOCSegmentation"])
def test_torchvisions_sets_with_targets(tmp_path: Path, name: str) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    picture(root / "JPEGImages/x.jpg")
    mask_file(root / "SegmentationClass/x.png", RNG.integers(0, 21, (20, 30)), palette=True)
    for folder in ("Main", "Segmentation"):
        (root / "ImageSets" / folder).mkdir(parents=True)
        (root / "ImageSets" / folder / "val.txt").write_text("x\n")
    (root / "Annotations").mkdir()
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>9</ymax></bndbox>"
    (root / "Annotations/x.xml").write_text(f"<annotation><object><name>cat</name>{box}</object></annotation>")
    images = load_images(f"torchvision:{name}", data_root=tmp_path)
    assert images.targets is not None
    images.refuse_unfit_targets("boxes" if name == "VOCDetection" else "masks")
    if name == "VOCDetection":
        assert images.targets.boxes is not None
        assert images.targets.boxes.tolist() == [[[2, 3, 12, 9, 8]]]
    with pytest.raises(InputError, match=r"VOCDetection files|list no images|incomplete"):
        load_images(f"torchvision:{name}", data_root=tmp_path, split="train")


# ---- classes


def test_boxes_meet_a_models_classes_by_name_map_or_number(tmp_path: Path) -> None:
    images = load_images(coco(tmp_path))
    model = wrap(lambda x: x, mean=0, std=1, class_names=["a", "dog", "cat"])
    with pytest.warns(UserWarning, match="matched by name: cat is class 2, dog is class 1"):
        named = targets_for(model, images, "boxes")
    assert named.targets is not None
    assert named.targets.boxes is not None
    assert named.targets.boxes[0, :, 4].tolist() == [1, -4]  # a crowd of class 2
    mapped = targets_for(model, images, "boxes", {"cat": 0, "dog": "cat"})
    assert mapped.targets is not None
    assert mapped.targets.only("boxes").classes == {0, 2}  # type: ignore[union-attr]
    assert mapped.options == {"label_map": {"cat": 0, "dog": "cat"}}
    other = wrap(lambda x: x, mean=0, std=1, class_names=["x", "y", "z"])
    with pytest.raises(InputError, match=r"boxes of image 0 of .* have class 90, .* has 3 \(0 to 2\)"):
        targets_for(other, images, "boxes")
    with pytest.raises(InputError, match="unknown class in the label map 'dog'"):
        targets_for(model, images, "boxes", {"cat": 0})


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("segmentation", "pictures has no masks"),
        ("detection", "pictures has no boxes"),
        ("dense", "this task uses no classes of the images"),
        ("embedding", "this task uses no classes of the images"),
    ],
)
def test_a_label_map_with_nothing_to_map_is_refused(tmp_path: Path, task: str, why: str) -> None:
    pictures = ImageSet(np.zeros((2, 3, 8, 8), np.uint8), [0, 1], class_names=("cat", "dog"), name="pictures")
    model = wrap(torch.nn.Conv2d(3, 2, 1), mean=0, std=1, size=8)
    said = rf"a label map \(--label-map\) has nothing to map: {why}; leave it out"
    with pytest.raises(InputError, match=said):
        sl.evaluate(model, pictures, task=task, label_map={"cat": 0, "dog": 1})
    with pytest.raises(InputError, match=said):
        sl.sweep(model, pictures, task=task, label_map={"cat": 0, "dog": 1}, out=tmp_path / "s.zarr")


# ---- swept


class Fixed(torch.nn.Module):
    """Finds the same boxes in every image."""

    def __init__(self, *boxes: list[float], label: int) -> None:
        super().__init__()
        self.boxes = boxes
        self.label = label

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        n = len(self.boxes)
        labels = torch.full((n,), self.label)
        return [{"boxes": torch.tensor(self.boxes), "scores": torch.full((n,), 0.9), "labels": labels} for _ in x]


def test_what_lies_on_a_crowd_is_no_false_alarm_and_a_crowd_is_never_missed(tmp_path: Path) -> None:
    def crowded(content: dict[str, Any]) -> None:
        content["annotations"][1].update(bbox=[15, 10, 15, 10])

    model = wrap(Fixed([20.0, 12, 26, 18], [0, 12, 6, 18], label=1), mean=0, std=1, size=(20, 30))
    images = load_images(coco(tmp_path, crowded)).subset([0])
    found = sl.sweep(model, images, sl.ShiftGrid(1), out=tmp_path / "s.zarr", task="detection")
    assert float(found.mean_of("n_unmatched").sel(dx=0, dy=0)) == 1  # of two: the other lies on the crowd
    assert float(found.mean_of("recall").sel(dx=0, dy=0)) == 0  # of the dog alone
    assert np.isnan(found.dataset["object_confidence"].values).any()


def test_a_sweep_of_files_prints_complete_commands(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        picture(tmp_path / f"images/{name}.png", (24, 24))
        mask_file(tmp_path / f"masks/{name}.png", rng.integers(0, 3, (24, 24)))
    (tmp_path / "net.py").write_text("import torch\n\n\ndef make():\n    return torch.nn.Conv2d(3, 3, 3, padding=1)\n")
    spec = f"masks:{tmp_path}/images,{tmp_path}/masks"
    given = ["--model", f"{tmp_path}/net.py:make", "--mean", "0.5", "--std", "0.5", "--input-size", "16"]
    given += ["--task", "segmentation", "--max-shift", "2"]
    assert main(["sweep", *given, "--data", spec, "--out", str(tmp_path / "s.zarr"), "-q"]) == 0
    found = sl.open_sweep(tmp_path / "s.zarr")
    assert found.header.data == spec
    words = Setting.of(found).sweep_command()
    assert spec in words
    assert main([*words[1:-1], str(tmp_path / "again.zarr"), "-q"]) == 0  # as it is printed, to another place
    again = sl.open_sweep(tmp_path / "again.zarr")
    np.testing.assert_array_equal(again.dataset["mean_iou"].values, found.dataset["mean_iou"].values)


def test_masks_with_classes_that_the_model_lacks(tmp_path: Path) -> None:
    images = ImageSet(np.zeros((2, 3, 8, 8), np.uint8), np.array([np.zeros((8, 8)), np.full((8, 8), 4)], np.uint8))
    model = wrap(torch.nn.Conv2d(3, 4, 1), mean=0, std=1, size=8)
    with pytest.raises(InputError, match="the mask of image 1 of images has class 4, the model has the classes 0 to 3"):
        sl.sweep(model, images, sl.ShiftGrid(1), out=tmp_path / "s.zarr", task="segmentation")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_ap_with_crowds_is_that_of_pycocotools(tmp_path: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(0)
    h, w, listed, objects, found = 64, 96, [], [], []
    for image in range(1, 13):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((h, w, 3), image, np.uint8)).save(tmp_path / f"images/{image}.png")
        listed.append({"id": image, "file_name": f"{image}.png", "height": h, "width": w})
        for _ in range(int(rng.integers(1, 6))):
            bw, bh = rng.uniform(8, 40, 2)
            box, label = [rng.uniform(0, w - bw), rng.uniform(0, h - bh), bw, bh], int(rng.choice([1, 5, 9]))
            objects.append({"id": len(objects) + 1, "image_id": image, "category_id": label, "bbox": box})
            objects[-1] |= {"area": bw * bh, "iscrowd": int(rng.random() < 0.3)}
            for _ in range(int(rng.integers(0, 4))):
                x, y, dw, dh = np.maximum(np.array(box) + rng.normal(0, 3, 4), (0, 0, 4, 4))
                near = [min(x, w - dw), min(y, h - dh), dw, dh]
                guess = label if rng.random() < 0.8 else 5
                found.append({"image_id": image, "category_id": guess, "bbox": near, "score": float(rng.random())})
    content = {"images": listed, "annotations": objects, "categories": [{"id": k, "name": f"c{k}"} for k in (1, 5, 9)]}
    (tmp_path / "ann.json").write_text(json.dumps(content))

    class Told(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            of = [[d for d in found if d["image_id"] == v] for v in (x[:, 0, 0, 0] * 255).round().long().tolist()]
            boxes = [torch.tensor([d["bbox"] for d in each], dtype=torch.float64).reshape(-1, 4) for each in of]
            return [
                {
                    "boxes": torch.cat([box[:, :2], box[:, :2] + box[:, 2:]], 1),
                    "scores": torch.tensor([d["score"] for d in each], dtype=torch.float64),
                    "labels": torch.tensor([d["category_id"] for d in each], dtype=torch.int64),
                }
                for box, each in zip(boxes, of, strict=True)
            ]

    model = sl.wrap(Told(), mean=0, std=1, size=(h, w))
    told = sl.evaluate(model, f"coco:{tmp_path}/images,{tmp_path}/ann.json", task="detection", batch_size=1)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_api.COCO(str(tmp_path / "ann.json"))
        oracle = cocoeval.COCOeval(truth, truth.loadRes(found), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    text = str(told)
    for name, value in (("AP", oracle.stats[0]), ("AP50", oracle.stats[1])):
        assert f"{name} {100 * value:.2f} %" in text
