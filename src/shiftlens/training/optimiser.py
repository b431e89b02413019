"""Steps by kind of parameter: orthogonal ones for filter banks, Nesterov's for the rest; and the start that suits them.

A filter bank followed by batch norm has no length that matters, only a direction. Muon (K. Jordan et al., 2024) moves
it by the nearest orthogonal matrix to its gradient, so that every direction learns alike, and here its norm is held
fixed. It reaches the accuracy of SGD in fewer steps; what it costs is a few matrix products a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from shiftlens.training.recipe import Recipe

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""a, b, c of x -> a x + b x^3 + c x^5, which drives singular values from (0, 1] towards 1 in few rounds (K. Jordan)."""

NEWTON_SCHULZ_ROUNDS = 3

_LENGTH = "length"
_OWN_SGD = 0.05
"""Learning rate of the matrices of a user's own net under `sgd`."""


def initialise(net: nn.Module, recipe: Recipe) -> None:
    """Set a fresh net's starting point, in place; draws from torch's global generator."""
    _silence_lost_biases(net)
    for part in net.modules():
        if isinstance(part, nn.Conv2d) and recipe.identity_init and part.in_channels > 3:
            nn.init.dirac_(part.weight[: part.in_channels].data)
        elif isinstance(part, nn.BatchNorm2d):
            part.momentum = recipe.norm_momentum
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=recipe.head_start / math.sqrt(part.in_features))
            nn.init.zeros_(part.bias)


def _silence_lost_biases(net: nn.Module) -> None:
    """Take biases that batch norm subtracts again out of the training: their gradient is noise, and costs a pass."""
    for chain in net.modules():
        if not isinstance(chain, nn.Sequential):
            continue
        for layer, following in pairwise(chain):
            lost = isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d)
            if lost and isinstance(layer.bias, nn.Parameter):
                nn.init.zeros_(layer.bias)
                layer.bias.requires_grad = False


def orthogonalised(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """About the nearest (semi-)orthogonal matrix to a filter bank's gradient [out, ...], by Newton-Schulz rounds."""
    a, b, c = NEWTON_SCHULZ
    x = gradient.reshape(len(gradient), -1)
    x = (x / (x.norm() + 1e-12)).to(dtype)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(NEWTON_SCHULZ_ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    matrix: Tensor = x.T if tall else x
    return matrix.reshape(gradient.shape).to(gradient.dtype)


@dataclass(frozen=True)
class _Group:
    lr: float
    momentum: float
    decay: float
    orthogonal: bool = False


class Optimiser:
    """One step for every parameter of a net of convolutions, batch norms and linear layers, each by its kind.

    `dtype` is the number format of Muon's matrix products. Of a user's `own` net, which may have no batch norm, every
    matrix but the first convolution and the last linear layer keeps the norm that it has at the start, and a step turns
    it by the same angle.
    """

    def __init__(
        self, net: nn.Module, recipe: Recipe, dtype: torch.dtype = torch.float32, *, own: bool = False
    ) -> None:
        self._dtype = dtype
        rest, decay = recipe.momentum_rest, recipe.weight_decay
        first = next((part for part in net.modules() if isinstance(part, nn.Conv2d)), None)
        last = next((part for part in reversed([*net.modules()]) if isinstance(part, nn.Linear)), None)
        self._lengths: dict[str, Tensor] = {}
        self._parameters: dict[str, tuple[nn.Parameter, _Group]] = {}
        for full_name, parameter in net.named_parameters():
            path, _, name = full_name.rpartition(".")
            part = net.get_submodule(path)
            if not parameter.requires_grad:
                continue
            is_inner = isinstance(part, nn.Conv2d) or (own and not isinstance(part, nn.Embedding))
            length = parameter.detach().norm()
            if own and is_inner and parameter.ndim > 1 and part is not first and part is not last and length > 0:
                muon = recipe.optimiser == "muon"
                self._lengths |= {full_name: length} if muon else {}
                group = _Group(recipe.lr if muon else _OWN_SGD, recipe.momentum, 0.0 if muon else decay, muon)
            elif isinstance(part, nn.Conv2d) and name == "weight" and part is not first:
                muon = recipe.optimiser == "muon"
                group = _Group(recipe.lr, recipe.momentum, 0.0 if muon else decay, orthogonal=muon)
            elif isinstance(part, nn.Conv2d) and name == "weight":
                group = _Group(recipe.lr_first, rest, decay)
            elif isinstance(part, nn.Linear):
                group = _Group(recipe.lr_head, rest, decay)
            elif name == "weight":
                group = _Group(recipe.lr_scale, rest, 0.0)
            else:
                group = _Group(recipe.lr_shift, rest, 0.0)
            self._parameters[full_name] = (parameter, group)
        self._momenta = {name: torch.zeros_like(parameter) for name, (parameter, _) in self._parameters.items()}

    @torch.no_grad()
    def step(self, factor: float | Tensor) -> None:
        """Move every parameter along its gradient, at `factor` times its peak rate, and forget the gradients.

        As a tensor of no axes, on the parameters' device, `factor` is read when the step is done: a recorded step has
        its own each time.
        """
        for name, (parameter, group) in self._parameters.items():
            gradient, momentum = parameter.grad, self._momenta[name]
            if gradient is None:
                continue
            momentum.mul_(group.momentum).add_(gradient)
            change = gradient.add(momentum, alpha=group.momentum)
            if group.orthogonal:
                # An identity-like start has norm sqrt(out): it is kept, so that the rate keeps its meaning.
                length = self._lengths.get(name, math.sqrt(len(parameter)))
                parameter.mul_(length / (parameter.norm() + 1e-12))
                change = orthogonalised(change, self._dtype)
                if name in self._lengths:
                    change.mul_(length / math.sqrt(min(len(change), change[0].numel())))
            elif group.decay:
                parameter.mul_(1 - factor * group.lr * group.decay)
            if isinstance(factor, Tensor):
                parameter.sub_(change * (factor * group.lr))
            else:
                parameter.add_(change, alpha=-factor * group.lr)
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Momentum of each parameter by name: all that a step remembers."""
        return self._momenta | {f"{_LENGTH}.{name}": length for name, length in self._lengths.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for name, momentum in self._momenta.items():
            momentum.copy_(state[name])
        for name, length in self._lengths.items():
            length.copy_(state[f"{_LENGTH}.{name}"])
