"""Weights that are computed: parametrisations, norms, pruning, weights from the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import N_CLASSES, Small, equal, told
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm


class Deep(Small):
    """Two convolutions with batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = told(nn.BatchNorm2d(6))
        self.second = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.second(self.bn(x).relu()).relu().mean((2, 3))


def _used(net: nn.Module) -> nn.Module:
    """After a first image: until then its weight belongs to a gradient, and no copy can be made."""
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 9, 8))
    return net


class Mirrored(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.flip(-1)) / 2


class Squared(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.square()


@equal()
def mirrored_kernel() -> nn.Module:
    net = Deep()
    parametrize.register_parametrization(net.conv, "weight", Mirrored())
    return net


@equal()
def stacked_parametrisations() -> nn.Module:
    net = Deep()
    parametrize.register_parametrization(net.second, "weight", Mirrored())
    parametrize.register_parametrization(net.second, "weight", Squared())
    parametrize.register_parametrization(net.second, "bias", Squared())
    return net


@equal()
def parametrised_batch_norm() -> nn.Module:
    net = Deep()
    parametrize.register_parametrization(net.bn, "weight", Squared())
    return net


@equal()
def parametrised_head() -> nn.Module:
    net = Deep()
    parametrize.register_parametrization(net.head, "weight", Squared())
    return net


@equal(fast=True)
def weight_norm_new() -> nn.Module:
    net = Deep()
    parametrizations.weight_norm(net.conv)
    net.conv.parametrizations.weight.original0.data.mul_(1.5)
    return net


@equal()
def weight_norm_old() -> nn.Module:
    net = Deep()
    net.conv = weight_norm(net.conv)
    net.conv.weight_g.data.mul_(1.5)
    return _used(net)


@equal()
def spectral_norm_new() -> nn.Module:
    net = Deep()
    parametrizations.spectral_norm(net.second)
    return net


@equal()
def spectral_norm_old() -> nn.Module:
    net = Deep()
    net.second = spectral_norm(net.second)
    return net


@equal()
def orthogonal_weights() -> nn.Module:
    net = Deep()
    parametrizations.orthogonal(net.second)
    return net


@equal()
def pruned() -> nn.Module:
    net = Deep()
    prune.l1_unstructured(net.conv, "weight", 0.5)
    prune.random_structured(net.second, "weight", 0.3, dim=0)
    return _used(net)


class NoisyInTraining(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + torch.randn_like(weight) if self.training else weight


@equal()
def noise_only_in_training() -> nn.Module:
    net = Deep()
    parametrize.register_parametrization(net.conv, "weight", NoisyInTraining())
    return net


@equal()
def parametrised_after_copy() -> nn.Module:
    """Parametrised and made plain again: an ordinary net with a class of its own left behind."""
    net = Deep()
    parametrize.register_parametrization(net.conv, "weight", Mirrored())
    parametrize.remove_parametrizations(net.conv, "weight")
    return net


@equal()
class TiedWeights(Small):
    """A convolution and its transpose share a weight."""

    def middle(self, x: Tensor) -> Tensor:
        back = F.conv_transpose2d(x.relu(), self.conv.weight, padding=1)
        return self.conv(back).relu().mean((2, 3))


@equal()
class WeightStandardised(Small):
    """Standardises its weight in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6, 3, 3))

    def middle(self, x: Tensor) -> Tensor:
        std, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / std, padding=1).relu().mean((2, 3))


@equal()
class DynamicConv(Small):
    """Kernels made for each image: the batch becomes groups."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Linear(6, 6 * 9)

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        kernels = self.kernels(x.mean((2, 3))).view(n * c, 1, 3, 3)
        return (
            F.conv2d(x.reshape(1, n * c, h, w), kernels, padding=1, groups=n * c).view(n, c, h, w).relu().mean((2, 3))
        )


@equal()
class CondConv(Small):
    """A mixture of expert kernels for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(3, 6, 6, 3, 3) / 5)
        self.route = nn.Linear(6, 3)

    def middle(self, x: Tensor) -> Tensor:
        share = self.route(x.mean((2, 3))).softmax(1)
        mixed = torch.einsum("ne,eoikl->noikl", share, self.experts)
        return (
            torch.stack([F.conv2d(a[None], b, padding=1)[0] for a, b in zip(x, mixed, strict=True)]).relu().mean((2, 3))
        )


@equal()
class HyperHead(nn.Module):
    """The head's weights come from another net, which sees no image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.code = nn.Parameter(torch.randn(5))
        self.weights = nn.Linear(5, 6 * N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu().mean((2, 3)) @ self.weights(self.code).view(6, N_CLASSES)


@equal()
class LowRank(Small):
    """A kernel kept as two factors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 54))

    def middle(self, x: Tensor) -> Tensor:
        return F.conv2d(x, (self.a @ self.b).view(6, 6, 3, 3), padding=1).relu().mean((2, 3))


@equal()
class FunctionalCall(Small):
    """Runs a layer with other weights than its own."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        weights = {"weight": self.second.weight.flip(0), "bias": self.second.bias}
        return torch.func.functional_call(self.second, weights, (x,)).relu().mean((2, 3))
