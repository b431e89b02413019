"""`pt2:FILE`: a program of `torch.export`, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.errors import InputError
from shiftlens.models.loading import load_model
from shiftlens.nn import VGG

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("batch", [1, 2, None])
def test_an_exported_program_is_served(tmp_path: Path, batch: int | None) -> None:
    source, x = VGG("vgg6", n_classes=3, width=2).eval(), torch.rand(5, 3, 32, 32)
    dynamic = None if batch else ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(source, (x[: batch or 3],), dynamic_shapes=dynamic), tmp_path / "a.pt2")
    model = load_model(f"pt2:{tmp_path / 'a.pt2'}", mean=0.5, std=0.25)
    assert (model.input_size, model.n_classes, model.is_module) == ((32, 32), 3, False)
    with torch.no_grad():
        assert torch.allclose(model.scores(x), source(x), atol=1e-5)
    assert model.digest == load_model(f"pt2:{tmp_path / 'a.pt2'}", mean=0.5, std=0.25).digest
    images = sl.load_images("digits", limit=6)
    images = images.relabelled(images.labels % 3, "012")
    nets = {"program": model, "net": sl.wrap(source, mean=0.5, std=0.25, size=32)}
    found = [
        sl.sweep(each, images, sl.ShiftGrid(1), out=tmp_path / f"{name}.zarr", dtype="float32")
        for name, each in nets.items()
    ]
    np.testing.assert_allclose(found[0].dataset["loss"], found[1].dataset["loss"], atol=1e-5)


def test_a_program_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(4, 2), (torch.zeros(1, 4),)), tmp_path / "a.pt2")
    with pytest.raises(InputError, match=r"a\.pt2 takes \[1, 4\], expected \[n, c, h, w\]"):
        load_model(f"pt2:{tmp_path / 'a.pt2'}")
    (tmp_path / "b.pt2").write_bytes(b"none")
    with pytest.raises(InputError, match=r"b\.pt2 is no torch\.export program"):
        load_model(f"pt2:{tmp_path / 'b.pt2'}")
    with pytest.raises(InputError, match="holds its own weights"):
        load_model(f"pt2:{tmp_path / 'a.pt2'}", weights="random")
