"""Ways from maps to scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import N_CLASSES, H, Small, W, equal
from torch import Tensor, nn
from torchvision.ops import roi_align


@equal()
class EinsumHead(Small):
    """A weight for each cell, channel and class."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, H, W, N_CLASSES) / 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,chwk->nk", self.conv(x).relu(), self.weight)


@equal()
class GeneralisedMean(Small):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))

    def middle(self, x: Tensor) -> Tensor:
        return x.clamp_min(1e-4).pow(self.p).mean((2, 3)).pow(1 / self.p)


@equal()
class PyramidPool(Small):
    def __init__(self) -> None:
        super().__init__(6 * (1 + 4 + 9))

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, k).flatten(1) for k in (1, 2, 3)], 1)


@equal()
class AttentionPool(Small):
    """One query asks all cells."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def middle(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return 4 * self.attention(self.query.expand(len(x), -1, -1), tokens, tokens, need_weights=False)[0][:, 0]


@equal()
class SoftArgmax(Small):
    """Coordinates of the responses."""

    def __init__(self) -> None:
        super().__init__(12)

    def middle(self, x: Tensor) -> Tensor:
        share = (3 * x).flatten(2).softmax(2).view_as(x)
        y = (share.sum(3) * torch.arange(H)).sum(2)
        return torch.cat([y, (share.sum(2) * torch.arange(W)).sum(2)], 1) / 4


@equal()
class IntegralImage(Small):
    """Sums over boxes by cumulated sums."""

    def middle(self, x: Tensor) -> Tensor:
        total = x.relu().cumsum(2).cumsum(3)
        return (total[:, :, 6, 5] - total[:, :, 1, 5] - total[:, :, 6, 2] + total[:, :, 1, 2]) / 15


@equal()
class MaskedMean(Small):
    """A fixed window over the middle."""

    def __init__(self) -> None:
        super().__init__()
        mask = torch.zeros(H, W, dtype=torch.bool)
        mask[2:7, 3:6] = True
        self.register_buffer("mask", mask)

    def middle(self, x: Tensor) -> Tensor:
        return x.relu()[:, :, self.mask].mean(2)


@equal()
class TopCells(Small):
    """The mean of the strongest cells of each channel."""

    def middle(self, x: Tensor) -> Tensor:
        return x.flatten(2).topk(7, dim=2).values.mean(2)


@equal()
class SortedCells(Small):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(H * W) / 9)

    def middle(self, x: Tensor) -> Tensor:
        return x.flatten(2).sort(2).values @ self.weight


@equal()
class BilinearPool(Small):
    """Channels times channels, with a signed root."""

    def __init__(self) -> None:
        super().__init__(36)

    def middle(self, x: Tensor) -> Tensor:
        found = torch.einsum("nchw,ndhw->ncd", x, x).flatten(1) / (H * W)
        return found.sign() * (found.abs() + 1e-2).sqrt()


@equal()
class CosineHead(Small):
    def forward(self, x: Tensor) -> Tensor:
        features = F.normalize(self.conv(x).relu().mean((2, 3)), dim=1)
        return 8 * features @ F.normalize(self.head.weight, dim=1).T


@equal()
class Prototypes(Small):
    """Distance to a prototype for each class."""

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.conv(x).relu().mean((2, 3)), self.head.weight)


@equal()
class NearestNeighbours(Small):
    """Votes of the stored examples that are nearest, softly."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.randn(12, 6))
        self.register_buffer("votes", torch.eye(N_CLASSES).repeat(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        near = (-torch.cdist(self.conv(x).mean((2, 3)), self.bank)).softmax(1)
        return 6 * near @ self.votes


@equal()
class ClassCapsules(Small):
    """Scores are lengths of vectors that agree, over three rounds of routing."""

    def __init__(self) -> None:
        super().__init__()
        self.votes = nn.Parameter(torch.randn(6, N_CLASSES, 5) / 2)

    def forward(self, x: Tensor) -> Tensor:
        u = torch.einsum("nc,ckd->nckd", self.conv(x).relu().mean((2, 3)), self.votes)
        b = torch.zeros(len(x), 6, N_CLASSES)
        for _ in range(3):
            v = (b.softmax(2)[..., None] * u).sum(1)
            b = b + (u * v[:, None]).sum(-1)
        return 4 * v.norm(dim=-1)


@equal()
class SoftClusters(Small):
    """NetVLAD: residuals to soft clusters."""

    def __init__(self) -> None:
        super().__init__(18)
        self.assign = nn.Conv2d(6, 3, 1)
        self.centres = nn.Parameter(torch.randn(3, 6))

    def middle(self, x: Tensor) -> Tensor:
        share = self.assign(x).softmax(1).flatten(2)
        rest = x.flatten(2)[:, None] - self.centres[None, :, :, None]
        return 3 * F.normalize((rest * share[:, :, None]).sum(-1).flatten(1), dim=1)


@equal()
class Regions(Small):
    """Fixed regions of interest, indexed by the image's place in the batch."""

    def middle(self, x: Tensor) -> Tensor:
        boxes = torch.tensor([[0.5, 1.0, 6.0, 7.5]])
        return roi_align(x, [boxes] * len(x), 3, aligned=True).relu().mean((2, 3))


@equal()
class Hypercolumns(Small):
    """Maps of several depths at one size."""

    def __init__(self) -> None:
        super().__init__(12)
        self.down = nn.Conv2d(6, 6, 3, stride=2, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        deep = F.interpolate(self.down(x.relu()), (H, W), mode="nearest")
        return torch.cat([x, deep], 1).sigmoid().amax((2, 3))


@equal()
class RecurrentRows(Small):
    """An LSTM reads the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6 * W, 6, batch_first=True)

    def middle(self, x: Tensor) -> Tensor:
        return 3 * self.lstm(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1]


@equal()
class RecurrentBothWays(Small):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 3, num_layers=2, bidirectional=True, batch_first=True)

    def middle(self, x: Tensor) -> Tensor:
        return 3 * self.gru(x.mean(2).transpose(1, 2))[0].mean(1)


@equal()
class ScannedCells(Small):
    """A cell of its own steps over columns."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 6)

    def middle(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 6)
        for column in x.mean(2).unbind(2):
            state = self.cell(column, state)
        return 3 * state


@equal()
class HistogramHead(Small):
    """Soft counts of responses."""

    def __init__(self) -> None:
        super().__init__(30)

    def middle(self, x: Tensor) -> Tensor:
        near = torch.exp(-((x[:, :, None] - torch.linspace(-1, 1, 5).view(1, 1, 5, 1, 1)) ** 2) * 4)
        return near.mean((3, 4)).flatten(1)


@equal()
class ConvolutionalHead(Small):
    """Fully convolutional: scores on every cell, the best cell counts."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(6, N_CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.conv(x).relu()).logsumexp((2, 3))


@equal(shares=True)
class GlobalMaximum(Small):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)

    def middle(self, x: Tensor) -> Tensor:
        return self.pool(x).flatten(1)


@equal()
class MomentsHead(Small):
    def __init__(self) -> None:
        super().__init__(24)

    def middle(self, x: Tensor) -> Tensor:
        std, mean = torch.std_mean(x, (2, 3))
        return torch.cat([mean, std, x.amax((2, 3)), x.flatten(2).quantile(0.3, dim=2)], 1)
