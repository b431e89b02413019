"""What the controls separate: content that is gone from content that has moved, and the shifts that leave nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import BoolArray, SweepArrays, Values, image_slices, row_means
from shiftlens.analysis.differences import Differences, Effects, difference_of, mean_of
from shiftlens.analysis.irregularity import Reversal
from shiftlens.analysis.matched_images import matched_rows
from shiftlens.stats import CONFIDENCE, Estimate, Skipped


@dataclass(frozen=True, eq=False)
class PaddingEffect:
    """What changes when the picture's surroundings are fill all the way, and no padding is near [own].

    Attributes
    ----------
    effect
        m(canvas control) - m(shift) under each shift that leaves some of the picture, (0, 0) among them.
    fall, fall_without
        m(0, 0) minus the mean over all other such shifts: in the sweep, and on the canvas. This is the position effect:
        what moving the picture costs, lost content included. All in points of a share, else in the metric's unit.
    fall_of_padding
        The first minus the second, paired: the part of the position effect that is the padding's.
    """

    effect: Effects
    fall: Estimate
    fall_without: Estimate
    fall_of_padding: Estimate


@dataclass(frozen=True)
class Blank:
    """What the model gives for an empty picture: shifts of the picture's size under a constant fill.

    Attributes
    ----------
    predicted
        The class it predicts most often there; "" where the task has none.
    share
        Share of the predictions there that are this class; below 1 only if something of the pictures is left.
    metrics
        By name, every metric over images, mean over these shifts; accuracy says only how often that class is the label.
    n_shifts
        How many shifts of the grid are blank; they are left out of all tests.
    """

    predicted: str
    share: float
    metrics: Mapping[str, Estimate | Skipped]
    n_shifts: int


def _in_both(values: Values, control: Values) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
    """Yield, for the images that both hold, a slice of them and their values, (image, cell); higher is better."""
    rows, control_rows = matched_rows(values.sweep, control.sweep)
    sign = values.metric.sign
    for s in image_slices(len(rows), values.n_cells):
        moved, kept = values.rows(rows[s]), control.rows(control_rows[s])
        yield (s, moved, kept) if sign > 0 else (s, -moved, -kept)


def _tested_cells(sweep: SweepArrays, control: SweepArrays, site: str) -> tuple[int, BoolArray] | Skipped:
    """Return how many images both hold, and which cells but (0, 0) leave some of the picture."""
    n, others = len(matched_rows(sweep, control)[0]), ~sweep.blank.ravel()
    others[sweep.origin_cell] = False
    if n >= 2 and others.any():
        return n, others
    return Skipped(site, f"{n} images are in both sweep and control" if n < 2 else "the grid holds no shift but (0, 0)")


def without(sweep: SweepArrays, control: str) -> str:
    """Why a sweep has not some control."""
    if control not in sweep.task.controls:
        return f"the control {control} is not defined for {sweep.task.name}"
    return f"there is no {control} control"


def occlusion_effects(values: Values) -> tuple[Effects | Skipped, Effects | Skipped]:
    """Return the occlusion effect and the placement effect under each shift (dy, dx) [own].

    Occlusion is m(0, 0) - m(control), what losing the content costs; placement is m(control) - m(shift), what the move
    itself costs. It may be negative, since the control has its blank on the other side. Where lower is better the
    differences are the other way round.
    """
    sweep = values.sweep
    if "occlusion" not in sweep.controls:
        why = without(sweep, "occlusion")
        return Skipped("occlusion effect", why), Skipped("placement effect", why)
    control = values.of("occlusion")
    found = _tested_cells(sweep, control.sweep, "occlusion and placement")
    if isinstance(found, Skipped):
        return found, found
    n, tested = found
    origin = sweep.origin_cell
    occlusion, placement = (Differences(values.metric, n, values.n_cells) for _ in range(2))
    for s, moved, kept in _in_both(values, control):
        occlusion.add(s, moved[:, origin : origin + 1] - kept, tested)
        placement.add(s, kept - moved, tested)
    return occlusion.effects(tested, sweep.shape), placement.effects(tested, sweep.shape)


def padding_effect(values: Values) -> PaddingEffect | Skipped:
    """Return what the padding costs, from a sweep with its canvas control."""
    sweep, metric, site = values.sweep, values.metric, "padding effect"
    if "canvas" not in sweep.controls:
        return Skipped(site, without(sweep, "canvas"))
    control = values.of("canvas")
    found = _tested_cells(sweep, control.sweep, site)
    if isinstance(found, Skipped):
        return found
    n, others = found
    padding, tested, origin = Differences(metric, n, values.n_cells), ~sweep.blank.ravel(), sweep.origin_cell
    falls = np.zeros((2, n))
    for s, moved, kept in _in_both(values, control):
        padding.add(s, kept - moved, tested)
        for k, each in enumerate((moved, kept)):
            falls[k, s] = each[:, origin] - row_means(each[:, others])
    return PaddingEffect(
        padding.effects(tested, sweep.shape),
        difference_of(metric, falls[0]),
        difference_of(metric, falls[1]),
        difference_of(metric, falls[0] - falls[1], widest=2),
    )


@dataclass(frozen=True)
class Emptying:
    """The same contrast as a reversal's recovery, on the occlusion control.

    Attributes
    ----------
    rise
        Change from dip to recovery on the control, in the reversal's unit.
    shown
        The control recovers too (its interval lies on the recovery's side of 0): the recovery is emptying of the
        picture, not its place.
    """

    rise: Estimate
    shown: bool


def emptying(reversal: Reversal, control: Values) -> Emptying | Skipped:
    """Return whether the occlusion control shows a reversal's recovery too, in the reversal's metric."""
    dip, recovery = list(reversal.dip_cells), list(reversal.recovery_cells)
    changes = np.empty(control.sweep.n_images)
    for s in control.sweep.slices():
        cells = control[s]
        changes[s] = row_means(cells[:, recovery]) - row_means(cells[:, dip])
    if np.count_nonzero(~np.isnan(changes)) < 2:
        return Skipped("emptying", "one image has no interval")
    estimate = difference_of(control.metric, changes)
    towards = 1 if reversal.rise.value > 0 else -1
    p = 1.0 if estimate.p_value is None else estimate.p_value
    return Emptying(estimate, estimate.value * towards > 0 and p <= 1 - CONFIDENCE)


def blank_limit(sweep: SweepArrays) -> Blank | Skipped:
    """Return what the model gives where nothing of the picture is left."""
    if not sweep.fill_is_constant:
        return Skipped("blank limit", f"fill {sweep.fill} always leaves some of the picture")
    if sweep.picture_size is None:
        return Skipped("blank limit", "the sweep does not say how large the pictures are")
    blank = sweep.blank
    if not blank.any():
        return Skipped("blank limit", "no shift of the grid is as large as the image")
    made = {each.name: mean_of(each, sweep.values(each).per_image(blank), "blank limit") for each in sweep.metrics}
    return Blank(*_most_predicted(sweep), made, int(blank.sum()))


def _most_predicted(sweep: SweepArrays) -> tuple[str, float]:
    if "prediction" not in sweep.variables:
        return "", 1.0
    counts = np.zeros(0, np.int64)
    for s in sweep.slices():
        seen = np.bincount(np.asarray(sweep.prediction[s])[:, sweep.blank].ravel(), minlength=len(counts))
        seen[: len(counts)] += counts
        counts = seen
    top = int(np.argmax(counts))
    name = sweep.class_names[top] if top < len(sweep.class_names) else str(top)
    return name, float(counts[top] / counts.sum())
