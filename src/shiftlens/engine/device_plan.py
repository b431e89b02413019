"""The plan of a sweep on a GPU, by measurement: number format and batch size, on the path that it will take."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shiftlens.devices import number_format
from shiftlens.engine import tuning
from shiftlens.engine.budget import Budget
from shiftlens.engine.checking import TOLERANCES, Check
from shiftlens.engine.on_device import DeviceEvaluator
from shiftlens.engine.passes import with_passes
from shiftlens.engine.plan import Plan
from shiftlens.engine.settling import doubtful_margin
from shiftlens.models.loading import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid

BATCHES = (1024, 256, 4096)
"""Windows in a forward pass, the likeliest first."""
MAX_PIXELS = 2**22
"""Most pixels in one batch: bounds the memory of the widest layer (64 channels: 1 GB in float32)."""
ROUNDS = 3
"""Times that a candidate is timed."""


def choose(
    model: Model,
    images: NDArray[np.uint8],
    check: Check,
    grid: ShiftGrid,
    fill: Fill,
    *,
    n_evaluations: int,
    dtype: str,
    batch_size: int | None,
    budget: Budget,
    say: Callable[[str], None],
) -> Plan:
    """The fastest plan that agrees with the module; see `engine.make_plan`.

    A GPU computes bfloat16 several times as fast as IEEE float32, so the format is not timed: `auto` takes it where it
    agrees, with near ties settled in float32. Every window is computed on its own.
    """
    h, w = images.shape[2:]
    largest = max(1, min(max(BATCHES), MAX_PIXELS // (h * w), n_evaluations))
    device = torch.device(check.plain.device)
    if not isinstance(model.module, nn.Module):
        return tuning.choose(
            model,
            images,
            check,
            n_evaluations=n_evaluations,
            dtype=dtype,
            batch_size=batch_size,
            budget=budget,
            say=say,
        )[1]
    plain = replace(check.plain, batch_size=batch_size or min(64, largest))
    formats = ("bfloat16", check.plain.dtype) if dtype == "auto" else (dtype,)
    plan = replace(plain, dtype=formats[-1])
    candidates = [
        replace(plain, dtype=name, channels_last=last, fold_batch_norm=fold)
        for name in formats
        for last, fold in ((True, True), (True, False), (False, True))
    ]
    for candidate in candidates:
        # The path that settles near ties, or is the float32 of what was asked for, first: rounding hides nothing there.
        ways = (candidate.in_float32(), candidate) if candidate.dtype in TOLERANCES else (candidate,)
        if not (why := next((why for way in ways if (why := why_not(model, check, way, grid, fill))), "")):
            plan = candidate
            break
        say(f"{candidate.dtype} (channels last: {candidate.channels_last}) is not used: {why}")
    best = (0.0, plan)
    for size in (batch_size,) if batch_size else dict.fromkeys(min(size, largest) for size in BATCHES):
        if best[0] and budget.spent():
            break
        candidate = replace(plan, batch_size=size)
        best = max(best, (rate(model, candidate, images, grid, fill, budget), candidate), key=lambda pair: pair[0])
        budget.fit(n_evaluations / best[0])
    say(f"about {best[0]:,.0f} evaluations/s with {best[1].dtype} in batches of {best[1].batch_size}")
    chosen = replace(best[1], cut_short=budget.cut_short)
    if dtype == "auto" and chosen.dtype == "bfloat16":
        with number_format("float32", device):
            chosen = replace(chosen, settle=doubtful_margin(model, chosen, images, grid, fill, budget))
    return chosen


def why_not(model: Model, check: Check, plan: Plan, grid: ShiftGrid, fill: Fill) -> str:
    """Why the path that computes on the device may not be used with a plan, or nothing; see `Check`."""
    with number_format(plan.dtype, torch.device(plan.device)), torch.no_grad():
        try:
            path = DeviceEvaluator(model, plan, grid, fill, record=False)
        except Exception as error:  # the tracer raises whatever the model's own code does with a stand-in for a tensor
            return f"it raises {type(error).__name__}: {one_line(error)}"
        return check.why_not_by(path.scores, plan)


def rate(model: Model, plan: Plan, images: NDArray[np.uint8], grid: ShiftGrid, fill: Fill, budget: Budget) -> float:
    """Windows per second of the path itself, after a first round in which it is recorded."""
    n = max(1, min(len(images), math.ceil(6 * plan.batch_size / grid.n_shifts)))
    labels = np.zeros(n, dtype=np.int64)
    run = with_passes(DeviceEvaluator(model, plan, grid, fill), model)
    run(images[:n], labels)
    times = []
    for _ in range(ROUNDS):
        begin = budget.clock()
        run(images[:n], labels)
        times.append(budget.clock() - begin)
    return n * grid.n_shifts / max(statistics.median(times), 1e-9)
