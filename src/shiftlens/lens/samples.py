"""Samples of a feature map along its borders, along lines in its interior, and anywhere in its interior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

SIDES = ("left", "right", "top", "bottom")

N_ALONG = 16
"""Cells taken along one line."""

N_INTERIOR = 96
"""Cells taken in the interior."""

N_LINES = 8
"""Rows, and as many columns, in the interior that stand for borders under the null."""


@dataclass(frozen=True)
class Places:
    """Cells of a map [h, w], as positions in its flattened form.

    `strips` [4, n_along] lie along each of `SIDES`, one cell wide, corners left out; `interior` [n] is at least the
    kernel's width away from every border; `lines` [n_lines, n_along] are rows and columns of it.
    """

    strips: NDArray[np.int64]
    interior: NDArray[np.int64]
    lines: NDArray[np.int64]

    @property
    def all(self) -> NDArray[np.int64]:
        """Strips, interior, lines, one after the other."""
        return np.concatenate([self.strips.ravel(), self.interior, self.lines.ravel()])

    def split(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values [n, c, places] at `all` as samples [c, ...]: strips [4, c, m], interior [c, m], lines [l, c, m]."""
        strips, interior, lines = torch.split(values, [self.strips.size, len(self.interior), self.lines.size], 2)
        return grouped(strips, 4), grouped(interior, 1)[0], grouped(lines, len(self.lines))


def grouped(values: Tensor, n_groups: int) -> Tensor:
    """Values [n, c, groups * k] as [groups, c, n * k]."""
    n, c, _ = values.shape
    return values.reshape(n, c, n_groups, -1).permute(2, 1, 0, 3).reshape(n_groups, c, -1)


def places(size: tuple[int, int], kernel: tuple[int, int], rng: np.random.Generator) -> Places | None:
    """Where to look on a map; None where it has no interior of at least 2 x 2 cells."""
    (h, w), (ky, kx) = size, kernel
    rows, columns = np.arange(ky, h - ky), np.arange(kx, w - kx)
    if len(rows) < 2 or len(columns) < 2:
        return None
    inner_y, inner_x = np.arange(1, h - 1), np.arange(1, w - 1)
    across, down = _some(inner_x, N_ALONG, rng), _some(inner_y, N_ALONG, rng)
    n_along = min(len(across), len(down))
    across, down = across[:n_along], down[:n_along]
    strips = np.stack([down * w, down * w + w - 1, across, (h - 1) * w + across])
    everywhere = (rows[:, None] * w + columns[None, :]).ravel()
    n_line = min(len(rows), len(columns), N_ALONG)
    along_row, along_column = _some(columns, n_line, rng), _some(rows, n_line, rng)
    lines = [row * w + along_row for row in _some(rows, N_LINES, rng)]
    lines += [along_column * w + column for column in _some(columns, N_LINES, rng)]
    return Places(strips, _some(everywhere, N_INTERIOR, rng), np.stack(lines))


def _some(values: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return values if len(values) <= n else np.sort(rng.choice(values, n, replace=False))


def ks_distance(
    samples: Float[Tensor, "group c n"], reference: Float[Tensor, "c m"]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Kolmogorov and Smirnov's D of each sample (0 to 1), and whether its median is above the reference's: [group, c].

    All groups of a channel are held against the channel's one reference, which is sorted once.
    """
    (groups, c, n), m = samples.shape, reference.shape[-1]
    # NumPy's sort is several times as fast as torch's, which also returns where the values were.
    x, y = (torch.from_numpy(np.sort(each.cpu().numpy(), -1)) for each in (samples, reference))
    asked = x.permute(1, 0, 2).reshape(c, groups * n).contiguous()

    def share(right: bool) -> Tensor:
        found = torch.searchsorted(y, asked, right=right).double() / m
        return found.reshape(c, groups, n).permute(1, 0, 2)

    at_most, below = share(right=True), share(right=False)
    rank = torch.arange(1, n + 1, dtype=torch.float64) / n
    # Both steps of either distribution lie at the sample's values; just before one, the sample has a rank less.
    distance = torch.maximum(rank - at_most, below - (rank - 1 / n)).amax(-1).clamp_min(0)
    above = x[..., (n - 1) // 2] > y[..., (m - 1) // 2]  # the lower one of two middle values, as torch's median
    return distance.numpy(), above.numpy()
