"""The oracle: slow loops that anyone can check against the definitions, sharing no code with the product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def translated(image: np.ndarray, dx: int, dy: int, fill: str, values: list[float] | None) -> np.ndarray:
    """One picture [c, h, w], shifted pixel by pixel."""
    c, h, w = image.shape
    out = np.empty_like(image)
    for k in range(c):
        for y in range(h):
            for x in range(w):
                sy, sx = y - dy, x - dx
                if fill == "constant":
                    inside = 0 <= sy < h and 0 <= sx < w
                    assert values is not None
                    out[k, y, x] = image[k, sy, sx] if inside else values[k]
                else:
                    out[k, y, x] = image[k, source(sy, h, fill), source(sx, w, fill)]
    return out


def source(i: int, n: int, rule: str) -> int:
    """Walk back into the picture one step at a time, as the rules are told in words."""
    if rule == "edge":
        return min(max(i, 0), n - 1)
    if rule == "wrap":
        while i < 0:
            i += n
        while i >= n:
            i -= n
        return i
    repeat_edge = rule == "symmetric"
    while not 0 <= i < n:
        if i < 0:
            i = -i - 1 if repeat_edge else -i
        if i >= n:
            i = 2 * n - 1 - i if repeat_edge else 2 * (n - 1) - i
    return i


def occluded(image: np.ndarray, dx: int, dy: int, values: list[float]) -> np.ndarray:
    """The pixels that a shift pushes out of view, blanked in place; one picture [c, h, w]."""
    c, h, w = image.shape
    out = image.copy()
    for y in range(h):
        for x in range(w):
            if not (0 <= y + dy < h and 0 <= x + dx < w):
                for k in range(c):
                    out[k, y, x] = values[k]
    return out


def naive_sweep(
    net: Callable[[torch.Tensor], torch.Tensor],
    pictures: np.ndarray,
    labels: np.ndarray,
    shifts: list[tuple[int, int]],
    fill: str,
    values: list[float] | None,
    *,
    occlude: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [image, shift, class] and cross-entropy [image, shift], one forward pass a picture and shift."""
    scores, losses = [], []
    for picture, label in zip(pictures, labels, strict=True):
        for dx, dy in shifts:
            if occlude:
                assert values is not None
                moved = occluded(picture, dx, dy, values)
            else:
                moved = translated(picture, dx, dy, fill, values)
            with torch.no_grad():
                row = net(torch.from_numpy(moved)[None])[0].double().numpy()
            scores.append(row)
            top = row.max()
            losses.append(top + np.log(np.exp(row - top).sum()) - row[label])
    n = len(pictures)
    return np.array(scores).reshape(n, len(shifts), -1), np.array(losses).reshape(n, len(shifts))
