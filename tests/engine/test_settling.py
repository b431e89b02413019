"""Near ties of bfloat16 are settled in float32: which windows, what they get, and what is left as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_direct import MEAN, STD, pictures_of, plan_of, random_statistics
from torch import nn

from shiftlens.engine import settling, tuning
from shiftlens.engine.budget import Budget
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.engine.settling import DOUBT, LARGEST_SHARE, doubtful_margin, margins_of
from shiftlens.errors import StoreError
from shiftlens.models.loading import Model, wrap
from shiftlens.nn.vgg import VGG
from shiftlens.shifts import Fill, ShiftGrid

GRID, BLACK = ShiftGrid(16, 4), Fill.parse("black")
ALL = 1e9
"""A margin that every window is below."""


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    net = random_statistics(VGG("vgg6", width=8, n_classes=4, size=16))
    return wrap(net, mean=MEAN, std=STD, size=(16, 16))


def result_of(model: Model, plan: Plan, control: str | None = None, n: int = 3) -> ChunkResult:
    images, labels = pictures_of(n, 16, 16, 4)
    return prepare(model, plan, GRID, BLACK)(images, labels, control)


def assert_same(a: ChunkResult, b: ChunkResult, where: np.ndarray | slice = np.s_[:]) -> None:
    for name in ("prediction", "loss", "confidence"):
        np.testing.assert_array_equal(a[name][where], b[name][where])


PATHS = [plan_of("bfloat16", batch_size=64), plan_of("bfloat16", batch_size=50, engine="dedup", cut=4)]


@pytest.mark.parametrize("plan", PATHS, ids=lambda plan: plan.engine)
@pytest.mark.parametrize("control", [None, "occlusion", "flip"])
def test_what_is_in_doubt_gets_what_float32_says_and_nothing_else_does(
    model: Model, plan: Plan, control: str | None
) -> None:
    rounded = result_of(model, plan, control)
    exact = result_of(model, plan.in_float32(), control)
    everything = result_of(model, replace(plan, settle=ALL), control)
    # One batch of float32 is not the other one's in the last bit, as it holds other windows.
    np.testing.assert_array_equal(everything["prediction"], exact["prediction"])
    np.testing.assert_allclose(everything["loss"], exact["loss"], rtol=0, atol=1e-5)
    assert (rounded["loss"] != exact["loss"]).mean() > 0.9, "or this would show nothing"
    some = result_of(model, replace(plan, settle=0.02), control)
    settled = some["loss"] != rounded["loss"]
    assert 0.01 < settled.mean() < 0.9
    assert_same(some, rounded, ~settled)
    np.testing.assert_allclose(some["loss"][settled], exact["loss"][settled], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(some["prediction"][settled], exact["prediction"][settled])
    assert (some["prediction"] != exact["prediction"]).sum() <= (rounded["prediction"] != exact["prediction"]).sum()


def test_an_image_is_settled_by_itself(model: Model) -> None:
    images, labels = pictures_of(3, 16, 16, 4)
    evaluate = prepare(model, replace(PATHS[1], settle=0.05), GRID, BLACK)
    together = evaluate(images, labels)
    for k in range(3):
        alone = evaluate(images[k : k + 1], labels[k : k + 1])
        for name in ("prediction", "loss", "confidence"):
            np.testing.assert_array_equal(alone[name][0], together[name][k])


def test_the_doubt_is_that_of_the_two_best_scores(model: Model) -> None:
    images, _ = pictures_of(2, 16, 16, 4)
    shift = np.array([12, 40, 41])
    found = margins_of(DirectEvaluator(model, plan_of(), GRID, BLACK), images, shift)
    pictures = model.preprocessing.normalise(torch.from_numpy(images))
    assert isinstance(model.module, nn.Module)
    for k, place in enumerate(shift):
        dy, dx = (int(GRID.dys[place // 9]), int(GRID.dxs[place % 9]))
        values = BLACK.normalised(MEAN, STD)
        moved = torch.tensor(values)[None, :, None, None].repeat(2, 1, 16, 16)
        moved[:, :, max(dy, 0) : 16 + dy, max(dx, 0) : 16 + dx] = pictures[
            :, :, max(-dy, 0) : 16 - dy, max(-dx, 0) : 16 - dx
        ]
        with torch.no_grad():
            scores = model.module.eval()(moved).numpy()
        best = np.sort(scores, axis=1)
        np.testing.assert_allclose(found[:, k], best[:, -1] - best[:, -2], atol=1e-5)


def test_the_empty_picture_is_float32s(model: Model) -> None:
    grid, images, labels = ShiftGrid(16, 16), np.full((2, 3, 16, 16), 80, dtype=np.uint8), np.arange(2)
    plan = plan_of("bfloat16")
    results = [
        prepare(model, p, grid, BLACK)(images, labels) for p in (plan, replace(plan, settle=1e-30), plan.in_float32())
    ]
    rounded, settled, exact = (result["loss"][:, 0, 0] for result in results)
    np.testing.assert_array_equal(settled, exact)
    assert (settled != rounded).all()


def test_windows_beyond_the_canvas_stay_the_empty_picture(model: Model) -> None:
    grid, (images, labels) = ShiftGrid(24, 8), pictures_of(2, 16, 16, 4)
    plan = plan_of("bfloat16", settle=ALL)
    settled, exact = (prepare(model, p, grid, BLACK)(images, labels) for p in (plan, plan.in_float32()))
    outside = (np.abs(grid.dys) >= 16)[:, None] | (np.abs(grid.dxs) >= 16)[None, :]
    np.testing.assert_array_equal(settled["loss"][:, outside], exact["loss"][:, outside])


def test_the_canvas_control_is_left_alone(model: Model) -> None:
    plan = PATHS[1]
    assert_same(result_of(model, replace(plan, settle=ALL), "canvas", 1), result_of(model, plan, "canvas", 1))


def test_a_margin_is_in_doubt_below_what_rounding_does_to_margins(model: Model) -> None:
    images, _ = pictures_of(2, 16, 16, 4)
    plan = plan_of("bfloat16", batch_size=64, engine="dedup", cut=4)
    found = doubtful_margin(model, plan, images, GRID, BLACK, Budget())
    # All 49 shifts that leave something in view: fewer than are looked at of each picture.
    shift = np.flatnonzero(((np.abs(GRID.dys) < 16)[:, None] & (np.abs(GRID.dxs) < 16)[None, :]).ravel())
    paths = (DirectEvaluator(model, plan_of(dtype), GRID, BLACK) for dtype in ("bfloat16", "float32"))
    rounded, exact = (margins_of(path, images, shift) for path in paths)
    rms = float(np.sqrt(np.mean((rounded - exact) ** 2)))
    assert found == pytest.approx(min(DOUBT * rms, float(np.quantile(exact, LARGEST_SHARE))), rel=0.05)
    assert found > 0


def test_a_net_that_tells_nothing_apart_is_not_evaluated_twice(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = pictures_of(4, 16, 16, 4)
    plan = plan_of("bfloat16", batch_size=64)
    monkeypatch.setattr(settling, "DOUBT", 1e6)
    found = doubtful_margin(model, plan, images, GRID, BLACK, Budget())
    shift = np.flatnonzero(((np.abs(GRID.dys) < 16)[:, None] & (np.abs(GRID.dxs) < 16)[None, :]).ravel())
    margins = margins_of(DirectEvaluator(model, plan.in_float32(), GRID, BLACK), images, shift)
    assert 0 < (margins < found).mean() < 2 * LARGEST_SHARE


def test_time_that_is_over_leaves_one_picture_to_look_at(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def margins(evaluator: DirectEvaluator, images: np.ndarray, *rest: Any) -> np.ndarray:
        looked_at.append(len(images))
        return margins_of(evaluator, images, *rest)

    monkeypatch.setattr(settling, "margins_of", margins)
    now = iter([0.0, 1e6, 1e6, 1e6])
    images, _ = pictures_of(4, 16, 16, 4)
    assert doubtful_margin(model, plan_of("bfloat16"), images, GRID, BLACK, Budget(lambda: next(now))) > 0
    assert sum(looked_at) == 2, "in both formats"


def test_who_asks_for_bfloat16_by_name_gets_nothing_else(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"auto": "bfloat16", "bfloat16": "bfloat16", "float32": "float32"}
    monkeypatch.setattr(tuning, "choose", lambda search: (1e9, plan_of(found[search.dtype])))
    images, _ = pictures_of(2, 16, 16, 4)
    plans = {dtype: make_plan(model, images, GRID, BLACK, n_images=9, dtype=dtype) for dtype in found}
    assert plans["auto"].settle > 0
    assert plans["bfloat16"].settle == plans["float32"].settle == 0


def test_a_stored_plan_has_a_margin_or_no_word_of_it() -> None:
    settled = plan_of("bfloat16", settle=0.0375)
    assert "settle" not in plan_of().to_json()
    assert Plan.from_json(settled.to_json()) == settled
    for text in ("NaN", "Infinity", "-0.5", "true", '"0.1"', "null", "1"):
        with pytest.raises(StoreError, match=r"stored plan (has settle|names what)"):
            Plan.from_json(settled.to_json().replace("0.0375", text))
