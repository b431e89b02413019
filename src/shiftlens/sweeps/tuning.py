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

from shiftlens.errors import InputError, ModelOutputError
from shiftlens.sources.checkpoints import one_line
from shiftlens.sources.models import Model
from shiftlens.sources.probing import scores_of
from shiftlens.sweeps.budget import SHARE, Budget
from shiftlens.sweeps.direct import prepare_nets
from shiftlens.sweeps.folding import largest_difference
from shiftlens.sweeps.plan import Plan
from shiftlens.sweeps.workers import Net, Workers

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
MAX_PIXELS = 2**18
"""Most pixels in one batch: bounds the memory of the widest layer (64 channels: 64 MB in float32, for each worker)."""
CHECKED = 16
"""Pictures on which a candidate must agree with the plain float32 net."""
FLOAT32_TOLERANCE = 1e-3
"""Largest difference from the plain net, relative to the largest score, that folding and compiling may show."""
BFLOAT16_TOLERANCE = 0.1
"""Largest difference from float32, relative to the largest score, that bfloat16 may show to be chosen by `auto`."""


def choose(
    model: Model,
    images: NDArray[np.uint8],
    *,
    n_evaluations: int,
    dtype: str,
    device: torch.device,
    machine: str,
    budget: Budget,
    say: Callable[[str], None],
) -> tuple[float, Plan]:
    """Windows per second and the plan for a sweep of `n_evaluations` windows; see `engine.make_plan`."""
    pictures = _pictures(model, images, device)
    h, w = pictures.shape[-2:]
    largest = max(1, min(max(BATCHES), MAX_PIXELS // (h * w), n_evaluations))
    plan = Plan(
        engine="direct",
        dtype="float32" if dtype == "auto" else dtype,
        batch_size=min(64, largest),
        channels_last=False,
        fold_batch_norm=False,
        compiled=False,
        device=str(device),
        machine=machine,
    )
    if not isinstance(model.module, nn.Module):
        if plan.dtype != "float32":
            raise InputError(f"{model.name} is a plain callable and computes in its own format; leave --dtype out")
        return math.inf, plan  # its time is the user's: not measured
    exact = _exact(model, plan, pictures)
    plan = replace(_folded(model, _reference(plan), pictures, exact, say), dtype=plan.dtype)
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
        if candidate.dtype != plan.dtype and not _agrees(model, candidate, pictures, exact, say):
            continue
        best = max(best, (_rate(model, candidate, pictures, budget), candidate), key=lambda pair: pair[0])
    for size in sorted({min(size, largest) for size in BATCHES} - {plan.batch_size}):
        if not budget.spent(FOR_FORMATS):
            candidate = replace(best[1], batch_size=size)
            best = max(best, (_rate(model, candidate, pictures, budget), candidate), key=lambda pair: pair[0])
    budget.fit(n_evaluations / best[0])
    return best


def compiled(
    model: Model,
    images: NDArray[np.uint8],
    best: tuple[float, Plan],
    direct: tuple[float, Plan],
    *,
    n_evaluations: int,
    budget: Budget,
    say: Callable[[str], None],
) -> tuple[float, Plan]:
    """The best of all ways so far, or the direct path compiled where that can win back what the attempt costs."""
    seconds = n_evaluations / best[0]
    if seconds * SHARE < COMPILING or best[0] > COMPILED_GAINS * direct[0] or budget.spent():
        return best
    candidate = replace(direct[1], compiled=True)
    pictures = _pictures(model, images, torch.device(candidate.device))
    try:
        if not _agrees(model, candidate, pictures, _exact(model, candidate, pictures), say):
            return best
        rate = _rate(model, candidate, pictures, budget)
    except Exception as error:  # no compiler on the machine, or a net that it cannot take: the plain path is right
        say(f"not compiled: {type(error).__name__}")
        return best
    # Five per cent is more than the noise of these short timings.
    return (rate, candidate) if rate > 1.05 * best[0] else best


def _pictures(model: Model, images: NDArray[np.uint8], device: torch.device) -> Tensor:
    return model.preprocessing.normalise(torch.from_numpy(np.ascontiguousarray(images[:CHECKED]))).to(device)


def _reference(plan: Plan) -> Plan:
    """The plain net, in float32 unless more was asked for."""
    plain = replace(plan, fold_batch_norm=False, channels_last=False, compiled=False)
    return plain if plan.dtype == "float64" else replace(plain, dtype="float32")


def _exact(model: Model, plan: Plan, pictures: Tensor) -> Tensor:
    """What every candidate must agree with."""
    plain = _reference(plan)
    return _scores(prepare_nets(model, plain), _check(pictures, plain))


def _batch(pictures: Tensor, n: int, plan: Plan) -> Tensor:
    """`n` pictures, repeated where there are not as many, as the plan wants them."""
    layout = torch.channels_last if plan.channels_last else torch.contiguous_format
    repeated = pictures[torch.arange(n, device=pictures.device) % len(pictures)]
    return repeated.to(getattr(torch, plan.dtype)).contiguous(memory_format=layout)


def _check(pictures: Tensor, plan: Plan) -> Tensor:
    """The pictures that a candidate is checked on; a compiled net is made for one batch size only."""
    return _batch(pictures, plan.batch_size if plan.compiled else len(pictures), plan)


def _scores(workers: Workers, batch: Tensor) -> Tensor:
    """Scores of one batch by one worker, in float32."""
    (scores,) = workers.map(_forward, [batch])
    return scores


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


def _folded(model: Model, plan: Plan, pictures: Tensor, exact: Tensor, say: Callable[[str], None]) -> Plan:
    candidate = replace(plan, fold_batch_norm=True)
    try:
        folded = _scores(prepare_nets(model, candidate), _check(pictures, candidate))
    except Exception as error:  # the tracer raises whatever the model's own code does with a stand-in for a tensor
        say(f"batch norm is not folded: the model cannot be traced ({type(error).__name__})")
        return plan
    if not largest_difference(exact, folded) <= FLOAT32_TOLERANCE:
        say("batch norm is not folded: the traced model disagrees with the module")
        return plan
    return candidate


def _agrees(model: Model, plan: Plan, pictures: Tensor, exact: Tensor, say: Callable[[str], None]) -> bool:
    try:
        scores = _scores(prepare_nets(model, plan), _check(pictures, plan))
    except ModelOutputError as error:
        say(f"{plan.dtype} is not used: {error}")
        return False
    n = min(len(exact), len(scores))
    difference = largest_difference(exact[:n], scores[:n])
    if not difference <= (BFLOAT16_TOLERANCE if plan.dtype == "bfloat16" else FLOAT32_TOLERANCE):
        say(f"{plan.dtype} is not used: its scores differ from float32 by {difference:.3g} of the largest score")
        return False
    return True


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
