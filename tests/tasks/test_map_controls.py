"""The controls of maps and boxes: what they take away, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shiftlens as sl
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError
from shiftlens.models.loading import wrap
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import sweep
from tasks.small_tasks import PIXELS, H, W, unet, wrapped

GRID = ShiftGrid((2, 3))


def swept(net: nn.Module, path: Path, **options: Any) -> sl.Sweep:
    model = wrap(net, mean=0.5, std=0.25, size=(H, W))
    options = {"task": "dense", "controls": ("occlusion", "canvas"), "fill": "mean"} | options
    return sweep(model, ImageSet(PIXELS), GRID, out=path, engine="direct", **options)


class Sees(nn.Module):
    """Adds up 5 x 5 pixels in steps of 2, and brings the map back to the image's size."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3, padding=1)
        self.second = nn.Conv2d(1, 1, 3, padding=1, stride=2, bias=False)
        for layer in (self.first, self.second):
            nn.init.constant_(layer.weight, 0.5)
        nn.init.constant_(self.first.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.second(self.first(x)), scale_factor=2)


def test_what_stays_in_view_is_all_that_occlusion_compares(tmp_path: Path) -> None:
    made = swept(nn.Conv2d(1, 1, 1), tmp_path / "s.zarr")
    # A net that sees single pixels loses nothing of what stays.
    assert (made.control("occlusion").mean_of("mae") < 1e-6).all()
    blind = swept(Sees(), tmp_path / "b.zarr")
    mae = blind.control("occlusion").mean_of("mae")
    assert mae.sel(dy=0, dx=0) < 1e-6
    assert (mae.where((mae.dy != 0) | (mae.dx != 0), 1) > 1e-3).all()  # near the blank its sums are others


class TwoClasses(nn.Module):
    """Whether the sum is above 9."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        found = self.net(x) - 9.0
        return torch.cat([found, -found], 1)


@pytest.mark.parametrize("task", ["dense", "segmentation"])
def test_the_canvas_takes_the_padding_away(task: str, tmp_path: Path) -> None:
    # Zeros around a first map that is 4 where nothing is: they are seen, and on the canvas the map goes on.
    net, name = (Sees(4.0), "mae") if task == "dense" else (TwoClasses(Sees(4.0)), "pixel_agreement")
    made = swept(net, tmp_path / "s.zarr", task=task, controls=("canvas",))
    far = (8, 8, 8, 8)
    x = (torch.from_numpy(PIXELS).float() / 255 - 0.5) / 0.25
    shifted = nn.functional.pad(x[..., : H - 2, 2:], (0, 2, 2, 0))
    with torch.no_grad():
        before, after = (net(nn.functional.pad(each, far))[..., 8:-8, 8:-8] for each in (x, shifted))
    before, after = before[..., : H - 2, 2:], after[..., 2:, : W - 2]
    expected = (
        (before - after).abs().mean() if task == "dense" else (before.argmax(1) == after.argmax(1)).float().mean()
    )
    alone, wide = (float(each.mean_of(name).sel(dy=2, dx=-2)) for each in (made, made.control("canvas")))
    assert wide == pytest.approx(float(expected), abs=1e-5)
    assert abs(alone - wide) > 1e-3
    unshifted = float(made.control("canvas").mean_of(name).sel(dy=0, dx=0))
    assert unshifted == pytest.approx(0.0 if task == "dense" else 1.0, abs=1e-5)
    if task == "dense":
        found = sl.findings(made).named("padding-effect")
        assert found is not None
        assert found.estimate is not None
        assert found.estimate.value > 0  # the error is larger with padding


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (
            nn.Sequential(
                nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(2), nn.Linear(H * W, H * W), nn.Unflatten(2, (H, W))
            ),
            "",
        ),
        (nn.Sequential(nn.InstanceNorm2d(1), nn.Conv2d(1, 2, 3, padding=1)), "0 reads the whole map"),
    ],
)
def test_a_net_without_a_known_reach_has_no_canvas(net: nn.Module, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"canvas control needs .*{why}"):
        swept(net, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_a_u_net_is_put_on_a_canvas_and_a_detector_is_not(tmp_path: Path) -> None:
    made = sweep(
        wrapped(unet()),
        ImageSet(PIXELS),
        ShiftGrid((0, 1)),
        out=tmp_path / "s.zarr",
        task="segmentation",
        controls=("canvas",),
    )
    agreement = made.control("canvas").dataset["pixel_agreement"].values
    assert (agreement[:, 0, 1] == 1).all()
    assert np.isfinite(agreement).all()
    with pytest.raises(InputError, match="the control canvas is not defined for detection"):
        sweep(
            "pretrained:detector-digits",
            "digits-scenes",
            out=tmp_path / "d.zarr",
            task="detection",
            controls=("canvas",),
        )
