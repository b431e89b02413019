"""From mean differences of each step on each image to the shares of the causes, with intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.stats import CONFIDENCE, FloatArray, resample_weights

ORDER = ("grid", "context", "resize", "norm", "pooling", "attention", "other")
"""The causes, in the order in which they are taken away."""

N_RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class LayerShare:
    """What one layer's share of the mismatch is."""

    path: str
    share: float


@dataclass(frozen=True)
class CauseShare:
    """What one cause's share of the mismatch is.

    Attributes
    ----------
    cause
        One of `ORDER`.
    share
        Of the mean |difference| of plain tiles without overlap; all shares sum to 1. Below 0 where taking the cause
        away made the difference larger.
    interval
        95 % interval over images (percentile bootstrap); None of a single image.
    layers
        Those to blame, by path, the largest share first; empty for what is no layer's.
    """

    cause: str
    share: float
    interval: Interval | None
    layers: tuple[LayerShare, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The object in `causes` of `shiftlens tiles --json`."""
        return {
            "cause": self.cause,
            "share": self.share,
            "interval": None if self.interval is None else list(self.interval),
            "layers": [layer.path for layer in self.layers],
            "layer_shares": {layer.path: layer.share for layer in self.layers},
        }


def causes_of(
    off: FloatArray, causes: Sequence[str], layers: Sequence[Sequence[str]], index: NDArray[Any], seed: int = 0
) -> tuple[CauseShare, ...]:
    """Return the shares of the causes; none where plain tiles already agree with the whole image.

    Parameters
    ----------
    off
        Mean |difference| (image, step); the first step is plain tiles.
    causes, layers
        Of each further step: what it takes away, and from which layers.
    index
        Position of each image in the source.
    seed
        Of the bootstrap.
    """
    total = float(off[:, 0].sum())
    if total <= 0:
        return ()
    falls = np.concatenate([off[:, :-1] - off[:, 1:], off[:, -1:]], axis=1)
    named = [*causes, "other"]
    weights = resample_weights(index, N_RESAMPLES, seed).astype(np.float64)
    totals = weights @ off[:, 0]
    made = []
    for cause in ORDER:
        columns = [k for k, name in enumerate(named) if name == cause]
        fall = falls[:, columns].sum(axis=1)
        if not fall.any():
            continue
        interval = None
        if len(off) > 1:
            shares = np.divide(weights @ fall, totals, out=np.zeros(len(totals)), where=totals > 0)
            lo, hi = np.quantile(shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            interval = (float(lo), float(hi))
        blamed: dict[str, float] = {}
        for k in columns:
            paths = layers[k] if k < len(layers) else ()
            for path in paths:
                blamed[path] = blamed.get(path, 0.0) + float(falls[:, k].sum()) / total / len(paths)
        ranked = sorted(blamed.items(), key=lambda pair: -abs(pair[1]))
        found = tuple(LayerShare(path, share) for path, share in ranked)
        made.append(CauseShare(cause, float(fall.sum()) / total, interval, found))
    return tuple(made)
