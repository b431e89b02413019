"""`compare`: sweeps in, a `Comparison` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from shiftlens.analysis.arm_scores import Quantity, Scores, score
from shiftlens.analysis.arms import Aligned, Progress, align
from shiftlens.analysis.comparable import Source, opened, position_of
from shiftlens.analysis.differences import Differences
from shiftlens.analysis.paired import (
    Difference,
    NonInferiority,
    critical_value,
    difference_map,
    disagreements,
    estimates,
    judged,
    map_p,
    non_inferiority,
    null_of,
)
from shiftlens.analysis.winners import winners
from shiftlens.errors import InputError
from shiftlens.narrative.comparison_result import Comparison
from shiftlens.narrative.comparison_rows import Against, Row
from shiftlens.narrative.comparison_sentences import sentences
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.thresholds import weighed
from shiftlens.progress_bar import shows_progress
from shiftlens.stats import Estimate, FloatArray, Skipped, holm
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.task import Variable

MARGIN = 0.3
"""Points by which a sweep may be worse and still count as non-inferior; a number has no such default."""

N_RESAMPLES = 1000


@shows_progress("comparing", "sweeps")
def compare(
    sweeps: Sequence[Sweep | str | Path],
    baseline: int | str = 0,
    names: Sequence[str] | None = None,
    *,
    metric: str | None = None,
    margin: float | None = None,
    partial: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Compare sweeps of the same images: paired differences with intervals, what improved, what got worse.

    All differences are paired: image by image, the same images under the same shifts. Intervals are 95 % over images
    for these checkpoints; for a recipe the unit is the training run.

    Parameters
    ----------
    sweeps
        Two or more, from `shiftlens.sweep` or `open_sweep`, or their paths: same images, fill, classes, and the same
        grid. Nets of different input size are compared on the shifts that all grids have, areas in px of the source
        image (of the baseline's input where the source's size is not known).
    baseline
        The sweep that the others are compared with, by position or name.
    names
        One a sweep; the files' names by default.
    metric
        What is compared; the task's default by default, such as "accuracy".
    margin
        How much worse a sweep may be without a warning, and still count as non-inferior to the baseline: in points of a
        share (0.3 by default), in the metric's unit of a number (by default that is not asked).
    partial
        Compare the images that all sweeps hold, instead of refusing incomplete ones and those of other images.
    seed
        Of the bootstrap behind some intervals. The halves of the images do not depend on it.
    progress
        Called with (sweeps done, sweeps in all).

    Returns
    -------
    Comparison
        `.rows` (the table), `.against` (differences), `.winners`, `.findings` (sentences), `.plot(out)`.

    Raises
    ------
    InputError
        Fewer than two sweeps, sweeps that differ in images, fill, classes or step (says which and what differs), a
        metric that they do not have, or a margin that cannot be.
    StoreError
        A sweep that is not there, damaged, or not complete.

    Examples
    --------
    >>> compared = compare(["zeros.zarr", "symmetric.zarr"])
    >>> compared
    <Comparison of symmetric with zeros on 20 images>
    >>> [question for question, answer in compared.summary][:3]
    ['Which is better', 'By how much', 'Where']
    """
    sources = opened(sweeps, names, partial=partial)
    which = position_of(baseline, [source.name for source in sources])
    return compared(sources, which, metric=metric, margin=margin, partial=partial, seed=seed, progress=progress)


def compared(
    sources: list[Source],
    baseline: int = 0,
    *,
    metric: str | None = None,
    margin: float | None = None,
    partial: bool = False,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """The same from sweeps that are open; `n_resamples` bootstrap samples over images.

    Two arms are held as one byte a cell at a time, the others as one bit: memory grows by 5 MB for each sweep of
    10,000 images and 65 x 65 shifts.
    """
    measured = sources[baseline].arrays.values(metric).metric
    margin = _margin(measured, margin)
    aligned = align(sources, baseline, metric=metric, partial=partial, progress=progress)
    base = score(aligned, baseline, n_resamples=n_resamples, seed=seed)
    tested, others = aligned.tested, aligned.others
    found: dict[int, Scores] = {baseline: base.without_cells()}
    counts: dict[int, Differences] = {}
    nulls: list[FloatArray] = []
    for k in others:
        made = score(aligned, k, n_resamples=n_resamples, seed=seed)
        counts[k] = disagreements(made, base)
        nulls.append(null_of(counts[k], made, base, tested))
        found[k] = made.without_cells()
    critical = critical_value(nulls, int(tested.sum()))
    base = found[baseline]
    differences = {k: estimates(found[k], base) for k in others}
    maps = {k: map_p(counts[k], tested) for k in others}
    tests: dict[tuple[int, str], float] = {(k, "map"): p_value for k, p_value in maps.items()}
    for k, each_of in differences.items():
        found_p = ((q, each.p_value) for q, each in each_of.items() if isinstance(each, Estimate))
        tests |= {(k, q): p_value for q, p_value in found_p if p_value is not None}
    holm_p = dict(zip(tests, map(float, holm(np.array([*tests.values()], np.float64))), strict=True))

    def against(k: int) -> Against:
        judgements: dict[Quantity, Difference | Skipped] = {
            q: each if isinstance(each, Skipped) else judged(measured, q, each, holm_p[k, q], len(tests))
            for q, each in differences[k].items()
        }
        change = difference_map(counts[k], tested, critical, holm_p[k, "map"], maps[k])
        as_good: list[NonInferiority | Skipped] = []
        if margin is not None:
            wanted: tuple[Quantity, ...] = ("at-rest", "near")
            as_good = [non_inferiority(found[k], base, q, margin, len(others)) for q in wanted]
        return Against(k, aligned.arms[k].name, judgements, change, tuple(as_good))

    arms = range(len(aligned.arms))
    comparison = Comparison(
        rows=tuple(_row(aligned, k, found[k], differences.get(k)) for k in arms),
        baseline=baseline,
        metric=measured,
        findings=Findings(),
        n_images=aligned.n_images,
        n_shifts=tested.size,
        unit=aligned.unit,
        against=tuple(map(against, others)),
        winners=winners(aligned, seed),
        means=np.stack([found[k].map for k in arms]),
        n_tests=len(tests),
        aligned=aligned,
    )
    # A sweep that is worse by less than the margin is no warning.
    sizes = {} if margin is None else {measured.difference_unit: margin}
    return replace(comparison, findings=weighed(sentences(comparison, metric), sizes))


def _margin(metric: Variable, margin: float | None) -> float | None:
    """The margin, in points of a share (0.3 by default) or the metric's unit."""
    most = metric.factor * metric.difference_bounds[1]
    if margin is not None and not 0 < margin < most:
        between = f"between 0 and {most:g}" if np.isfinite(most) else "above 0"
        raise InputError(f"expected a margin {between} {metric.difference_unit}, got {margin}")
    return MARGIN if margin is None and metric.unit == "share" else margin


def _row(aligned: Aligned, k: int, scores: Scores, differences: dict[Quantity, Estimate | Skipped] | None) -> Row:
    arm, kept = aligned.arms[k], scores.retained
    nothing = Estimate(0.0, 0.0, 0.0, aligned.metric.difference_unit, aligned.n_images, "the baseline itself")
    return Row(
        name=arm.name,
        unshifted=scores.unshifted,
        near=scores.estimate("near"),
        retained_area=kept if isinstance(kept, Skipped) else kept.area,
        retained_radius=kept if isinstance(kept, Skipped) else kept.radius,
        worst_of_radius=scores.worst,
        asymmetry_lr=scores.estimate("side-x"),
        asymmetry_ud=scores.estimate("side-y"),
        n_parameters=arm.header.n_parameters,
        n_macs=arm.header.n_macs,
        difference=nothing if differences is None else differences["near"],
    )
