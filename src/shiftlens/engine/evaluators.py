"""The engine's door: what to compute for a chunk of images, and which path computes it.

`make_plan` decides once how a sweep is computed (by measuring, where it matters); the plan is stored with the sweep,
so that a resume on another day computes the same numbers. `prepare` turns a plan into a `WindowEvaluator`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from shiftlens.devices import machine_kind, number_format, resolve_device
from shiftlens.engine import device_plan, tuning
from shiftlens.engine.budget import Budget
from shiftlens.engine.checking import Check
from shiftlens.engine.cutting import with_cut, worth_cutting
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.outcomes import Chunk, Outcomes
from shiftlens.engine.passes import evaluator_for
from shiftlens.engine.plan import CONTROLS, DTYPES, ENGINES, Plan
from shiftlens.engine.rechecking import Rechecked
from shiftlens.engine.settling import doubtful_margin
from shiftlens.engine.shared.dedup import CanvasEvaluator
from shiftlens.engine.window_evaluator import Mask, WindowEvaluator, fill_values
from shiftlens.errors import InputError, StoreError
from shiftlens.models.map_canvas import is_of_maps, on_canvas
from shiftlens.models.wrapping import Model
from shiftlens.naming import unknown_name
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.task import Task, can_settle


def check_request(
    grid: ShiftGrid, fill: Fill, engine: str, dtype: str, controls: tuple[str, ...], batch_size: int | None = None
) -> None:
    """Refuse a request that no path can serve, before anything is loaded or written.

    Raises
    ------
    InputError
        An unknown engine, dtype or control, an occlusion control without a constant fill, a batch of none, or windows
        by themselves with computation that is shared across them.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"a batch holds at least one window, got batch-size {batch_size}")
    if batch_size == 1 and engine == "dedup":
        raise InputError("batch-size 1 evaluates every window by itself, which engine dedup does not; leave one out")
    for what, value, known in (("engine", engine, ("auto", *ENGINES)), ("dtype", dtype, ("auto", *DTYPES))):
        if value not in known:
            raise unknown_name(what, value, known)
    for control in controls:
        if control not in CONTROLS:
            raise unknown_name("control", control, CONTROLS)
    if "occlusion" in controls and not fill.is_constant:
        raise InputError(
            f"the occlusion control blanks the pixels that a shift pushes out; fill {fill.name!r} has no blank "
            "(use black, mean or a number)"
        )
    if "canvas" in controls and not fill.is_constant:
        raise InputError(
            f"the canvas control surrounds the picture with fill; fill {fill.name!r} is no constant "
            "(use black, mean or a number)"
        )
    if grid.n_shifts < 1:
        raise InputError("the shift grid is empty")


def make_plan(
    model: Model,
    images: NDArray[np.uint8],
    grid: ShiftGrid,
    fill: Fill,
    *,
    n_images: int,
    engine: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    batch_size: int | None = None,
    n_groups: int = 1,
    task: Task = CLASSIFICATION,
    told: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """Choose how a sweep is computed.

    The number format follows from the hardware and the size of the sweep (`tuning.Search.formats`); path, layout and
    batch are measured on a few images where the sweep is long enough. The measuring takes a small share of the sweep's
    time (`budget`); a plan for which not all was tried says so.

    Parameters
    ----------
    model
        The model to be swept.
    images
        A few of the pictures, uint8 [n, c, h, w] on the model's input grid; n >= 1.
    grid, fill
        What will be swept.
    n_images
        How many images the sweep has: a long sweep is worth a longer look and a compilation.
    engine, dtype, device
        What the user asked for; `auto` leaves the choice open. Where `auto` takes bfloat16, near ties are settled in
        float32 (`settling`).
    batch_size
        Windows in a forward pass; None for the choice of the measurement. With 1, no computation is shared.
    n_groups
        1 + the number of controls.
    task
        What will be measured; without margins (`can_settle`), `auto` takes no bfloat16.
    told
        Told how many evaluations a second the plan reached, where that was measured.
    clock
        Seconds from any moment on.

    Raises
    ------
    InputError
        A request that no path can serve (`check_request`), a device that is not there, a net that `dedup`, asked for
        by name, cannot serve, or one whose answer for an image depends on its batch (`checking`).
    """
    check_request(grid, fill, engine, dtype, (), batch_size)
    if dtype == "auto" and not can_settle(task):
        dtype = "float32"
    target = resolve_device(device, apple=True)
    if target.type == "mps":
        dtype = _on_apple(engine, dtype)
    if dtype == "tf32" and target.type != "cuda":
        raise InputError(f"tf32 is a number format of NVIDIA's GPUs, the device is {target}; ask for float32")
    n_evaluations, budget = n_images * grid.n_shifts * n_groups, Budget(clock)
    with number_format("float32", target):
        check = Check(model, images, grid, fill, dtype=dtype, device=target, batch_size=batch_size, clock=clock)
    search = tuning.Search(model, images, grid, fill, n_evaluations, dtype, batch_size, check, budget)
    if target.type == "cuda":
        best = device_plan.choose(search, engine)
    elif target.type == "mps":
        best = tuning.choose(search)
    else:
        direct = best = tuning.choose(search)
        if engine == "dedup" or (engine == "auto" and worth_cutting(search, best[0])):
            best = with_cut(search, direct, required=engine == "dedup")
        if engine != "dedup":
            best = tuning.compiled(search, best, direct)
    plan = best[1]
    if told is not None and 0 < best[0] < math.inf:
        told(best[0])
    plan = replace(plan, cut_short=budget.cut_short)
    # Who asks for bfloat16 by name gets that and nothing else.
    if dtype == "auto" and plan.dtype == "bfloat16":
        with number_format("float32", target):
            plan = replace(plan, settle=doubtful_margin(model, plan, images, grid, fill, budget, task))
    return plan


def _on_apple(engine: str, dtype: str) -> str:
    """The number format on Apple's GPU: float32, every window on its own."""
    if engine == "dedup":
        raise InputError("engine dedup is not there for Apple's GPUs (mps); leave it out, or take --device cpu")
    if dtype not in ("auto", "float32"):
        raise InputError(f"Apple's GPUs (mps) compute in float32 here, got dtype {dtype}; leave it out")
    return "float32"


def check_machine(plan: Plan) -> None:
    """Refuse to compute with a plan of another kind of machine.

    Raises
    ------
    StoreError
        The plan was made for another machine: its bits cannot be had here.
    """
    here = machine_kind(resolve_device(plan.device, apple=True))
    if here != plan.machine:
        raise StoreError(
            f"the stored plan was made for {plan.machine!r}, this machine is {here!r}: its results would differ in the "
            "last bits; finish it there, or start a new one at another path"
        )


def check_controls(
    model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, controls: Sequence[str], shape: tuple[int, int, int]
) -> None:
    """Refuse a control that this net cannot have, for pictures [c, h, w], before anything is written.

    Raises
    ------
    InputError
        The canvas control, and a net without a convolutional trunk that can be followed, or whose map is not known to
        see only a part of the image.
    """
    if "canvas" in controls:
        if plan.device.startswith("mps"):
            raise InputError(
                "the canvas control is not there for Apple's GPUs (mps); leave it out, or take --device cpu"
            )
        made = _on_canvas(model, plan, grid, fill, shape[1:])
        if isinstance(made, CanvasEvaluator):
            made.check(shape)


def _on_canvas(
    model: Model,
    plan: Plan,
    grid: ShiftGrid,
    fill: Fill,
    size: tuple[int, int],
    tick: Callable[[int], None] | None = None,
) -> WindowEvaluator:
    """What evaluates the canvas control: maps by the net on larger images, all else by the cells of the trunk."""
    values = fill_values(model, fill)
    if values is None or not is_of_maps(model):
        return CanvasEvaluator(model, plan, grid, fill, tick)
    plain = replace(plan, engine="direct", cut=0)
    return DirectEvaluator(on_canvas(model, size, values), plain, grid, fill, tick, by_image=True)


class ByControl(WindowEvaluator):
    """The canvas control by an evaluator of its own, made when it is first asked for; all else by `path`."""

    controls = (None, *CONTROLS)

    def __init__(self, path: WindowEvaluator, make_canvas: Callable[[tuple[int, int]], WindowEvaluator]) -> None:
        self._path, self._make_canvas, self.grid = path, cache(make_canvas), path.grid

    def _for(self, chunk: Chunk) -> WindowEvaluator:
        h, w = chunk.images.shape[2:]
        return self._make_canvas((h, w)) if chunk.control == "canvas" else self._path

    def prepared(self, chunk: Chunk) -> Chunk:
        """See `WindowEvaluator`."""
        return self._for(chunk).prepared(chunk)

    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`."""
        return self._for(chunk).begin(chunk, wanted)


def prepare(
    model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
) -> WindowEvaluator:
    """Turn a plan into something that evaluates chunks: folds, casts and compiles once.

    `tick` is told, after every forward pass, how many evaluations of the present chunk are done.

    Raises
    ------
    StoreError
        The plan was made for another machine or device: its bits cannot be had here.
    """
    check_machine(plan)
    evaluator = Rechecked(evaluator_for(model, plan, grid, fill, tick), model, plan, fill)
    return ByControl(evaluator, lambda size: _on_canvas(model, plan, grid, fill, size, tick))
