"""`fiftyone:DIR`: images with one file of classes or boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shiftlens.data.images import load_images
from shiftlens.errors import InputError


def fiftyone(folder: Path, **content: Any) -> str:
    (folder / "data" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png", "c.png"):
        Image.fromarray(np.full((20, 40, 3), len(name), np.uint8)).save(folder / "data" / name)
    (folder / "labels.json").write_text(json.dumps(content))
    return f"fiftyone:{folder}"


def test_fiftyone_classes_are_numbers_of_the_list_or_names(tmp_path: Path) -> None:
    spec = fiftyone(tmp_path / "n", classes=["cat", "dog"], labels={"deep/b": 1, "a": {"label": 0, "confidence": 0.5}})
    images = load_images(spec)
    assert (images.class_names, images.labels.tolist()) == (("cat", "dog"), [1, 0])
    assert images.batch([0])[0, 0, 0, 0] == len("deep/b.png")
    images = load_images(fiftyone(tmp_path / "s", labels={"c": "dog", "a": "cat"}))
    assert (images.class_names, images.labels.tolist()) == (("cat", "dog"), [1, 0])


def test_fiftyone_boxes_are_shares_of_the_image(tmp_path: Path) -> None:
    box = {"label": "dog", "bounding_box": [0.5, 0.25, 0.25, 0.5], "attributes": {}}
    images = load_images(fiftyone(tmp_path, labels={"a": [], "c": [box]}))
    np.testing.assert_allclose(images.targets.boxes[1, 0, :5], [20, 5, 30, 15, 0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": {"z": 1}}, r"1 of 1 images of .* are not in .*: z"),
        ({"labels": {}}, "lists no images"),
        ({"classes": ["cat"], "labels": {"a": 1}}, "expected a number from 0 to 0 as class, got 1"),
        ({"labels": {"a": 1}}, "expected a name, as no classes are listed as class, got 1"),
        ({"labels": {"a": None}}, "no labels in FiftyOne's form: labels"),
        ({"labels": {"a": [{"label": "cat"}]}}, "no labels in FiftyOne's form: labels"),
        ({"labels": {"a": [{"label": "cat", "bounding_box": [0.5, 0.5, 0.9, 0.9]}]}}, "box 0"),
    ],
)
def test_fiftyone_files_that_are_none_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_images(fiftyone(tmp_path, **content))
