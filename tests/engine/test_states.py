"""States of an axis: numbers that can be counted by hand, and windows put together from them."""

from __future__ import annotations

import numpy as np
import pytest

from shiftlens.engine.shared.states import (
    OVERHANG,
    PAD,
    Axis,
    consed,
    extended,
    joined,
    occluded_axis,
    shares,
    shifted_axis,
    slide,
)

SHIFTS = np.arange(-32, 33)


def test_a_shifted_axis_shows_content_and_fill() -> None:
    axis = shifted_axis(np.array([-1, 0, 2]), 4, None)
    assert axis.n == 5
    assert axis.table.tolist() == [[1, 2, 3, 4], [0, 1, 2, 3], [4, 4, 0, 1]]
    assert shifted_axis(np.array([1]), 4, "circular").table.tolist() == [[3, 0, 1, 2]]
    assert shifted_axis(np.array([1]), 4, "circular").n == 4


def test_an_occluded_axis_loses_what_the_shift_would_push_out() -> None:
    axis = occluded_axis(np.array([-1, 0, 2]), 4)
    assert axis.table.tolist() == [[4, 1, 2, 3], [0, 1, 2, 3], [0, 1, 4, 4]]


def test_equal_tuples_are_one_state_and_stand_beside_their_like() -> None:
    tuples = np.array([[[PAD, 0, 1], [0, 1, 2], [1, 2, PAD]], [[PAD, 1, 2], [0, 1, 2], [1, 2, PAD]]])
    taps = consed(tuples)
    assert taps.axis.n == 4
    np.testing.assert_array_equal(taps.tuples[taps.axis.table], tuples)
    lacking = [tuple(row) for row in (taps.tuples < 0).tolist()]
    assert lacking == sorted(lacking, reverse=True)  # groups are runs


def test_a_window_slides_over_padding_and_overhang() -> None:
    axis = Axis(np.array([[0, 1, 2]]), 3)
    taps = slide(axis, kernel=2, stride=2, before=1, after=0, length=3)
    assert taps.tuples[taps.axis.table[0]].tolist() == [[PAD, 0], [1, 2], [OVERHANG, OVERHANG]]
    reflected = slide(axis, kernel=3, before=1, after=1, rule="reflect", length=3)
    assert reflected.tuples[reflected.axis.table[0]].tolist() == [[1, 0, 1], [0, 1, 2], [1, 2, 1]]


def test_the_numbers_of_the_design() -> None:
    """Distinct states of 32 positions under 65 shifts: with content 100, 174; here with the few that have none."""
    axis = shifted_axis(SHIFTS, 32, None)
    first = slide(axis, kernel=3, before=1, after=1, length=32).axis
    second = slide(first, kernel=3, before=1, after=1, length=32).axis
    assert (first.n, second.n) == (103, 179)
    blank_first = len(np.unique(first.table[[0, -1]]))
    blank_second = len(np.unique(second.table[[0, -1]]))
    assert (first.n - blank_first, second.n - blank_second) == (100, 174)


def test_maps_looked_at_together() -> None:
    a, b = Axis(np.array([[0, 0, 1]]), 2), Axis(np.array([[0, 1, 1]]), 2)
    taps = joined([a, b])
    assert taps.tuples[taps.axis.table[0]].tolist() == [[0, 0], [0, 1], [1, 1]]
    assert a.same_as(Axis(np.array([[0, 0, 1]]), 2))
    assert not a.same_as(b)
    assert not a.same_as(Axis(a.table, 3))


@pytest.mark.parametrize(("rule", "wanted", "n"), [(None, [3, 0, 1, 2, 3, 3], 4), ("circular", [2, 0, 1, 2, 0, 1], 3)])
def test_an_explicit_padding_layer(rule: str | None, wanted: list[int], n: int) -> None:
    axis = extended(Axis(np.array([[0, 1, 2]]), 3), 1, 2, rule)
    assert (axis.table[0].tolist(), axis.n) == (wanted, n)
    assert extended(Axis(np.array([[0, 1, 2]]), 3), -1, 0, None).table.tolist() == [[1, 2]]


def test_shares_sum_to_one() -> None:
    axis = shifted_axis(np.array([-1, 0, 2]), 4, None)
    found = shares(axis)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found[2].tolist() == [0.25, 0.25, 0, 0, 0.5]
