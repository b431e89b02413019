"""Pooling that pads by any mode: PyTorch's pools know one each (minus infinity for the maximum, zeros for the mean)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.nn.convolution import pair, sides_of_layer
from shiftlens.nn.padding import Pad2d, pad_mode

Pool = nn.MaxPool2d | nn.AvgPool2d


def pool_stride(pool: Pool) -> tuple[int, int]:
    """(vertical, horizontal) stride; the window's size where none was given."""
    return pair(pool.kernel_size if pool.stride is None else pool.stride)


def out_cells(n: int, extent: int, stride: int, before: int, after: int, ceil_mode: bool = False) -> int:
    """Number of windows along an axis of `n` cells, as PyTorch counts them; 0 where none fits."""
    room = n + before + after - extent
    if room < 0:
        return 0
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    # A last, incomplete window must begin inside the picture or the padding before it.
    return count - 1 if (count - 1) * stride >= n + before else count


class PaddedPool2d(nn.Module):
    """A pool whose padding is another mode's: a `Pad2d` called `pad`, then the pool without any, called `pool`.

    Two plain layers, so that whoever looks at a net layer by layer sees what happens. The output has the size that the
    pool gives with its own padding.

    Parameters
    ----------
    pool
        `MaxPool2d` or `AvgPool2d`; the object itself is taken over, and its padding set to 0.
    mode
        A name of `PAD_MODES`. Under every index rule but zeros, the mean of a constant picture is that constant.
    sides
        (left, right, top, bottom); default the pool's own padding.

    Raises
    ------
    InputError
        An unknown mode, or a maximum that is to return indices, which would count in the padded picture.

    Examples
    --------
    >>> pool = PaddedPool2d(nn.AvgPool2d(3, stride=1, padding=1), "symmetric")
    >>> pool(torch.ones(1, 1, 4, 4)).unique().tolist()  # zeros would give 4/9 in the corners
    [1.0]
    """

    def __init__(self, pool: Pool, mode: str, sides: Sequence[int] | None = None) -> None:
        super().__init__()
        if getattr(pool, "return_indices", False):
            raise InputError("a pool that returns indices cannot pad by another mode: they would be of another picture")
        self.pad = Pad2d(sides_of_layer(pool) if sides is None else sides, pad_mode(mode))
        pool.padding = 0
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Pool `x`, shape [..., h, w]."""
        pooled: Tensor = self.pool(self.pad(x))
        if not self.pool.ceil_mode:
            return pooled
        # Padding that is part of the picture may hold a window's begin, and so one window more.
        (ky, kx), (sy, sx) = pair(self.pool.kernel_size), pool_stride(self.pool)
        dy, dx = pair(getattr(self.pool, "dilation", 1))
        left, right, top, bottom = self.pad.padding
        h = out_cells(x.shape[-2], dy * (ky - 1) + 1, sy, top, bottom, ceil_mode=True)
        w = out_cells(x.shape[-1], dx * (kx - 1) + 1, sx, left, right, ceil_mode=True)
        return pooled[..., :h, :w]


def max_pool2d(
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    *,
    padding_mode: str | None = None,
) -> nn.MaxPool2d | PaddedPool2d:
    """A maximum over windows, padded by any mode.

    Parameters
    ----------
    kernel_size, stride, padding
        As in `torch.nn.MaxPool2d`; pairs are (vertical, horizontal).
    padding_mode
        A name of `PAD_MODES`; None for PyTorch's own: what lies outside never wins.

    Examples
    --------
    >>> max_pool2d(3, 2, 1, padding_mode="symmetric")(torch.rand(1, 4, 33, 32)).shape
    torch.Size([1, 4, 17, 16])
    """
    pool = nn.MaxPool2d(_plain(kernel_size), None if stride is None else _plain(stride), _plain(padding))
    return pool if padding_mode is None or not any(pair(padding)) else PaddedPool2d(pool, padding_mode)


def _plain(value: int | Sequence[int]) -> int | tuple[int, int]:
    return value if isinstance(value, int) else pair(value)
