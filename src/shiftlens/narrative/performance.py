"""How good, and how far: accuracy, loss, classes, the retained region, its centre, consistency."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.arrays import BoolArray
from shiftlens.analysis.asymmetry import Axis
from shiftlens.analysis.estimated_maps import MapEstimate
from shiftlens.analysis.regions import Centre, Retained
from shiftlens.analysis.summary import Metrics, Test
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Action, Quantity, Significance
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import name_text, quoted, size_of, way
from shiftlens.stats import CONFIDENCE, Estimate, FloatArray, Skipped, mean_estimate

MORE_CONSISTENT = "More consistency is neither more accuracy nor adversarial robustness (arXiv 2103.02695)."

BESIDE = {"to the right": "to the right of", "to the left": "to the left of", "down": "below", "up": "above"}


def tested(metrics: Metrics, name: str) -> Significance:
    """How one of the tests of a sweep came out."""
    test, family = metrics.test(name), f"all {len(metrics.tests)} tests of the sweep"
    return Significance(test.holm_p, family, test.holds) if isinstance(test, Test) else Significance(None, family)


def performance(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Accuracy and loss unshifted, on average, at the worst shift, and by class."""
    rest, loss, mean = metrics.accuracy_at_origin, metrics.profile("loss").at_origin, metrics.mean
    origin = Quantity("accuracy", shift=(0, 0))
    found = [Finding("accuracy-at-rest", f"Unshifted, accuracy is {quoted(rest)}.", origin, rest)]
    if isinstance(loss, Estimate):
        origin = Quantity("loss", shift=(0, 0))
        found.append(Finding("loss-at-rest", f"Unshifted, the mean loss is {quoted(loss)}.", origin, loss))
    if isinstance(mean, Estimate):
        text = f"Averaged over all shifts that leave part of the image in view, accuracy is {quoted(mean)}."
        note = "It depends on how far the grid reaches: compare it only with sweeps of the same grid."
        found.append(Finding("accuracy-mean", text, Quantity("accuracy"), mean, note=note))
    if metrics.accuracy.value.size > 1:
        found.append(_worst(metrics, metrics.accuracy, setting, "accuracy"))
        if not isinstance(metrics.loss, Skipped):
            found.append(_worst(metrics, metrics.loss, setting, "loss"))
    return [*found, *_classes(metrics)]


def _worst(metrics: Metrics, of: MapEstimate, setting: Setting, what: str) -> Finding:
    """The worst shift, with the simultaneous band: the map was searched for it."""
    sweep = metrics.sweep
    worse = np.where(sweep.blank, -np.inf, of.value if what == "loss" else -of.value)
    cells = np.argwhere(worse == worse.max())
    row, column = cells[np.argmin([sweep.distance[tuple(cell)] for cell in cells])]
    value, lo, hi = (float(each[row, column]) for each in (of.value, of.band_lo, of.band_hi))
    estimate = Estimate(value, lo, hi, of.unit, of.n, f"{of.method}, simultaneous over all shifts")
    shift = int(sweep.dxs[column]), int(sweep.dys[row])
    place = f"at (dx, dy) = {shift}"
    if len(cells) > 1:
        place = f"at {len(cells):,} shifts; the nearest is (dx, dy) = {shift}"
    return Finding(
        f"{what}-worst",
        f"{'Accuracy is lowest' if what == 'accuracy' else 'The mean loss is highest'}, {quoted(estimate)}, {place}.",
        Quantity(what, shift=shift),
        estimate,
        action=Action("Measure this shift alone", setting.evaluate_command(*shift)),
        note="Shifts that leave nothing of the image in view are left out.",
    )


def _classes(metrics: Metrics) -> list[Finding]:
    maps, kept = metrics.per_class, ~metrics.sweep.blank
    if isinstance(maps, Skipped):
        return []
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
    note = f"Intervals hold for all {len(enough)} classes together (Bonferroni)."
    if not isinstance(metrics.blank, Skipped) and metrics.blank.predicted == maps.names[best]:
        note += (
            f" {name_text(maps.names[best])} is also the predicted class of a blank input: its accuracy at large "
            "shifts is inflated."
        )
    statement = (
        f"Averaged over all shifts, accuracy is lowest for class {name_text(maps.names[worst])}, "
        f"{quoted(means[worst])}, and highest for class {name_text(maps.names[best])}, {quoted(means[best])}."
    )
    return [Finding("classes", statement, Quantity("accuracy", class_name=maps.names[worst]), means[worst], note=note)]


def _share_right(correct: BoolArray, chosen: BoolArray, kept: BoolArray) -> FloatArray:
    """Each chosen image's share of shifts with a correct prediction, one image at a time: no copy of the whole."""
    return np.array([correct[i][kept].mean() for i in np.flatnonzero(chosen)], np.float64)


def region(metrics: Metrics, setting: Setting) -> list[Finding]:
    """How far the image may be shifted: retained area and radius, worst of radius, the centre of the region."""
    found = [_retained(each, setting) for each in metrics.retained if not isinstance(each, Skipped)]
    worst, middle = metrics.worst_of_radius, metrics.centre
    if isinstance(worst, Estimate):
        text = f"{quoted(worst)} of the images are classified correctly under every shift of at most 4 px."
        note = "After arXiv 1712.02779, which takes a square of shifts: compare only equal shapes and steps."
        found.append(Finding("worst-of-radius", text, Quantity("accuracy under all shifts"), worst, note=note))
    if not isinstance(middle, Skipped):
        found += [_centre(middle, "x", metrics, setting), _centre(middle, "y", metrics, setting)]
    return found


def _retained(kept: Retained, setting: Setting) -> Finding:
    level = f"{100 * kept.level:.0f}"
    note, action = "[own] Shifts connected to (0, 0); the region itself is not a circle.", None
    if kept.at_least:
        note += " The region touches the edge of the grid, so both numbers are lower limits."
        action = Action("Sweep larger shifts", setting.sweep_command(wider=True))
    return Finding(
        "retained",
        f"Accuracy stays at or above {level} % of its unshifted value within {quoted(kept.area)} around (0, 0); a "
        f"circle of this area has a radius of {quoted(kept.radius)}.",
        Quantity("retained area"),
        kept.area,
        action=action,
        note=note,
        which=level,
    )


def _centre(middle: Centre, axis: Axis, metrics: Metrics, setting: Setting) -> Finding:
    estimate, test = middle.x if axis == "x" else middle.y, tested(metrics, f"centre {axis}")
    place = f"Along {axis}, the centre of the region that keeps {100 * middle.level:.0f} % of the unshifted accuracy"
    if test.holds:
        statement = f"{place} lies {size_of(estimate)} {BESIDE[way(axis, estimate.value)]} (0, 0)."
    else:
        statement = f"{place} does not differ significantly from 0: {quoted(estimate)}."
    return Finding(
        "centre",
        statement,
        Quantity("centre of the retained region", axis),
        estimate,
        test,
        Action("Look at the map", setting.plot_command()) if test.holds else None,
        "Positive is right for x, down for y.",
        "warn" if test.holds else "info",
        which=axis,
    )


def consistency(metrics: Metrics) -> list[Finding]:
    """Agreement and consistency, and how often a correct prediction is lost."""
    made = metrics.consistency
    if isinstance(made, Skipped):
        return []
    rows: tuple[tuple[str, str, Estimate | Skipped | None, str], ...] = (
        (
            "agreement",
            "The prediction equals that at (0, 0) for {} of all shifted images.",
            made.mean_agreement,
            f"Mean over all shifts but (0, 0). {MORE_CONSISTENT}",
        ),
        (
            "pairwise-consistency",
            "Under two different shifts, an image gets the same prediction in {} of the pairs.",
            made.pairwise,
            "All pairs of shifts of this grid: papers use other shifts and fills, so their numbers are not comparable. "
            f"A model that always predicts the same class has 100 %. {MORE_CONSISTENT}",
        ),
        (
            "flip-rate",
            "An image that is classified correctly at (0, 0) gets another prediction under {} of all shifts.",
            made.flip_rate,
            "[own use] Accuracy-controlled: images that are misclassified at (0, 0) are left out.",
        ),
        (
            "pairwise-consistency-right",
            "Among images classified correctly at (0, 0), pairwise consistency is {}.",
            made.right_pairwise,
            MORE_CONSISTENT,
        ),
    )
    return [
        Finding(kind, text.format(quoted(estimate)), Quantity(kind), estimate, note=note)
        for kind, text, estimate, note in rows
        if isinstance(estimate, Estimate)
    ]
