"""The passes around an engine path: blank windows once, near ties settled in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shiftlens.devices import resolve_device
from shiftlens.engine.blank import BlankOnce
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.on_device import DeviceEvaluator
from shiftlens.engine.plan import Plan
from shiftlens.engine.settling import Settled
from shiftlens.engine.shared.dedup import DedupEvaluator
from shiftlens.engine.window_evaluator import EnginePath, WindowEvaluator
from shiftlens.models.wrapping import Model
from shiftlens.shifts import Fill, ShiftGrid

SETTLING_BATCH = 256
"""Windows in a float32 batch that settles near ties on a GPU; given fewer at a time, it is mostly idle."""


def evaluator_for(
    model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
) -> WindowEvaluator:
    """The plan's engine path, with the passes that the plan and the fill ask for."""
    on_cpu = resolve_device(plan.device).type == "cpu"
    dense = DirectEvaluator if on_cpu else DeviceEvaluator
    return with_passes((DedupEvaluator if plan.engine == "dedup" else dense)(model, plan, grid, fill, tick), model)


def with_passes(path: EnginePath, model: Model) -> WindowEvaluator:
    """A path with its passes."""
    plan, exact = path.plan, path
    evaluator: WindowEvaluator = path
    if plan.settle:
        plain = plan.in_float32()
        if isinstance(path, DeviceEvaluator):
            plain = replace(plain, batch_size=min(SETTLING_BATCH, plan.batch_size))
            exact = DeviceEvaluator(model, plain, path.grid, path.fill, record=path.record)
        else:
            exact = DirectEvaluator(model, plain, path.grid, path.fill, by_image=True)
        evaluator = Settled(path, exact, plan.settle)
    return BlankOnce(evaluator, exact) if path.fill.is_constant else evaluator
