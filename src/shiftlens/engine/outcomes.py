"""What is kept of the scores of a window, and the table in which the windows of a chunk meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.engine.plan import ChunkResult

Places = slice | tuple[NDArray[np.int64], NDArray[np.int64]]
"""Images of a chunk, or windows by image and shift."""


@dataclass(frozen=True)
class Outcomes:
    """What is kept of the scores of some windows: arrays of one shape.

    `loss` is cross-entropy in nats, `confidence` the softmax of the predicted class, `margin` the best score less the
    second best.
    """

    prediction: NDArray[np.int64]
    loss: NDArray[np.float32]
    confidence: NDArray[np.float16]
    margin: NDArray[np.float32]

    @staticmethod
    def of(scores: Tensor, targets: Tensor) -> Outcomes:
        """Outcomes [n] from scores [n, classes] and true classes [n]."""
        prediction, loss, confidence, margin = outcome_tensors(scores, targets)
        return Outcomes(
            prediction.cpu().numpy(),
            loss.float().cpu().numpy(),
            confidence.half().cpu().numpy(),
            margin.float().cpu().numpy(),
        )

    @staticmethod
    def room(n: int, n_shifts: int) -> Outcomes:
        """Room for the windows [image, shift] of a chunk."""
        shape = n, n_shifts
        return Outcomes(
            np.zeros(shape, dtype=np.int64),
            np.zeros(shape, dtype=np.float32),
            np.zeros(shape, dtype=np.float16),
            np.zeros(shape, dtype=np.float32),
        )

    @staticmethod
    def joined(parts: Sequence[Outcomes]) -> Outcomes:
        """Parts [n] one after the other."""
        return Outcomes(
            np.concatenate([part.prediction for part in parts]),
            np.concatenate([part.loss for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            np.concatenate([part.margin for part in parts]),
        )

    def chosen(self, places: Places | NDArray[np.int64]) -> Outcomes:
        """Those at some places."""
        return Outcomes(self.prediction[places], self.loss[places], self.confidence[places], self.margin[places])

    def put(self, places: Places, part: Outcomes) -> None:
        """Write a part where it belongs."""
        self.prediction[places] = part.prediction
        self.loss[places] = part.loss
        self.confidence[places] = part.confidence
        self.margin[places] = part.margin

    def on_grid(self, shape: tuple[int, int]) -> ChunkResult:
        """Outcomes [image, shift] as the result of a chunk, for a grid of `shape`."""
        whole = len(self.prediction), *shape
        return ChunkResult(self.prediction.reshape(whole), self.loss.reshape(whole), self.confidence.reshape(whole))


def outcome_tensors(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `Outcomes` holds for scores [n, classes] and true classes [n], each [n] on the scores' device."""
    log_total = torch.logsumexp(scores, dim=1)
    best, prediction = scores.max(dim=1)
    loss = log_total - scores.gather(1, targets[:, None])[:, 0]
    confidence = torch.exp(best - log_total)
    # `amax`, since where the second best is does not matter: with a million classes looking for it takes longest.
    margin = best - scores.scatter(1, prediction[:, None], -math.inf).amax(dim=1)
    return prediction, loss, confidence, margin
