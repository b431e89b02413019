"""Nets that keep something between calls, and random ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from harness import H, Small, W, equal, refused, told
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

AGAIN = "asked again"
"""What the refusal of a net that gives other numbers for the same image says."""
UNSTEADY = "of the largest"
"""The same where the batch may be blamed as well."""


@equal()
class Counts(Small):
    """Counts its calls, which nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def middle(self, x: Tensor) -> Tensor:
        self.calls += len(x)
        return super().middle(x)


@refused(AGAIN)
class CountsAndUses(Counts):
    """A warm-up that never ends."""

    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x) * (1 + 0.01 * self.calls)


@refused(AGAIN, fast=True)
class RunningMeanInForward(Small):
    """Statistics that are updated in evaluation mode too, and used."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def middle(self, x: Tensor) -> Tensor:
        self.seen.lerp_(x.mean((0, 2, 3)), 0.1)
        return (x - self.seen[:, None, None]).relu().mean((2, 3))


@equal()
class RunningMeanUnused(Small):
    """Statistics for a log."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def middle(self, x: Tensor) -> Tensor:
        self.seen = 0.9 * self.seen + 0.1 * x.mean((0, 2, 3))
        return super().middle(x)


@equal()
class ActivationLog(Small):
    """Appends to a list."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[float] = []

    def middle(self, x: Tensor) -> Tensor:
        self.log.append(float(x.mean()))
        return super().middle(x)


@equal(fast=True)
class WorkspaceBuffer(Small):
    """A registered buffer that every call writes and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("space", torch.zeros(64, 6, H, W))

    def middle(self, x: Tensor) -> Tensor:
        space = self.space[: len(x)]
        torch.sin(x, out=space)
        for _ in range(3):
            space.mul_(1.1).tanh_()
        return space.mean((2, 3)) * 3


@equal()
class WorkspaceAttribute(Small):
    """The same in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.space = torch.zeros(64, 6, H, W)

    def middle(self, x: Tensor) -> Tensor:
        space = self.space[: len(x)].copy_(x)
        for _ in range(3):
            space.mul_(1.1).sin_()
        return space.mean((2, 3)) * 3


@equal()
class GrowingWorkspace(Small):
    """A workspace that is made when it is first needed, and again when it is too small."""

    def __init__(self) -> None:
        super().__init__()
        self.space: Tensor | None = None

    def middle(self, x: Tensor) -> Tensor:
        if self.space is None or len(self.space) < len(x):
            self.space = torch.empty_like(x)
        return self.space[: len(x)].copy_(x).relu_().mean((2, 3))


@equal()
class GridCache(Small):
    """Coordinates are made once for each size."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[Any, Tensor] = {}

    def middle(self, x: Tensor) -> Tensor:
        key = tuple(x.shape[2:])
        if key not in self.cache:
            self.cache[key] = torch.linspace(-1, 1, key[1])
        return (x.relu() * self.cache[key]).mean((2, 3))


@refused(UNSTEADY)
class ResultCache(Small):
    """Remembers results by the shape of what it was asked: wrong from the second call on."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[Any, Tensor] = {}

    def middle(self, x: Tensor) -> Tensor:
        return self.cache.setdefault(x.shape, super().middle(x))


@refused(AGAIN, fast=True)
class DropoutLeftOn(Small):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True).relu().mean((2, 3))


@refused(AGAIN)
class MonteCarloDropout(Small):
    """Averages over a few random passes."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.stack([F.dropout(x.relu().mean((2, 3)), 0.2) for _ in range(4)]).mean(0)


@refused(AGAIN)
class NoisyInput(Small):
    """Randomised smoothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


@refused(AGAIN)
class RandomShift(Small):
    """Augmentation that was left in."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(int(torch.randint(-2, 3, ())), 3))


@refused(AGAIN)
class FractionalPool(Small):
    """`FractionalMaxPool2d` draws its windows at random in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.FractionalMaxPool2d(2, output_size=(4, 4))

    def middle(self, x: Tensor) -> Tensor:
        return self.pool(x).relu().mean((2, 3))


class _FirstBatchDecides(Small):
    """Sets its scale by the first batch that it sees, whatever the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor | None = None

    def middle(self, x: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = 1 / x.abs().mean()
        return (x * self.scale).relu().mean((2, 3))


@equal()
def scale_of_the_first_batch() -> nn.Module:
    """It has seen its first batch."""
    net = _FirstBatchDecides()
    with torch.no_grad():
        net(torch.ones(2, 3, H, W))
    return net


@refused(UNSTEADY)
class EveryOtherCall(Small):
    """Alternates between two views."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = False

    def middle(self, x: Tensor) -> Tensor:
        self.odd = not self.odd
        return x.relu().mean((2, 3)) if self.odd else x.relu().amax((2, 3))


@refused(AGAIN)
class HiddenStateKept(Small):
    """A recurrent cell that starts from where the last call ended."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 6)
        self.state = torch.zeros(1, 6)

    def middle(self, x: Tensor) -> Tensor:
        self.state = self.cell(x.mean((2, 3)), self.state.mean(0, keepdim=True).expand(len(x), -1))
        return 3 * self.state


def _once(module: nn.Module, args: Any, found: Tensor) -> Tensor | None:
    if getattr(module, "warm", False):
        return None
    module.warm = True
    return found * 3


@equal()
def hook_that_only_met_the_first_call() -> nn.Module:
    net = Small()
    net.conv.register_forward_hook(_once)
    with torch.no_grad():
        net(torch.ones(2, 3, H, W))
    return net


@equal()
class DropoutInTrainingOnly(Small):
    def __init__(self) -> None:
        super().__init__()
        self.depth = StochasticDepth(0.5, "row")

    def middle(self, x: Tensor) -> Tensor:
        x = self.depth(x)
        if self.training:
            x = x + torch.randn_like(x)
        return F.dropout(F.rrelu(x, training=self.training), training=self.training).mean((2, 3))


@equal()
class DefinedInTrainingMode(Small):
    """Handed over in training mode, with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.drop = told(nn.BatchNorm2d(6)), nn.Dropout(0.5)
        self.train()

    def middle(self, x: Tensor) -> Tensor:
        return self.drop(self.bn(x)).relu().mean((2, 3))


@equal()
class PositionTableGrown(Small):
    """Interpolates its table of positions to the map and keeps the result."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 6, 4, 4))
        self.grown: Tensor | None = None

    def middle(self, x: Tensor) -> Tensor:
        if self.grown is None:
            self.grown = F.interpolate(self.table, (H, W), mode="bicubic")
        return (x + self.grown).relu().mean((2, 3))
