"""The VGGs: shapes, indices, keys, cost."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from shiftlens.errors import InputError
from shiftlens.nn import PADDING_MODES, VGG
from shiftlens.nn.vgg import DOWNSAMPLINGS


def keys(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in model.state_dict().items()]


def test_vgg8_is_the_net_of_the_contract() -> None:
    model = VGG()
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [c.out_channels for c in VGG("vgg6").modules() if isinstance(c, nn.Conv2d)] == [64, 64, 128, 128, 256, 256]
    assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {((3, 3), (1, 1), (1, 1))}
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_levels_and_layers_have_indices() -> None:
    model = VGG(width=4)
    assert model.n_levels == 4
    kinds = [type(layer).__name__ for layer in model[1]]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert model[1][0].in_channels == 4
    assert model[1][3].out_channels == 8
    assert isinstance(model[-1][-1], nn.Linear)


def test_a_slice_is_a_plain_chain_that_shares_its_layers() -> None:
    model = VGG("vgg6", width=4).eval()
    trunk = model[:2]
    assert type(trunk) is nn.Sequential
    assert trunk[1] is model[1]
    assert trunk(torch.zeros(1, 3, 32, 32)).shape == (1, 8, 8, 8)


@pytest.mark.parametrize("downsample", ["max", "avg", "stride"])
@pytest.mark.parametrize("head", ["gap", "max", "flatten"])
def test_keys_are_the_same_for_every_padding_mode(downsample: str, head: str) -> None:
    modes = [mode for mode in PADDING_MODES if (mode, head) != ("full", "flatten")]  # grown maps have more features
    nets = [VGG("vgg6", padding=mode, downsample=downsample, head=head, width=4) for mode in modes]
    assert all(keys(net) == keys(nets[0]) for net in nets)
    for net in nets:
        net.load_state_dict(nets[0].state_dict())
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_names_of_keys_are_the_same_for_every_head() -> None:
    assert len({tuple(VGG("vgg6", head=head, width=4).state_dict()) for head in ("gap", "max", "flatten")}) == 1


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_the_mode_reaches_every_convolution(mode: str) -> None:
    net = VGG("vgg6", padding=mode, downsample="stride", width=4)
    modes = {part.padding_mode for part in net.modules() if isinstance(part, nn.Conv2d)}
    assert modes == {{"symmetric": "replicate", "full": "zeros"}.get(mode, mode)}


def test_modes_give_different_scores_with_the_same_weights() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    reference = VGG("vgg6", width=4).eval()
    scores = {}
    for mode in PADDING_MODES:
        net = VGG("vgg6", padding=mode, width=4).eval()
        net.load_state_dict(reference.state_dict())
        scores[mode] = net(x)
    assert torch.equal(scores["symmetric"], scores["replicate"])
    different = ["zeros", "replicate", "reflect", "circular", "partial", "distribution", "full"]
    assert torch.equal(scores["random"], scores["zeros"])  # it draws while training only
    for i, first in enumerate(different):
        for second in different[i + 1 :]:
            assert not torch.allclose(scores[first], scores[second]), (first, second)


def test_stride_puts_an_uneven_convolution_in_place_of_the_pooling() -> None:
    layer = VGG("vgg6", downsample="stride", width=4)[0][6]
    assert isinstance(layer, nn.Conv2d)
    assert (layer.kernel_size, layer.stride, layer.padding, layer.out_channels) == ((3, 3), (2, 2), (1, 1), 4)
    assert layer(torch.zeros(1, 4, 33, 32)).shape == (1, 4, 17, 16)


def test_flatten_is_made_for_its_size() -> None:
    net = VGG("vgg6", head="flatten", size=(32, 48), width=4)
    assert net[-1][-1].in_features == 16 * 4 * 6
    assert net(torch.zeros(1, 3, 32, 48)).shape == (1, 10)
    strided = VGG("vgg6", head="flatten", size=33, downsample="stride", width=4)
    assert strided[-1][-1].in_features == 16 * 5 * 5
    assert strided(torch.zeros(1, 3, 33, 33)).shape == (1, 10)


@pytest.mark.parametrize("downsample", DOWNSAMPLINGS)
@pytest.mark.parametrize("padding", PADDING_MODES)
@pytest.mark.parametrize("size", [(32, 40), (33, 37)])
def test_the_size_that_flatten_expects_is_the_size_that_comes(downsample: str, padding: str, size: tuple) -> None:
    net = VGG("vgg6", padding=padding, downsample=downsample, head="flatten", size=size, width=2).eval()
    assert net(torch.zeros(1, 3, *size)).shape == (1, 10)


def test_config_builds_the_net_again() -> None:
    net = VGG("vgg6", 7, 1, "reflect", "avg", "flatten", 40, width=4)
    again = VGG(**json.loads(json.dumps(net.config)))
    assert repr(again) == repr(net)
    assert again.config == net.config
    assert keys(again) == keys(net)


def test_circular_trunk_of_stride_one_commutes_with_roll() -> None:
    torch.manual_seed(0)
    stack = VGG("vgg6", padding="circular", width=4).eval()[0][:6].double()
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(stack(x.roll((3, 5), (2, 3))), stack(x).roll((3, 5), (2, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "vgg9"}, "unknown architecture 'vgg9'; did you mean 'vgg"),
        ({"padding": "symetric"}, "did you mean 'symmetric'"),
        ({"downsample": "strided"}, "did you mean 'stride'"),
        ({"head": "gab"}, "did you mean 'gap'"),
        ({"n_classes": 0}, "n_classes must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1"),
        ({"size": 8}, "8x8 is too small"),
        ({"size": (32, 8), "padding": "reflect"}, "level 3 would get 4x1, needs at least 2x2"),
    ],
)
def test_bad_use_is_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        VGG(**arguments)
    assert "\n" not in str(caught.value)


def test_number_of_levels_is_the_index_of_the_head() -> None:
    for arch, n_levels in (("vgg8", 4), ("vgg6", 3)):
        net = VGG(arch, width=2)
        assert net.n_levels == n_levels
        assert net[n_levels] is net[-1]
