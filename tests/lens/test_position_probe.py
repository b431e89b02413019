"""The position probe: against ridge written out, and nets of which it is known whether they can tell position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.errors import InputError
from shiftlens.lens import position_probe as room
from shiftlens.stats import Estimate

SIDE = 8


@dataclass
class Layer:
    """What the read-out asks of a site: a map of 6 x 4 cells."""

    name: str = "conv"
    out_size: tuple[int, int] = (6, 4)


def written_out(maps: np.ndarray, cells: np.ndarray, height: int, width: int) -> float:
    """R² of ridge regression by its normal equations, each image judged by a fit without the images of its fold."""
    n, _, c = maps.shape
    places = np.stack([(2 * (cells // width) + 1) / height - 1, (2 * (cells % width) + 1) / width - 1], 2)
    wrong = 0.0
    folds = folds_of(n)
    for fold in np.unique(folds):
        x, y = maps[folds != fold].reshape(-1, c), places[folds != fold].reshape(-1, 2)
        centre, scale, middle = x.mean(0), x.std(0), y.mean(0)
        z = (x - centre) / scale
        weights = np.linalg.solve(z.T @ z + np.eye(c), z.T @ (y - middle))
        told = (maps[folds == fold] - centre) / scale @ weights + middle
        wrong += ((told - places[folds == fold]) ** 2).sum()
    return float(1 - wrong / ((places - places.reshape(-1, 2).mean(0)) ** 2).sum())


def folds_of(n: int) -> np.ndarray:
    """scikit-learn's folds of equal groups, images in turn."""
    from sklearn.model_selection import GroupKFold

    folds = np.empty(n, int)
    for fold, (_, judged) in enumerate(GroupKFold(room.N_FOLDS).split(np.zeros(n), groups=np.arange(n))):
        folds[judged] = fold
    return folds


def test_it_is_ridge_regression_judged_on_other_images() -> None:
    rng = np.random.default_rng(0)
    n, k, c = 10, 12, 7
    cells = np.stack([rng.permutation(24)[:k] for _ in range(n)])
    # One channel tells the row, the rest is each image's own pattern: only a fit that has seen the image gains by it.
    maps = rng.normal(size=(n, 1, c)) + 0.3 * rng.normal(size=(n, k, c))
    maps[:, :, 0] += cells // 4
    made = room._layer(Layer(), maps.astype(np.float32), cells)
    expected = written_out(maps, cells, 6, 4)
    assert made.r2.value == pytest.approx(expected, abs=1e-4)
    assert made.r2.lo < made.r2.value < made.r2.hi
    assert made.shape == (c, 6, 4)


def probe_of(padding: str) -> Estimate:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1 if k == 0 else 8, 8, 3, padding=1, padding_mode=padding) for k in range(3)]
    net = nn.Sequential(*(each for layer in layers for each in (layer, nn.ReLU())))
    model = sl.wrap(net.eval(), mean=0.2, std=0.3, size=SIDE)
    pixels = np.random.default_rng(1).integers(0, 256, (40, 1, SIDE, SIDE), np.uint8)
    return sl.position_probe(model, sl.ImageSet(pixels), n_cells=SIDE * SIDE).layers[-1].r2


def test_zeros_tell_position_and_circular_padding_does_not() -> None:
    zeros, circular = probe_of("zeros"), probe_of("circular")
    assert zeros.lo > 0.05
    assert abs(circular.value) < 0.02


def test_too_few_images_are_refused() -> None:
    model = sl.wrap(nn.Conv2d(1, 2, 3), mean=0.2, std=0.3, size=SIDE)
    with pytest.raises(InputError, match="needs at least 10 images, got 9"):
        sl.position_probe(model, sl.ImageSet(np.zeros((9, 1, SIDE, SIDE), np.uint8)))
