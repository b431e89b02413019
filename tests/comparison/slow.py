"""The oracle: plain loops over images and shifts, written from the definitions."""

from __future__ import annotations

import math
from fractions import Fraction
from math import comb
from statistics import mean, stdev

import numpy as np
from scipy import stats as sps

from reference_metrics import flood

Pair = tuple[float, float, float]


def kept(dys: list[int], dxs: list[int], size: tuple[int, int], radius: float = math.inf) -> list[tuple[int, int]]:
    """Cells of the shifts within a radius that leave some of the picture."""
    return [
        (y, x)
        for y, dy in enumerate(dys)
        for x, dx in enumerate(dxs)
        if math.sqrt(dx * dx + dy * dy) <= radius and abs(dy) < size[0] and abs(dx) < size[1]
    ]


def shares(right: np.ndarray, cells: list[tuple[int, int]]) -> list[float]:
    return [sum(bool(image[y, x]) for y, x in cells) / len(cells) for image in right]


def worst(right: np.ndarray, cells: list[tuple[int, int]]) -> list[bool]:
    return [all(image[y, x] for y, x in cells) for image in right]


def sides(right: np.ndarray, dys: list[int], dxs: list[int], size: tuple[int, int], across: bool) -> list[float]:
    """Each image's mean over pairs of opposite shifts: right minus left, or down minus up."""
    out = []
    for image in right:
        differences = []
        for y, x in kept(dys, dxs, size):
            along = dxs[x] if across else dys[y]
            if along <= 0:
                continue
            other = image[y, dxs.index(-along)] if across else image[dys.index(-along), x]
            differences.append(int(image[y, x]) - int(other))
        out.append(mean(differences))
    return out


def agreement(prediction: np.ndarray, cells: list[tuple[int, int]], origin: tuple[int, int]) -> list[float]:
    near = [cell for cell in cells if cell != origin]
    return [sum(image[c] == image[origin] for c in near) / len(near) for image in prediction]


def t_difference(a: list[float], b: list[float]) -> tuple[Pair, float]:
    """Mean of the differences with Student's interval, and the p-value against 0; in points."""
    d = [100 * (x - y) for x, y in zip(a, b, strict=True)]
    se = stdev(d) / math.sqrt(len(d))
    half = sps.t.ppf(0.975, len(d) - 1) * se
    return (mean(d), mean(d) - half, mean(d) + half), 2 * sps.t.sf(abs(mean(d)) / se, len(d) - 1)


def share_difference(a: list[bool], b: list[bool], z: float) -> Pair:
    """Adjusted Wald with z^2 / 4 images of each kind of disagreement added; in points."""
    gained = sum(x and not y for x, y in zip(a, b, strict=True)) + z * z / 4
    lost = sum(y and not x for x, y in zip(a, b, strict=True)) + z * z / 4
    n = len(a) + z * z / 2
    centre = (gained - lost) / n
    half = z * math.sqrt((gained + lost) / n - centre**2) / math.sqrt(n)
    exact = sum(int(x) - int(y) for x, y in zip(a, b, strict=True)) / len(a)
    return 100 * exact, 100 * max(centre - half, -1), 100 * min(centre + half, 1)


def mcnemar(a: list[bool], b: list[bool]) -> float:
    gained = sum(x and not y for x, y in zip(a, b, strict=True))
    lost = sum(y and not x for x, y in zip(a, b, strict=True))
    m = gained + lost
    tail = sum(Fraction(comb(m, k), 2**m) for k in range(min(gained, lost) + 1))
    return float(min(Fraction(1), 2 * tail))


def simes(p: list[float]) -> float:
    return min(len(p) * value / (k + 1) for k, value in enumerate(sorted(p)))


def holm(p: dict[tuple[int, str], float]) -> dict[tuple[int, str], float]:
    out, highest = {}, 0.0
    for k, (key, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, value * (len(p) - k)))
        out[key] = highest
    return out


def retained_area(right: np.ndarray, origin: tuple[int, int], step: int, scale: float) -> float:
    count = right.sum(axis=0)
    return len(flood(count >= 0.95 * count[origin] - 1e-9, origin)) * step * step * scale * scale
