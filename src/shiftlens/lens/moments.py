"""Mean and variance over pictures, one batch at a time, in constant memory."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.errors import InputError

GROUP = 32
"""Pictures summed in float32 before they are added in float64: few enough to lose no digit, and much faster."""


class Moments:
    """Running mean and variance over the first axis, for each cell by itself.

    What is summed are differences to the mean of the first few pictures, so that a large common value does not eat the
    digits of a small spread; sums over pictures are kept in float64. The result does not depend on how the pictures
    were split into batches, up to a few parts in ten million.
    """

    def __init__(self) -> None:
        self.n = 0
        self._pivot: Tensor | None = None
        self._sum = torch.zeros(())
        self._squares = torch.zeros(())
        self._channels_last = False

    def update(self, batch: Float[Tensor, "n ..."]) -> None:
        """Take some more pictures."""
        if not len(batch):
            return
        x = batch if batch.dtype in (torch.float32, torch.float64) else batch.float()
        if self._pivot is None:
            # As it lies in memory: sums across the grain take five times as long.
            self._channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        x = x.permute(0, 2, 3, 1) if self._channels_last else x
        if self._pivot is None:
            self._pivot = x[:GROUP].mean(0)
            self._sum = torch.zeros_like(self._pivot, dtype=torch.float64)
            self._squares = torch.zeros_like(self._sum)
        elif self._pivot.shape != x.shape[1:]:
            raise InputError(f"maps changed their shape from {list(self._pivot.shape)} to {list(x.shape[1:])}")
        for part in torch.split(x, GROUP):
            gap = part - self._pivot
            self._sum += gap.sum(0)
            self._squares += gap.square_().sum(0)
        self.n += len(x)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean over pictures; `InputError` before the first."""
        pivot = self._need()
        return self._turned(pivot.double() + self._sum / self.n)

    @property
    def variance(self) -> NDArray[np.float64]:
        """The mean squared distance from the mean, over pictures."""
        self._need()
        gap = self._sum / self.n
        return self._turned((self._squares / self.n - gap * gap).clamp_min(0))

    def _turned(self, values: Tensor) -> NDArray[np.float64]:
        shown = values.permute(2, 0, 1) if self._channels_last else values
        return np.ascontiguousarray(shown.cpu().numpy())

    def _need(self) -> Tensor:
        if self._pivot is None:
            raise InputError("no pictures: a mean needs at least one")
        return self._pivot
