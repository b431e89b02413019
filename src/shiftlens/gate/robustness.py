"""`assert_robust`: a check of a model inside a test, with the map and the worst shifts in its message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftlens.data.images import load_images
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError
from shiftlens.figures.terminal import text_map
from shiftlens.gate.check_result import CheckResult
from shiftlens.gate.limits import Allowed, Gate, Mode, Within, gate_of
from shiftlens.gate.looking_on import FIRST_LOOK, check_adaptively
from shiftlens.models.wrapping import Model
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from shiftlens.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

FIRST_WITHIN_BUDGET = 25
"""Images of the first look where time is limited."""

N_WORST = 5


def assert_robust(
    model: Model | nn.Module | str | Path,
    images: Any,
    *,
    gate: Gate | Mapping[str, Any] | str | Path | None = None,
    baseline: Sweep | str | Path | None = None,
    allowed: Mapping[str, Any] | Allowed | None = None,
    mode: Mode | None = None,
    metric: str | None = None,
    min_unshifted: float | None = None,
    max_unshifted: float | None = None,
    min_near: float | None = None,
    max_near: float | None = None,
    min_retained_radius: float | None = None,
    max_drop: tuple[float, float] | str | Within | None = None,
    max_side_difference: float | None = None,
    min_consistency: float | None = None,
    max_confidence_swing: tuple[float, float] | float | str | Within | None = None,
    max_border_ratio: float | None = None,
    max_shift: int | tuple[int, int] | None = None,
    task: Task | str = "classification",
    budget_s: float | None = None,
    seed: int = 0,
    **options: Any,
) -> CheckResult:
    """Assert that a model keeps its limits under shifts: for tests.

    The model is swept on 100 images, then on 200, 400, ... until the limits are proven kept or one is proven broken
    (with a budget on 25, 50, 100, ...).

    Parameters
    ----------
    model
        A `Model`, an `nn.Module`, or a spec as `load_model` takes it.
    images
        An `ImageSet`, or anything that `load_images` takes: (images, labels), a torch `Dataset`, a spec.
    gate, baseline, allowed, mode, metric
        See `check`, as the limits `min_...` and `max_...`. In the default mode, `"strict"`, what is not proven fails.
    max_shift
        Of the grid, in px; by default as far as the limits need.
    task
        See `sweep`.
    budget_s
        Seconds: no further look is begun that would probably take longer. The first one is always made.
    seed
        Of the order of the images and of bootstraps.
    **options
        Further options of `sweep`: `fill`, `batch_size`, `device`, `label_map`, ...

    Returns
    -------
    CheckResult
        Where it passes.

    Raises
    ------
    AssertionError
        Where it fails: the conditions with their reasons, the map of the metric in characters, the worst shifts.
    InputError
        Bad use, see `check` and `sweep`.

    Examples
    --------
    >>> from torch import nn
    >>> colour = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the strongest colour is the class
    >>> labels = np.arange(120) % 3
    >>> images = np.zeros((120, 3, 8, 8), np.uint8)
    >>> images[range(120), labels] = 255
    >>> assert_robust(sl.wrap(colour, mean=0, std=1), (images, labels), max_drop=(5, 4), budget_s=20).n_images
    100
    """
    __tracebackhide__ = True
    given = {name: value for name, value in locals().items() if name.startswith(("min_", "max_"))}
    del given["max_shift"]
    given |= {"mode": mode, "metric": metric}
    if allowed is not None:
        given["allowed"] = allowed if isinstance(allowed, Allowed) else dict(allowed)
    wanted = gate_of(gate, given)
    before = baseline if baseline is not None else wanted.baseline
    if not wanted.asks and before is None:
        raise InputError("expected at least one condition (such as max_drop=(2, 4)) or a baseline, got none")
    shown = images if isinstance(images, ImageSet) else load_images(images)
    with TemporaryDirectory(prefix="shiftlens-test-") as folder:
        result, sweep = check_adaptively(
            model,
            shown,
            wanted,
            out=Path(folder),
            grid=None if max_shift is None else ShiftGrid(max_shift),
            baseline=open_sweep(before) if isinstance(before, str | Path) else before,
            first_look=FIRST_LOOK if budget_s is None else FIRST_WITHIN_BUDGET,
            budget_s=budget_s,
            seed=seed,
            task=task,
            **options,
        )
        if not result.passed:
            result = replace(result, map_text=_map_and_worst(sweep, metric))
    if not result.passed:
        raise AssertionError("\n".join(["shift robustness " + str(result), "", result.map_text]))
    return result


def _map_and_worst(sweep: Sweep, metric: str | None) -> str:
    """The map of the metric in characters, and the shifts where it is worst."""
    of = next(each for each in sweep.metrics if metric in (None, each.name))
    values = np.asarray(sweep.mean_of(of), np.float64)
    drawn = text_map(values, (sweep.grid.dys, sweep.grid.dxs), of, colour=False).plain
    order = np.argsort(of.sign * values, axis=None, kind="stable")[:N_WORST]
    rows, columns = np.unravel_index(order, values.shape)
    unit = f" {of.shown_unit}".rstrip()
    worst = (
        f"({sweep.grid.dxs[x]:+d}, {sweep.grid.dys[y]:+d}) {of.factor * values[y, x]:.4g}{unit}"
        for y, x in zip(rows, columns, strict=True)
    )
    return f"{drawn}\nworst shifts (dx, dy): {', '.join(worst)}"
