"""Counts in messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shiftlens.evaluation import Evaluation
from shiftlens.naming import count_of, of_source
from shiftlens.narrative.words import number_text
from shiftlens.shifts import Shift
from shiftlens.tasks.detection import N_UNMATCHED


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (count_of(1, "layer"), "1 layer"),
        (count_of(0, "layer"), "0 layers"),
        (count_of(1_000, "class", "classes"), "1,000 classes"),
        (of_source(1, 1), "1 image"),
        (of_source(1, 30), "1 of 30 images"),
        (number_text(1, "layers", 0), "1 layer"),
        (number_text(1, "px^2", 0), "1 px²"),
        (number_text(1, "points", 1), "1.0 points"),
        (N_UNMATCHED.called, "unmatched count"),
    ],
)
def test_a_count_agrees_with_its_noun(made: str, expected: str) -> None:
    assert made == expected


def test_a_weakest_class_is_named_only_where_there_is_one() -> None:
    shares: dict[str, float | None] = {"a": 0.5, "b": 0.25, "c": None}
    made = Evaluation(0.4, (0.1, 0.7), 1.0, None, 1, shares, Shift(0, 0), "black", "net", "images", 1)
    assert made.lines()[-1] == "weakest class: b 25.0 %"
    assert "(1 image, shift (0, 0)" in made.lines()[0]
    assert replace(made, per_class={"a": 0.5, "b": 0.5}).lines()[-1] == "every class: 50.0 %"
