"""The plan of a sweep on a GPU: the number format by what it has, batch size and cut by measurement of whole paths."""

from __future__ import annotations

import logging
import math
import statistics
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from shiftlens.devices import number_format
from shiftlens.engine import tuning
from shiftlens.engine.cutting import with_cut, worth_cutting
from shiftlens.engine.logit_distance import TOLERANCES
from shiftlens.engine.on_device import DeviceEvaluator
from shiftlens.engine.outcomes import Chunk
from shiftlens.engine.passes import with_passes
from shiftlens.engine.plan import Plan
from shiftlens.engine.recording import WARMING
from shiftlens.engine.trial_windows import spread_shifts
from shiftlens.engine.tuning import Search
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.naming import one_line

logger = logging.getLogger(__name__)

BATCHES = (1024, 256, 4096)
"""Windows in a forward pass, the likeliest first."""
MAX_PIXELS = 2**22
"""Most pixels in one batch: bounds the memory of the widest layer (64 channels: 1 GB in float32)."""
ROUNDS = 3
"""Times that a candidate is timed."""
LOOKED_AT = 64
"""Windows of an image that are computed with shared computation and alone, by what is recorded."""
REPEATED = 1e-4
"""Largest difference of their losses, relative to 1 + the loss: more than the order of float additions gives."""


def choose(search: Search, engine: str = "auto") -> tuple[float, Plan]:
    """Windows per second and the fastest plan that agrees with the module; see `engine.make_plan`.

    Near ties of bfloat16 are settled in float32.
    """
    required = engine == "dedup"
    direct = _direct(search) if isinstance(search.model.module, nn.Module) else tuning.choose(search)
    if engine == "direct" or not (required or worth_cutting(search, direct[0])):
        return direct
    best = with_cut(search, direct, required=required, fastest=partial(_fastest, search))
    if best[1].engine == "dedup":
        if why := _difference(search, best[1], direct[1]):
            if required:
                raise InputError(f"the path dedup cannot serve {search.model.name}: {why}; use engine direct or auto")
            logger.info("every window is computed on its own: %s", why)
            return direct
        _told(*best)
    return best


def _difference(search: Search, shared: Plan, direct: Plan) -> str:
    """Why a path that shares computation may not be used: what it replays is not what windows alone give.

    Looked at are some windows of mirrored images, over buffers that have held others; in float32, which hides nothing.
    """
    grid, (h, w) = search.grid, search.images.shape[2:]
    images = search.images[np.arange(WARMING + 1) % len(search.images)]
    shift = np.unique(spread_shifts(grid, (h, w), LOOKED_AT))
    wanted = np.zeros((len(images), grid.n_shifts), dtype=np.bool_)
    wanted[:, shift] = True
    losses = []
    for plan in (shared, direct):
        dtype = "float32" if plan.dtype in TOLERANCES else plan.dtype
        path = DeviceEvaluator(search.model, replace(plan, dtype=dtype, batch_size=len(shift)), grid, search.fill)
        try:
            for pictures in (images, np.ascontiguousarray(images[..., ::-1])):
                chunk = path.prepared(Chunk(pictures, np.zeros(len(pictures), dtype=np.int64)))
                found = path.begin(chunk, wanted)()["loss"][:, shift].astype(np.float64)
        except ModelOutputError as error:  # of a mirrored image: it says nothing of the sweep's own
            return one_line(error)
        losses.append(found)
        path.release()
    wrong = np.abs(losses[0] - losses[1]) > REPEATED * (1 + np.abs(losses[1]))
    return f"{np.mean(wrong):.2%} of its windows have another loss" if wrong.any() else ""


def _direct(search: Search) -> tuple[float, Plan]:
    """Every window computed on its own."""
    check = search.check
    plain = replace(check.plain, batch_size=search.batch_size or min(64, _largest_batch(search)))
    plan = replace(plain, dtype=search.formats[-1])
    candidates = [
        replace(plain, dtype=name, channels_last=last, fold_batch_norm=fold)
        for name in search.formats
        for last, fold in ((True, True), (True, False), (False, True))
    ]
    for candidate in candidates:
        # The path that settles near ties, or is the float32 of what was asked for, first: rounding hides nothing there.
        ways = (candidate.in_float32(), candidate) if candidate.dtype in TOLERANCES else (candidate,)
        if not (why := next((why for way in ways if (why := why_not(search, way))), "")):
            plan = candidate
            break
        logger.info("%s (channels last: %s) is not used: %s", candidate.dtype, candidate.channels_last, why)
    best = _by_batch(search, (0.0, plan))
    _told(*best)
    return best


def _largest_batch(search: Search) -> int:
    h, w = search.images.shape[2:]
    return max(1, min(max(BATCHES), MAX_PIXELS // int(h * w), search.n_evaluations))


def _fastest(search: Search, plans: list[Plan]) -> tuple[float, Plan]:
    """The first plans are the most promising: of those that there is time for, the fastest, by its best batch size."""
    best, failure = (0.0, plans[0]), ""
    for plan in plans:
        if best[0] and search.budget.spent():
            break
        try:
            best = max(best, (rate(search, plan), plan), key=lambda pair: pair[0])
        except (ModelOutputError, RuntimeError) as error:  # what a rest of a net raises must not end the sweep
            failure = one_line(error)
            logger.info("a cut behind %d operations is not used: %s", plan.cut, failure)
    if not best[0]:
        raise RuntimeError(failure)
    return _by_batch(search, best)


def _by_batch(search: Search, best: tuple[float, Plan]) -> tuple[float, Plan]:
    """The best so far, or the same plan with the other batch size that is fastest; 0 windows per second: not timed."""
    largest, plan = _largest_batch(search), best[1]
    sizes = (search.batch_size,) if search.batch_size else dict.fromkeys(min(size, largest) for size in BATCHES)
    for size in sizes:
        if best[0] and (size == plan.batch_size or search.budget.spent()):
            continue
        candidate = replace(plan, batch_size=size)
        best = max(best, (rate(search, candidate), candidate), key=lambda pair: pair[0])
        search.budget.fit(search.n_evaluations / best[0])
    return best


def _told(reached: float, plan: Plan) -> None:
    logger.info("about %.0f evaluations/s with %s in batches of %d", reached, plan.dtype, plan.batch_size)


def why_not(search: Search, plan: Plan) -> str:
    """Why the path that computes on the device may not be used with a plan, or nothing; see `Check`."""
    with number_format(plan.dtype, torch.device(plan.device)), torch.no_grad():
        try:
            path = DeviceEvaluator(search.model, plan, search.grid, search.fill, record=False)
        except Exception as error:  # the tracer raises whatever the model's own code does with a stand-in for a tensor
            return f"it raises {type(error).__name__}: {one_line(error)}"
        return search.check.why_not_by(path.scores, plan)


def rate(search: Search, plan: Plan) -> float:
    """Windows per second of the path itself, after rounds in which it is recorded."""
    n = max(1, min(len(search.images), math.ceil(6 * plan.batch_size / search.grid.n_shifts)))
    images, labels = search.images[:n], np.zeros(n, dtype=np.int64)
    path = DeviceEvaluator(search.model, plan, search.grid, search.fill)
    run = with_passes(path, search.model)
    for _ in range(WARMING + 1 if plan.cut else 1):  # the first layers are recorded by image, batches much sooner
        run(images, labels)
    times = []
    for _ in range(ROUNDS):
        begin = search.budget.clock()
        run(images, labels)
        times.append(search.budget.clock() - begin)
    path.release()
    return n * search.grid.n_shifts / max(statistics.median(times), 1e-9)
