"""Scores on maps whose answer is known by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from shiftlens.lens.map_scores import (
    Borders,
    Scores,
    artefact_energy,
    border_excess,
    carriers,
    contrast,
    depth,
    left_at,
    scores_of_average,
    scores_of_picture,
)
from shiftlens.stats import Skipped


def ramp() -> np.ndarray:
    """Two channels, 4 x 5: one constant 2, one rising from left to right by 1."""
    return np.stack([np.full((4, 5), 2.0), np.tile(np.arange(5.0), (4, 1))])


def test_energy_is_variance_over_power_summed_over_channels() -> None:
    # Channel 0: variance 0, power 4. Channel 1: variance 2, power 6.
    assert artefact_energy(ramp()) == pytest.approx(2 / 10)
    assert artefact_energy(np.full((3, 4, 4), 7.0)) == 0
    assert isinstance(artefact_energy(np.zeros((3, 4, 4))), Skipped)
    checked = np.tile([[1.0, -1.0], [-1.0, 1.0]], (1, 1, 1))
    assert artefact_energy(checked) == pytest.approx(1.0)


def test_contrast_is_the_odd_part() -> None:
    assert contrast(ramp(), 2) == pytest.approx(1.0)
    assert contrast(ramp(), 1) == pytest.approx(0.0)
    hat = np.array([[[0.0, 1, 0], [0, 1, 0]]])
    assert contrast(hat, 2) == pytest.approx(0.0)
    # x = odd + even with squares 2 and 2/3 around the mean: a share of 3/4.
    mixed = np.array([[[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]]) + hat
    assert contrast(mixed, 2) == pytest.approx(2 / (2 + 2 / 3))
    assert isinstance(contrast(np.full((1, 3, 3), 5.0), 2), Skipped)


def test_depth_and_reach() -> None:
    assert depth(3, 5).tolist() == [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    reference = np.ones((2, 7, 9))
    maps = reference.copy()
    maps[1, 2, 4] += 0.01
    scores = scores_of_picture(maps, reference, 4.0, is_empty=True)
    assert scores.reach_cells == 3
    assert scores.reach_pixels == 12.0
    assert scores.covered == pytest.approx(1 / 63)
    assert not left_at(reference + 0.9e-4, reference).any()
    assert left_at(reference + 1.1e-4, reference).all()
    assert scores_of_picture(reference, reference, 4.0, is_empty=True).reach_cells == 0


def test_borders_say_which_side_and_which_way() -> None:
    reference = np.full((1, 4, 4), 2.0)
    maps = reference.copy()
    maps[0, :, 0] += 1
    maps[0, 3, :] -= 1
    found = border_excess(maps, reference)
    assert isinstance(found, Borders)
    assert found.left == pytest.approx((0.5 * 3 + 0.0) / 4)
    assert found.bottom == pytest.approx((-0.5 * 3 + 0.0) / 4)
    assert found.top == pytest.approx(0.5 / 4)
    assert found.right == pytest.approx(-0.5 / 4)


def test_carriers_are_the_channels_that_vary() -> None:
    maps = np.zeros((8, 4, 4))
    maps[5, :2], maps[2, :, :2] = 2, 1
    assert [c for c, _ in carriers(maps)][:2] == [5, 2]
    assert carriers(maps)[0][1] == pytest.approx(0.8)
    assert carriers(np.ones((3, 4, 4))) == ()


def test_a_picture_with_content_has_reach_and_no_energy() -> None:
    maps = ramp()
    scores = scores_of_picture(maps, maps, 1.0, is_empty=False)
    assert scores.reach_cells == 0
    assert isinstance(scores.artefact_energy, Skipped)
    assert isinstance(scores_of_picture(np.ones((3, 1, 1)), np.ones((3, 1, 1)), 1.0, is_empty=True).covered, Skipped)


def test_an_average_is_judged_by_its_controls() -> None:
    mean = ramp()
    flat = np.ones_like(mean)
    found = scores_of_average(mean, np.full(mean.shape, 3.0), 30, flat, None)
    assert found.artefact_energy == 0  # the rolled mean is flat: what varies was content
    assert found.contrast_lr == pytest.approx(1.0)
    assert found.noise == pytest.approx(2 * 0.1 / 2)
    both = scores_of_average(mean, np.ones(mean.shape), 10, None, mean + np.flip(mean, 2))
    assert both.contrast_lr == pytest.approx(0.0) or isinstance(both.contrast_lr, Skipped)
    assert both.artefact_energy == pytest.approx(0.2)
    assert isinstance(both.reach_cells, Skipped)


def test_scores_survive_json() -> None:
    maps = ramp()
    for scores in (
        scores_of_picture(maps, np.ones_like(maps), 2.0, is_empty=True),
        scores_of_picture(maps, maps, 2.0, is_empty=False),
        scores_of_average(maps, maps**2, 5, maps, maps),
    ):
        text = json.dumps(scores.to_dict(), allow_nan=False)
        again = Scores.from_dict(json.loads(text))
        assert again.to_dict() == scores.to_dict()
        assert type(again.borders) is type(scores.borders)
