"""Choosing a plan: the number format by what the hardware has, layout, batch size and compilation by measurement.

A choice is made once for each sweep and stored with it. Short sweeps are computed in float32 without measuring: there
is nothing to gain that a user would notice. What promises most is measured first, and when the time for it (`budget`)
is over, the best of what was measured is taken.
"""

from __future__ import annotations

import logging
import math
import statistics
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.devices import has_bfloat16, tensors_of
from shiftlens.engine.budget import SHARE, Budget
from shiftlens.engine.checking import Check
from shiftlens.engine.direct import prepare_nets
from shiftlens.engine.plan import Plan
from shiftlens.engine.trial_windows import most_windows
from shiftlens.engine.window_evaluator import raw_scores
from shiftlens.errors import InputError
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid

logger = logging.getLogger(__name__)

LONG_MACS = 6e11
"""Multiply-adds of a sweep above which bfloat16 is worth its checks (2,900 windows of the shipped VGG). A property of
the sweep and the model, not of the clock: the same sweep has the same number format each time."""
LEAST_MACS = 10_000_000
"""Multiply-adds that a window counts for at least: small layers cost more than their arithmetic."""
WORTH_MEASURING = 3.0
"""Seconds of sweep above which the candidates are timed."""
COMPILING = 40.0
"""Seconds that a compilation takes, about; nothing can stop one. Tried where that is no more than `budget.SHARE`."""
COMPILED_GAINS = 1.25
"""How many times faster a compiled net is, at most: a path that is faster already need not be compared with one."""
FOR_LAYOUTS = 0.5
"""Of the time for the choice: to look for a cut takes as long, and gains more."""
MEASURED_SECONDS = 0.3
"""For each candidate, where there is time for all of them; three times as long for one whose batches take long."""
HOPELESS = 0.85
"""Of the best rate so far: a candidate below it after one round is not measured any further."""
BATCHES = (32, 64, 128, 256)
"""Windows in a forward pass, tried where the sweep is long enough."""


@dataclass(frozen=True)
class Search:
    """What a plan is looked for.

    Attributes
    ----------
    model, images, grid, fill
        The sweep; some of its images, uint8 [n, c, h, w].
    n_evaluations
        Windows of the whole sweep.
    dtype, batch_size
        What the user asked for; `"auto"` and None leave it open.
    check
        What every candidate must agree with.
    budget
        The time that may be spent.
    """

    model: Model
    images: NDArray[np.uint8]
    grid: ShiftGrid
    fill: Fill
    n_evaluations: int
    dtype: str
    batch_size: int | None
    check: Check
    budget: Budget

    @property
    def formats(self) -> tuple[str, ...]:
        """Number formats that may be used, the first that agrees is; the last one needs no agreement.

        For `"auto"`, bfloat16 where the hardware has it and the sweep is long enough.
        """
        if self.dtype != "auto":
            return (self.dtype,)
        device = torch.device(self.check.plain.device)
        macs = self.n_evaluations * max(LEAST_MACS, self.model.n_macs or 0)
        # A GPU has bfloat16 many times as fast as IEEE float32, however short the sweep.
        long = device.type != "cpu" or macs >= LONG_MACS
        return ("bfloat16", "float32") if long and has_bfloat16(device) else ("float32",)

    def usable(self, candidate: Plan) -> bool:
        """Whether the direct path agrees with the module under a plan."""
        why = self.check.why_not(candidate)
        if why:
            logger.info("%s is not used: %s", _words(candidate), why)
        return not why

    def pictures(self, device: str) -> Tensor:
        """The images as the model takes them."""
        return self.model.preprocessing.normalise(torch.from_numpy(np.ascontiguousarray(self.images))).to(
            tensors_of(torch.device(device))
        )


def choose(search: Search) -> tuple[float, Plan]:
    """Windows per second and the plan of the direct path; see `engine.make_plan`."""
    model, check, budget, n = search.model, search.check, search.budget, search.n_evaluations
    h, w = search.images.shape[2:]
    largest = search.batch_size or max(1, min(max(BATCHES), most_windows(model, h, w), n))
    plan = replace(check.plain, batch_size=search.batch_size or min(64, largest))
    if not isinstance(model.module, nn.Module):
        if search.dtype not in ("auto", "float32"):
            raise InputError(f"{model.name} is a plain callable and computes in its own format; leave --dtype out")
        return math.inf, replace(plan, n_threads=torch.get_num_threads())  # its time is the user's: not measured
    folded = replace(plan, fold_batch_norm=True)
    plan = folded if search.usable(folded) else plan
    if search.dtype == "bfloat16":
        plan = replace(plan, dtype="bfloat16")
        _refuse_unable(model, check, plan)
    elif "bfloat16" in search.formats and search.usable(rounded := replace(plan, dtype="bfloat16", channels_last=True)):
        plan = rounded
    best = (_rate(search, plan, enough=n / WORTH_MEASURING), plan)
    if n / best[0] < WORTH_MEASURING:
        return best
    budget.fit(n / best[0])
    # The other layout gains most, and is tried in any case: it may be worth several times what has been spent by then.
    best = _better(search, best, replace(plan, channels_last=not plan.channels_last))
    for size in () if search.batch_size else sorted({min(size, largest) for size in BATCHES} - {plan.batch_size}):
        if not budget.spent(FOR_LAYOUTS):
            best = _better(search, best, replace(best[1], batch_size=size))
    budget.fit(n / best[0])
    return best


def _better(search: Search, best: tuple[float, Plan], candidate: Plan) -> tuple[float, Plan]:
    """The faster of the best so far and a candidate, which must agree with the module if it is."""
    try:
        rate = _rate(search, candidate, worth=HOPELESS * best[0])
    except Exception as error:  # a candidate may fail in any way, as a layout that a kernel of five axes has not
        logger.info("%s is not used: %s: %s", _words(candidate), type(error).__name__, one_line(error))
        return best
    return (rate, candidate) if rate > best[0] and search.usable(candidate) else best


def _words(plan: Plan) -> str:
    """A candidate for people."""
    parts = [
        plan.dtype,
        "channels last" if plan.channels_last else "",
        "batch norm folded" if plan.fold_batch_norm else "",
    ]
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


def compiled(search: Search, best: tuple[float, Plan], direct: tuple[float, Plan]) -> tuple[float, Plan]:
    """The best of all ways so far, or the direct path compiled where that can win back what the attempt costs."""
    seconds = search.n_evaluations / best[0]
    if seconds * SHARE < COMPILING or best[0] > COMPILED_GAINS * direct[0] or search.budget.spent():
        return best
    candidate = replace(direct[1], compiled=True, n_threads=torch.get_num_threads())
    if not search.usable(candidate):  # no compiler on the machine, a net that it cannot take, or other numbers
        return best
    rate = _rate(search, candidate)
    # Five per cent is more than the noise of these short timings.
    return (rate, candidate) if rate > 1.05 * best[0] else best


def _batch(pictures: Tensor, n: int, plan: Plan) -> Tensor:
    """`n` pictures, repeated where there are not as many, as the plan wants them."""
    layout = torch.channels_last if plan.channels_last else torch.contiguous_format
    repeated = pictures[torch.arange(n, device=pictures.device) % len(pictures)]
    return repeated.to(getattr(torch, plan.dtype)).contiguous(memory_format=layout)


def _rate(search: Search, plan: Plan, enough: float = math.inf, worth: float = 0.0) -> float:
    """Windows per second: the median over a few rounds of batches, after one to warm up.

    A cold net that reaches `enough` is not measured any further, a slow one in fewer rounds, and in one where that does
    not reach `worth`.
    """
    budget = search.budget
    workers = prepare_nets(search.model, plan)
    batch = _batch(search.pictures(plan.device), plan.batch_size, plan)
    seconds = min(MEASURED_SECONDS, budget.seconds / 20)

    def timed(n_batches: int) -> float:
        begin = budget.clock()
        for _ in workers.map(raw_scores, [batch] * n_batches):
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
        if plan.batch_size * n_batches < worth * times[0]:
            break
    return plan.batch_size * n_batches / max(statistics.median(times), 1e-9)
