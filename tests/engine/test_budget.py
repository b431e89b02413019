"""How long a plan may take to be chosen: measured by a clock that only the net's work moves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_direct import MEAN, STD, plan_of, random_statistics
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from shiftlens.data.imageset import ImageSet
from shiftlens.engine import budget, tuning
from shiftlens.engine.budget import Budget
from shiftlens.engine.checking import Check
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.engine.plan import Plan
from shiftlens.engine.shared.convolving import DenseConvolution
from shiftlens.models.loading import Model, wrap
from shiftlens.nn.vgg import VGG
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeping import run_sweep
from shiftlens.sweeps import runner

GRID = ShiftGrid(16, 2)
N_MACS = 256 * 4 * 27 + 256 * 4 * 36 + 64 * 8 * 36 + 64 * 8 * 72 + 16 * 16 * 72 + 16 * 16 * 144
"""Of the convolutions of the net below."""


class World:
    """A clock that the convolutions of windows and of cells move on, each multiply-add by so much.

    `window` are the seconds that a window takes through the whole net, `cells` how much slower cells are, `first` how
    much slower than that the first convolution on cells is.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.window = {torch.float32: 2e-3, torch.bfloat16: 1e-3}
        self.cells = self.first = 1.0
        self.n_compiled = 0
        self.n_on_cells = 0
        self.tried: list[Plan] = []

    def clock(self) -> float:
        return self.now

    def on_windows(self, module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if isinstance(module, nn.Conv2d) and isinstance(output, torch.Tensor):
            self.now += output.numel() * module.weight[0].numel() * self.window[output.dtype] / N_MACS

    def on_cells(self, module: DenseConvolution, read: torch.Tensor) -> None:
        self.n_on_cells += 1
        slower = self.cells * (self.first if read.shape[2] == 3 else 1.0)
        self.now += module.macs * slower * self.window[read.dtype] / N_MACS


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()
    plain, measure, agree = DenseConvolution.__call__, tuning._rate, Check.why_not

    def slow(self: DenseConvolution, inputs: list[torch.Tensor], *rest: Any) -> torch.Tensor:
        made.on_cells(self, inputs[0])
        return plain(self, inputs, *rest)

    def rate(search: tuning.Search, plan: Plan, *rest: Any, **options: Any) -> float:
        made.tried.append(plan)
        return measure(search, plan, *rest, **options)

    def why_not(self: Check, plan: Plan) -> str:
        made.n_compiled += plan.compiled
        return "it is compiled" if plan.compiled else agree(self, plan)

    monkeypatch.setattr(DenseConvolution, "__call__", slow)
    monkeypatch.setattr(tuning, "_rate", rate)
    monkeypatch.setattr(tuning, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(Check, "why_not", why_not)
    handle = register_module_forward_hook(made.on_windows)
    yield made
    handle.remove()


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    net = random_statistics(VGG("vgg6", width=4, n_classes=4, size=16))
    return wrap(net, mean=MEAN, std=STD, size=(16, 16))


def make(model: Model, world: World, n_images: int, engine: str = "auto", dtype: str = "float32") -> Plan:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    options: dict[str, Any] = {"n_images": n_images, "engine": engine, "dtype": dtype, "clock": world.clock}
    return make_plan(model, images, GRID, Fill.parse("black"), **options)


def planned(model: Model, world: World, n_images: int, engine: str = "auto", dtype: str = "float32") -> Plan:
    """The plan, which can be followed whatever was left out."""
    plan = make(model, world, n_images, engine, dtype)
    images, labels = np.zeros((1, 3, 16, 16), dtype=np.uint8), np.zeros(1, dtype=np.int64)
    images[0, 0, 8, 8] = 200
    assert np.isfinite(prepare(model, plan, GRID, Fill.parse("black"))(images, labels)["loss"]).all()
    return plan


def test_a_choice_takes_a_share_of_the_sweep_within_limits() -> None:
    now = 5.0
    spending = Budget(lambda: now)
    spending.fit(0.0)
    assert spending.seconds == budget.FLOOR
    spending.fit(1000.0)
    assert spending.seconds == pytest.approx(1000 * budget.SHARE)
    spending.fit(1e9)
    assert spending.seconds == budget.CAP
    now += budget.CAP / 2
    assert spending.over(0.5)
    assert not spending.spent()
    assert not spending.cut_short
    now += budget.CAP / 2
    assert spending.over()
    assert not spending.cut_short, "only what is left out cuts a choice short"
    assert spending.spent()
    assert spending.cut_short


def test_with_time_for_all_of_it_all_of_it_is_tried(model: Model, world: World) -> None:
    plan = planned(model, world, 1000, "direct", dtype="auto")
    assert (plan.dtype, plan.cut_short) == ("bfloat16", False)
    tried = {(p.dtype, p.channels_last, p.batch_size) for p in world.tried}
    assert {("bfloat16", c, 64) for c in (True, False)} <= tried
    assert {size for _, _, size in tried} == {32, 64, 128, 256}


def test_a_sweep_that_is_over_at_once_is_not_measured_for(model: Model, world: World) -> None:
    before = world.now
    plan = make(model, world, 5)
    assert (plan.engine, plan.cut_short) == ("direct", False)
    assert len(world.tried) == 1
    windows = 24 + 3 * 64  # the reference, the plain and the folded net in a batch, one to warm up
    assert world.now - before == pytest.approx(windows * 2e-3)


def test_the_most_promising_is_tried_before_the_time_is_over(
    model: Model, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "LONG_MACS", 1e9)
    world.window = {torch.float32: 0.05, torch.bfloat16: 0.02}  # a batch of 64 takes longer than the least budget
    plan = planned(model, world, 10, "direct", dtype="auto")
    assert (plan.dtype, plan.channels_last, plan.batch_size) == ("bfloat16", True, 64)
    assert plan.cut_short
    assert [(p.dtype, p.channels_last) for p in world.tried] == [("bfloat16", True), ("bfloat16", False)]


def test_the_counted_multiply_adds_are_those_of_the_net(model: Model) -> None:
    assert isinstance(model.module, nn.Module)
    convolutions = [part for part in model.module.modules() if isinstance(part, nn.Conv2d)]
    assert sum(c.weight.numel() * n for c, n in zip(convolutions, (256, 256, 64, 64, 16, 16), strict=True)) == N_MACS


def test_the_cut_is_looked_for_in_the_time_that_is_left(model: Model, world: World) -> None:
    plan = planned(model, world, 1000)
    assert (plan.engine, plan.cut_short) == ("dedup", False)
    whole = plan.cut
    # A picture takes longer than all the time there is: it is not waited for, and cells are taken all the same.
    world.window[torch.float32] = 0.5
    before, world.n_on_cells = world.now, 0
    plan = make(model, world, 1000)
    assert (plan.engine, plan.cut, plan.cut_short) == ("dedup", whole, True)
    assert world.n_on_cells == 2 + 2 * 6, (
        "two convolutions with a clock, and one picture on two grids for the agreement"
    )
    # 6 windows alone, 6 in a batch twice, 64 to warm up, 64 more for the rate; 64 behind a cut three times; then the
    # agreement, on 24 windows again.
    cells = 2 * 289 / plan.fewer
    assert world.now - before < budget.CAP + 0.5 * (3 * 6 + 2 * 64 + 3 * 64 + 64 + 24 + cells)


def test_what_was_not_reached_is_estimated_by_its_multiply_adds(model: Model, world: World) -> None:
    world.window[torch.float32] = 0.5
    world.cells = 10.0
    plan = make(model, world, 1000)
    assert (plan.engine, plan.cut_short) == ("direct", True), "the little that was run on cells was too slow"
    assert world.n_on_cells == 2, "what is too slow need not agree"


def test_a_slow_first_layer_does_not_stand_for_the_rest(model: Model, world: World) -> None:
    world.window[torch.float32] = 0.5
    world.first = 8.0
    assert make(model, world, 10).engine == "dedup"


@pytest.mark.parametrize(
    ("n_evaluations", "best", "seconds", "tried"),
    [
        (1_400_000, 1.0, 0.0, True),
        (1_300_000, 1.0, 0.0, False),  # 40 s are more than 3 % of it
        (1_400_000, 1.3, 0.0, False),  # a compiled net would not be so much faster
        (1_400_000, 1.0, 60.0, False),  # the time is over
    ],
)
def test_a_compilation_must_win_its_cost_back(
    model: Model, world: World, n_evaluations: int, best: float, seconds: float, tried: bool
) -> None:
    images = np.zeros((2, 3, 16, 16), dtype=np.uint8)
    check = Check(model, images, GRID, Fill.parse("black"), clock=world.clock)
    spending = Budget(world.clock)
    spending.fit(1e9)
    world.now += seconds
    direct, found = (1000.0, plan_of()), (1000.0 * best, plan_of(engine="dedup", cut=1) if best > 1 else plan_of())
    n = int(n_evaluations * best)
    search = tuning.Search(model, images, GRID, Fill.parse("black"), n, "auto", None, check, spending)
    chosen = tuning.compiled(search, found, direct)
    assert chosen == found
    assert (world.n_compiled == 1) is tried
    assert spending.cut_short == (seconds > 0)


def test_a_plan_says_that_it_was_cut_short_and_is_stored_as_ever_where_it_was_not() -> None:
    plan = plan_of()
    assert "cut_short" not in plan.to_json()
    short = plan_of(cut_short=True)
    assert '"cut_short": true' in short.to_json()
    assert [Plan.from_json(p.to_json()) for p in (plan, short)] == [plan, short]


def test_a_sweep_says_once_that_its_plan_was_cut_short(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(plan_of(), cut_short=True)
    rates: list[float] = []

    def planned(*_: Any, told: Callable[[float], None], **__: Any) -> Plan:
        for rate in rates:
            told(rate)
        return short

    monkeypatch.setattr(runner, "make_plan", planned)
    images = ImageSet(np.full((3, 3, 16, 16), 9, dtype=np.uint8), np.arange(3))
    said: list[str] = []
    for _ in range(2):
        made, _ = run_sweep(model, images, ShiftGrid(1), out=tmp_path / "s.zarr", announce=said.append)
        assert made.header.plan == short
    assert len([line for line in said if "before all ways were tried" in line]) == 1
    for rate, n_said in ((0.4, 1), (0.5, 0)):  # 27 evaluations take more than a minute, or less
        rates[:], said[:] = [rate], []
        run_sweep(model, images, ShiftGrid(1), out=tmp_path / f"{rate}.zarr", announce=said.append)
        assert len([line for line in said if "before all ways were tried" in line]) == n_said
