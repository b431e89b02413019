"""Layers beyond convolution, ReLU and maximum: norms, pads, pools, sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import N_CLASSES, H, Small, W, equal, told, zoo
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

import shiftlens as sl

Layer = Callable[[Tensor], Tensor]


class With(Small):
    """One layer between convolution and head, and the mean over space."""

    def __init__(self, layer: Layer, n: int = 6) -> None:
        super().__init__(n)
        self.layer = layer

    def middle(self, x: Tensor) -> Tensor:
        return self.layer(x).relu().mean((2, 3))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "group_norm": lambda: nn.GroupNorm(2, 6),
    "layer_norm_over_space": lambda: nn.LayerNorm([6, H, W]),
    "local_response_norm": lambda: nn.LocalResponseNorm(3, alpha=0.5),
    "circular_conv": lambda: nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"),
    "reflect_conv": lambda: nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
    "replicate_conv": lambda: nn.Conv2d(6, 6, 3, padding=2, stride=2, padding_mode="replicate"),
    "symmetric_conv": lambda: sl.nn.conv2d(6, 6, 3, padding=1, padding_mode="symmetric"),
    "partial_conv": lambda: sl.nn.conv2d(6, 6, 3, padding=1, padding_mode="partial"),
    "same_padding": lambda: nn.Conv2d(6, 6, (2, 4), padding="same"),
    "constant_pad": lambda: nn.Sequential(nn.ConstantPad2d((2, 0, 1, 3), 1.5), nn.Conv2d(6, 6, 3)),
    "reflection_pad": lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(6, 6, 3, stride=2)),
    "cropping_pad": lambda: nn.Sequential(nn.ZeroPad2d((-1, 0, 0, -2)), nn.Conv2d(6, 6, 3)),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(6, 12, 3, groups=6, padding=1), nn.ReLU6(), nn.Conv2d(12, 6, 1)),
    "dilated": lambda: nn.Conv2d(6, 6, 3, dilation=3, padding=3),
    "one_by_many": lambda: nn.Sequential(nn.Conv2d(6, 6, (1, 5), padding=(0, 2)), nn.Conv2d(6, 6, (5, 1), stride=2)),
    "transposed_conv": lambda: nn.ConvTranspose2d(6, 6, 3, stride=2, padding=1, output_padding=1),
    "ceil_max_pool": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "ceil_average_pool": lambda: nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    "overridden_average_pool": lambda: nn.AvgPool2d(3, 2, 1, divisor_override=5),
    "dilated_max_pool": lambda: nn.MaxPool2d(3, 1, dilation=2),
    "power_pool": lambda: nn.Sequential(nn.Softplus(), nn.LPPool2d(2, 2)),
    "adaptive_pool": lambda: nn.AdaptiveAvgPool2d((2, 3)),
    "adaptive_max_pool": lambda: nn.AdaptiveMaxPool2d(4),
    "blur_pool": lambda: sl.nn.BlurPool2d(6, 3, 2, "reflect"),
    "max_blur_pool": lambda: sl.nn.MaxBlurPool2d(6, 2, 2, 0),
    "bilinear_up": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "nearest_up": lambda: nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2), nn.Conv2d(6, 6, 3, stride=2)),
    "bicubic_down": lambda: nn.Upsample((5, 4), mode="bicubic"),
    "prelu": lambda: nn.PReLU(6, 0.3),
    "rrelu": nn.RReLU,
    "softmax_over_channels": nn.Softmax2d,
    "hard_shrink": lambda: nn.Softshrink(0.2),
    "two_batch_norms": lambda: nn.Sequential(told(nn.BatchNorm2d(6)), nn.Conv2d(6, 6, 1), told(nn.BatchNorm2d(6))),
    "batch_norm_before_padding": lambda: nn.Sequential(told(nn.BatchNorm2d(6)), nn.Conv2d(6, 6, 3, padding=1)),
}


def _with(name: str, layer: Callable[[], nn.Module]) -> None:
    def make() -> nn.Module:
        return With(layer())

    make.__name__ = name
    zoo("equal")(make)


for _name, _layer in LAYERS.items():
    _with(_name, _layer)


@equal()
class ChannelsFirstLayerNorm(Small):
    """ConvNeXt's norm: over channels, by a permutation there and back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).relu().mean((2, 3))


@equal()
class PixelShuffled(Small):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.after = nn.Conv2d(6, 8, 1), nn.Conv2d(2, 6, 3)

    def middle(self, x: Tensor) -> Tensor:
        return self.after(F.pixel_shuffle(self.up(x), 2)).relu().mean((2, 3))


@equal()
class PixelUnshuffled(Small):
    def __init__(self) -> None:
        super().__init__(24)

    def middle(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x[:, :, 1:], 2).relu().amax((2, 3))


@equal()
class MaxUnpooled(Small):
    """Values go back to where the maxima were."""

    def middle(self, x: Tensor) -> Tensor:
        pooled, where = F.max_pool2d(x, 2, return_indices=True)
        return self.tilt(F.max_unpool2d(pooled, where, 2, output_size=[H, W]))

    def tilt(self, x: Tensor) -> Tensor:
        return (x * torch.linspace(0, 1, W)).mean((2, 3))


@equal()
class SpatialTransformer(Small):
    """Turns and scales each image as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Linear(6, 6)
        nn.init.normal_(self.theta.weight, std=0.1)

    def middle(self, x: Tensor) -> Tensor:
        theta = self.theta(x.mean((2, 3))).view(-1, 2, 3) + torch.eye(2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False).relu().mean((2, 3))


@equal()
class LogPolar(Small):
    """Samples on a fixed polar grid."""

    def middle(self, x: Tensor) -> Tensor:
        angle, radius = torch.meshgrid(torch.linspace(0, 6, 8), torch.linspace(0.1, 1, 6), indexing="ij")
        grid = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).expand(len(x), -1, -1, -1)
        return F.grid_sample(x, grid, align_corners=True).relu().mean((2, 3))


@equal()
class Deformable(Small):
    """Taps that go where the image says."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(6, 18, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 6, 3, 3) / 5)

    def middle(self, x: Tensor) -> Tensor:
        return deform_conv2d(x, self.offset(x), self.weight, padding=1).relu().mean((2, 3))


@equal()
class ConvByUnfold(Small):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 54) / 5)

    def middle(self, x: Tensor) -> Tensor:
        return F.fold(self.weight @ F.unfold(x, 3, padding=1), (H, W), 1).relu().mean((2, 3))


@equal()
class TensorUnfold(Small):
    """Local variance by `Tensor.unfold`."""

    def middle(self, x: Tensor) -> Tensor:
        return x.unfold(2, 3, 2).unfold(3, 3, 2).flatten(4).var(-1).mean((2, 3)) * 4


@equal()
class Rolled(Small):
    """Channels are moved by different ways, in a circle."""

    def middle(self, x: Tensor) -> Tensor:
        parts = [part.roll((k, k), (2, 3)) for k, part in enumerate(x.split(2, 1))]
        return torch.stack(parts, 1).prod(1).repeat(1, 3, 1, 1).mean((2, 3)) * 5


@equal()
class SobelAndBlur(Small):
    """Fixed kernels in buffers."""

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
        self.register_buffer("kernel", torch.stack([kernel, kernel.T]).repeat(6, 1, 1)[:, None], persistent=False)

    def middle(self, x: Tensor) -> Tensor:
        edges = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.kernel, groups=6)
        return edges.square().view(len(x), 6, 2, H, W).sum(2).sqrt().mean((2, 3))


@equal()
class HaarWavelet(Small):
    def middle(self, x: Tensor) -> Tensor:
        x = x[:, :, 1:]
        a, b = x[:, :, ::2], x[:, :, 1::2]
        low, high = (a + b) / 2, (a - b).abs()
        return (low[..., ::2] * high[..., 1::2]).mean((2, 3)) * 3


@equal()
class MedianFiltered(Small):
    def middle(self, x: Tensor) -> Tensor:
        return (
            F.pad(x, (1, 1, 1, 1), mode="reflect").unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(-1)[0].mean((2, 3))
        )


@equal()
class EarlyStride(nn.Module):
    """Strides of 4 and 2, rows and columns apart."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 5, stride=(4, 2), padding=2), nn.Conv2d(6, 6, 3, stride=(1, 2), padding=1)
        self.head = nn.Linear(6, N_CLASSES)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).relu().mean((2, 3)))
