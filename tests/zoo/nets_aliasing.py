"""Work in place, on maps that are also known under another name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import Small, equal
from torch import Tensor, nn


class Aliased(Small):
    """Changes something in place that may be the map itself, then uses both."""

    def middle(self, x: Tensor) -> Tensor:
        y = self.change(x)
        return (x.tanh() + 2 * y.tanh()).mean((2, 3))

    def change(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@equal(fast=True)
class ReluBehindDropout(Aliased):
    """A dropout hands its input on in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.act = nn.Dropout(0.3), nn.ReLU(inplace=True)

    def change(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


@equal()
class ReluBehindIdentity(Aliased):
    def __init__(self) -> None:
        super().__init__()
        self.same, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def change(self, x: Tensor) -> Tensor:
        return self.act(self.same(x))


@equal()
class ReluBehindFunctionalDropout(Aliased):
    def change(self, x: Tensor) -> Tensor:
        return F.relu(F.dropout(x, 0.5, self.training), inplace=True)


@equal()
class ReluBehindView(Aliased):
    def change(self, x: Tensor) -> Tensor:
        x.flatten(2).relu_()
        return x * 1


@equal()
class ReluBehindContiguous(Aliased):
    """`contiguous` copies or not, as the layout has it: channels last is another net."""

    def change(self, x: Tensor) -> Tensor:
        return x.contiguous().relu_()


@equal()
class ReluBehindFloat(Aliased):
    def change(self, x: Tensor) -> Tensor:
        return x.float().relu_()


@equal()
class ReluOnSlice(Aliased):
    def change(self, x: Tensor) -> Tensor:
        x[:, :3].relu_()
        return x[:, 3:].repeat(1, 2, 1, 1)


@equal()
class ReluOnChunk(Aliased):
    def change(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        F.relu_(a)
        return torch.cat([b, a], 1)


@equal()
class ReluBehindTranspose(Aliased):
    def change(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3).clamp_(-0.2, 0.4).transpose(2, 3)


@equal()
class ReluTwoDropoutsDeep(Aliased):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Sequential(nn.Dropout2d(), nn.Sequential(nn.Identity(), nn.AlphaDropout()), nn.ELU(inplace=True))

    def change(self, x: Tensor) -> Tensor:
        return self.act(x)


@equal()
class SharedInplaceRelu(Small):
    """One activation object behind two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.second = nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        before = x
        x = self.act(self.second(self.act(x)))
        return (x + before).mean((2, 3))


@equal()
class ResidualAddInPlace(Small):
    def __init__(self) -> None:
        super().__init__()
        self.second, self.act = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True)

    def middle(self, x: Tensor) -> Tensor:
        kept = x
        x += self.second(self.act(x))
        return (x + 0.5 * kept).mean((2, 3))


@equal()
class AddToDetached(Aliased):
    def change(self, x: Tensor) -> Tensor:
        x.detach().add_(0.5)
        return x.square()


@equal(fast=True)
class InputChanged(Small):
    """Normalises the caller's batch in place."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5).add_(0.25)
        return super().forward(x)


@equal()
class InputBlanked(Small):
    """Blanks the corner of the caller's batch."""

    def forward(self, x: Tensor) -> Tensor:
        x[:, :, :3, :3] = 0
        return super().forward(x)


@equal()
class MaskedFillInPlace(Aliased):
    def change(self, x: Tensor) -> Tensor:
        return x.masked_fill_(x < 0.1, -1)


@equal()
class OutArgument(Aliased):
    def change(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        torch.add(x, 1, out=out)
        torch.mul(out, x, out=x)
        return out


@equal()
class CopyBetweenSlices(Aliased):
    def change(self, x: Tensor) -> Tensor:
        x[:, 0].copy_(x[:, 1])
        x[:, 2, 1:] = x[:, 2, :-1].clone()
        return x.flip(1)


@equal()
class WeightNormalisedInPlace(Small):
    """Writes into its own weights; once is as good as often."""

    def middle(self, x: Tensor) -> Tensor:
        self.head.weight.data.copy_(F.normalize(self.head.weight.data, dim=1))
        return 5 * x.relu().mean((2, 3))


@equal()
class SetItemOnInputOfResidual(Small):
    def middle(self, x: Tensor) -> Tensor:
        shortcut = x.view_as(x)
        shortcut[..., 0] = 0
        return x.relu().mean((2, 3))
