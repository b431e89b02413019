"""Steps by kind of parameter, against plain formulas and torch's own SGD."""

import math

import pytest
import torch
from torch import nn

from shiftlens.nn.vgg import VGG
from shiftlens.training import Recipe
from shiftlens.training.optimiser import Optimiser, initialise, orthogonalised


def small_net(**more):
    torch.manual_seed(0)
    return VGG("vgg6", n_classes=3, size=8, width=4, **more)


def filters(net):
    return [part.weight for part in net.modules() if isinstance(part, nn.Conv2d)][1:]


def fill_gradients(net, seed=1):
    draw = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (40, 4, 3, 3), (16, 9)])
def test_orthogonalised_keeps_the_directions_and_levels_the_lengths(shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(gradient, torch.float32).reshape(shape[0], -1)
    u, _, vt = torch.linalg.svd(gradient.reshape(shape[0], -1).double(), full_matrices=False)
    lengths = torch.diag(u.T @ found.double() @ vt.T)
    assert lengths.min() > 0.3
    assert lengths.max() < 1.5
    # Nothing but these directions: the rest of the matrix is empty.
    torch.testing.assert_close(u @ torch.diag(lengths) @ vt, found.double(), atol=1e-4, rtol=0)


def test_orthogonalised_of_nothing_is_nothing():
    assert not orthogonalised(torch.zeros(4, 4, 3, 3), torch.float32).any()


def test_muon_keeps_the_norm_of_filters_before_each_step():
    net = small_net()
    initialise(net, Recipe())
    optimiser = Optimiser(net, Recipe(lr=0.1))
    fill_gradients(net)
    before = [w.detach().clone() for w in filters(net)]
    gradients = [w.grad.clone() for w in filters(net)]
    optimiser.step(0.5)
    for old, gradient, new in zip(before, gradients, filters(net), strict=True):
        expected = old * math.sqrt(len(old)) / old.norm() - 0.05 * orthogonalised(gradient, torch.float32)
        torch.testing.assert_close(new.detach(), expected, atol=1e-6, rtol=1e-5)


def test_sgd_is_torchs_nesterov_with_decoupled_decay():
    net, twin = small_net(), small_net()
    rates = {"lr": 0.2, "lr_first": 0.2, "lr_scale": 0.2, "lr_shift": 0.2, "lr_head": 0.2}
    ours = Optimiser(net, Recipe(optimiser="sgd", momentum=0.9, momentum_rest=0.9, weight_decay=0.0, **rates))
    theirs = torch.optim.SGD(twin.parameters(), lr=0.2, momentum=0.9, nesterov=True)
    for seed in range(3):
        fill_gradients(net, seed)
        fill_gradients(twin, seed)
        ours.step(1.0)
        theirs.step()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_decay_is_by_kind_none_on_batch_norm():
    net = small_net()
    optimiser = Optimiser(net, Recipe(optimiser="sgd", lr=0.1, lr_first=0.1, lr_head=0.1, weight_decay=0.5))
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step(1.0)
    for name, parameter in net.named_parameters():
        decays = (name.endswith("weight") and name.split(".")[1] not in ("1", "4")) or name.startswith("3.")
        expected = before[name] * (0.95 if decays else 1.0)
        torch.testing.assert_close(parameter.detach(), expected)


def test_state_goes_round():
    net, twin = small_net(), small_net()
    first, second = Optimiser(net, Recipe()), Optimiser(twin, Recipe())
    fill_gradients(net)
    fill_gradients(twin)
    first.step(1.0)
    twin.load_state_dict(net.state_dict())
    second.load(first.state())
    fill_gradients(net, 7)
    fill_gradients(twin, 7)
    first.step(1.0)
    second.step(1.0)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_identity_start_passes_the_first_channels_on():
    net = small_net()
    initialise(net, Recipe())
    x = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(net[0][3](x)[:, :4], x)
    assert net[0][1].momentum == Recipe().norm_momentum
    assert not net[-1][-1].bias.any()


def test_biases_that_batch_norm_takes_away_are_not_trained():
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    initialise(chain, Recipe())
    assert not chain[0].bias.any()
    assert not chain[0].bias.requires_grad
    assert chain[3].bias.requires_grad
