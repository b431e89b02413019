"""How good, and how far: every metric, classes, the retained region, its centre, consistency."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.asymmetry import Axis
from shiftlens.analysis.estimated_maps import MapEstimate
from shiftlens.analysis.regions import WORST_RADIUS, Centre, Retained
from shiftlens.analysis.summary import Metrics, Profile, Test
from shiftlens.naming import count_of
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Action, Quantity, Significance
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import capital, level_text, name_text, quoted, size_of, tests_text, way
from shiftlens.stats import CONFIDENCE, Estimate, Skipped, mean_estimate
from shiftlens.tasks.task import Variable

MORE_CONSISTENT = "More consistency is neither better performance nor adversarial robustness (arXiv 2103.02695)."

BESIDE = {"to the right": "to the right of", "to the left": "to the left of", "down": "below", "up": "above"}


def tested(metrics: Metrics, name: str) -> Significance:
    """How one of the tests of a sweep came out."""
    test, family = metrics.test(name), f"{tests_text(len(metrics.tests))} of the sweep"
    return Significance(test.holm_p, family, test.holds) if isinstance(test, Test) else Significance(None, family)


def chosen_first(metrics: Metrics) -> list[Profile]:
    """What is said of every metric, that of the sweep's findings first."""
    return sorted(metrics.profiles, key=lambda each: each.metric != metrics.metric)


def performance(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Every metric unshifted and at its worst shift; the chosen one on average and by class."""
    found, profiles = [*_chance(metrics)], chosen_first(metrics)
    for each in profiles:
        if isinstance(each.at_origin, Estimate):
            text = f"Unshifted, {each.metric.called} is {quoted(each.at_origin)}."
            name = each.metric.name
            found.append(Finding(f"{name}-at-rest", text, Quantity(name, shift=(0, 0)), each.at_origin))
    if isinstance(metrics.mean, Estimate):
        name, mean = metrics.metric.name, quoted(metrics.mean)
        text = f"Averaged over all shifts that leave part of the image in view, {metrics.metric.called} is {mean}."
        note = "It depends on how far the grid reaches: compare it only with sweeps of the same grid."
        found.append(Finding(f"{name}-mean", text, Quantity(name), metrics.mean, note=note))
    if metrics.sweep.shape != (1, 1):
        found += [
            _worst(metrics, each.map, setting, each.metric) for each in profiles if not isinstance(each.map, Skipped)
        ]
    return [*found, *_classes(metrics)]


def _chance(metrics: Metrics) -> list[Finding]:
    """Say it first where a classifier is no better than one that always answers the most frequent class."""
    sweep, found = metrics.sweep, metrics.profiles[0].at_origin
    if not (sweep.task.needs_labels and metrics.profiles[0].metric.is_share and isinstance(found, Estimate)):
        return []
    chance = float(np.bincount(sweep.labels).max()) / len(sweep.labels)
    if found.lo > chance or chance == 1:
        return []
    name = metrics.profiles[0].metric.called
    text = (
        f"Unshifted, {name} is {quoted(found)}, not above the {100 * chance:.1f} % that the most frequent class alone "
        "gives: check the weights, the preprocessing and whether the labels are the model's classes."
    )
    return [Finding("chance", text, Quantity(metrics.profiles[0].metric.name, of="chance"), found, severity="note")]


def _worst(metrics: Metrics, of: MapEstimate, setting: Setting, metric: Variable) -> Finding:
    """The worst shift, with the simultaneous band: the map was searched for it."""
    sweep = metrics.sweep
    worse = np.where(sweep.blank | np.isnan(of.value), -np.inf, -metric.sign * of.value)
    cells = np.argwhere(worse == worse.max())
    row, column = cells[np.argmin([sweep.distance[tuple(cell)] for cell in cells])]
    value, lo, hi = (float(each[row, column]) for each in (of.value, of.band_lo, of.band_hi))
    estimate = Estimate(value, lo, hi, of.unit, of.n, f"{of.method}, simultaneous over all shifts")
    shift = int(sweep.dxs[column]), int(sweep.dys[row])
    place = f"at (dx, dy) = {shift}"
    if len(cells) > 1:
        place = f"at {count_of(len(cells), 'shift')}; the nearest is (dx, dy) = {shift}"
    end = "lowest" if metric.sign > 0 else "highest"
    text, quantity = (
        f"{capital(metric.called)} is {end}, {quoted(estimate)}, {place}.",
        Quantity(metric.name, shift=shift),
    )
    if len(cells) == np.isfinite(worse).sum() > 1:
        text = f"{capital(metric.called)} is the same under all {len(cells):,} shifts, {quoted(estimate)}."
    command = setting.evaluate_command(*shift)
    action = Action("Measure this shift alone", command) if command else None
    note = "Shifts that leave nothing of the image in view are left out."
    return Finding(f"{metric.name}-worst", text, quantity, estimate, action=action, note=note)


def _classes(metrics: Metrics) -> list[Finding]:
    maps, kept, metric = metrics.per_class, ~metrics.sweep.blank, metrics.metric
    if isinstance(maps, Skipped) or not kept.any():
        return []
    enough = [k for k in range(len(maps.names)) if maps.n[k] >= 2]
    if len(enough) < 2:
        return []
    # The best and the worst of K classes are chosen by looking: their intervals hold for all K together.
    confidence = 1 - (1 - CONFIDENCE) / len(enough)
    per_image, labels = metrics.sweep.values(metric).per_image(kept), metrics.sweep.labels
    means = {
        k: mean_estimate(per_image[labels == k], metric.unit, bounds=metric.bounds, confidence=confidence)
        for k in enough
    }
    lowest, highest = (pick(enough, key=lambda k: means[k].value) for pick in (min, max))
    note = f"Intervals hold for all {len(enough)} classes together (Bonferroni)."
    if not isinstance(metrics.blank, Skipped) and metrics.blank.predicted == maps.names[highest]:
        note += (
            f" {name_text(maps.names[highest])} is also the predicted class of a blank input: its {metric.called} at "
            "large shifts is inflated."
        )
    statement = (
        f"Averaged over all shifts, {metric.called} is lowest for class {name_text(maps.names[lowest])}, "
        f"{quoted(means[lowest])}, and highest for class {name_text(maps.names[highest])}, {quoted(means[highest])}."
    )
    quantity = Quantity(metric.name, class_name=maps.names[lowest])
    return [Finding("classes", statement, quantity, means[lowest], note=note)]


def region(metrics: Metrics, setting: Setting) -> list[Finding]:
    """How far the image may be shifted: retained area and radius, worst of radius, the centre of the region."""
    found = [_retained(each, metrics, setting) for each in metrics.retained if not isinstance(each, Skipped)]
    worst, middle = metrics.worst_of_radius, metrics.centre
    if isinstance(worst, Estimate):
        text = f"{capital(at_worst(metrics.metric))} is {quoted(worst)}."
        note = "After arXiv 1712.02779, which takes a square of shifts: compare only equal shapes and steps."
        quantity = Quantity(f"{metrics.metric.called} at the worst shift")
        found.append(Finding("worst-of-radius", text, quantity, worst, note=note))
    if not isinstance(middle, Skipped):
        found += [_centre(middle, "x", metrics, setting), _centre(middle, "y", metrics, setting)]
    return found


def at_worst(metric: Variable, where: str = f"of at most {WORST_RADIUS:.0f} px") -> str:
    """The metric at the worst shift of each image, in words."""
    return f"{metric.called} at each image's worst shift {where}"


def kept_text(metrics: Metrics, level: float) -> str:
    """What bounds the retained region, before its unshifted value: "at or above 95 % of"."""
    unshifted = metrics.profile(metrics.metric.name).at_origin
    return level_text(metrics.metric, 0.0 if isinstance(unshifted, Skipped) else unshifted.value, level)


def _retained(kept: Retained, metrics: Metrics, setting: Setting) -> Finding:
    note, action = "[own] Shifts connected to (0, 0); the region itself is not a circle.", None
    if kept.at_least:
        note += " The region touches the edge of the grid, so both numbers are lower limits."
        action = Action("Sweep larger shifts", setting.sweep_command(wider=True))
    text = (
        f"{capital(metrics.metric.called)} stays {kept_text(metrics, kept.level)} its unshifted value within "
        f"{quoted(kept.area)} around (0, 0); a circle of this area has a radius of {quoted(kept.radius)}."
    )
    which = f"{100 * kept.level:.0f}"
    return Finding("retained", text, Quantity("retained area"), kept.area, action=action, note=note, which=which)


def _centre(middle: Centre, axis: Axis, metrics: Metrics, setting: Setting) -> Finding:
    estimate, test = middle.x if axis == "x" else middle.y, tested(metrics, f"centre {axis}")
    text = (
        f"Along {axis}, the centre of the region where {metrics.metric.called} stays "
        f"{kept_text(metrics, middle.level)} its unshifted value "
    )
    if test.holds:
        text += f"lies {size_of(estimate)} {BESIDE[way(axis, estimate.value)]} (0, 0)."
    else:
        text += f"does not differ significantly from 0: {quoted(estimate)}{test.left_open(estimate)}."
    quantity, note = Quantity("centre of the retained region", axis), "Positive is right for x, down for y."
    action = Action("Look at the map", setting.plot_command()) if test.holds else None
    return Finding("centre", text, quantity, estimate, test, action, note, test.warn, which=axis)


def consistency(metrics: Metrics) -> list[Finding]:
    """Agreement and consistency, and how often a correct prediction is lost."""
    made = metrics.consistency
    if isinstance(made, Skipped):
        return []
    others = "papers use other shifts and fills, so their numbers are not comparable."
    rows: tuple[tuple[str, str, Estimate | Skipped, str], ...] = (
        ("agreement", "The prediction equals that at (0, 0) for {} of all shifted images.", made.mean_agreement,
         f"Mean over all shifts but (0, 0). {MORE_CONSISTENT}"),
        ("pairwise-consistency", "Under two different shifts, an image gets the same prediction in {} of the pairs.",
         made.pairwise,
         f"All pairs of shifts of this grid: {others} A model that always predicts the same class has 100 %. "
         f"{MORE_CONSISTENT}"),
        ("flip-rate", "An image that is classified correctly at (0, 0) gets another prediction under {} of all shifts.",
         made.flip_rate, "[own use] Images that are misclassified at (0, 0) are left out."),
        ("pairwise-consistency-right", "Among images classified correctly at (0, 0), pairwise consistency is {}.",
         made.right_pairwise, MORE_CONSISTENT),
    )  # fmt: skip
    return [
        Finding(kind, text.format(quoted(estimate)), Quantity(kind), estimate, note=note)
        for kind, text, estimate, note in rows
        if isinstance(estimate, Estimate)
    ]
