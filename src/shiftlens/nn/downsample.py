"""Down-sampling that moves with the picture: a blur before the samples are dropped, or samples chosen by the content.

A layer with stride s keeps every s-th cell of a dense map, so that a shift of the picture by one pixel gives other
cells. Here the dense map is computed, and then reduced by a layer that depends less on where the grid falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.nn.convolution import Outer, conv2d, pair, sides_of_layer
from shiftlens.nn.padding import INDEX_MODES, check_mode, pad
from shiftlens.nn.pooling import PaddedPool2d, max_pool2d, out_cells, pool_stride

Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | PaddedPool2d


class BlurPool2d(nn.Module):
    """A binomial blur of each channel, of which every `stride`-th cell is kept (arXiv 1904.11486).

    Padded by floor((k - 1) / 2) before and ceil((k - 1) / 2) after, so that any size gives ceil(n / stride) cells, and
    by a rule under which a constant picture stays that constant, in the corners too. An axis of stride 1 beside a
    strided one is not blurred. No parameters, and nothing in the state dict.

    Parameters
    ----------
    channels
        Of the input; None for any.
    filter_size
        Taps k along an axis, at least 1: 2 is 1 1, 3 is 1 2 1, 4 is 1 3 3 1, 5 is 1 4 6 4 1, each over its sum.
    stride
        A number or (vertical, horizontal), at least 1.
    padding_mode
        An index rule; the published code reflects, which needs 2 cells an axis.

    Raises
    ------
    InputError
        A number below 1, an unknown mode, or (when called) another number of channels.

    Examples
    --------
    >>> BlurPool2d(3, filter_size=3, stride=2)(torch.ones(1, 3, 5, 5)).unique()
    tensor([1.])
    """

    kernel: Tensor

    def __init__(
        self,
        channels: int | None = None,
        filter_size: int = 3,
        stride: int | Sequence[int] = 2,
        padding_mode: str = "reflect",
    ) -> None:
        super().__init__()
        steps = pair(stride)
        for what, number in (("channels", channels), ("filter_size", filter_size), ("stride", min(steps))):
            if number is not None and number < 1:
                raise InputError(f"{what} must be at least 1, got {number}")
        self.channels = channels
        self.filter_size = filter_size
        self.stride = steps
        self.padding_mode = check_mode(padding_mode, INDEX_MODES)
        sizes = [1 if step == 1 and max(steps) > 1 else filter_size for step in steps]
        (top, bottom), (left, right) = (((k - 1) // 2, k // 2) for k in sizes)
        self.sides = (left, right, top, bottom)
        rows, columns = (_binomial(k) for k in sizes)
        self.register_buffer("kernel", rows[:, None] * columns[None, :], persistent=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h_out w_out"]:
        """Blur and sample `x`."""
        n_channels = x.shape[-3]
        if self.channels is not None and n_channels != self.channels:
            raise InputError(f"BlurPool2d is made for {self.channels} channels, got {n_channels}")
        kernel = self.kernel.to(x).expand(n_channels, 1, *self.kernel.shape)
        return F.conv2d(pad(x, self.sides, self.padding_mode), kernel, stride=self.stride, groups=n_channels)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, filter_size={self.filter_size}, stride={self.stride}, mode={self.padding_mode}"


def _binomial(k: int) -> Tensor:
    return torch.tensor([math.comb(k - 1, i) / 2 ** (k - 1) for i in range(k)])


class Polyphase2d(nn.Module):
    """Adaptive polyphase sampling: of the s x s grids that stride s could keep, the one with the largest l2 norm.

    Chosen for each picture over all channels (arXiv 2011.14214). With circular padding before it, sizes that the stride
    divides, and a global pool in the end, a net is exactly invariant to circular shifts, also untrained. A size that
    the stride does not divide is first extended at the end.

    Parameters
    ----------
    stride
        A number or (vertical, horizontal), at least 1.
    padding_mode
        Index rule of that extension.
    leader
        Another one of these, called earlier in the same forward pass: its choice is taken. Branches that are added
        later must keep the same grid.

    Raises
    ------
    InputError
        A number below 1, an unknown mode; when called, no [n, c, h, w], or a leader that has not seen these pictures.

    Examples
    --------
    >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> Polyphase2d()(x).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    >>> Polyphase2d()(x.roll(1, dims=3)).tolist()  # the same cells, moved along
    [[[[7.0, 5.0], [15.0, 13.0]]]]
    """

    def __init__(
        self, stride: int | Sequence[int] = 2, padding_mode: str = "symmetric", leader: Polyphase2d | None = None
    ) -> None:
        super().__init__()
        self.stride = pair(stride)
        if min(self.stride) < 1:
            raise InputError(f"stride must be at least 1, got {stride!r}")
        self.padding_mode = check_mode(padding_mode, INDEX_MODES)
        self.leads = False
        self.follows = leader is not None
        # In a tuple, so that the leader does not become a part of this layer.
        self._leader: tuple[Polyphase2d, ...] = () if leader is None else (leader,)
        self._chosen: Tensor | None = None
        if leader is not None:
            if leader.stride != self.stride:
                raise InputError(f"a leader of stride {leader.stride} cannot choose for stride {self.stride}")
            leader.leads = True

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h_out w_out"]:
        """Sample `x`."""
        if x.ndim != 4:
            raise InputError(f"Polyphase2d expects [n, c, h, w], got {x.ndim} axes")
        (sy, sx), (h, w) = self.stride, x.shape[-2:]
        x = pad(x, (0, -w % sx, 0, -h % sy), self.padding_mode)
        n, c = x.shape[:2]
        grids = x.reshape(n, c, -(-h // sy), sy, -(-w // sx), sx).permute(0, 3, 5, 1, 2, 4)
        chosen = self._choice(grids)
        if self.leads:
            self._chosen = chosen
        sampled: Tensor = grids[torch.arange(n, device=x.device), chosen // sx, chosen % sx]
        return sampled

    def _choice(self, grids: Tensor) -> Tensor:
        if not self._leader:
            norms = grids.detach().to(torch.promote_types(grids.dtype, torch.float32)).square().sum((3, 4, 5))
            return norms.flatten(1).argmax(1)
        chosen = self._leader[0]._chosen
        if chosen is None or len(chosen) != len(grids):
            raise InputError("the layer whose choice Polyphase2d takes has not seen these pictures before")
        return chosen

    def extra_repr(self) -> str:
        """The settings."""
        role = ", leads" if self.leads else ", follows" if self.follows else ""
        return f"stride={self.stride}, mode={self.padding_mode}{role}"


class ReducedLayer2d(Outer):
    """A strided layer as its dense self (`layer`, stride 1), an activation (or nothing), and what reduces the map.

    Three plain layers one after the other, so that whoever looks at a net layer by layer sees what happens. The output
    has the size that the strided layer gives.

    Parameters
    ----------
    layer
        `Conv2d`, `MaxPool2d`, `AvgPool2d` or `PaddedPool2d`; the object itself is taken over, and its stride set to 1.
    reduce
        `BlurPool2d` or `Polyphase2d` of the same stride.
    activation
        Between the two: Conv(s) + ReLU becomes Conv(1) + ReLU + blur (arXiv 1904.11486).

    Examples
    --------
    >>> layer = ReducedLayer2d(nn.MaxPool2d(3, stride=2, padding=1), BlurPool2d(stride=2))
    >>> layer(torch.rand(1, 8, 9, 9)).shape
    torch.Size([1, 8, 5, 5])
    >>> layer.layer.stride, layer.reduce.stride
    (1, (2, 2))
    """

    def __init__(self, layer: Strided, reduce: BlurPool2d | Polyphase2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        stride = stride_of(layer)
        if reduce.stride != stride:
            raise InputError(f"a layer of stride {stride} cannot be reduced with stride {reduce.stride}")
        core = layer.pool if isinstance(layer, PaddedPool2d) else layer
        if getattr(core, "return_indices", False):
            raise InputError("a pool that returns indices cannot be reduced by another layer: they would not fit")
        self._stride = stride
        self._ceil = bool(getattr(core, "ceil_mode", False))
        (ky, kx), (dy, dx) = pair(core.kernel_size), pair(getattr(core, "dilation", 1))
        self._extent = (dy * (ky - 1) + 1, dx * (kx - 1) + 1)
        self._sides = layer.pad.padding if isinstance(layer, PaddedPool2d) else sides_of_layer(layer)
        if isinstance(core, nn.Conv2d):
            core.stride = (1, 1)
        else:
            core.stride = 1
            core.ceil_mode = False
        self.layer = layer
        if activation is not None:
            self.activation = activation
        self.reduce = reduce
        # Grids of equal size, and a wrapped map of the right period, take whole strides.
        self._whole = isinstance(reduce, Polyphase2d) or reduce.padding_mode == "circular"

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h_out w_out"]:
        """The layer's output, reduced."""
        if self._ceil or self._whole:
            x = self._extended(x)
        dense: Tensor = self.layer(x)
        if "activation" in self._modules:
            dense = self.activation(dense)
        reduced: Tensor = self.reduce(dense)
        return reduced

    def _extended(self, x: Tensor) -> Tensor:
        """Continue the picture at its end by what whole strides, or an incomplete last window, need."""
        left, right, top, bottom = self._sides
        extra = []
        for axis, before, after in ((0, top, bottom), (1, left, right)):
            n, stride, extent = x.shape[axis - 2], self._stride[axis], self._extent[axis]
            n_out = out_cells(n, extent, stride, before, after, self._ceil)
            wanted = n_out * stride if self._whole else (n_out - 1) * stride + 1
            extra.append(max(0, wanted - (n + before + after - extent + 1)))
        return pad(x, (0, extra[1], 0, extra[0]), self.reduce.padding_mode)


def stride_of(layer: nn.Module) -> tuple[int, int]:
    """(vertical, horizontal) stride of a convolution or pool."""
    core = layer.pool if isinstance(layer, PaddedPool2d) else layer
    return pool_stride(core) if isinstance(core, nn.MaxPool2d | nn.AvgPool2d) else pair(core.stride)  # type: ignore[arg-type]


class MaxBlurPool2d(ReducedLayer2d):
    """MaxPool(k, s) as MaxPool(k, 1) and a blur of stride s (arXiv 1904.11486); no parameters.

    Parameters
    ----------
    channels
        Of the input; None for any.
    kernel_size, stride, padding
        Of the pool; pairs are (vertical, horizontal).
    filter_size
        Of the blur.
    padding_mode
        Index rule of the blur. `circular` also wraps the pool's last windows, so that the dense map has the picture's
        period.

    Examples
    --------
    >>> MaxBlurPool2d(8)(torch.rand(1, 8, 7, 6)).shape
    torch.Size([1, 8, 3, 3])
    """

    def __init__(
        self,
        channels: int | None = None,
        kernel_size: int | Sequence[int] = 2,
        stride: int | Sequence[int] = 2,
        padding: int | Sequence[int] = 0,
        *,
        filter_size: int = 3,
        padding_mode: str = "reflect",
    ) -> None:
        blur = BlurPool2d(channels, filter_size, stride, padding_mode)
        super().__init__(max_pool2d(kernel_size, stride, padding), blur)


class ConvBlurPool2d(ReducedLayer2d):
    """Conv(s) as Conv(1), an activation, and a blur of stride s (arXiv 1904.11486).

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, bias, padding_mode
        Of the convolution, as in `conv2d`.
    activation
        Between the two; None for none.
    filter_size, blur_mode
        Of the blur.

    Examples
    --------
    >>> ConvBlurPool2d(3, 8, activation=nn.ReLU())(torch.rand(1, 3, 15, 16)).shape
    torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        stride: int | Sequence[int] = 2,
        padding: int | Sequence[int] = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        activation: nn.Module | None = None,
        filter_size: int = 3,
        blur_mode: str = "reflect",
    ) -> None:
        options = {"stride": stride, "padding": padding, "bias": bias, "padding_mode": padding_mode}
        layer = conv2d(in_channels, out_channels, kernel_size, **options)  # type: ignore[arg-type]
        super().__init__(layer, BlurPool2d(out_channels, filter_size, stride, blur_mode), activation)


def reducer(kind: str, stride: tuple[int, int], padding_mode: str, filter_size: int = 3) -> BlurPool2d | Polyphase2d:
    """What reduces a dense map: `blur` or `polyphase`."""
    if kind == "blur":
        return BlurPool2d(None, filter_size, stride, padding_mode)
    return Polyphase2d(stride, padding_mode)


REDUCERS: tuple[str, ...] = ("blur", "polyphase")
"""Kinds of `reducer`: what can take the place of a stride without other weights."""


def reduced(layer: Strided, kind: str, padding_mode: str = "symmetric", filter_size: int = 3) -> ReducedLayer2d:
    """A strided layer, taken over, made dense and reduced by `kind` (a name of `REDUCERS`)."""
    return ReducedLayer2d(layer, reducer(kind, stride_of(layer), padding_mode, filter_size))
