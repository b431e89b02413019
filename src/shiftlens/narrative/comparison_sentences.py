"""The findings of a comparison: differences, the map of shifts, non-inferiority, the best sweeps, caveats."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.arm_scores import Quantity as Score
from shiftlens.analysis.arrays import IntArray
from shiftlens.analysis.paired import NO_IMAGE_DIFFERS, POWER, Difference, NonInferiority, Verdict
from shiftlens.analysis.winners import Criterion, Winner
from shiftlens.narrative.comparison_headline import label
from shiftlens.narrative.comparison_notes import notes
from shiftlens.narrative.comparison_result import Comparison
from shiftlens.narrative.comparison_rows import Against, Row
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import Action, Quantity, Section, Severity, Significance, number
from shiftlens.narrative.performance import MORE_CONSISTENT
from shiftlens.narrative.setting import metric_option
from shiftlens.narrative.words import name_text, number_text, plain, quoted, tests_text, with_interval
from shiftlens.stats import Estimate, Skipped
from shiftlens.tasks.task import Variable

MEANINGS: dict[Score, str] = {
    "everywhere": "Over the common shifts that leave part of every net's image in view. It depends on the grids' size.",
    "worst": "After arXiv 1712.02779, which takes a square of shifts: compare only equal shapes and steps.",
    "retained": "[own] Shifts connected to (0, 0) that keep the level there: an area says how far a net keeps its own "
    "level, not how good that is.",
    "side-x": "[own] Right minus left, without its sign; includes the dataset bias.",
    "side-y": "[own] Down minus up, without its sign; includes the dataset bias.",
    "agreement": MORE_CONSISTENT,
}
COLUMN_OF: dict[Score, str] = {
    "at-rest": "unshifted",
    "near": "near",
    "worst": "worst_of_radius",
    "retained": "retained_area",
    "side-x": "asymmetry_lr",
    "side-y": "asymmetry_ud",
}
"""Where the table has both values."""
SECTION_OF: dict[Verdict, Section] = {"better": "improved", "worse": "worse", "undecided": "inconclusive"}


def best(criterion: Criterion, metric: Variable, grid: tuple[IntArray, IntArray]) -> str:
    """What a sweep was chosen for, on a grid of shifts (dys, dxs) in px."""
    if criterion == "retained-as-accurate":
        return "the largest retained area among those at least as good at (0, 0)"
    if criterion == "retained":
        return "the largest retained area"
    return f"the {'highest' if metric.sign > 0 else 'lowest'} {label(criterion, metric, grid)}"


def sentences(comparison: Comparison, asked: str | None = None) -> Findings:
    """Return all findings: differences first, sweep by sweep, then the best sweeps, then caveats.

    Parameters
    ----------
    comparison
        What was measured.
    asked
        The metric that a command must name to show the same; None for the default.
    """
    found: list[Finding] = []
    for each in comparison.against:
        found += [
            *(_difference(score, made, each, comparison, asked) for score, made in each.differences.items()),
            _map(each, comparison, asked),
            *(_non_inferiority(made, each, comparison) for made in each.as_good if isinstance(made, NonInferiority)),
        ]
    found += [_best(each, comparison) for each in comparison.winners]
    return Findings([*found, *notes(comparison.aligned)])


def _grid(comparison: Comparison) -> tuple[IntArray, IntArray]:
    return comparison.dys, comparison.dxs


def _names(each: Against, comparison: Comparison) -> tuple[str, str]:
    return name_text(each.name), name_text(comparison.names[comparison.baseline])


def _quantity(metric: str, each: Against, comparison: Comparison, shift: tuple[int, int] | None = None) -> Quantity:
    return Quantity(metric, shift=shift, of=each.name, versus=comparison.names[comparison.baseline])


def _test(p_value: float, holds: bool, comparison: Comparison) -> Significance:
    return Significance(p_value, f"{tests_text(comparison.n_tests)} of the comparison", holds)


def _difference(
    score: Score, made: Difference | Skipped, each: Against, comparison: Comparison, asked: str | None
) -> Finding:
    arm, base = _names(each, comparison)
    what, which = label(score, comparison.metric, _grid(comparison)), f"{score}-{each.which}"
    if isinstance(made, Skipped):
        text = f"Not measured: the difference of {arm} and {base} in {what}, since {plain(made.why)}."
        return Finding("skipped-difference", text, question="D", section="caveats", which=which)
    estimate, worse = made.estimate, made.verdict == "worse"
    test, quantity = _test(made.holm_p, made.verdict != "undecided", comparison), _quantity(what, each, comparison)
    what += _values(score, comparison.rows[each.which], comparison.rows[comparison.baseline])
    can_find = ""
    if np.isfinite(made.detectable):
        smallest = number_text(made.detectable, estimate.unit)
        can_find = f"A true difference of {smallest} would be found with {100 * POWER:.0f} % probability."
    if test.holds:
        # The direction is said in words: the number needs no sign.
        apart = _size(estimate if estimate.value > 0 else estimate.scaled(-1, estimate.unit))
        verb = "exceeds" if estimate.value > 0 else "is below"
        text = f"{'Got worse' if worse else 'Improved'}: {arm} {verb} {base} in {what}, by {apart}."
    elif estimate.method == NO_IMAGE_DIFFERS:
        text = f"Inconclusive: {arm} and {base} do not differ on any image in {what}: {_size(estimate)}."
    else:
        apart = f"{_size(estimate)}{test.left_open(estimate)}"
        text = f"Inconclusive: the difference of {arm} and {base} in {what} is {apart}. {can_find}".rstrip()
    meaning = MEANINGS.get(score, "") + (f" In px of {_whose(comparison)}." if score == "retained" else "")
    parts = [
        "Paired, image by image; the interval is of this difference alone.",
        can_find if test.holds else "",
        meaning,
    ]
    note, action = " ".join(part for part in parts if part), _see_where(comparison, asked) if worse else None
    severity: Severity = "warn" if worse else "info"
    section = SECTION_OF[made.verdict]
    return Finding("difference", text, quantity, estimate, test, action, note, severity, "D", section, which)


def _whose(comparison: Comparison) -> str:
    if comparison.unit == "source":
        return "the source image"
    return f"the input of {name_text(comparison.names[comparison.baseline])}"


def _values(score: Score, row: Row, base: Row) -> str:
    """Both values in brackets, where the table has them."""
    column = COLUMN_OF.get(score)
    pair = [getattr(each, column) for each in (row, base)] if column else []
    shown = [
        ("at least " if e.at_least else "") + number_text(e.value, e.unit) for e in pair if isinstance(e, Estimate)
    ]
    return f" ({shown[0]} versus {shown[1]})" if len(shown) == 2 else ""


def _size(estimate: Estimate) -> str:
    """A difference with its sign and interval; one whose end the grid hides, as far as it is known."""
    if np.isfinite(estimate.lo) and np.isfinite(estimate.hi):
        return with_interval(estimate.value, estimate.lo, estimate.hi, estimate.unit)
    end = "or more" if np.isfinite(estimate.lo) else "or less"
    return f"{number_text(estimate.value, estimate.unit)} {end} (the grid ends before the region does)"


def _map(each: Against, comparison: Comparison, asked: str | None) -> Finding:
    (arm, base), metric = _names(each, comparison), comparison.metric
    made, n_tested = each.map, int(each.map.tested.sum())
    clear = made.better | made.worse
    searched = np.where(clear if clear.any() else made.tested, np.abs(made.value), -1.0)
    row, column = np.unravel_index(int(np.argmax(searched)), searched.shape)
    value, lo, hi = (float(cells[row, column]) for cells in (made.value, made.band_lo, made.band_hi))
    estimate = Estimate(value, lo, hi, made.unit, made.n, made.method)
    shift = int(comparison.dxs[column]), int(comparison.dys[row])
    most = f"{quoted(estimate)} at (dx, dy) = {shift}"
    if made.holds and clear.any():
        text = (
            f"Shift by shift, {arm} is better than {base} at {int(made.better.sum()):,} and worse at "
            f"{int(made.worse.sum()):,} of {n_tested:,} shifts (simultaneous band); most clearly by {most}."
        )
    elif made.holds:
        text = f"Shift by shift, {arm} and {base} differ somewhere, but at no shift significantly; most by {most}."
    else:
        text = (
            f"{arm} and {base} do not differ significantly at any single shift, after correction for "
            f"{tests_text(comparison.n_tests)}; most by {most}."
        )
    tests = "exact McNemar tests" if metric.is_share else "Student t tests"
    note = f"Paired, image by image. Tested is any difference at all: Simes over {tests}; else the band reaches 0."
    quantity, test = _quantity(metric.name, each, comparison, shift), _test(made.holm_p, made.holds, comparison)
    action = _see_where(comparison, asked) if made.holds else None
    severity: Severity = "warn" if made.holds and made.worse.any() else "info"
    which = str(each.which)
    return Finding("difference-map", text, quantity, estimate, test, action, note, severity, "D", "by-shift", which)


def _non_inferiority(made: NonInferiority, each: Against, comparison: Comparison) -> Finding:
    (arm, base), n, unit = _names(each, comparison), len(comparison.against), comparison.metric.difference_unit
    what, margin = label(made.quantity, comparison.metric, _grid(comparison)), number_text(made.margin, unit)
    bound = f"at worst it is {number_text(abs(made.lower), unit)} {'worse' if made.lower < 0 else 'better'}"
    text = f"Non-inferior: {arm} is at most {margin} worse than {base} in {what}; {bound}."
    together = f", for all {n} sweeps together," if n > 1 else ""
    note = f"The lower end of the 95 % interval{together} is compared with -{margin}."
    if not made.holds:
        text = f"Inconclusive: {arm} is not shown to be non-inferior to {base} in {what}, up to {margin}; {bound}."
        note += (
            f" Without a true difference, about {made.n_needed:,} images show it with {100 * POWER:.0f} % probability."
        )
    return Finding(
        "as-good", text, _quantity(what, each, comparison), number(made.lower, unit), note=note, question="D",
        section="non-inferiority", which=f"{made.quantity}-{each.which}",
    )  # fmt: skip


def _best(won: Winner | Skipped, comparison: Comparison) -> Finding:
    if isinstance(won, Skipped):
        text = f"Not measured: {won.site}, since {plain(won.why)}."
        return Finding("skipped", text, question="D", section="caveats", which="winner")
    arm, base = name_text(comparison.names[won.which]), name_text(comparison.names[comparison.baseline])
    what = best(won.criterion, comparison.metric, _grid(comparison))
    text = (
        f"{arm} was chosen for {what}; on the {won.n_stated:,} images not used for the choice it has "
        f"{quoted(won.stated)}"
    )
    if isinstance(won.difference, Estimate):
        text += f", a difference to {base} of {_size(won.difference)}"
        if won.criterion != "at-rest" and isinstance(won.difference_at_rest, Estimate):
            text += f", with {_size(won.difference_at_rest)} at (0, 0)"
    elif won.which == comparison.baseline:
        text += "; it is the baseline"
    note = (
        f"Chosen on {won.n_chosen:,} images, a fixed half, where it had {number_text(won.chosen_by, won.stated.unit)}: "
        "the best of several is overestimated on the images that chose it."
    )
    quantity, which = Quantity(what, of=comparison.names[won.which]), won.criterion
    return Finding("winner", f"{text}.", quantity, won.stated, note=note, question="D", section="best", which=which)


def _see_where(comparison: Comparison, asked: str | None) -> Action:
    paths = [arm.path for arm in comparison.aligned.arms]
    base = paths.pop(comparison.baseline)
    command = ("shiftlens", "compare", base, *paths, *metric_option(asked), "--plots", "figures")
    return Action("See where", command)
