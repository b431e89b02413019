"""Where to cut a net: which operations run once for all shifts of an image. Decided by measurement, once a sweep.

Every operation that runs on cells saves arithmetic, but gathers more; late in a net there is little left to save. So
the operations are run on one picture with a clock, the rests behind the cheapest cuts on a batch of windows, and the
cheapest sum wins, if it also beats the direct path and agrees with it. When the time for that is over, what was not
measured is estimated from what was; the agreement is always checked, on one picture.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.engine.budget import Budget
from shiftlens.engine.direct import prepare_module
from shiftlens.engine.passes import SharedPath, shared_path, with_passes
from shiftlens.engine.plan import Plan
from shiftlens.engine.shared.dedup import CELL_BYTES, DedupEvaluator
from shiftlens.engine.shared.program import Layout, Program, crossing, rest_of
from shiftlens.engine.shared.tracing import Trace, trace
from shiftlens.engine.trial_windows import spread_shifts
from shiftlens.engine.tuning import Search
from shiftlens.engine.window_evaluator import WindowEvaluator
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.graph.operations import Affine, Convolution, Pointwise
from shiftlens.graph.sharing import RefusedError
from shiftlens.naming import one_line
from shiftlens.shifts import ShiftGrid

logger = logging.getLogger(__name__)

MEASURED = 6
"""Cuts whose rest is timed: those that need the fewest multiply-adds."""
QUICK = 1.0
"""Seconds for one picture below which a first, cold run is not believed."""
TELLING = 0.02
"""Of the multiply-adds on cells: the least that is timed. First layers alone are slow and do not stand for the rest."""
WORTH_CUTTING = 20.0
"""Seconds of sweep above which sharing computation is worth the look for where to cut the net."""
IMAGES_TO_CUT = 8
"""Images in a sweep above which it is."""
GAIN = 1.05
"""Times the direct path's rate, from which cells are worth it: more than the noise of these short timings."""
SURE = 1.5
"""Times the direct path's rate, by one core's time: from here on nothing more is measured, as all cores at work are not
slower by that much."""
GATHERING = 40.0
"""Multiply-adds that cost as much as moving one number: for the first guess, before anything is measured."""
GATHERING_ON_GPU = 1000.0
"""The same on a GPU (an H200 in bfloat16: 3.4 ps a number, 250 to 400 multiply-adds a picosecond), where the taps of a
convolution go through the memory."""


Fastest = Callable[[list[Plan]], tuple[float, Plan]]
"""Of some plans, the most promising first: the fastest, and its windows per second."""


@dataclass(frozen=True)
class _Cut:
    n_early: int
    macs: float
    """Multiply-adds for one image and all shifts, moving numbers included."""
    shared: float
    fewer: float

    def plan(self, base: Plan) -> Plan:
        """A plan with this cut."""
        return replace(base, cut=self.n_early, shared=round(self.shared, 4), fewer=round(self.fewer, 3))


def worth_cutting(search: Search, rate: float) -> bool:
    """Whether a look for a cut may pay for itself; `rate`: windows per second of the direct path.

    Windows that the user wants alone (a batch size of 1) share nothing.
    """
    least = max(WORTH_CUTTING * rate, IMAGES_TO_CUT * search.grid.n_shifts)
    return search.batch_size != 1 and search.n_evaluations >= least


def with_cut(
    search: Search, direct: tuple[float, Plan], *, required: bool, fastest: Fastest | None = None
) -> tuple[float, Plan]:
    """Windows per second and the plan with the best cut, or those of the direct path where that is faster.

    Parameters
    ----------
    search
        The sweep, and the time that is left.
    direct
        Windows per second and the plan of the direct path.
    required
        Whether the user asked for this path by name; on a CPU it is not timed as a whole then.
    fastest
        Finds the fastest of several plans by timing them as a whole; None for a CPU, whose cores are timed in parts.

    Raises
    ------
    InputError
        The path is required and cannot serve the net: says why.
    """
    model, images, grid, fill, budget = search.model, search.images, search.grid, search.fill, search.budget
    rate, plan = direct

    def give_up(why: str) -> tuple[float, Plan]:
        if required:
            raise InputError(f"the path dedup cannot serve {model.name}: {why}; use engine direct or auto")
        logger.info("every window is computed on its own: %s", why)
        return rate, plan

    if not isinstance(model.module, nn.Module):
        return give_up("it is a plain callable, whose layers cannot be seen")
    if len({tuple(image.shape) for image in images}) != 1:
        return give_up("pictures differ in size")
    base = replace(plan, engine="dedup", compiled=False)
    module = prepare_module(model, base.by_tensors())
    _, c, h, w = images.shape
    try:
        found = trace(module, (c, h, w))
    except RefusedError as error:
        return give_up(f"it cannot be traced: {error}")
    except Exception as error:  # torch's tracer raises whatever the model's own code does with a stand-in
        return give_up(f"it cannot be traced ({type(error).__name__})")
    if not any(isinstance(step.operation, Convolution) for step in found.steps):
        return give_up(found.refused or "it has no convolution that acts on every cell alike")
    values = fill.normalised(model.preprocessing.mean, model.preprocessing.std) if fill.is_constant else None
    layout = Layout.of(grid, (h, w), fill.rule, values)
    try:
        program, cuts = _promising(found, layout, base, model.n_macs or 0, grid.n_shifts)
        if not cuts:
            return give_up("the cells of its first layers would not fit the memory")
        if fastest is None:
            reached, evaluator = _on_cores(search, found, program, cuts, base)
        else:
            reached, chosen = fastest([cut.plan(base) for cut in cuts])
            evaluator = shared_path(model, chosen, grid, fill)
        chosen = evaluator.plan
        if not required and reached < GAIN * rate:
            return give_up(_slower(rate, reached))
        why = search.check.why_not(chosen) or search.check.why_not_on_grid(evaluator, chosen)
    except ModelOutputError:
        raise
    except Exception as error:  # what this path meets in a net of a kind never seen must not end the sweep
        return give_up(f"on cells it raises {type(error).__name__}: {one_line(error)}")
    if why:
        return give_up(f"the traced net disagrees with the module ({why})")
    if fastest is not None:
        return reached, chosen
    if required:
        return rate, chosen
    if (chosen.n_threads > 1 or reached < SURE * rate) and not budget.spent():
        reached = _rate(with_passes(evaluator, model), images, grid, budget)
    return (reached, chosen) if reached >= GAIN * rate else give_up(_slower(rate, reached))


def _on_cores(search: Search, found: Trace, program: Program, cuts: list[_Cut], base: Plan) -> tuple[float, SharedPath]:
    """Windows per second with an image a core by the cut whose parts take one core the least time, and its path."""
    grid, (_, c, h, w) = search.grid, search.images.shape
    with torch.no_grad():
        picture = search.pictures(base.device)[0]
        seconds, best = _cheapest(found, program, cuts, base, picture, grid, search.budget)
    evaluator = DedupEvaluator(search.model, best.plan(base), grid, search.fill)
    n_at_once = evaluator.n_side_by_side((c, h, w))
    n_threads = max(1, torch.get_num_threads() // n_at_once)
    if n_threads > 1:  # images that would not fit the memory side by side have several cores each
        plan = replace(evaluator.plan, n_threads=n_threads)
        evaluator = DedupEvaluator(search.model, plan, grid, search.fill)
    # One picture on one core is known; with all at work each is a little slower.
    return n_threads * n_at_once * grid.n_shifts / seconds, evaluator


def _slower(rate: float, reached: float) -> str:
    return f"that is faster for this net and grid ({rate:,.0f} against {reached:,.0f} evaluations/s)"


def _dense_macs(found: Trace, n_early: int) -> int:
    """Multiply-adds of the early convolutions for one window."""
    total = 0
    for step in found.steps[:n_early]:
        if isinstance(step.operation, Convolution):
            _, h, w = step.shape
            total += step.operation.weight.numel() * h * w
    return total


def _promising(found: Trace, layout: Layout, plan: Plan, net_macs: int, n_shifts: int) -> tuple[Program, list[_Cut]]:
    """The cuts that need the fewest multiply-adds, moving numbers included; and the steps of the deepest of them."""
    size = torch.empty(0, dtype=getattr(torch, plan.by_tensors().dtype)).element_size()
    on_cpu = torch.device(plan.device).type == "cpu"
    everything = max(net_macs, _dense_macs(found, len(found.steps)))
    shapes = {found.source: found.source_shape} | {step.name: step.shape for step in found.steps}
    whole = Program(found, len(found.steps), layout)
    cuts: list[_Cut] = []
    for n_early in range(1, len(found.steps) + 1):
        if n_early < len(found.steps) and isinstance(found.steps[n_early].operation, (Pointwise, Affine)):
            continue  # one more costs next to nothing
        dense = _dense_macs(found, n_early)
        macs, numbers, taps = whole.so_far[found.steps[n_early - 1].name]
        if numbers * size > CELL_BYTES:
            break
        if dense:
            windows = n_shifts * sum(int(np.prod(shapes[name])) for name in crossing(found, n_early))
            moving = GATHERING * (numbers + windows) if on_cpu else GATHERING_ON_GPU * (taps + windows)
            late = n_shifts * (everything - dense)
            fewer = n_shifts * everything / max(1, macs + late)
            cuts.append(_Cut(n_early, macs + late + moving, dense / everything, fewer))
    cuts = sorted(cuts, key=lambda cut: cut.macs)[:MEASURED]
    deepest = max((cut.n_early for cut in cuts), default=0)
    return (whole if deepest == len(found.steps) else Program(found, deepest, layout)), cuts


def _cheapest(
    found: Trace, program: Program, cuts: list[_Cut], plan: Plan, picture: Tensor, grid: ShiftGrid, budget: Budget
) -> tuple[float, _Cut]:
    """Time the steps of the deepest cut on one picture, and the rest behind every cut on a batch; one core each.

    Returns the cheapest, with its seconds for one picture.
    """
    dtype: torch.dtype = getattr(torch, plan.dtype)
    n_threads = torch.get_num_threads()
    # As it will run: an image a core.
    torch.set_num_threads(1)
    try:
        finished = _clocked(program, picture, dtype, budget)
        if max(finished.values()) < QUICK and not budget.over():  # then setting up the kernels shows
            finished = _clocked(program, picture, dtype, budget)
        costs: list[tuple[float, _Cut]] = []
        for cut in cuts:  # the most promising first
            if not costs or not budget.spent():
                early = finished[found.steps[cut.n_early - 1].name]
                costs.append((early + _late(found, program, cut, plan, picture, grid, budget), cut))
        return min(costs, key=lambda pair: pair[0])
    finally:
        torch.set_num_threads(n_threads)


class _TimeOverError(Exception):
    """Ends a run on cells that is only there to be timed."""


def _clocked(program: Program, picture: Tensor, dtype: torch.dtype, budget: Budget) -> dict[str, float]:
    """Seconds after which each map is there; of those that were not reached in time, by their multiply-adds."""
    finished: dict[str, float] = {}
    begin = budget.clock()

    def made(name: str) -> None:
        finished[name] = budget.clock() - begin
        timed = program.so_far[name].macs >= TELLING * program.macs
        if timed and len(finished) < len(program.so_far) and budget.spent():
            raise _TimeOverError

    with suppress(_TimeOverError):
        program.run(picture, dtype, made)
    reached, last = max((program.so_far[name].macs, seconds) for name, seconds in finished.items())
    return {name: finished.get(name, last * each.macs / max(1, reached)) for name, each in program.so_far.items()}


def _late(
    found: Trace, program: Program, cut: _Cut, plan: Plan, picture: Tensor, grid: ShiftGrid, budget: Budget
) -> float:
    """Seconds of the rest for all windows of one picture, from two batches after one to warm up."""
    rest = rest_of(found, cut.n_early)
    names = crossing(found, cut.n_early)
    channels = {found.source: found.source_shape[0]} | {step.name: step.shape[0] for step in found.steps}
    # What the cells hold does not matter to the clock.
    maps = [
        torch.zeros(
            program.cells[name].rows.n,
            program.cells[name].columns.n,
            channels[name],
            dtype=getattr(torch, plan.dtype),
            device=picture.device,
        )
        for name in names
    ]
    shift = spread_shifts(grid, (int(picture.shape[-2]), int(picture.shape[-1])), plan.batch_size)
    n = len(shift)
    iy, ix = (torch.from_numpy(places).to(picture.device) for places in np.divmod(shift, grid.shape[1]))
    times = []
    for _ in range(3):
        begin = budget.clock()
        rest(*program.windows(maps, iy, ix, channels_last=plan.channels_last, names=names))
        times.append(budget.clock() - begin)
    # Not the shorter one: beside other work that would flatter the rest against the steps, which run once.
    return statistics.fmean(times[1:]) * grid.n_shifts / n


def _rate(evaluator: WindowEvaluator, images: NDArray[np.uint8], grid: ShiftGrid, budget: Budget) -> float:
    """Evaluations per second with all cores at work: the median of up to three rounds of one picture a core.

    The evaluator has computed a picture already, so that nothing is cold.
    """
    n = max(1, torch.get_num_threads())
    pictures = images[np.arange(n) % len(images)]
    labels = np.zeros(n, dtype=np.int64)
    times: list[float] = []
    while not times or (len(times) < 3 and not budget.over()):
        begin = budget.clock()
        evaluator(pictures, labels)
        times.append(budget.clock() - begin)
    return n * grid.n_shifts / max(statistics.median(times), 1e-9)
