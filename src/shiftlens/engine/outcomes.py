"""What is kept of the scores of a window, and the table in which the windows of a chunk meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.engine.plan import ChunkResult
from shiftlens.tasks.classification import CLASSIFICATION

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
        rows = CLASSIFICATION.outcome(scores, None, targets)
        return Outcomes(
            rows["prediction"].cpu().numpy(),
            rows["loss"].float().cpu().numpy(),
            rows["confidence"].half().cpu().numpy(),
            rows["margin"].float().cpu().numpy(),
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
