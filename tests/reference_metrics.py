"""The oracle of the metrics: plain loops over images, shifts and pairs, written from the definitions, never fast."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import NormalDist, mean, stdev

import numpy as np
from scipy import stats as sps

Grid = list[list[float]]


def accuracy(correct: np.ndarray) -> Grid:
    n, ny, nx = correct.shape
    return [[sum(bool(correct[i, y, x]) for i in range(n)) / n for x in range(nx)] for y in range(ny)]


def wilson(k: int, n: int, z: float) -> tuple[float, float]:
    """The two shares p with |k/n - p| = z sqrt(p (1 - p) / n), found by bisection rather than by the formula."""

    def gap(p: float) -> float:
        return abs(k / n - p) - z * math.sqrt(p * (1 - p) / n)

    def root(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if gap(middle) <= 0 else (inside, middle)
        return (inside + outside) / 2

    return (0.0 if k == 0 else root(k / n, 0.0)), (1.0 if k == n else root(k / n, 1.0))


def t_interval(values: list[float]) -> tuple[float, float, float]:
    half = sps.t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values), mean(values) - half, mean(values) + half


def flood(strong: np.ndarray, start: tuple[int, int]) -> set[tuple[int, int]]:
    region, todo = set(), [start]
    while todo:
        y, x = todo.pop()
        inside = 0 <= y < strong.shape[0] and 0 <= x < strong.shape[1]
        if (y, x) in region or not inside or not strong[y, x]:
            continue
        region.add((y, x))
        todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return region


def retained(correct: np.ndarray, origin: tuple[int, int], level: float) -> set[tuple[int, int]]:
    right = correct.sum(axis=0)
    return flood(right >= level * right[origin] - 1e-9, origin)


def centroid(correct: np.ndarray, dys: list[int], dxs: list[int], level: float) -> tuple[float, float]:
    acc = accuracy(correct)
    y0, x0 = dys.index(0), dxs.index(0)
    total = sx = sy = 0.0
    for y, x in retained(correct, (y0, x0), level):
        weight = min(1.0, max(0.0, (acc[y][x] / acc[y0][x0] - level) / ((1 - level) / 2)))
        total, sx, sy = total + weight, sx + weight * dxs[x], sy + weight * dys[y]
    return sx / total, sy / total


def worst(correct: np.ndarray, dys: list[int], dxs: list[int], radius: float) -> float:
    right = 0
    for image in correct:
        inside = [image[y, x] for y, dy in enumerate(dys) for x, dx in enumerate(dxs) if dy**2 + dx**2 <= radius**2]
        right += all(inside)
    return right / len(correct)


def pairs_x(dys: list[int], dxs: list[int]) -> list[tuple[int, int]]:
    return [(dy, dx) for dy in dys for dx in dxs if dx > 0 and -dx in dxs]


def asymmetry_x(
    correct: np.ndarray, dys: list[int], dxs: list[int], flipped: np.ndarray | None = None
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float], list[float]]:
    """Effects in points and p-values by (dy, dx), and each image's mean over pairs."""
    effects, p_values = {}, {}
    images = [0.0] * len(correct)
    pairs = pairs_x(dys, dxs)
    for dy, dx in pairs:
        y, plus, minus = dys.index(dy), dxs.index(dx), dxs.index(-dx)
        values = []
        for i, image in enumerate(correct):
            v = float(image[y, plus]) - float(image[y, minus])
            if flipped is not None:
                v = (v + float(flipped[i, y, plus]) - float(flipped[i, y, minus])) / 2
            values.append(v)
            images[i] += v / len(pairs)
        effects[dy, dx] = 100 * mean(values)
        b, c = values.count(1.0), values.count(-1.0)
        p_values[dy, dx] = sps.binomtest(b, b + c, 0.5).pvalue if flipped is None and b + c else 1.0
    return effects, p_values, images


def pairwise(prediction: np.ndarray) -> list[float]:
    out = []
    for image in prediction.reshape(len(prediction), -1):
        both = [a == b for a, b in combinations(image.tolist(), 2)]
        out.append(sum(both) / len(both))
    return out


def agreement(prediction: np.ndarray, origin: tuple[int, int]) -> list[list[list[bool]]]:
    return [[[bool(v == image[origin]) for v in row] for row in image] for image in prediction]


def class_accuracy(correct: np.ndarray, labels: np.ndarray, k: int) -> Grid:
    return accuracy(correct[[i for i, label in enumerate(labels) if label == k]])


def resampled(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bootstrap means by really repeating the images."""
    out = []
    for row in weights:
        drawn = [i for i, times in enumerate(row) for _ in range(times)]
        out.append(np.mean([values[i] for i in drawn], axis=0))
    return np.array(out)


def reversals(value: np.ndarray, samples: np.ndarray, rays: list[list[list[int]]], n: int, sign: int, floor: float):
    """p-value of the strongest fall with recovery, from the definition: t of all pairs on all rays."""
    contrasts, null = {}, np.zeros(len(samples))
    for r, ray in enumerate(rays):
        point = [float(np.mean([value[c] for c in cells])) for cells in ray]
        sample = [np.mean([samples[:, c] for c in cells], axis=0) for cells in ray]
        for i, j in combinations(range(len(ray)), 2):
            change, drawn = point[j] - point[i], sample[j] - sample[i]
            variance = float(np.mean((drawn - drawn.mean()) ** 2)) * n / (n - 1)
            if variance < 1e-15:
                continue
            se = math.sqrt(variance + floor**2)
            contrasts[r, i, j] = sign * change / se
            null = np.maximum(null, np.abs(drawn - change) / se)
    best = 0.0
    for (r, i, _), t in contrasts.items():
        falls = [-contrasts[r, h, i] for h in range(i) if (r, h, i) in contrasts]
        if falls:
            best = max(best, min(t, max(falls)))
    return (1 + sum(v >= best for v in null)) / (1 + len(null)) if best > 0 else 1.0


def ripple(correct: np.ndarray, dxs: list[int], stride: int) -> tuple[float, float]:
    """Cosine and sine amplitude along x in points: second difference, Hann window, demodulation; cell by cell."""
    acc = accuracy(correct)
    lag, cells, f = stride // 2, [], 1 / stride
    inner = range(lag, len(dxs) - lag)
    for row in acc:
        top = [0.0, 0.0]
        total = 0.0
        for k, x in enumerate(inner):
            window = math.sin(math.pi * (k + 1) / (len(inner) + 1)) ** 2
            bend = row[x] - (row[x - lag] + row[x + lag]) / 2
            top[0] += window * bend * math.cos(2 * math.pi * dxs[x] * f)
            top[1] += window * bend * math.sin(2 * math.pi * dxs[x] * f)
            total += window * (1 - math.cos(2 * math.pi * f * lag))
        one_sided = 1 if stride == 2 else 2
        cells.append([100 * one_sided * t / total for t in top])
    return mean(c[0] for c in cells), mean(c[1] for c in cells)


def holm(p_values: list[float]) -> list[float]:
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    out, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, p_values[k] * (len(p_values) - rank)))
        out[k] = largest
    return out


Z = NormalDist().inv_cdf(0.975)
