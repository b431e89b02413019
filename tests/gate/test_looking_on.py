"""The shifts of an adaptive check, and what it finds at its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gate.test_assert_robust import images, model
from shiftlens.gate.limits import Gate
from shiftlens.gate.looking_on import check_adaptively, grid_for


@pytest.mark.parametrize(
    ("gate", "reach"),
    [
        ({"min_unshifted": 0.9}, 1),
        ({"min_retained_radius": 2}, 4),
        ({"min_retained_radius": 2, "max_drop": "2@4.5"}, 5),
        ({"min_retained_radius": 20}, 16),  # the image's size
        ({"min_retained_radius": 2, "min_near": 0.9}, 8),
        ({"metrics": {"loss": {"max_near": 2}}}, 8),
        ({"min_unshifted": 0.9, "allowed": {"unshifted": 1}}, 8),
    ],
)
def test_the_grid_is_as_large_as_the_conditions_need(gate: dict[str, Any], reach: int) -> None:
    assert grid_for(Gate.checked(gate, "gate"), (16, 16)).max_shift == (reach, reach)


def test_what_is_there_of_the_same_check_is_resumed_and_of_another_replaced(tmp_path: Path) -> None:
    said: list[str] = []
    how: dict[str, Any] = {"out": tmp_path, "announce": said.append, "device": "cpu", "first_look": 25}
    gate = Gate(min_unshifted=0.5, min_retained_radius=1)
    first, sweep = check_adaptively(model(), images(), gate, **how)
    again, same = check_adaptively(model(), images(), gate, **how)
    assert again == first
    assert same.path == sweep.path
    assert not any("measured anew" in line for line in said)
    other, _ = check_adaptively(model(), images(), gate, **how, fill="edge")
    assert other.n_images >= 25
    assert any("other fill" in line and "measured anew" in line for line in said), said
