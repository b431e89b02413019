"""A metric by the phase of the shift: planted ripples come out, trends and what is at (0, 0) alone do not."""

from __future__ import annotations

import numpy as np
import pytest

from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.phases import Phases, phases
from shiftlens.stats import FloatArray, Skipped
from shiftlens.tasks.task import Stored, Variable

MAE = Variable("mae", "float32", "mm", "lower", "number", "MAE", optional=True)


def arrays(values: FloatArray, dys: FloatArray, dxs: FloatArray, strides: tuple[int, ...] = (2, 4)) -> SweepArrays:
    return SweepArrays({"mae": values}, np.zeros(0, np.int64), dys, dxs, task=Stored((MAE,)), strides=strides)


def planted(dys: FloatArray, dxs: FloatArray, ripple: FloatArray, n: int = 3) -> FloatArray:
    """A tilted plane, another for each image, and a ripple (dy mod s, dx mod s)."""
    s, t = ripple.shape
    wave = ripple[dys % s][:, dxs % t]
    return np.stack([7.0 + k + 0.3 * dys[:, None] - 0.2 * k * dxs[None, :] + wave for k in range(n)])


@pytest.mark.parametrize(("step", "stride"), [(1, 4), (3, 4), (1, 3)])
def test_a_planted_ripple_is_found_and_the_trend_is_not(step: int, stride: int) -> None:
    shifts = step * np.arange(-7, 8)
    ripple = np.random.default_rng(0).normal(size=(stride, stride))
    made = phases(arrays(planted(shifts, shifts, ripple), shifts, shifts, (stride,)).values())
    assert isinstance(made, Phases)
    assert (made.stride, made.n) == ((stride, stride), 3)
    np.testing.assert_allclose(made.deviation, ripple - ripple.mean(), atol=1e-4)
    np.testing.assert_allclose(made.half_width, 0, atol=1e-4)


def test_dx_and_dy_are_not_mixed_up_and_one_row_is_enough() -> None:
    dxs = np.arange(-6, 7)
    ripple = np.array([[1.0, 0.0, 0.0, -1.0]])
    made = phases(arrays(planted(np.array([0]), dxs, ripple), np.array([0]), dxs).values())
    assert isinstance(made, Phases)
    assert made.stride == (1, 4)
    np.testing.assert_allclose(made.deviation, ripple, atol=1e-4)


def test_the_unshifted_image_is_no_phase() -> None:
    shifts = np.arange(-8, 9)
    values = np.ones((2, 17, 17))
    values[:, 8, 8] = -50.0
    made = phases(arrays(values, shifts, shifts, (4,)).values())
    assert isinstance(made, Phases)
    # It is in the means around it, and so raises its neighbours, nearly alike; at its own phase it would count 51 / 9.
    assert np.abs(made.deviation).max() < 0.4


def test_a_curved_trend_is_no_ripple() -> None:
    shifts = np.arange(-8, 9)
    values = np.repeat(-0.01 * (shifts[:, None] ** 2 + shifts[None, :] ** 2)[None], 2, axis=0).astype(float)
    made = phases(arrays(values, shifts, shifts, (4,)).values())
    assert isinstance(made, Phases)
    np.testing.assert_allclose(made.deviation, 0, atol=1e-6)


def test_the_interval_is_over_images_and_images_without_the_metric_are_left_out() -> None:
    draw, shifts = np.random.default_rng(1), np.arange(-6, 7)
    values = draw.normal(size=(400, 13, 13))
    values[0, 2, 2] = np.nan
    made = phases(arrays(values, shifts, shifts).values())
    assert isinstance(made, Phases)
    assert made.n == 399
    assert (np.abs(made.deviation) < made.half_width).all()
    # Four cells or more of unit noise an image and phase, of which a sixteenth goes with the mean.
    assert 0.04 < made.half_width.min() < made.half_width.max() < 0.16


@pytest.mark.parametrize(
    ("shifts", "strides", "why"),
    [
        (np.arange(-6, 7), (1,), "no stride above 1"),
        (2 * np.arange(-6, 7), (2, 4), "a step of 2 px shares a factor with the stride 4"),
        (np.arange(-5, 6), (4,), "fewer than 3 periods of the stride 4"),
        (np.arange(-40, 41), (32,), "above 16"),
        (np.array([0]), (4,), "fewer than 3 periods"),
    ],
)
def test_what_cannot_be_seen_is_said(shifts: FloatArray, strides: tuple[int, ...], why: str) -> None:
    made = phases(arrays(np.ones((2, len(shifts), len(shifts))), shifts, shifts, strides).values())
    assert isinstance(made, Skipped)
    assert why in made.why


def test_a_smaller_stride_is_taken_where_the_grid_is_small() -> None:
    shifts = np.arange(-3, 4)
    made = phases(arrays(np.ones((2, 7, 7)), shifts, shifts, (2, 8)).values())
    assert isinstance(made, Phases)
    assert made.stride == (2, 2)
