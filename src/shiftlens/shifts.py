"""Shifts of a picture: one shift, a grid of them, what enters from outside, and `translate`.

A shift `(dx, dy)` moves the picture right for `dx > 0` and down for `dy > 0`. It is done by indexing, never by
interpolation, so every pixel that stays in view keeps its exact value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.indexing import FILL_RULES, source_index
from shiftlens.naming import unknown_name

ArrayOrTensor = TypeVar("ArrayOrTensor", NDArray[np.generic], torch.Tensor)


MAX_SHIFT = 16_384
"""Largest shift in pixels: far beyond any picture, and small enough that a typing error cannot fill the memory."""

MOST_SHIFTS = 2**25
"""Most shifts in a grid: what is kept of each for one image takes some 80 bytes, so about 3 GB."""


@dataclass(frozen=True)
class Shift:
    """A shift in whole pixels: `dx > 0` moves the picture right, `dy > 0` moves it down.

    Examples
    --------
    >>> list(ShiftGrid((0, 1)))
    [Shift(dx=-1, dy=0), Shift(dx=0, dy=0), Shift(dx=1, dy=0)]
    """

    dx: int
    dy: int


@dataclass(frozen=True)
class ShiftGrid:
    """All shifts `(dx, dy)` with `|dx| <= M_x` and `|dy| <= M_y` that are multiples of `step`; (0, 0) is always one.

    Parameters
    ----------
    max_shift
        M in pixels: one number for both axes, or `(M_y, M_x)`. At least 1 on one axis, at least 0 on the other.
    step
        Distance between neighbouring shifts in pixels, at least 1 and at most the larger M.

    Raises
    ------
    InputError
        A number that is out of these ranges.

    Examples
    --------
    >>> ShiftGrid(32).n_shifts
    4225
    """

    max_shift: int | tuple[int, int]
    step: int = 1

    def __post_init__(self) -> None:
        # Numbers as notebooks have them (numpy integers, lists) become plain ones.
        if isinstance(self.max_shift, np.integer):
            object.__setattr__(self, "max_shift", int(self.max_shift))
        elif isinstance(self.max_shift, list):
            object.__setattr__(self, "max_shift", tuple(self.max_shift))
        pair = self.max_shift if isinstance(self.max_shift, tuple) else (self.max_shift, self.max_shift)
        if len(pair) != 2 or any(isinstance(m, bool) or not isinstance(m, int) for m in pair):
            raise InputError(f"max-shift must be whole pixels, one number or (y, x); got {self.max_shift!r}")
        if max(pair) < 1 or min(pair) < 0:
            raise InputError(f"max-shift must be at least 1 pixel, got {self.max_shift}")
        if max(pair) > MAX_SHIFT:
            raise InputError(f"max-shift must be at most {MAX_SHIFT} pixels, got {max(pair)}")
        if isinstance(self.step, bool) or not isinstance(self.step, int) or self.step < 1:
            raise InputError(f"step must be a whole number of pixels, at least 1; got {self.step!r}")
        if self.step > max(pair):
            raise InputError(f"step {self.step} is larger than max-shift {max(pair)}: only (0, 0) would be left")
        if self.n_shifts > MOST_SHIFTS:
            most = (math.isqrt(MOST_SHIFTS) - 1) // 2 * self.step
            raise InputError(
                f"max-shift {self.max_y}x{self.max_x} with step {self.step} makes {self.n_shifts:,} shifts, expected "
                f"at most {MOST_SHIFTS:,}; take a larger step, or a max-shift of at most {most} (a shift by the "
                "picture's own size leaves none of it in view)"
            )

    @property
    def max_y(self) -> int:
        """Largest `|dy|` allowed, in pixels."""
        return self.max_shift if isinstance(self.max_shift, int) else self.max_shift[0]

    @property
    def max_x(self) -> int:
        """Largest `|dx|` allowed, in pixels."""
        return self.max_shift if isinstance(self.max_shift, int) else self.max_shift[1]

    @cached_property
    def dys(self) -> NDArray[np.int64]:
        """Vertical shifts in pixels, ascending."""
        return self._axis(self.max_y)

    @cached_property
    def dxs(self) -> NDArray[np.int64]:
        """Horizontal shifts in pixels, ascending."""
        return self._axis(self.max_x)

    def _axis(self, max_shift: int) -> NDArray[np.int64]:
        n = max_shift // self.step
        return np.arange(-n, n + 1, dtype=np.int64) * self.step

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_dy, n_dx)`."""
        return 2 * (self.max_y // self.step) + 1, 2 * (self.max_x // self.step) + 1

    @property
    def n_shifts(self) -> int:
        """Number of shifts in the grid."""
        return self.shape[0] * self.shape[1]

    @property
    def origin(self) -> tuple[int, int]:
        """Index `(iy, ix)` of the shift (0, 0)."""
        return self.max_y // self.step, self.max_x // self.step

    def __iter__(self) -> Iterator[Shift]:
        for dy in self.dys.tolist():
            for dx in self.dxs.tolist():
                yield Shift(dx, dy)

    @staticmethod
    def default_for(size: tuple[int, int]) -> ShiftGrid:
        """The default grid for a picture of `(h, w)` pixels: its own size per axis up to 64 px, 16 px above."""
        h, w = (n if n <= 64 else 16 for n in size)
        return ShiftGrid((h, w))


@dataclass(frozen=True)
class Fill:
    """What enters from outside: a constant (`black`, `mean`, numbers) or an index rule (`edge`, `reflect`, ...).

    Use `Fill.parse`. `values` are pixel values between 0 and 1 (one for all channels, or one a channel) and None for
    `black`, `mean` and the index rules.

    Examples
    --------
    >>> Fill.parse("edge").is_constant, Fill.parse(0.5).values
    (False, (0.5,))
    """

    name: str
    values: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.values is None:
            if self.name not in ("black", "mean", *FILL_RULES):
                raise unknown_name("fill", self.name, ("black", "mean", *FILL_RULES))
        elif not self.values or any(not (math.isfinite(v) and 0.0 <= v <= 1.0) for v in self.values):
            raise InputError(f"a fill's pixel values lie between 0 and 1, got {self.values!r}")

    @staticmethod
    def parse(fill: str | float | Sequence[float] | Fill) -> Fill:
        """Read a fill as a user writes it.

        Parameters
        ----------
        fill
            `"black"`, `"mean"`, `"edge"`, `"reflect"`, `"symmetric"`, `"wrap"`, a pixel value from 0 to 1, or one
            value a channel (also as text: `"0.5"`, `"0.1,0.2,0.3"`).

        Raises
        ------
        InputError
            Anything else.

        Examples
        --------
        >>> Fill.parse("0.5").values
        (0.5,)
        """
        if isinstance(fill, Fill):
            return fill
        if isinstance(fill, str):
            if fill in ("black", "mean") or fill in FILL_RULES:
                return Fill(fill)
            try:
                numbers = tuple(float(part) for part in fill.split(","))
            except ValueError:
                raise unknown_name("fill", fill, ("black", "mean", *FILL_RULES, "0.5", "0.1,0.2,0.3")) from None
        elif isinstance(fill, bool):
            raise InputError(f"a fill is a name or pixel values from 0 to 1, got {fill!r}")
        else:
            numbers = tuple(float(v) for v in np.ravel(np.asarray(fill, dtype=np.float64)))
        return Fill(",".join(repr(v) for v in numbers), numbers)

    @property
    def is_constant(self) -> bool:
        """True when a shift of the picture's size leaves nothing but fill."""
        return self.name not in FILL_RULES

    @property
    def rule(self) -> str | None:
        """The index rule's name in `indexing.RULES`, None for a constant."""
        return FILL_RULES.get(self.name)

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> tuple[float, ...]:
        """The constant as the model sees it, `(value - mean) / std` for each channel.

        Raises
        ------
        InputError
            An index rule (which has no constant), or another number of values than channels.
        """
        if not self.is_constant:
            raise InputError(f"fill {self.name!r} is an index rule and has no constant value")
        if self.name == "mean":
            return (0.0,) * len(mean)
        values = (0.0,) if self.values is None else self.values
        if len(values) == 1:
            values = values * len(mean)
        if len(values) != len(mean):
            raise InputError(f"fill {self.name!r} has {len(values)} values, the model's input has {len(mean)} channels")
        # In float32, step by step, as pixels are normalised: the fill must equal such a pixel to the last bit.
        scaled = (np.asarray(values, dtype=np.float32) - np.asarray(mean, dtype=np.float32)) / np.asarray(
            std, np.float32
        )
        return tuple(float(v) for v in scaled)


def canvas(
    images: torch.Tensor, max_y: int, max_x: int, rule: str | None, values: Sequence[float] | None
) -> torch.Tensor:
    """The images [..., c, h, w] with all that can enter under shifts up to `max_y`, `max_x` pixels around them.

    The image shifted by `(dx, dy)` is the window of its size that starts at row `max_y - dy`, column `max_x - dx`. What
    enters is by an index rule of `indexing.RULES` or, where `rule` is None, `values`, one number a channel in the
    tensor's own unit. Returns [..., c, h + 2 max_y, w + 2 max_x], same dtype and device.
    """
    h, w = images.shape[-2:]
    if rule is None:
        numbers = torch.tensor(values, dtype=images.dtype, device=images.device)
        full = numbers[:, None, None].expand(*images.shape[:-2], h + 2 * max_y, w + 2 * max_x).clone()
        full[..., max_y : max_y + h, max_x : max_x + w] = images
        return full
    rows = torch.from_numpy(source_index(np.arange(-max_y, h + max_y), h, rule)).to(images.device)
    columns = torch.from_numpy(source_index(np.arange(-max_x, w + max_x), w, rule)).to(images.device)
    return images[..., rows, :][..., columns]


def _constants(fill: Fill | tuple[float, ...], n_channels: int, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """One number a channel in the array's own unit and dtype; what the dtype cannot hold exactly is refused."""
    numbers = (0.0,) if isinstance(fill, Fill) else fill
    if len(numbers) not in (1, n_channels):
        raise InputError(f"fill has {len(numbers)} values, the images have {n_channels} channels")
    wanted = np.asarray(numbers, dtype=np.float64)
    if dtype.kind in "iub":
        low, high = (0, 1)
        if dtype.kind != "b":
            limits = np.iinfo(dtype.name)
            low, high = limits.min, limits.max
        if np.any(wanted != np.round(wanted)) or np.any(wanted < low) or np.any(wanted > high):
            raise InputError(f"fill {fill!r} is not a value of {dtype} images (whole numbers from {low} to {high})")
    return np.broadcast_to(wanted, (n_channels,)).astype(dtype)


def translate(
    images: ArrayOrTensor, dx: int, dy: int, fill: str | float | Sequence[float] | Fill = "black"
) -> ArrayOrTensor:
    """Shift pictures by whole pixels, exactly.

    Parameters
    ----------
    images
        Array or tensor [..., h, w] (with more than one fill value: [..., c, h, w]), any dtype, any device.
    dx, dy
        Pixels; `dx > 0` moves the pictures right, `dy > 0` down. Any distance.
    fill
        `"black"` (0), a number or one a channel *in the images' own unit*, or an index rule (`"edge"`, `"reflect"`,
        `"symmetric"`, `"wrap"`). `"mean"` is refused: what the mean is depends on the model, pass its numbers.

    Returns
    -------
    same type, shape, dtype and device as `images`
        Pixels that stay in view are unchanged; equal bit for bit to torchvision's nearest `affine` for `"black"`.

    Raises
    ------
    InputError
        Fewer than two axes, a shift that is not whole pixels, or a fill that the dtype cannot hold.

    Examples
    --------
    >>> translate(np.arange(4).reshape(2, 2), dx=1, dy=0).tolist()
    [[0, 0], [0, 2]]
    """
    if not isinstance(images, np.ndarray | torch.Tensor):
        raise InputError(f"translate needs an array or a tensor, got {type(images).__name__}")
    if images.ndim < 2:
        raise InputError(f"translate needs images [..., h, w], got shape {tuple(images.shape)}")
    for name, pixels in (("dx", dx), ("dy", dy)):
        if not -(2**31) <= pixels <= 2**31 or int(pixels) != pixels:  # NaN lies nowhere
            raise InputError(f"a shift is whole pixels (at most 2^31), got {name}={pixels!r:.40}")
    rule, constants = _own_unit(fill)
    h, w = (int(n) for n in images.shape[-2:])
    dx, dy = int(dx), int(dy)
    if rule is not None:
        rows, columns = source_index(np.arange(h) - dy, h, rule), source_index(np.arange(w) - dx, w, rule)
        return images[..., rows, :][..., columns]
    n_channels = int(images.shape[-3]) if images.ndim > 2 else 1
    if isinstance(images, torch.Tensor):
        np_dtype = torch.zeros((), dtype=images.dtype).numpy().dtype if images.dtype != torch.bfloat16 else np.float32
        numbers = _constants(constants, n_channels, np.dtype(np_dtype))
        values = torch.from_numpy(numbers.copy()).to(images)
        out = (values[:, None, None] if images.ndim > 2 else values[0]).expand(images.shape).clone()
    else:
        numbers = _constants(constants, n_channels, images.dtype)
        out = np.empty_like(images)
        out[...] = numbers[:, None, None] if images.ndim > 2 else numbers[0]
    if abs(dy) < h and abs(dx) < w:
        # What stays in view is one run per axis, so slices move it: no gather, no copy in between.
        seen = images[..., max(0, -dy) : min(h, h - dy), max(0, -dx) : min(w, w - dx)]
        out[..., max(0, dy) : min(h, h + dy), max(0, dx) : min(w, w + dx)] = seen
    return out


def _own_unit(fill: str | float | Sequence[float] | Fill) -> tuple[str | None, Fill | tuple[float, ...]]:
    """An index rule, or constants in the images' own unit (where numbers are not bound to 0 ... 1)."""
    if isinstance(fill, str | Fill):
        parsed = Fill.parse(fill)
        if parsed.name == "mean":
            raise InputError("fill 'mean' depends on the model's normalisation: pass the numbers, one a channel")
        return parsed.rule, (parsed if parsed.values is None else parsed.values)
    numbers = tuple(float(v) for v in np.ravel(np.asarray(fill, dtype=np.float64)))
    if not numbers or not all(math.isfinite(v) for v in numbers):
        raise InputError(f"a fill needs finite numbers, got {fill!r}")
    return None, numbers
