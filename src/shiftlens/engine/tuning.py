"""Choosing a plan by measurement: number format, layout, batch size, compilation.

A choice is made once for each sweep and stored with it. Short sweeps are computed in float32 without measuring: there
is nothing to gain that a user would notice. What promises most is measured first, and when the time for it (`budget`)
is over, the best of what was measured is taken.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.engine.budget import SHARE, Budget
from shiftlens.engine.checking import Check, most_windows
from shiftlens.engine.direct import prepare_nets
from shiftlens.engine.plan import Plan
from shiftlens.engine.workers import Net
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import Model
from shiftlens.models.probing import scores_of
from shiftlens.naming import one_line

WORTH_MEASURING = 3.0
"""Seconds of sweep above which the candidates are timed."""
COMPILING = 40.0
"""Seconds that a compilation takes, about; nothing can stop one. Tried where that is no more than `budget.SHARE`."""
COMPILED_GAINS = 1.25
"""How many times faster a compiled net is, at most: a path that is faster already need not be compared with one."""
FOR_FORMATS = 0.5
"""Of the time for the choice: to look for a cut takes as long, and gains more."""
MEASURED_SECONDS = 0.3
"""For each candidate, where there is time for all of them; three times as long for one whose batches take long."""
BATCHES = (32, 64, 128, 256)
"""Windows in a forward pass, tried where the sweep is long enough."""


def choose(
    model: Model,
    images: NDArray[np.uint8],
    check: Check,
    *,
    n_evaluations: int,
    dtype: str,
    batch_size: int | None,
    budget: Budget,
    say: Callable[[str], None],
) -> tuple[float, Plan]:
    """Windows per second and the plan for a sweep of `n_evaluations` windows; see `engine.make_plan`."""
    h, w = images.shape[2:]
    largest = batch_size or max(1, min(max(BATCHES), most_windows(model, h, w), n_evaluations))
    plan = replace(check.plain, batch_size=batch_size or min(64, largest))
    if not isinstance(model.module, nn.Module):
        if dtype not in ("auto", "float32"):
            raise InputError(f"{model.name} is a plain callable and computes in its own format; leave --dtype out")
        return math.inf, replace(plan, n_threads=torch.get_num_threads())  # its time is the user's: not measured

    def usable(candidate: Plan) -> bool:
        why = check.why_not(candidate)
        if why:
            say(f"{_words(candidate)} is not used: {why}")
        return not why

    folded = replace(plan, fold_batch_norm=True)
    plan = folded if usable(folded) else plan
    if dtype == "bfloat16":
        plan = replace(plan, dtype=dtype)
        _refuse_unable(model, check, plan)
    pictures = model.preprocessing.normalise(torch.from_numpy(np.ascontiguousarray(images))).to(plan.device)
    best = (_rate(model, plan, pictures, budget, enough=n_evaluations / WORTH_MEASURING), plan)
    if n_evaluations / best[0] < WORTH_MEASURING:
        return best
    # What gains most comes first, and is tried in any case: it may be worth several times what has been spent by then.
    formats = ["bfloat16", "float32"] if dtype == "auto" else [dtype]
    candidates = [replace(plan, dtype=name, channels_last=last) for last in (True, False) for name in formats]
    for candidate in candidates:
        budget.fit(n_evaluations / best[0])
        if candidate == plan or (candidate != candidates[0] and budget.spent(FOR_FORMATS)):
            continue
        if usable(candidate):
            best = max(best, (_rate(model, candidate, pictures, budget), candidate), key=lambda pair: pair[0])
    for size in () if batch_size else sorted({min(size, largest) for size in BATCHES} - {plan.batch_size}):
        candidate = replace(best[1], batch_size=size)
        if not budget.spent(FOR_FORMATS) and usable(candidate):
            best = max(best, (_rate(model, candidate, pictures, budget), candidate), key=lambda pair: pair[0])
    budget.fit(n_evaluations / best[0])
    return best


def _words(plan: Plan) -> str:
    """A candidate for people."""
    parts = [plan.dtype, "channels last" if plan.channels_last else "", "folded" if plan.fold_batch_norm else ""]
    parts += ["compiled" if plan.compiled else "", f"batches of {plan.batch_size}"]
    return ", ".join(part for part in parts if part)


def _refuse_unable(model: Model, check: Check, plan: Plan) -> None:
    """Refuse a number format that was asked for by name and that the net cannot compute in at all."""
    try:
        check.logits(plan)
    except Exception as error:  # whatever the model's own code does with numbers of this kind
        raise InputError(
            f"{model.name} cannot be evaluated in {plan.dtype}: {one_line(error)}; leave --dtype out"
        ) from error


def compiled(
    model: Model,
    images: NDArray[np.uint8],
    best: tuple[float, Plan],
    direct: tuple[float, Plan],
    check: Check,
    *,
    n_evaluations: int,
    budget: Budget,
    say: Callable[[str], None],
) -> tuple[float, Plan]:
    """The best of all ways so far, or the direct path compiled where that can win back what the attempt costs."""
    seconds = n_evaluations / best[0]
    if seconds * SHARE < COMPILING or best[0] > COMPILED_GAINS * direct[0] or budget.spent():
        return best
    candidate = replace(direct[1], compiled=True, n_threads=torch.get_num_threads())
    pictures = model.preprocessing.normalise(torch.from_numpy(np.ascontiguousarray(images))).to(candidate.device)
    if why := check.why_not(candidate):  # no compiler on the machine, a net that it cannot take, or other numbers
        say(f"not compiled: {why}")
        return best
    rate = _rate(model, candidate, pictures, budget)
    # Five per cent is more than the noise of these short timings.
    return (rate, candidate) if rate > 1.05 * best[0] else best


def _batch(pictures: Tensor, n: int, plan: Plan) -> Tensor:
    """`n` pictures, repeated where there are not as many, as the plan wants them."""
    layout = torch.channels_last if plan.channels_last else torch.contiguous_format
    repeated = pictures[torch.arange(n, device=pictures.device) % len(pictures)]
    return repeated.to(getattr(torch, plan.dtype)).contiguous(memory_format=layout)


def _forward(net: Net, batch: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            return scores_of(net(batch)).float()
    except ModelOutputError:
        raise
    except Exception as error:
        raise ModelOutputError(
            f"the model raised {type(error).__name__} on a batch {tuple(batch.shape)}: {one_line(error)}"
        ) from error


def _rate(model: Model, plan: Plan, pictures: Tensor, budget: Budget, enough: float = math.inf) -> float:
    """Windows per second: the median over a few rounds of batches, after one to warm up.

    A cold net that reaches `enough` is not measured any further, a slow one in fewer rounds.
    """
    workers = prepare_nets(model, plan)
    batch = _batch(pictures, plan.batch_size, plan)
    seconds = min(MEASURED_SECONDS, budget.seconds / 20)

    def timed(n_batches: int) -> float:
        begin = budget.clock()
        for _ in workers.map(_forward, [batch] * n_batches):
            pass
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
        return budget.clock() - begin

    cold = max(timed(workers.n), 1e-9)
    if plan.batch_size * workers.n >= enough * cold:
        return plan.batch_size * workers.n / cold
    # Enough batches for every worker to overlap with the others; their threads come and go within the time.
    n_batches = 1 if workers.n == 1 else workers.n * max(1, min(4, int(seconds / cold)))
    times: list[float] = []
    while (len(times) < 3 or sum(times) < seconds) and sum(times) < 3 * seconds and len(times) < 20:
        times.append(timed(n_batches))
    return plan.batch_size * n_batches / max(statistics.median(times), 1e-9)
