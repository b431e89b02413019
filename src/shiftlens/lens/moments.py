"""Mean and variance over pictures, one batch at a time, in constant memory."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.errors import InputError


class Moments:
    """Running mean and variance over the first axis, for each cell by itself.

    Sums are kept in float64, of the differences to the first picture: a large common value does not eat the digits of
    a small spread. The result does not depend on how the pictures were split into batches, up to rounding of float64.
    """

    def __init__(self) -> None:
        self.n = 0
        self._pivot: Tensor | None = None
        self._sum = torch.zeros(())
        self._squares = torch.zeros(())

    def update(self, batch: Float[Tensor, "n ..."]) -> None:
        """Take some more pictures."""
        if not len(batch):
            return
        x = batch if batch.dtype in (torch.float32, torch.float64) else batch.float()
        if self._pivot is None:
            self._pivot = x[0].clone()
            self._sum = torch.zeros_like(self._pivot, dtype=torch.float64)
            self._squares = torch.zeros_like(self._sum)
        elif self._pivot.shape != x.shape[1:]:
            raise InputError(f"maps changed their shape from {list(self._pivot.shape)} to {list(x.shape[1:])}")
        gap = x - self._pivot
        self._sum += gap.sum(0, dtype=torch.float64)
        self._squares += gap.square_().sum(0, dtype=torch.float64)
        self.n += len(x)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean over pictures; `InputError` before the first."""
        pivot = self._need()
        return (pivot.double() + self._sum / self.n).cpu().numpy()

    @property
    def variance(self) -> NDArray[np.float64]:
        """The mean squared distance from the mean, over pictures."""
        self._need()
        gap = self._sum / self.n
        return (self._squares / self.n - gap * gap).clamp_min(0).cpu().numpy()

    def _need(self) -> Tensor:
        if self._pivot is None:
            raise InputError("no pictures: a mean needs at least one")
        return self._pivot
