"""Logits to rows: against plain loops, over batch splits, and without a second copy of a million classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from shiftlens.engine.outcomes import Chunk, Outcomes
from shiftlens.tasks.classification import ACCURACY, AGREEMENT, CLASSIFICATION, LOSS
from shiftlens.tasks.task import OBJECT, Stored, Variable


@pytest.fixture(scope="module")
def logits():
    return torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS = torch.arange(20) % 7


def by_hand(row: list[float], label: int) -> tuple[int, float, float, float]:
    total = math.log(sum(math.exp(v) for v in row))
    best, second = sorted(row, reverse=True)[:2]
    return row.index(best), total - row[label], math.exp(best - total), best - second


def test_rows_against_loops(logits):
    state = CLASSIFICATION.prepare(None, LABELS)
    rows = CLASSIFICATION.outcome(logits, None, state)
    for k in range(20):
        made = [float(rows[name][k]) for name in ("prediction", "loss", "confidence", "margin")]
        assert made == pytest.approx(by_hand(logits[k].tolist(), int(LABELS[k])))


@pytest.mark.parametrize("size", [1, 3, 20])
def test_batches_change_nothing(logits, size):
    chunk = Chunk(np.zeros((20, 1, 1, 1), np.uint8), LABELS.numpy())
    whole = Outcomes.of(chunk, logits, LABELS)
    parts = [Outcomes.of(chunk, a, b) for a, b in zip(logits.split(size), LABELS.split(size), strict=True)]
    joined = Outcomes.joined(parts)
    for name in ("prediction", "loss", "confidence", "margin"):
        assert np.array_equal(joined[name], whole[name]), name


def test_the_input_is_left_as_it_was(logits):
    before = logits.clone()
    CLASSIFICATION.outcome(logits, None, LABELS)
    assert torch.equal(logits, before)


def test_metrics_with_and_without_labels():
    assert CLASSIFICATION.metrics(labelled=True) == (ACCURACY, LOSS)
    assert CLASSIFICATION.metrics(labelled=False) == (AGREEMENT,)
    assert (ACCURACY.sign, ACCURACY.factor, ACCURACY.difference_unit) == (1, 100, "points")
    assert (LOSS.sign, LOSS.factor, LOSS.difference_unit) == (-1, 1, "nats")


def test_metrics_are_made_of_what_is_stored():
    prediction = np.array([[[0, 1, 1]], [[2, 2, 0]]], np.uint8)
    stored = {"prediction": prediction, "loss": prediction.astype(np.float32)}

    def made(name):
        return CLASSIFICATION.measured(name, stored.__getitem__, np.array([1, 2]), (0, 1)).tolist()

    assert made("accuracy") == [[[False, True, True]], [[True, True, False]]]
    assert made("agreement") == [[[False, True, True]], [[True, True, False]]]
    assert made("loss") == [[[0, 1, 1]], [[2, 2, 0]]]


def test_a_stored_task_measures_windows_with_a_better_side_only():
    score = Variable("score", "float32", "px", "lower", "number")
    others = (
        Variable("name", "uint8"),
        Variable("object_score", "float16", "share", "higher", "number", dims=OBJECT),
        Variable("by_place", "float64", "share", "higher", "number", dims=("y", "x")),
    )
    task = Stored((score, *others))
    assert task.metrics(labelled=False) == (score,)
    assert task.measured("score", {"score": np.ones((1, 1, 1))}.__getitem__, np.zeros(0), (0, 0)).shape == (1, 1, 1)
