"""The small U-Net and the detector of centre points: shapes, what they refuse, boxes that are known by hand."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from shiftlens.errors import InputError
from shiftlens.nn import PADDING_MODES, CenterPoints, UNet
from shiftlens.nn.center_points import FLOOR, MOST_OBJECTS, STRIDE

NETS = (UNet, CenterPoints)
MODES = [mode for mode in PADDING_MODES if mode != "full"]


def n_weights(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("kind", NETS)
def test_the_nets_that_are_shipped_are_small(kind: type[nn.Module]) -> None:
    assert 50_000 < n_weights(kind()) < 300_000


@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize(("h", "w"), [(32, 32), (96, 96), (24, 160)])
def test_a_unet_gives_scores_of_every_pixel(padding: str, h: int, w: int) -> None:
    net = UNet(n_classes=3, in_channels=2, width=2, padding=padding).eval()
    assert net(torch.zeros(2, 2, h, w)).shape == (2, 3, h, w)


@pytest.mark.parametrize("padding", MODES)
def test_a_detector_gives_a_table_for_each_image(padding: str) -> None:
    net = CenterPoints(n_classes=3, in_channels=2, width=2, padding=padding)
    heat, sides = net(torch.rand(2, 2, 40, 64))
    assert heat.shape == (2, 3, 10, 16)
    assert sides.shape == (2, 4, 10, 16)
    found = net.eval()(torch.rand(2, 2, 40, 64))
    assert len(found) == 2
    for each in found:
        k = len(each["scores"])
        assert (each["boxes"].shape, each["labels"].shape) == ((k, 4), (k,))


@pytest.mark.parametrize("kind", NETS)
def test_the_config_builds_the_net_again(kind: type[nn.Module]) -> None:
    net = kind(n_classes=4, in_channels=3, width=3, padding="reflect")
    config = json.loads(json.dumps(net.config))
    again = kind(**config)
    assert again.config == net.config
    again.load_state_dict(net.state_dict())
    assert str(again) == str(net)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"n_classes": 0}, "must be at least 1, got 0"),
        ({"in_channels": 0}, "must be at least 1"),
        ({"width": -1}, "must be at least 1"),
        ({"padding": "full"}, "full padding makes larger maps"),
        ({"padding": "mirror"}, "mirror"),
    ],
)
def test_nets_that_cannot_be_are_refused(kind: type[nn.Module], arguments: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=why):
        kind(**arguments)


@pytest.mark.parametrize(("kind", "least"), [(UNet, 8), (CenterPoints, 4)])
@pytest.mark.parametrize("axis", [2, 3])
def test_sizes_between_the_strides_are_refused(kind: type[nn.Module], least: int, axis: int) -> None:
    shape = [1, 1, 32, 32]
    shape[axis] += least // 2
    with pytest.raises(InputError, match=f"sides that are multiples of {least}, got"):
        kind(width=2).eval()(torch.zeros(*shape))
    shape[axis] += least - least // 2
    kind(width=2).eval()(torch.zeros(*shape))


class Given(CenterPoints):
    """A detector whose maps are given: cells [n, class, y, x] and the four sides."""

    def __init__(self, heat: torch.Tensor, sides: torch.Tensor) -> None:
        super().__init__(n_classes=heat.shape[1], width=1)
        self.given = torch.logit(heat), sides

    def maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.given


def test_peaks_become_clipped_boxes_best_first() -> None:
    heat = torch.full((1, 2, 6, 8), 0.01)
    heat[0, 1, 2, 3] = 0.9
    heat[0, 1, 2, 4] = 0.8  # beside a higher one: no peak
    heat[0, 0, 2, 3] = 0.5  # of another class: a peak
    heat[0, 0, 5, 7] = FLOOR + 0.02
    heat[0, 0, 0, 0] = FLOOR - 0.02
    sides = torch.tensor([1.0, 2, 3, 100]).reshape(1, 4, 1, 1).expand(1, 4, 6, 8)
    [found] = Given(heat, sides).eval()(torch.zeros(1, 1, 24, 32))
    assert found["labels"].tolist() == [1, 0, 0]
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.5, FLOOR + 0.02]))
    x, y = (3 + 0.5) * STRIDE, (2 + 0.5) * STRIDE
    assert found["boxes"][0].tolist() == [x - 1, y - 2, x + 3, 24]
    assert found["boxes"][1].tolist() == found["boxes"][0].tolist()
    assert found["boxes"][2].tolist() == [29, 20, 32, 24]


def test_no_more_than_fifty_are_returned() -> None:
    heat = torch.full((1, 1, 32, 32), 0.01)
    heat[..., ::2, ::2] = torch.linspace(0.1, 0.9, 256).reshape(16, 16)
    sides = torch.ones(1, 4, 32, 32)
    [found] = Given(heat, sides).eval()(torch.zeros(1, 1, 128, 128))
    assert len(found["scores"]) == MOST_OBJECTS
    torch.testing.assert_close(found["scores"], torch.linspace(0.1, 0.9, 256).flip(0)[:MOST_OBJECTS])


def test_a_detector_wrapped_around_moves_with_its_stride() -> None:
    """With circular padding, a shift by the stride moves both maps along exactly."""
    torch.manual_seed(0)
    net = CenterPoints(width=2, padding="circular").double().eval()
    x = torch.rand(1, 1, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        moved, plain = net.maps(x.roll((8, -16), (2, 3))), net.maps(x)
        between, _ = net.maps(x.roll(1, 3))
    for here, there in zip(moved, plain, strict=True):
        torch.testing.assert_close(here, there.roll((2, -4), (2, 3)))
    assert not torch.allclose(between, plain[0])
