"""Mean kernels: the mean itself, planted lopsidedness, and a null that holds its level."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from shiftlens.errors import InputError
from shiftlens.lens.kernels import kernels
from shiftlens.models.loading import wrap
from shiftlens.nn.vgg import VGG
from shiftlens.stats import Skipped


def conv(weight: torch.Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), bias=False)  # type: ignore[arg-type]
    layer.weight.data = weight
    return layer


def test_the_tile_is_the_mean_over_both_channels() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, (3, 4))
    found = kernels(layer).layers[0]
    expected = np.zeros((3, 4))
    for out in range(5):
        for inner in range(3):
            expected += layer.weight[out, inner].detach().numpy() / 15
    np.testing.assert_allclose(found.kernel, expected, atol=1e-7)


def test_planted_asymmetry_by_hand() -> None:
    tile = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    found = kernels(conv(tile.expand(64, 8, 3, 3).clone())).layers[0]
    # Odd part -1, 0, 1 in each row: 6 of 9.
    assert found.asymmetry_lr == pytest.approx(6 / 9)
    assert found.lean_x == pytest.approx(6 / 9)
    assert found.asymmetry_ud == pytest.approx(0)
    assert found.lean_y == pytest.approx(0)
    assert found.p_lr == pytest.approx(1 / 1000)
    assert found.p_ud == pytest.approx(1)
    turned = kernels(conv(tile.T.flip(0).expand(64, 8, 3, 3).clone())).layers[0]
    assert turned.lean_y == pytest.approx(-6 / 9)
    assert turned.asymmetry_lr == pytest.approx(0)


def test_the_null_holds_its_level_on_random_filters() -> None:
    rejected = 0
    for seed in range(200):
        torch.manual_seed(seed)
        found = kernels(nn.Conv2d(4, 16, 3), seed=seed).layers[0]
        assert found.p_lr is not None
        rejected += found.p_lr <= 0.05
    assert 2 <= rejected <= 20  # 10 expected; beyond by chance once in 5,000


def test_p_values_are_corrected_over_layers() -> None:
    torch.manual_seed(1)
    lopsided = torch.randn(32, 4, 3, 3) + torch.tensor([-0.3, 0, 0.3])
    net = nn.Sequential(conv(lopsided), *(nn.Conv2d(32, 32, 3) for _ in range(9)))
    alone, among = kernels(net[0]).layers[0], kernels(net).layers[0]
    assert alone.p_lr == pytest.approx(0.001)
    assert among.p_lr == pytest.approx(0.01)


def test_layers_come_in_call_order_once_each_and_small_ones_are_left_out() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 5, padding=2)
            self.point, self.flat = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, (1, 3))
            self.head = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.late(self.late(self.point(self.early(x))))
            return self.head(self.flat(x).mean((2, 3)))  # type: ignore[no-any-return]

    run = kernels(wrap(Net(), mean=0, std=1, size=16))
    assert [layer.path for layer in run.layers] == ["early", "late", "flat"]
    assert isinstance(run.layers[2].asymmetry_ud, Skipped)
    assert run.layers[2].p_ud is None
    values = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    assert values["layers"][2]["asymmetry_ud"] is None
    assert len(run.lines()) == 5
    assert any("mirror images" in note for note in run.notes)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no convolution layer"):
        kernels(nn.Sequential(nn.Conv2d(3, 4, 1)))
    with torch.device("meta"):
        empty = VGG("vgg6", width=2)
    with pytest.raises(InputError, match="has no weights"):
        kernels(empty)
    zero = kernels(conv(torch.zeros(2, 2, 3, 3))).layers[0]
    assert isinstance(zero.asymmetry_lr, Skipped)
    half = kernels(nn.Conv2d(2, 2, 3).half()).layers[0]
    assert half.kernel.dtype == np.float64
