"""What the controls separate: content that is gone from content that has moved, and the shifts that leave nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shiftlens.analysis.arrays import BoolArray, IntArray, SweepArrays, image_slices, matched_rows
from shiftlens.analysis.irregularity import Reversal
from shiftlens.stats import (
    CONFIDENCE,
    Estimate,
    FloatArray,
    Skipped,
    benjamini_hochberg,
    mcnemar_exact,
    mean_estimate,
    paired_share_interval,
    z_value,
)

Name = Literal["occlusion", "placement", "padding"]


@dataclass(frozen=True, eq=False)
class ControlEffect:
    """A paired difference of accuracies under each shift [own].

    Attributes
    ----------
    name
        "occlusion": acc(0, 0) - acc(control), what losing the content costs. "placement": acc(control) - acc(shift),
        what the move itself costs; it may be negative, since the control has its blank on the other side. "padding":
        acc(canvas control) - acc(shift), what the padding costs.
    overall
        Mean over all shifts but (0, 0) that leave some of the picture, in points.
    effect, lo, hi
        (dy, dx) in points; intervals hold for all cells together (Bonferroni). Blank cells included.
    p, q
        (dy, dx) McNemar exact and Benjamini-Hochberg over the tested cells; 1 in cells left out.
    n
        Number of images in both.
    """

    name: Name
    overall: Estimate
    effect: FloatArray
    lo: FloatArray
    hi: FloatArray
    p: FloatArray
    q: FloatArray
    n: int


@dataclass(frozen=True)
class Blank:
    """What the model says to an empty picture: shifts of the picture's size under a constant fill.

    Attributes
    ----------
    predicted
        The class it predicts most often there.
    share
        Share of the predictions there that are this class; below 1 only if something of the pictures is left.
    accuracy, loss
        Over images, mean over these shifts; the accuracy says only how often that class is the label.
    n_shifts
        How many shifts of the grid are blank; they are left out of all tests.
    """

    predicted: str
    share: float
    accuracy: Estimate | Skipped
    loss: Estimate | Skipped
    n_shifts: int


def occlusion_effects(
    correct: BoolArray, controlled: BoolArray, sweep: SweepArrays, control: SweepArrays
) -> tuple[ControlEffect, ControlEffect] | Skipped:
    """Return the occlusion effect and the placement effect.

    Parameters
    ----------
    correct, controlled
        (image, dy, dx) of the sweep and of its occlusion control.
    sweep, control
        For the grid and for matching the images.
    """
    rows, control_rows = matched_rows(sweep, control)
    n, n_cells = len(rows), int(np.prod(sweep.shape))
    origin = sweep.origin[0] * sweep.shape[1] + sweep.origin[1]
    tested = ~sweep.blank.ravel()
    tested[origin] = False
    if n < 2 or not tested.any():
        why = f"{n} images are in both sweep and control" if n < 2 else "the grid holds no shift but (0, 0)"
        return Skipped("occlusion and placement", why)
    flat, flat_control = correct.reshape(len(correct), -1), controlled.reshape(len(controlled), -1)
    net, discordant = np.zeros((2, n_cells), np.int64), np.zeros((2, n_cells), np.int64)
    per_image = np.zeros((2, n))
    for s in image_slices(n, n_cells):
        moved, kept = flat[rows[s]].view(np.int8), flat_control[control_rows[s]].view(np.int8)
        for k, d in enumerate((moved[:, origin : origin + 1] - kept, kept - moved)):
            net[k] += d.sum(axis=0, dtype=np.int32)
            discordant[k] += np.abs(d).sum(axis=0, dtype=np.int32)
            per_image[k, s] = d[:, tested].sum(axis=1, dtype=np.int32) / tested.sum()
    return (
        effect_of("occlusion", net[0], discordant[0], per_image[0], tested, sweep.shape),
        effect_of("placement", net[1], discordant[1], per_image[1], tested, sweep.shape),
    )


def effect_of(
    name: Name, net: IntArray, discordant: IntArray, per_image: FloatArray, tested: BoolArray, shape: tuple[int, int]
) -> ControlEffect:
    """Assemble an effect.

    Parameters
    ----------
    name
        Of the effect.
    net, discordant
        (cell,) sum over images of the difference of right answers (-1, 0, 1), and of its absolute value.
    per_image
        (image,) mean difference over the tested cells.
    tested
        (cell,) what is tested.
    shape
        (n_dy, n_dx).
    """
    n = len(per_image)
    b, c = (discordant + net) // 2, (discordant - net) // 2
    lo, hi = paired_share_interval(b, c, n, z_value(n_comparisons=int(tested.sum())))
    p, q = np.ones(len(net)), np.ones(len(net))
    p[tested] = mcnemar_exact(b[tested], c[tested])
    q[tested] = benjamini_hochberg(p[tested])
    overall = mean_estimate(per_image, "share", bounds=(-1, 1)).scaled(100, "points")
    maps = [a.reshape(shape) for a in (100 * net / n, 100 * lo, 100 * hi, p, q)]
    return ControlEffect(name, overall, maps[0], maps[1], maps[2], maps[3], maps[4], n)


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


def emptying(reversal: Reversal, control: SweepArrays, *, of_loss: bool) -> Emptying | Skipped:
    """Return whether the occlusion control shows a reversal's recovery too.

    Parameters
    ----------
    reversal
        From `irregularity`.
    control
        The occlusion control.
    of_loss
        Whether the reversal is one of loss.
    """
    n, n_cells = control.n_images, int(np.prod(control.shape))
    if n < 2:
        return Skipped("emptying", "one image has no interval")
    dip, recovery = list(reversal.dip_cells), list(reversal.recovery_cells)
    values = np.empty(n)
    for s in control.slices():
        cells = (np.asarray(control.loss[s]) if of_loss else control.correct[s]).reshape(-1, n_cells)
        values[s] = cells[:, recovery].mean(axis=1, dtype=np.float64) - cells[:, dip].mean(axis=1, dtype=np.float64)
    estimate = mean_estimate(values, "nats")
    if not of_loss:
        estimate = mean_estimate(values, "share", bounds=(-1, 1)).scaled(100, "points")
    towards = 1 if reversal.rise.value > 0 else -1
    p = 1.0 if estimate.p_value is None else estimate.p_value
    return Emptying(estimate, estimate.value * towards > 0 and p <= 1 - CONFIDENCE)


def blank_limit(sweep: SweepArrays, correct: BoolArray) -> Blank | Skipped:
    """Return what the model says where nothing of the picture is left."""
    if not sweep.fill_is_constant:
        return Skipped("blank limit", f"fill {sweep.fill} always leaves some of the picture")
    if sweep.picture_size is None:
        return Skipped("blank limit", "the sweep does not say how large the pictures are")
    blank = sweep.blank
    if not blank.any():
        return Skipped("blank limit", "no shift of the grid reaches the picture's size")
    n = sweep.n_images
    losses, counts = np.empty(n), np.zeros(0, np.int64)
    for s in sweep.slices():
        seen = np.bincount(np.asarray(sweep.prediction[s])[:, blank].ravel(), minlength=len(counts))
        seen[: len(counts)] += counts
        counts = seen
        losses[s] = np.asarray(sweep.loss[s])[:, blank].mean(axis=1, dtype=np.float64)
    top = int(np.argmax(counts))
    name = sweep.class_names[top] if top < len(sweep.class_names) else str(top)
    alone = Skipped("blank limit", "one image has no interval")
    right = np.concatenate([correct[s][:, blank].mean(axis=1) for s in sweep.slices()])
    return Blank(
        name,
        float(counts[top] / counts.sum()),
        mean_estimate(right, "share", bounds=(0, 1)) if n > 1 else alone,
        mean_estimate(losses, "nats", bounds=(0, np.inf)) if n > 1 else alone,
        int(blank.sum()),
    )
