"""Padding-aware neurons: planted ones are found and told apart from what is in the pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats as sps
from torch import nn

from shiftlens.data.images import ImageSet
from shiftlens.errors import InputError
from shiftlens.lens.aware import Impact
from shiftlens.lens.neurons import neurons
from shiftlens.lens.samples import ks_distance, places
from shiftlens.models.loading import wrap
from shiftlens.stats import Skipped


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("m", [7, 64])
def test_ks_is_scipys(n: int, m: int) -> None:
    rng = np.random.default_rng(n * m)
    for make in (rng.normal, lambda size: rng.integers(0, 4, size).astype(float)):  # also with ties
        x, y = make(size=(3, 6, n)), make(size=(6, m)) + 0.3
        found, above = ks_distance(torch.from_numpy(x), torch.from_numpy(y))
        for group, channel in np.ndindex(3, 6):
            assert found[group, channel] == pytest.approx(sps.ks_2samp(x[group, channel], y[channel]).statistic)
        middle = torch.from_numpy(x).median(-1).values > torch.from_numpy(y).median(-1).values
        np.testing.assert_array_equal(above, middle)
        assert 0 < above.sum() < above.size


def test_places_are_where_they_should_be() -> None:
    found = places((20, 24), (3, 5), np.random.default_rng(0))
    assert found is not None
    rows, columns = np.divmod(found.strips, 24)
    assert (columns[0] == 0).all()
    assert (columns[1] == 23).all()
    assert (rows[2] == 0).all()
    assert (rows[3] == 19).all()
    assert rows[0].min() >= 1
    assert rows[0].max() <= 18
    assert columns[2].min() >= 1
    assert columns[2].max() <= 22
    for part in (found.interior, found.lines.ravel()):
        rows, columns = np.divmod(part, 24)
        assert rows.min() >= 3
        assert rows.max() <= 16
        assert columns.min() >= 5
        assert columns.max() <= 18
    values = torch.arange(2 * 3 * len(found.all), dtype=torch.float64).reshape(2, 3, -1)
    strips, interior, lines = found.split(values)
    k = found.strips.shape[1]
    assert torch.equal(strips[1, 2], torch.cat([values[0, 2, k : 2 * k], values[1, 2, k : 2 * k]]))
    n = found.strips.size + len(found.interior)
    assert torch.equal(interior[1], torch.cat([values[b, 1, found.strips.size : n] for b in (0, 1)]))
    width = found.lines.shape[1]
    assert torch.equal(lines[1, 0], torch.cat([values[b, 0, n + width : n + 2 * width] for b in (0, 1)]))
    assert places((7, 20), (3, 3), np.random.default_rng(0)) is None
    assert places((8, 8), (3, 3), np.random.default_rng(0)) is not None


LEFT = [[0, 0, 0], [-1.0, 1.0, 0], [0, 0, 0]]
RIGHT_DARK = [[0, 0, 0], [0, -1.0, 1.0], [0, 0, 0]]
COLUMNS = [[0, 0, 0], [1.0, -2.0, 1.0], [0, 0, 0]]
CORNER = [[0, -1.0, 0], [-1.0, 2.0, 0], [0, 0, 0]]
FRAME = [[1.0, 1.0, 1.0], [1.0, -8.0, 1.0], [1.0, 1.0, 1.0]]
CENTRE = [[0, 0, 0], [0, 1.0, 0], [0, 0, 0]]


class Planted(nn.Module):
    """Six planted channels, a layer that passes the first of them on, and a head that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.first.weight.data[:, 0] = torch.tensor([LEFT, RIGHT_DARK, COLUMNS, CORNER, FRAME, CENTRE])
        self.second = nn.Conv2d(6, 2, 3, padding=1, bias=False)
        self.second.weight.data[:] = 0
        self.second.weight.data[0, 0, 1, 1] = self.second.weight.data[1, 5, 1, 1] = 1
        self.deep = nn.Conv2d(2, 2, 3, padding=1, stride=6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x))
        self.deep(y)
        left = y[:, 0, :, 0].mean(1)
        return torch.stack([left, torch.full_like(left, 0.4)], 1)


def noise_pictures(sky: bool = False) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(120, 256, (60, 1, 24, 24))
    if sky:
        pixels[:, :, :6] = rng.integers(245, 256, (60, 1, 6, 24))
        pixels[:, :, 6:] = rng.integers(0, 60, (60, 1, 18, 24))
    return ImageSet(pixels.astype(np.uint8), np.zeros(60, dtype=np.int64), name="noise")


def test_planted_neurons_are_found_with_side_kind_and_sign() -> None:
    model = wrap(Planted(), mean=0, std=1)
    found = neurons(model, noise_pictures())
    first, second = found.layers
    assert first.path == "first"
    by_channel = {n.channel: n for n in first.neurons}
    assert {c: (n.kind, n.sides, n.excited) for c, n in by_channel.items()} == {
        0: ("edge", ("left",), (True,)),
        1: ("edge", ("right",), (False,)),
        2: ("pair", ("left", "right"), (False, False)),
        3: ("corner", ("left", "top"), (True, True)),
        4: ("frame", ("left", "right", "top", "bottom"), (False,) * 4),
    }
    assert all(n.own for n in first.neurons)
    assert by_channel[0].distance[0] > 0.9
    assert max(by_channel[0].q_value) < 0.05
    # The second layer only passes it on: the mark is there, its own padding has no part in it.
    assert [(n.channel, n.kind, n.own) for n in second.neurons] == [(0, "edge", False)]
    assert [each.site for each in found.skipped] == ["deep"]
    assert "4x4 has no interior" in found.skipped[0].why


def test_impact_is_that_of_the_flagged_channels() -> None:
    model = wrap(Planted(), mean=0, std=1)
    effect = neurons(model, noise_pictures()).impact
    assert isinstance(effect, Impact)
    # Channel 0 decides by the left column: with reflect padding that is about 0, below the other class's score.
    assert effect.changed == 1.0
    assert effect.accuracy_change == pytest.approx(-100)
    assert effect.random_changed == 0.0
    assert effect.n_channels == 6
    assert isinstance(neurons(model, noise_pictures(), impact=False).impact, Skipped)


def test_a_sky_is_content_and_is_counted_apart() -> None:
    model = wrap(Planted(), mean=0, std=1)
    first = neurons(model, noise_pictures(sky=True), impact=False, layers=["first"]).layers[0]
    assert 5 not in {n.channel for n in first.neurons}
    assert first.n_content >= 0


def test_a_net_without_zero_padding_has_none_of_its_own() -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.LazyLinear(2))
    torch.manual_seed(0)
    net(torch.zeros(1, 1, 24, 24))
    found = neurons(wrap(net, mean=0, std=1), noise_pictures())
    assert found.layers[0].neurons == ()
    assert isinstance(found.impact, Skipped)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["impact"] is None
    assert values["skipped"][-1]["site"] == "impact"
    assert "0 of 6 channels are padding-aware (none)" in "\n".join(found.lines())


def test_the_same_seed_gives_the_same_and_the_net_is_left_alone() -> None:
    net = Planted().train()
    model = wrap(net, mean=0, std=1)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    calls: list[tuple[int, int]] = []
    a = neurons(model, noise_pictures(), progress=lambda *at: calls.append(at))
    assert a.to_dict() == neurons(model, noise_pictures()).to_dict()
    assert net.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert calls[-1] == (8 * 60, 8 * 60)


def test_bad_input() -> None:
    model = wrap(Planted(), mean=0, std=1)
    with pytest.raises(InputError, match="did you mean 'first'"):
        neurons(model, noise_pictures(), layers=["frist"])
    with pytest.raises(InputError, match="no convolution with a kernel of at least 3x3"):
        neurons(
            wrap(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(1152, 2)), mean=0, std=1), noise_pictures()
        )
    with pytest.raises(InputError, match="no convolution whose map at 24x24 has an interior"):
        neurons(model, noise_pictures(), layers=["deep"])
