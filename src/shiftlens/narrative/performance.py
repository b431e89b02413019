"""How good, and how far: accuracy, loss, classes, the strong region, its middle, consistency."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.arrays import BoolArray
from shiftlens.analysis.asymmetry import Axis
from shiftlens.analysis.estimated_maps import MapEstimate
from shiftlens.analysis.regions import Centre, Retained
from shiftlens.analysis.summary import Metrics, Test
from shiftlens.narrative.finding import Finding, Severity
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import name_text, p_text, quoted, size_of, way, with_interval
from shiftlens.stats import CONFIDENCE, Estimate, FloatArray, Skipped, mean_estimate

MORE_CONSISTENT = "More consistency is neither more accuracy nor adversarial robustness (arXiv 2103.02695)"

BESIDE = {"to the right": "to the right of", "to the left": "to the left of", "down": "below", "up": "above"}


def measured(
    name: str, statement: str, estimate: Estimate, evidence: str = "", *, severity: Severity = "info", **more: object
) -> Finding:
    """A finding about one estimate."""
    basis = f"{estimate.n:,} images; interval: {estimate.method}"
    return Finding(
        name,
        "A",
        severity,
        statement,
        estimate.value,
        estimate.unit,
        (estimate.lo, estimate.hi),
        evidence=f"{basis}. {evidence}".strip() if evidence else f"{basis}.",
        **more,  # type: ignore[arg-type]
    )


def verdict(test: Test | Skipped, metrics: Metrics) -> str:
    """How a test came out, for the evidence."""
    if isinstance(test, Skipped):
        return "Not tested."
    ending = "it holds" if test.holds else "it does not hold"
    return f"Corrected for all {len(metrics.tests)} tests of the sweep (Holm) {p_text(test.holm_p)}: {ending}."


def performance(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Accuracy and loss at rest, on average, at the worst shift, and by class."""
    rest = metrics.accuracy_at_origin
    found = [measured("accuracy-at-rest", f"Unshifted, accuracy is {quoted(rest)}.", rest)]
    if not isinstance(metrics.loss_at_origin, Skipped):
        loss = metrics.loss_at_origin
        found.append(measured("loss-at-rest", f"Unshifted, the mean loss is {quoted(loss)}.", loss))
    if not isinstance(metrics.mean_accuracy, Skipped):
        mean = metrics.mean_accuracy
        found.append(
            measured(
                "accuracy-mean",
                f"Over all shifts that leave some of the picture, accuracy is {quoted(mean)} on average.",
                mean,
                "It depends on how far the grid reaches: compare it only with sweeps of the same grid.",
            )
        )
    if metrics.accuracy.value.size > 1:
        found.append(_extreme(metrics, metrics.accuracy, setting, "accuracy"))
        if not isinstance(metrics.loss, Skipped):
            found.append(_extreme(metrics, metrics.loss, setting, "loss"))
    return [*found, *_classes(metrics)]


def _extreme(metrics: Metrics, of: MapEstimate, setting: Setting, what: str) -> Finding:
    """The worst shift, with the band that allows for having searched the map for it."""
    sweep = metrics.sweep
    worse = np.where(sweep.blank, -np.inf, of.value if what == "loss" else -of.value)
    cells = np.argwhere(worse == worse.max())
    nearest = cells[np.argmin([sweep.distance[row, column] for row, column in cells])]
    row, column = int(nearest[0]), int(nearest[1])
    dx, dy = int(sweep.dxs[column]), int(sweep.dys[row])
    lo, hi = float(of.band_lo[row, column]), float(of.band_hi[row, column])
    value = float(of.value[row, column])
    place = f"at (dx, dy) = ({dx}, {dy})"
    if len(cells) > 1:
        place = f"at {len(cells):,} shifts, the nearest of them {place[3:]}"
    return Finding(
        f"{what}-worst",
        "A",
        "info",
        f"{'Accuracy is lowest' if what == 'accuracy' else 'The mean loss is highest'}, "
        f"{with_interval(value, lo, hi, of.unit)}, {place}.",
        value,
        of.unit,
        (lo, hi),
        evidence=f"{of.n:,} images; the interval holds for all shifts together, since the map was searched: "
        f"{of.method}. Shifts that leave nothing of the picture are left out.",
        remedy=f"Measure it alone: {setting.evaluate_command(dx, dy)}",
    )


def _classes(metrics: Metrics) -> list[Finding]:
    maps = metrics.per_class
    if isinstance(maps, Skipped):
        return []
    kept = ~metrics.sweep.blank
    labels, correct = metrics.sweep.labels, metrics.sweep.correct
    enough = [k for k in range(len(maps.names)) if maps.n[k] >= 2]
    if len(enough) < 2 or not kept.any():
        return []
    # The best and the worst of K classes are chosen by looking: their intervals hold for all K together.
    confidence = 1 - (1 - CONFIDENCE) / len(enough)
    means = {
        k: mean_estimate(_share_right(correct, labels == k, kept), "share", bounds=(0, 1), confidence=confidence)
        for k in enough
    }
    worst, best = min(enough, key=lambda k: means[k].value), max(enough, key=lambda k: means[k].value)
    low, high = means[worst], means[best]
    more = f"Intervals hold for all {len(enough)} classes together (Bonferroni)."
    blank = metrics.blank
    if not isinstance(blank, Skipped) and blank.predicted == maps.names[best]:
        more += f" {name_text(blank.predicted)} is also the answer to an empty picture, which flatters it far out."
    statement = (
        f"Over all shifts, class {name_text(maps.names[worst])} is recognised least, {quoted(low)}, "
        f"and class {name_text(maps.names[best])} most, {quoted(high)}."
    )
    return [measured("classes", statement, low, more)]


def _share_right(correct: BoolArray, chosen: BoolArray, kept: BoolArray) -> FloatArray:
    """Each chosen image's share of shifts on which it is right, one image at a time: no copy of the whole."""
    return np.array([correct[i][kept].mean() for i in np.flatnonzero(chosen)], np.float64)


def region(metrics: Metrics, setting: Setting) -> list[Finding]:
    """How far the picture may move: retained area and radius, worst of radius, the middle of the region."""
    found = [_retained(each, setting) for each in metrics.retained if not isinstance(each, Skipped)]
    worst = metrics.worst_of_radius
    if not isinstance(worst, Skipped):
        found.append(
            measured(
                "worst-of-radius",
                f"{quoted(worst)} of the images are right under every single shift of at most 4 px.",
                worst,
                "After arXiv 1712.02779, which takes a square of shifts: compare equal shapes and steps only.",
            )
        )
    if not isinstance(metrics.centre, Skipped):
        found += [_centre(metrics.centre, "x", metrics, setting), _centre(metrics.centre, "y", metrics, setting)]
    return found


def _retained(kept: Retained, setting: Setting) -> Finding:
    radius = f"a circle of this area has a radius of {quoted(kept.radius)}"
    statement = (
        f"Accuracy stays at {100 * kept.level:.0f} % of its unshifted value or above within {quoted(kept.area)} around "
        f"(0, 0); {radius}."
    )
    evidence = "[own] Shifts connected to (0, 0); the area itself is no circle."
    remedy = None
    if kept.at_least:
        evidence += " The region touches the edge of the grid, so both numbers are lower limits."
        remedy = f"Sweep further out: {setting.wider_command()}"
    return measured(f"retained-{100 * kept.level:.0f}", statement, kept.area, evidence, remedy=remedy)


def _centre(middle: Centre, axis: Axis, metrics: Metrics, setting: Setting) -> Finding:
    estimate = middle.x if axis == "x" else middle.y
    test = metrics.test(f"centre {axis}")
    holds = not isinstance(test, Skipped) and test.holds
    place = f"the middle of the region that keeps {100 * middle.level:.0f} % of the unshifted accuracy"
    if holds:
        statement = f"Along {axis}, {place} lies {size_of(estimate)} {BESIDE[way(axis, estimate.value)]} (0, 0)."
    else:
        statement = f"Along {axis}, {place} is not significantly off 0, corrected for all tests: {quoted(estimate)}."
    return measured(
        f"centre-{axis}",
        statement,
        estimate,
        verdict(test, metrics) + " Positive is right for x, down for y.",
        severity="warn" if holds else "info",
        p_value=None if isinstance(test, Skipped) else test.holm_p,
        remedy=f"Look at the map: {setting.plot_command()}" if holds else None,
    )


def consistency(metrics: Metrics) -> list[Finding]:
    """Agreement and consistency, and how often a right answer is lost."""
    made = metrics.consistency
    if isinstance(made, Skipped):
        return []
    found = [
        measured(
            "agreement",
            f"The prediction is the same as at (0, 0) in {quoted(made.mean_agreement)} of all shifted pictures.",
            made.mean_agreement,
            f"Mean over all shifts but (0, 0). {MORE_CONSISTENT}.",
        ),
        measured(
            "pairwise-consistency",
            f"Under two different shifts, an image gets the same prediction in {quoted(made.pairwise)} of the pairs.",
            made.pairwise,
            "All pairs of shifts of this grid: papers take other shifts and fills, so do not compare with theirs. A "
            f"model that always says the same has 100 %. {MORE_CONSISTENT}.",
        ),
    ]
    if isinstance(made.flip_rate, Estimate):
        found.append(
            measured(
                "flip-rate",
                f"An image that is right at (0, 0) gets another prediction in {quoted(made.flip_rate)} of all shifts.",
                made.flip_rate,
                "[own use] Accuracy-controlled: images that are wrong at (0, 0) are left out.",
            )
        )
    if isinstance(made.right_pairwise, Estimate):
        found.append(
            measured(
                "pairwise-consistency-right",
                f"Among images right at (0, 0), pairwise consistency is {quoted(made.right_pairwise)}.",
                made.right_pairwise,
                MORE_CONSISTENT + ".",
            )
        )
    return found
