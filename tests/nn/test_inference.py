"""Averaging over shifts and moving the content to the middle."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shiftlens.errors import InputError
from shiftlens.nn import VGG, ContentAligned2d, CropChoice2d, ShiftAverage2d
from shiftlens.shifts import translate


def net() -> VGG:
    torch.manual_seed(0)
    return VGG("vgg6", width=2).eval()


def test_the_mean_over_all_small_shifts() -> None:
    model, x = net(), torch.randn(2, 3, 16, 16)
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    expected = torch.stack([model(translate(x, dx, dy, fill="edge")) for dy, dx in shifts]).mean(0)
    torch.testing.assert_close(ShiftAverage2d(model, 1)(x), expected)
    assert torch.equal(ShiftAverage2d(model, 0)(x), model(x))
    assert ShiftAverage2d(model, 2, "circular").n_levels == 3


def blob(y: int, x: int, size: int = 24) -> torch.Tensor:
    picture = torch.full((1, 2, size, size), 0.3)
    picture[..., y : y + 4, x : x + 4] = torch.arange(16.0).reshape(4, 4)
    return picture


def test_content_comes_to_the_middle_wherever_it_was() -> None:
    aligned = ContentAligned2d(nn.Identity(), radius=8)
    where = [(10, 10), (4, 12), (17, 3), (9, 16)]
    moved = [aligned(blob(y, x)) for y, x in where]
    for one in moved[1:]:
        assert torch.equal(one, moved[0])
    together = aligned(torch.cat([blob(y, x) for y, x in where]))
    assert torch.equal(together, torch.cat(moved))
    dy, dx = aligned.corrections(blob(4, 12))[0].tolist()
    assert dy > 0 > dx


def test_a_correction_is_limited_and_none_without_content() -> None:
    aligned = ContentAligned2d(nn.Identity(), radius=2)
    assert aligned.corrections(blob(0, 20)).tolist() == [[2, -2]]
    assert torch.equal(aligned(blob(2, 18)), translate(blob(2, 18), -2, 2, fill="edge"))
    empty = torch.full((1, 3, 9, 8), 0.7)
    assert torch.equal(aligned(empty), empty)


def test_another_view_of_the_scene_gives_the_same_crop() -> None:
    scene = torch.zeros(1, 2, 30, 30)
    scene[..., 12:17, 14:18] = torch.arange(20.0).reshape(5, 4)
    chooser = CropChoice2d(nn.Identity(), (11, 9))
    views = [scene[..., y : y + 26, x : x + 25] for y in range(4) for x in range(5)]
    crops = [chooser(view) for view in views]
    assert crops[0].shape == (1, 2, 11, 9)
    assert crops[0].std() > 0
    for crop in crops[1:]:
        assert torch.equal(crop, crops[0])
    assert torch.equal(chooser(torch.cat([scene, scene.roll(3, 2)])), torch.cat([crops[0]] * 2))
    every = chooser.scores(scene)
    alone = chooser.scores(scene[..., 5:16, 7:16])  # of the crop itself: nothing outside has a say
    torch.testing.assert_close(alone[0, 0, 0], every[0, 5, 7])


def test_a_crop_that_is_none() -> None:
    with pytest.raises(InputError, match="at least 2 pixels a side"):
        CropChoice2d(nn.Identity(), 1)
    with pytest.raises(InputError, match="at least 24x24 pixels, got 20x32"):
        CropChoice2d(nn.Identity(), 24)(torch.zeros(1, 3, 20, 32))


@pytest.mark.parametrize("kind", [ShiftAverage2d, ContentAligned2d])
def test_bad_use(kind: type) -> None:
    with pytest.raises(InputError, match="radius must be at least 0"):
        kind(nn.Identity(), -1)
    with pytest.raises(InputError, match="unknown padding mode"):
        kind(nn.Identity(), 1, "mirror")
