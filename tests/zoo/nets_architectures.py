"""Whole designs in small: attention, mixers, pyramids, shared and repeated layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import N_CLASSES, H, Small, W, equal, told
from torch import Tensor, nn


def conv(n_in: int, n_out: int, k: int = 3, **options: int) -> nn.Sequential:
    """Convolution, batch norm that has seen something, ReLU."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, k, padding=k // 2, **options), told(nn.BatchNorm2d(n_out)), nn.ReLU())


@equal(shares=True)
class ResidualNet(Small):
    """A residual block with a shortcut that goes down."""

    def __init__(self) -> None:
        super().__init__(8)
        self.a = nn.Sequential(conv(6, 8, stride=2), nn.Conv2d(8, 8, 3, padding=1), told(nn.BatchNorm2d(8)))
        self.shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, stride=2, bias=False), told(nn.BatchNorm2d(8)))
        self.act = nn.ReLU(inplace=True)

    def middle(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y += self.shortcut(x)
        return self.act(y).mean((2, 3))


@equal()
class SqueezeExcite(Small):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 3, 1), nn.ReLU(), nn.Conv2d(3, 6, 1))

    def middle(self, x: Tensor) -> Tensor:
        return (x * self.squeeze(x).sigmoid()).relu().amax((2, 3))


@equal()
class DenseNet(Small):
    def __init__(self) -> None:
        super().__init__(15)
        self.layers = nn.ModuleList(nn.Conv2d(6 + 3 * k, 3, 3, padding=1) for k in range(3))

    def middle(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x.relu())], 1)
        return x.mean((2, 3))


@equal()
class InceptionLike(Small):
    def __init__(self) -> None:
        super().__init__(12)
        self.branches = nn.ModuleDict({"one": conv(6, 3, 1), "three": conv(6, 3), "five": conv(6, 3, 5)})
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(6, 3, 1))

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([*(self.branches[name](x) for name in ("five", "one", "three")), self.pool(x)], 1).mean((2, 3))


@equal()
class TinyTransformer(nn.Module):
    """Patches of 4 x 3, a class token, learned positions, one block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, (3, 4), stride=(3, 4))
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 7, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        return self.head(self.block(tokens)[:, 0])


@equal()
class FusedAttention(Small):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(6, 18, 1)

    def middle(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2).chunk(3, dim=2)
        return 3 * F.scaled_dot_product_attention(q, k, v).mean(1)


@equal()
class ShiftedWindows(Small):
    """Attention inside windows of 3 x 4, after a roll."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def middle(self, x: Tensor) -> Tensor:
        n = len(x)
        x = x.roll((-1, -2), (2, 3)).reshape(n, 6, 3, 3, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(n * 6, 12, 6)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x.reshape(n, 72, 6).relu().mean(1)


@equal()
class NonLocal(Small):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 1)

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        near = torch.bmm(self.a(x).view(n, 3, -1).transpose(1, 2), self.b(x).view(n, 3, -1)).softmax(-1)
        return (x + torch.bmm(x.view(n, c, -1), near.transpose(1, 2)).view(n, c, h, w)).relu().mean((2, 3))


@equal()
class RotaryAttention(Small):
    """Positions turn queries and keys."""

    def middle(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        angle = torch.arange(H * W)[:, None] * torch.tensor([1.0, 0.1, 0.01])
        a, b = tokens[..., :3], tokens[..., 3:]
        turned = torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)
        return 2 * ((turned @ turned.transpose(1, 2)).softmax(-1) @ tokens).mean(1)


@equal()
class MixerNet(nn.Module):
    """Linear layers over cells and over channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, (3, 2), stride=(3, 2))
        self.norm, self.cells, self.channels = nn.LayerNorm(6), nn.Linear(12, 12), nn.Linear(6, 6)
        self.head = nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.cells(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(x).relu()).mean(1))


@equal()
class ConvMixer(Small):
    def __init__(self) -> None:
        super().__init__()
        self.depth, self.point = nn.Conv2d(6, 6, 5, groups=6, padding="same"), nn.Conv2d(6, 6, 1)
        self.a, self.b = told(nn.BatchNorm2d(6)), told(nn.BatchNorm2d(6))

    def middle(self, x: Tensor) -> Tensor:
        x = self.a(F.gelu(self.depth(x))) + x
        return self.b(F.gelu(self.point(x))).mean((2, 3))


@equal()
class ConvNextBlock(Small):
    """Depthwise, norm over channels last, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(6, 6, 7, groups=6, padding=3), nn.LayerNorm(6)
        self.wide, self.back = nn.Linear(6, 24), nn.Linear(24, 6)
        self.gamma = nn.Parameter(torch.rand(6))

    def middle(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.gamma * self.back(F.gelu(self.wide(y)))
        return (x + y.permute(0, 3, 1, 2)).mean((2, 3))


@equal()
class HourGlass(Small):
    """Down, up and across, as in a U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.out = conv(6, 8), nn.ConvTranspose2d(8, 6, 2, stride=2), conv(12, 6)

    def middle(self, x: Tensor) -> Tensor:
        deep = self.up(self.down(F.max_pool2d(x, 2)))
        deep = F.pad(deep, (0, x.shape[3] - deep.shape[3], 0, x.shape[2] - deep.shape[2]))
        return self.out(torch.cat([x, deep], 1)).mean((2, 3))


@equal()
class FeaturePyramid(Small):
    def __init__(self) -> None:
        super().__init__(12)
        self.down, self.lateral = conv(6, 6, stride=2), nn.Conv2d(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        deep = self.down(x)
        top = self.lateral(x) + F.interpolate(deep, size=x.shape[-2:], mode="nearest")
        return torch.cat([top.relu().mean((2, 3)), deep.mean((2, 3))], 1)


@equal()
class CalledTwice(Small):
    """One block, applied twice, with its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.block = conv(6, 6)

    def middle(self, x: Tensor) -> Tensor:
        return self.block(self.block(x)).mean((2, 3))


@equal()
class SharedConvTwoNorms(Small):
    """A convolution shared by two scales, each with a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.a, self.b = nn.Conv2d(6, 6, 3), told(nn.BatchNorm2d(6)), told(nn.BatchNorm2d(6))

    def middle(self, x: Tensor) -> Tensor:
        return self.a(self.shared(x)).relu().mean((2, 3)) + self.b(self.shared(F.avg_pool2d(x, 2))).relu().mean((2, 3))


@equal()
class NormOnConvUsedTwice(Small):
    """What a convolution gives is read by its norm and by another part."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.bn = nn.Conv2d(6, 6, 3, padding=1), told(nn.BatchNorm2d(6))

    def middle(self, x: Tensor) -> Tensor:
        y = self.second(x)
        return (self.bn(y).relu() - 0.5 * y).mean((2, 3))


@equal()
class SharedWeightsByName(Small):
    """Two layers with one weight tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.b.weight = self.a.weight
        self.bn = told(nn.BatchNorm2d(6))

    def middle(self, x: Tensor) -> Tensor:
        return (self.bn(self.a(x)).relu() + self.b(x).relu()).mean((2, 3))


@equal()
class GhostModule(Small):
    def __init__(self) -> None:
        super().__init__()
        self.main, self.cheap = conv(6, 3), conv(3, 3, groups=3)

    def middle(self, x: Tensor) -> Tensor:
        main = self.main(x)
        return torch.cat([main, self.cheap(main)], 1)[:, [0, 3, 1, 4, 2, 5]].mean((2, 3))


@equal()
class Involution(Small):
    """Kernels made for each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(6, 9, 1)

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        taps = F.unfold(x, 3, padding=1).view(n, c, 9, h, w)
        return (taps * self.kernel(x).unsqueeze(1)).sum(2).relu().mean((2, 3))


@equal()
class CoordinateAttention(Small):
    """Gates for rows and for columns, from their means."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        a, b = self.rows(x.mean(3, keepdim=True)), self.columns(x.mean(2, keepdim=True))
        return (x * a.sigmoid() * b.sigmoid()).relu().mean((2, 3)) * 3


@equal()
class Correlation(Small):
    """Compares the map with itself, moved."""

    def middle(self, x: Tensor) -> Tensor:
        wide = F.pad(x, (1, 1, 1, 1))
        moved = [(x * wide[:, :, dy : dy + H, dx : dx + W]).mean((1, 2, 3)) for dy, dx in ((0, 1), (1, 0), (2, 2))]
        return torch.stack(moved, 1).repeat(1, 2)


@equal()
class EquilibriumNet(Small):
    """Iterates one layer to its fixed point."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Conv2d(6, 6, 3, padding=1)
        self.step.weight.data.mul_(0.3)

    def middle(self, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(8):
            z = torch.tanh(self.step(z) + x)
        return z.mean((2, 3)) * 2


@equal()
class MultiScale(Small):
    """The image at three sizes through one net."""

    def forward(self, x: Tensor) -> Tensor:
        sizes = (1.0, 0.75, 1.5)
        return sum(super(MultiScale, self).forward(F.interpolate(x, scale_factor=s, mode="bilinear")) for s in sizes)
