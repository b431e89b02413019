"""Nets whose answer for an image may depend on the other images of its batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import Small, equal, one_by_one, refused, told
from torch import Tensor, nn


class Normed(Small):
    """A norm between convolution and head."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x).relu().mean((2, 3))


@one_by_one(fast=True)
def batch_norm_without_statistics() -> nn.Module:
    return Normed(nn.BatchNorm2d(6, track_running_stats=False))


@one_by_one()
class BatchNormTrainingInside(Normed):
    """Puts its norm into training mode in every forward pass, without keeping statistics."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(6, momentum=0.0))

    def middle(self, x: Tensor) -> Tensor:
        self.norm.train()
        return super().middle(x)


@one_by_one()
class AlwaysTraining(Normed):
    """`eval` that leaves its norms in training mode, as some adapted nets do."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(6, momentum=0.0))

    def train(self, mode: bool = True) -> AlwaysTraining:
        super().train(mode)
        self.norm.train()
        return self


@one_by_one()
class FunctionalBatchNorm(Small):
    def middle(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True).relu().mean((2, 3))


@equal()
def ordinary_batch_norm() -> nn.Module:
    return Normed(told(nn.BatchNorm2d(6)))


@equal()
def instance_norm() -> nn.Module:
    return Normed(nn.InstanceNorm2d(6, affine=True))


@equal()
def instance_norm_with_statistics() -> nn.Module:
    norm = nn.InstanceNorm2d(6, track_running_stats=True)
    norm.running_mean.normal_()
    return Normed(norm)


@one_by_one(fast=True)
class BatchMaximum(Small):
    def middle(self, x: Tensor) -> Tensor:
        return (x / x.abs().max()).relu().mean((2, 3))


@one_by_one()
class BatchCentred(Small):
    def middle(self, x: Tensor) -> Tensor:
        features = x.relu().mean((2, 3))
        return features - 0.5 * features.mean(0)


@one_by_one()
class WholeTensorNorm(Small):
    """A norm over everything, where one an image was meant."""

    def middle(self, x: Tensor) -> Tensor:
        return 20 * (x / x.norm()).relu().mean((2, 3))


@one_by_one()
class RankInBatch(Small):
    def middle(self, x: Tensor) -> Tensor:
        features = x.mean((2, 3))
        return features.argsort(0).argsort(0).float() / len(x)


@one_by_one()
class LoopToBatchMaximum(Small):
    """As many steps as the most demanding image wants."""

    def middle(self, x: Tensor) -> Tensor:
        steps = (60 * x.mean((1, 2, 3)).abs()).ceil().int()
        for _ in range(min(40, int(steps.max()))):
            x = 0.95 * x.sin()
        return x.mean((2, 3)) * 3


@one_by_one()
class ScaledByBatchSize(Small):
    def middle(self, x: Tensor) -> Tensor:
        return x.relu().sum((2, 3)) / (20 * x.shape[0])


@one_by_one()
class AnotherPathForOne(Small):
    """A way of its own for a batch of one."""

    def middle(self, x: Tensor) -> Tensor:
        return x.relu().mean((2, 3)) if x.shape[0] == 1 else x.relu().amax((2, 3))


@refused("batch-size 1", views=("constant", "ordinary"))
class AnotherPathForMany(Small):
    """A shortcut for large batches."""

    def middle(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.shape[0] > 40 else x.relu().mean((2, 3))


@one_by_one()
class AttendsToNeighbours(Small):
    """Attention along the wrong axis: `batch_first` was forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 1)

    def middle(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return 3 * self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)


@one_by_one()
class SoftmaxOverBatch(Small):
    def middle(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).softmax(dim=0)


@one_by_one()
class MixedWithNeighbour(Small):
    """Mixup that was left in."""

    def middle(self, x: Tensor) -> Tensor:
        return (0.8 * x + 0.2 * x.roll(1, 0)).relu().mean((2, 3))


@one_by_one()
class FirstImageOnly(Small):
    """Positions are taken from the first image of the batch."""

    def middle(self, x: Tensor) -> Tensor:
        weight = x[0].mean(0).flatten().softmax(0).view(x.shape[2:])
        return (x * weight).sum((2, 3))


@one_by_one()
class GhostBatches(Small):
    """Statistics over groups of four images."""

    def middle(self, x: Tensor) -> Tensor:
        parts = [part - part.mean((0, 2, 3), keepdim=True) for part in x.split(4)]
        return torch.cat(parts).relu().mean((2, 3))


@one_by_one()
class BatchAsTime(Small):
    """An LSTM that takes the batch for time."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 6)

    def middle(self, x: Tensor) -> Tensor:
        return 3 * self.lstm(x.mean((2, 3)))[0]


@one_by_one()
class OneMaskForTheBatch(Small):
    """Keeps the cells that are strong in the batch as a whole."""

    def middle(self, x: Tensor) -> Tensor:
        strong = x.relu().mean((0, 1)) > x.relu().mean()
        return (x * strong).mean((2, 3))


@one_by_one()
class LinearOnTransposed(Small):
    """Centres along the batch by mistake: `std_mean(0)`."""

    def middle(self, x: Tensor) -> Tensor:
        features = x.relu().mean((2, 3))
        std, mean = torch.std_mean(features, 0, correction=0, keepdim=True)
        return (features - mean) / (std + 0.1)


@one_by_one()
class NoisePerPlace(Small):
    """The same noise every time, but another for each place in the batch."""

    def middle(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        return (x + noise).relu().mean((2, 3))


@equal()
class SameNoiseForAll(Small):
    """The same noise every time and for every image."""

    def middle(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0))
        return (x + noise).relu().mean((2, 3))


@equal()
class ImageByImage(Small):
    """A loop over the batch."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.stack([(image / image.abs().max()).relu().mean((1, 2)) for image in x])


@equal()
class ChunksOfTheBatch(Small):
    """Takes large batches in parts, to save memory."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([part.relu().mean((2, 3)) for part in x.split(8)])


@equal()
class Squeezes(Small):
    """`squeeze` takes the batch away where it is one image: there is an answer beside a copy only."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def middle(self, x: Tensor) -> Tensor:
        return self.pool(x.relu()).squeeze()


@one_by_one()
class SegmentsOfTheBatch(Small):
    """Frames of a video as the batch: must be four at a time."""

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        frames = x.view(n // 4, 4, c, h, w) if n > 2 else x.view(n, 1, c, h, w)
        return frames.mean((1, 3, 4))
