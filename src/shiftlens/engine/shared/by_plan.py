"""A net cut where a stored plan says."""

from __future__ import annotations

from torch import nn

from shiftlens.engine.shared.program import Layout, Program
from shiftlens.engine.shared.tracing import Trace, trace
from shiftlens.engine.window_evaluator import EnginePath
from shiftlens.errors import StoreError


def by_plan(
    path: EnginePath, module: nn.Module, shape: tuple[int, int, int], *, occluded: bool
) -> tuple[Trace, Program]:
    """The trace of a prepared net on images [c, h, w], and what the path's plan runs once for all shifts.

    Parameters
    ----------
    path
        Whose plan, grid and fill these are.
    module
        The net, as the plan wants it.
    shape
        Of the images.
    occluded
        Whether windows stay in place and lose what each shift would push out.

    Raises
    ------
    StoreError
        The net has changed since the plan was made.
    """
    cut = path.plan.cut
    try:
        found = trace(module, shape)
    except Exception as error:  # torch's tracer raises whatever the model's own code does with a stand-in
        raise StoreError(
            f"the stored plan runs {cut} operations on cells, but this net cannot be traced ({type(error).__name__}): "
            "its code has changed since; start a new sweep at another path"
        ) from error
    if cut > len(found.steps):
        raise StoreError(
            f"the stored plan runs {cut} operations on cells, this version serves {len(found.steps)} of this net; "
            "start a new sweep at another path"
        )
    layout = Layout.of(path.grid, shape[1:], path.fill.rule, path.values, occluded=occluded)
    return found, Program(found, cut, layout, path.device)
