"""What the nets of `training.scene_nets` learn of masks and boxes, and their losses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shiftlens.data.targets import Targets
from shiftlens.nn.center_points import STRIDE
from shiftlens.tasks.task import NO_OBJECT

N_DIGITS = 10
BACKGROUND_WEIGHT = 0.3
"""Of a pixel of background in the loss of a segmenter: most pixels are."""
NEAR = 4.0
"""Pixels from an object's centre, along both axes, within which a cell learns the object's box."""


def mask_lessons(targets: Targets, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """The masks [n, h, w]."""
    return (torch.from_numpy(np.array(targets.masks)),)


def mask_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of scores [n, class, h, w]."""
    weight = torch.ones(scores.shape[1], device=scores.device)
    weight[0] = BACKGROUND_WEIGHT
    return F.cross_entropy(scores.float(), masks.long(), weight=weight)


def center_lessons(targets: Targets, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """What a detector of centre points learns of boxes.

    Returns
    -------
    heat [n, class, y, x]
        1 in the cell of a centre, falling off as a Gaussian whose width is a sixth of the box's shorter side, at least
        2 px.
    sides [n, 4, y, x]
        Pixels from each cell near a centre to the left, top, right and bottom, at least 1.
    near [n, 1, y, x]
        1 where a cell is near a centre.
    """
    assert targets.boxes is not None
    n, (h, w) = len(targets.boxes), (size[0] // STRIDE, size[1] // STRIDE)
    heat, sides, near = torch.zeros(n, N_DIGITS, h, w), torch.ones(n, 4, h, w), torch.zeros(n, 1, h, w)
    ys = ((torch.arange(h) + 0.5) * STRIDE)[:, None].expand(h, w)
    xs = ((torch.arange(w) + 0.5) * STRIDE)[None].expand(h, w)
    for k, image in enumerate(targets.boxes):
        for left, top, right, bottom, label in image[image[:, 4] != NO_OBJECT].tolist():
            x, y = (left + right) / 2, (top + bottom) / 2
            width = max(2.0, min(right - left, bottom - top) / 6)
            peak = torch.exp(-((ys - y) ** 2 + (xs - x) ** 2) / (2 * width**2))
            peak[min(int(y // STRIDE), h - 1), min(int(x // STRIDE), w - 1)] = 1
            heat[k, int(label)] = torch.maximum(heat[k, int(label)], peak)
            mine = ((ys - y).abs() <= NEAR) & ((xs - x).abs() <= NEAR)
            near[k, 0, mine] = 1
            sides[k][:, mine] = torch.stack([xs - left, ys - top, right - xs, bottom - ys])[:, mine].clamp(min=1)
    return heat, sides, near


def center_loss(given: tuple[Tensor, Tensor], heat: Tensor, sides: Tensor, near: Tensor) -> Tensor:
    """Focal loss of the heat map (arXiv 1904.07850, eq. 1), and L1 of the logarithm of the four sides near centres."""
    score = given[0].float().sigmoid().clamp(1e-4, 1 - 1e-4)
    centre = heat == 1
    focal = torch.where(centre, (1 - score) ** 2 * score.log(), (1 - heat) ** 4 * score**2 * (1 - score).log())
    off = (given[1].float().log() - sides.log()).abs() * near
    return -focal.sum() / centre.sum().clamp(min=1) + off.sum() / near.sum().clamp(min=1)
