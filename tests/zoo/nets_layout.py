"""Nets that read memory order: views, strides, own ways to flatten."""

from __future__ import annotations

import torch
from harness import H, Small, W, equal
from torch import Tensor, nn

FLAT = 6 * H * W


class Flat(Small):
    """A head on all cells."""

    def __init__(self) -> None:
        super().__init__(FLAT)


@equal(fast=True)
class ViewAfterConv(Flat):
    def middle(self, x: Tensor) -> Tensor:
        return x.view(-1, FLAT)


@equal()
class ViewBySize(Flat):
    def middle(self, x: Tensor) -> Tensor:
        return x.relu().view(x.size(0), -1)


@equal()
class ReshapeByStride(Flat):
    """Puts channels last where they are not: decided by the stride."""

    def middle(self, x: Tensor) -> Tensor:
        return (x if x.stride(1) == 1 else x.permute(0, 2, 3, 1)).reshape(-1, FLAT)


@equal(fast=True)
class AsStridedFlat(Flat):
    """Numbers as they lie in memory."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.as_strided(x, (x.shape[0], FLAT), (FLAT, 1))


@equal()
class AsStridedPatches(Small):
    """Patches by hand, with strides worked out for channels first."""

    def __init__(self) -> None:
        super().__init__(6 * (H - 2) * (W - 2))
        self.weight = nn.Parameter(torch.randn(3, 3))

    def middle(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        size, stride = (n, 6, H - 2, W - 2, 3, 3), (6 * H * W, H * W, W, 1, W, 1)
        return (x.as_strided(size, stride) * self.weight).sum((-1, -2)).relu().flatten(1)


@equal()
class ScaledByStride(Small):
    def middle(self, x: Tensor) -> Tensor:
        return x.relu().mean((2, 3)) * (1 + x.stride(1) / x[0].numel())


@equal(fast=True)
class MemoryFormatBranch(Flat):
    """Another path for channels last, with another result."""

    def middle(self, x: Tensor) -> Tensor:
        if x.is_contiguous(memory_format=torch.channels_last):
            return x.permute(0, 2, 3, 1).flatten(1)
        return x.flatten(1)


@equal()
class ChannelsLastInside(Flat):
    def middle(self, x: Tensor) -> Tensor:
        return x.to(memory_format=torch.channels_last).relu().flatten(1)


@equal()
class NumpyInside(Flat):
    def middle(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy().reshape(len(x), -1).copy())


@equal()
class NumpyMemoryOrder(Flat):
    """`ravel(order="K")` keeps the order of memory."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy().ravel(order="K").reshape(len(x), -1).copy())


@equal()
class StorageInside(Flat):
    """Reads the bytes of a map."""

    def middle(self, x: Tensor) -> Tensor:
        whole = torch.frombuffer(bytearray(bytes(x.contiguous().untyped_storage())), dtype=x.dtype)
        return whole[: x.numel()].reshape(len(x), -1)


@equal()
class PermuteFlatten(Flat):
    def middle(self, x: Tensor) -> Tensor:
        return x.relu().permute(0, 2, 3, 1).flatten(1)


@equal()
class TransposeFlatten(Flat):
    def middle(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3).contiguous().view(x.shape[0], -1)


@equal()
class ChannelShuffle(Small):
    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return torch.sigmoid(x[:, :3]).mean((2, 3)).repeat(1, 2)


@equal()
class SpaceToDepthByView(Small):
    def __init__(self) -> None:
        super().__init__(24)

    def middle(self, x: Tensor) -> Tensor:
        x = x[:, :, :8, :].contiguous()
        x = x.view(-1, 6, 4, 2, 4, 2).permute(0, 3, 5, 1, 2, 4).reshape(-1, 24, 4, 4)
        return x.relu().amax((2, 3))


@equal()
class ConvOnRows(Small):
    """Rows become a batch of sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.along = nn.Conv1d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        rows = x.permute(0, 2, 1, 3).reshape(n * h, c, w)
        return self.along(rows).relu().view(n, h, c, w).mean((1, 3))


@equal()
class StridedSlices(Small):
    def middle(self, x: Tensor) -> Tensor:
        return (x[:, :, ::2, 1::2].relu() + x[:, :, ::2, ::2]).mean((2, 3))


@equal()
class Turned(Flat):
    def middle(self, x: Tensor) -> Tensor:
        return torch.rot90(x, 1, (2, 3)).flip(2).reshape(len(x), -1)


@equal()
class ExpandedMap(Flat):
    """A map with stride 0."""

    def middle(self, x: Tensor) -> Tensor:
        return (x + x.mean(3, keepdim=True).expand(-1, -1, -1, W)).flatten(1)


@equal()
class ViewAsReal(Flat):
    """Pairs of channels as complex numbers, by a view."""

    def middle(self, x: Tensor) -> Tensor:
        z = torch.view_as_complex(x.view(-1, 3, 2, H, W).movedim(2, -1).contiguous())
        return torch.view_as_real(z * 1j).flatten(1)


@equal()
class UnbindColumns(Small):
    def middle(self, x: Tensor) -> Tensor:
        return torch.stack([part.relu().mean(2) * k for k, part in enumerate(x.unbind(3))], -1).mean(-1)
