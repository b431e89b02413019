"""How far the logits of two ways of computing are from each other, and how far they may be."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

TOLERANCE = 1e-4
"""Largest difference from the reference, relative to a window's largest logit, that rounding may explain."""
TOLERANCES = {"bfloat16": 0.1, "tf32": 0.02}
"""The same in coarser formats, relative to the largest logit of all windows; the float32 twin must keep `TOLERANCE`."""
MOST_LOGITS = 4096
"""Of a net with more classes, so many of them, evenly spaced, are compared."""


def disagreement(dtype: str, exact: Tensor, found: Tensor, tolerance: float) -> str:
    """Why logits computed in `dtype` are not those of the module [n, k], in one line; "" where they are."""
    found = found.double()
    if found.shape != exact.shape:
        return f"it gives logits {tuple(found.shape)}, the module alone {tuple(exact.shape)}"
    # Coarse formats round small logits next to large ones: what counts there is the largest of all.
    difference = (largest_difference if dtype in TOLERANCES else distance)(exact, found)
    if difference <= tolerance:
        return ""
    return f"its logits differ from those of the module by {difference:.2g} of the largest"


def kept(scores: Tensor) -> Tensor:
    """The logits that are compared, in double precision."""
    return scores[:, :: -(-scores.shape[1] // MOST_LOGITS)].double()


def distance(exact: Float[Tensor, "n k"], found: Float[Tensor, "n k"]) -> float:
    """Largest difference of logits, relative to the largest of its window; an offset that all classes share is none."""
    a, b = (scores.double() - scores.double().mean(dim=1, keepdim=True) for scores in (exact, found))
    largest = a.abs().amax(dim=1)
    # A window whose logits are next to nothing is measured by the others.
    scale = largest.clamp_min(max(1e-12, 1e-3 * float(largest.max())))
    return float(((a - b).abs().amax(dim=1) / scale).max())


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference of two tables of scores [n, classes], relative to the largest score.

    Both are taken around each row's mean: an offset that all classes share decides nothing, and would hide any
    difference.
    """
    a, b = (scores.double() - scores.double().mean(dim=1, keepdim=True) for scores in (a, b))
    return float((a - b).abs().max()) / float(a.abs().max().clamp_min(1e-12))
