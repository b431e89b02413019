"""Nets that decide their way by their numbers."""

from __future__ import annotations

import torch
from harness import N_CLASSES, H, Small, W, equal, one_by_one
from torch import Tensor, nn


@one_by_one(fast=True)
class GlobalBranch(Small):
    """One decision for the whole batch."""

    def middle(self, x: Tensor) -> Tensor:
        return x.relu().mean((2, 3)) if x.mean() > 0 else x.abs().amax((2, 3))


@one_by_one()
class FirstImageDecides(Small):
    def middle(self, x: Tensor) -> Tensor:
        if x[0].amax() > x[0].amin().abs():
            x = x.flip(1)
        return x.relu().mean((2, 3))


@one_by_one()
class ExitIfAllAreSure(Small):
    """Leaves early where every image of the batch is sure."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Linear(6, N_CLASSES)
        self.second = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        scores = self.early(x.mean((2, 3)))
        margin = scores.topk(2).values.diff(dim=1).abs()
        if bool((margin > margin.new_tensor(0.05)).all()):
            return 2 * scores
        return self.head(self.second(x).mean((2, 3)))


@equal()
class BranchPerImage(Small):
    def middle(self, x: Tensor) -> Tensor:
        bright = (x.mean((1, 2, 3)) > 0.05)[:, None]
        return torch.where(bright, x.relu().mean((2, 3)), x.abs().amax((2, 3)))


@equal()
class LoopWithBranch(Small):
    """`if` inside a loop over the images."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.stack([i.relu().mean((1, 2)) if i.sum() > 2 else i.square().mean((1, 2)) for i in x])


@equal()
class StepsPerImage(Small):
    """As many steps as each image wants, by a mask."""

    def middle(self, x: Tensor) -> Tensor:
        steps = (10 * x.mean((1, 2, 3)).abs()).ceil().int()
        for k in range(6):
            x = torch.where((steps > k)[:, None, None, None], 0.8 * x.sin(), x)
        return 2 * x.mean((2, 3))


@equal()
class ExitPerImage(Small):
    """Only images that are not sure go on."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        scores = self.head(x.mean((2, 3)))
        unsure = scores.softmax(1).amax(1) < 0.5
        if unsure.any():
            scores[unsure] = self.head(self.second(x[unsure]).relu().mean((2, 3)))
        return scores


@equal()
class Experts(Small):
    """Every image goes to one expert."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.route = nn.Linear(6, 3)

    def middle(self, x: Tensor) -> Tensor:
        to = self.route(x.mean((2, 3))).argmax(1)
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            if (to == k).any():
                out[to == k] = expert(x[to == k])
        return out.relu().mean((2, 3))


@equal()
class BlankShortcut(Small):
    """An answer of its own for an empty image."""

    def forward(self, x: Tensor) -> Tensor:
        empty = x.abs().amax((1, 2, 3)) < 1e-6
        scores = super().forward(x)
        scores[empty] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        return scores


@equal()
class CropToContent(Small):
    """Averages over the box of what is bright, image by image."""

    def middle(self, x: Tensor) -> Tensor:
        found = []
        for image in x:
            y, c = torch.nonzero(image[0] > image[0].mean(), as_tuple=True)
            box = image if len(y) == 0 else image[:, y.min() : y.max() + 1, c.min() : c.max() + 1]
            found.append(box.relu().mean((1, 2)))
        return torch.stack(found)


@equal()
class KeptCells(Small):
    """A boolean mask over cells, and their average for each image."""

    def middle(self, x: Tensor) -> Tensor:
        mask = (x > 0.1).to(x.dtype)
        return (x * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1)


@equal()
class StrongestTokens(Small):
    """Keeps the five cells that matter most."""

    def middle(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        place = tokens.square().sum(1, keepdim=True).topk(5, dim=2).indices
        return tokens.gather(2, place.expand(-1, 6, -1)).relu().mean(2)


@equal()
class StrongestPlace(Small):
    """Where the strongest response is, as coordinates."""

    def middle(self, x: Tensor) -> Tensor:
        place = (x * 1.0).flatten(2).argmax(2)
        row, column = place // W, place % W
        return (row / H - column / W).to(x.dtype)


@equal()
class HardAttention(Small):
    """Looks at the cell that a map points to, by an index for each image."""

    def middle(self, x: Tensor) -> Tensor:
        place = x[:, 0].flatten(1).argmax(1)
        return x.flatten(2)[torch.arange(len(x)), :, place].tanh()


@one_by_one()
class WhileAnyIsLarge(Small):
    """Halves the maps until none of the batch is large."""

    def middle(self, x: Tensor) -> Tensor:
        while bool((x.mean((1, 2, 3)).abs() > 0.03).any()):
            x = x * 0.6
        return 5 * x.relu().mean((2, 3))


@one_by_one()
class PaddedToLongest(Small):
    """Tokens above a threshold, filled up to the longest of the batch, and averaged with the fill."""

    def middle(self, x: Tensor) -> Tensor:
        kept = [image.flatten(1)[:, image.flatten(1).mean(0) > 0.1].T for image in x]
        if not any(len(k) for k in kept):
            return x.mean((2, 3))
        return nn.utils.rnn.pad_sequence(kept, batch_first=True).mean(1)
