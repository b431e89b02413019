"""What goes in: stems that take other channels than the image has, tokens, tables, and where channels are found."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import MEAN, N_CLASSES, STD, H, Small, W, equal
from torch import Tensor, nn


class Stem(nn.Module):
    """A stem that takes `c` channels; what they are made of is each net's own."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, 6, 3, padding=1)
        self.head = nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.seen(x)).relu().mean((2, 3)))

    def seen(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@equal(fast=True)
class CoordConv(Stem):
    """Two channels of coordinates beside the image's three."""

    def __init__(self) -> None:
        super().__init__(5)

    def seen(self, x: Tensor) -> Tensor:
        y, c = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
        return torch.cat([x, torch.stack([y, c]).expand(len(x), -1, -1, -1)], 1)


@equal()
class Brightness(Stem):
    """A fourth channel: the mean of the three."""

    def __init__(self) -> None:
        super().__init__(4)

    def seen(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.mean(1, keepdim=True)], 1)


@equal()
class GreyInside(Stem):
    """Takes colour, and makes it grey itself."""

    def __init__(self) -> None:
        super().__init__(1)
        self.register_buffer("weights", torch.tensor([0.9, -0.4, 0.2]).view(1, 3, 1, 1))

    def seen(self, x: Tensor) -> Tensor:
        return (x * self.weights).sum(1, keepdim=True)


@equal()
class PairOfViews(Stem):
    """The image and its mirror, one behind the other in channels."""

    def __init__(self) -> None:
        super().__init__(6)

    def seen(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.flip(3)], 1)


@equal()
class Differences(Stem):
    """Sees edges only."""

    def __init__(self) -> None:
        super().__init__(6)

    def seen(self, x: Tensor) -> Tensor:
        return torch.cat([F.pad(x.diff(dim=2), (0, 0, 0, 1)), F.pad(x.diff(dim=3), (0, 1))], 1)


class Gate(nn.Module):
    """Attention over space from channel statistics, as in CBAM: a convolution that takes 2 channels, or 1."""

    def __init__(self, c: int = 2) -> None:
        super().__init__()
        self.conv, self.c = nn.Conv2d(c, 1, 7, padding=3), c

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)[:, : self.c]
        return x * self.conv(seen).sigmoid()


@equal(fast=True)
class GateDefinedFirst(nn.Module):
    """The first convolution that is defined takes one channel; the image has three."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(1)
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gate(self.conv(x)).relu().mean((2, 3)))


@equal()
class AuxiliaryHeadFirst(nn.Module):
    """An auxiliary head on deep maps is defined before the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Conv2d(6, N_CLASSES, 1)
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return self.head(x.mean((2, 3))) + self.aux(x).amax((2, 3))


@equal()
class UnusedGreyStem(nn.Module):
    """A stem for grey images that is kept, and never used for colour."""

    def __init__(self) -> None:
        super().__init__()
        self.grey, self.conv = nn.Conv2d(1, 6, 3), nn.Conv2d(3, 6, 3)
        self.head = nn.Linear(6, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.grey(x) if x.shape[1] == 1 else self.conv(x)
        return self.head(maps.relu().mean((2, 3)))


@equal()
class PatchesByUnfold(nn.Module):
    """No convolution at all: patches and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3 * 9, 6), nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(F.unfold(x, 3, stride=2).transpose(1, 2)).relu().mean(1))


@equal()
class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3 * H * W, 16), nn.Linear(16, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x.flatten(1)).relu())


@equal()
class VolumeConv(nn.Module):
    """Channels as depth: `Conv3d`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv3d(1, 4, 3, padding=1), nn.Linear(4, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x.unsqueeze(1)).relu().mean((2, 3, 4)))


@equal()
class ColumnsAsSequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(3 * H, 6, 3), nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x.reshape(len(x), 3 * H, W)).relu().mean(2))


def levels(x: Tensor, n: int) -> Tensor:
    """Back to pixels from 0 to 1, in `n` levels; rounding cannot move a pixel to another one."""
    pixels = ((x * STD + MEAN) * 255).round().clamp(0, 255).long()
    return pixels * n // 256


@equal()
class PixelEmbedding(nn.Module):
    """A vector for each grey level."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4)
        self.conv, self.head = nn.Conv2d(12, 6, 3), nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        found = self.table(levels(x, 16)).permute(0, 1, 4, 2, 3).flatten(1, 2)
        return self.head(self.conv(found).relu().mean((2, 3)))


@equal()
class OneHotPixels(Stem):
    def __init__(self) -> None:
        super().__init__(12)

    def seen(self, x: Tensor) -> Tensor:
        return F.one_hot(levels(x, 4), 4).permute(0, 1, 4, 2, 3).flatten(1, 2).to(x.dtype)


@equal()
class HistogramOfPixels(nn.Module):
    """Counts of levels, image by image."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        counts = [torch.cat([torch.bincount(c.flatten(), minlength=8) for c in image]) for image in levels(x, 8)]
        return self.head(torch.stack(counts).to(x.dtype) / 10)


@equal()
class NormalisesItself(Stem):
    """Standardises each image."""

    def __init__(self) -> None:
        super().__init__(3)

    def seen(self, x: Tensor) -> Tensor:
        std, mean = torch.std_mean(x, (1, 2, 3), keepdim=True)
        return (x - mean) / (std + 0.1)


@equal()
class ResizesItself(Stem):
    """Brings images to its own size."""

    def __init__(self) -> None:
        super().__init__(3)

    def seen(self, x: Tensor) -> Tensor:
        return F.interpolate(x, (12, 12), mode="bilinear", align_corners=False)


@equal()
def lazy_layers() -> nn.Module:
    """Layers that found their sizes with the first image."""
    net = nn.Sequential(nn.LazyConv2d(6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(N_CLASSES))
    net(torch.zeros(2, 3, H, W))
    return net


@equal(shares=True, fast=True)
class Plain(Small):
    """Nothing odd: must be served by every way of computing."""
