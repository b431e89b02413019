"""A comparison in sentences: what improved, what got worse, what cannot be told, who won, what misleads."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.arm_scores import Quantity
from shiftlens.analysis.paired import NO_IMAGE_DIFFERS, POWER, Difference, NonInferiority
from shiftlens.analysis.winners import Criterion, Winner
from shiftlens.narrative.comparison_notes import notes
from shiftlens.narrative.comparison_result import Against, Comparison, Row
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.performance import MORE_CONSISTENT
from shiftlens.narrative.words import name_text, number_text, p_text, plain, quoted, with_interval
from shiftlens.stats import Estimate, Skipped

LABELS: dict[Quantity, str] = {
    "at-rest": "accuracy at (0, 0)",
    "near": "mean accuracy within 8 px",
    "everywhere": "mean accuracy over all shifts",
    "worst": "the share of images right under every shift within 4 px",
    "retained": "the retained area (95 %)",
    "side-x": "the size of the left/right asymmetry",
    "side-y": "the size of the up/down asymmetry",
    "agreement": "agreement with the prediction at (0, 0) within 8 px",
}
MEANINGS: dict[Quantity, str] = {
    "everywhere": "Over the common shifts that leave some of every net's picture. It depends on how far the grids go.",
    "worst": "After arXiv 1712.02779, which takes a square of shifts: compare only equal shapes and steps.",
    "retained": "[own] Shifts connected to (0, 0) with 95 % of the accuracy there: an area says how far a net holds "
    "its own level, not how high that is.",
    "side-x": "[own] Right minus left; the data's own asymmetry is in both. Merely turning round is no change.",
    "side-y": "[own] Down minus up; the data's own asymmetry is in both. Merely turning round is no change.",
    "agreement": f"{MORE_CONSISTENT}.",
}
WON: dict[Criterion, str] = {
    "at-rest": "the highest accuracy at (0, 0)",
    "near": "the highest mean accuracy within 8 px",
    "worst": "the largest share of images right under every shift within 4 px",
    "retained": "the largest retained area",
    "retained-as-accurate": "the largest retained area among those at least as accurate at (0, 0)",
}


def sentences(comparison: Comparison) -> Findings:
    """Say a comparison: differences first, arm by arm, then winners, then what misleads."""
    found: list[Finding] = []
    for each in comparison.against:
        found += [
            *(_difference(quantity, made, each, comparison) for quantity, made in each.differences.items()),
            _map(each, comparison),
            *(_as_good(made, each, comparison) for made in each.as_good if isinstance(made, NonInferiority)),
        ]
    found += [_winner(each, comparison) for each in comparison.winners]
    return Findings([*found, *notes(comparison.aligned)])


def _both(each: Against, comparison: Comparison) -> tuple[str, str]:
    return name_text(each.name), name_text(comparison.names[comparison.baseline])


def _difference(quantity: Quantity, made: Difference | Skipped, each: Against, comparison: Comparison) -> Finding:
    arm, base = _both(each, comparison)
    name, label = f"difference-{quantity}-{each.which}", LABELS[quantity]
    if isinstance(made, Skipped):
        text = f"Not measured: the difference of {arm} and {base} in {label}, since {plain(made.why)}."
        return Finding(f"skipped-{name}", "D", "info", text)
    values = _values(quantity, comparison.rows[each.which], comparison.rows[comparison.baseline])
    size = _size(made.estimate)
    # Better and worse say which way in words: the number needs no sign.
    apart = _size(made.estimate if made.estimate.value > 0 else made.estimate.scaled(-1, made.estimate.unit))
    remedy = None
    if made.verdict == "better":
        text = f"Improved: {arm} beats {base} in {label}{values}, by {apart}."
    elif made.verdict == "worse":
        text = f"Got worse: {arm} is behind {base} in {label}{values}, by {apart}."
        remedy = f"See where: {_plots(comparison)}"
    elif made.estimate.method == NO_IMAGE_DIFFERS:
        text = f"Cannot be told, since {arm} and {base} do not differ on any image in {label}{values}: {size}."
    else:
        text = f"Cannot be told: whether {arm} differs from {base} in {label}{values}; seen is {size}"
        if made.estimate.lo > 0 or made.estimate.hi < 0:
            # The interval is of this difference alone, and looks as if the matter were settled.
            text += f", which does not stand with all {comparison.n_tests} tests looked at"
        text += "."
        if np.isfinite(made.detectable):
            needed = number_text(made.detectable, made.estimate.unit)
            text += f" A true difference of {needed} would be found in {100 * POWER:.0f} of 100 such sets of images."
    return Finding(
        name,
        "D",
        "warn" if made.verdict == "worse" else "info",
        text,
        made.estimate.value,
        made.estimate.unit,
        (made.estimate.lo, made.estimate.hi),
        made.holm_p,
        _evidence(quantity, made, comparison),
        remedy,
    )


def _evidence(quantity: Quantity, made: Difference, comparison: Comparison) -> str:
    basis = (
        f"{made.estimate.n:,} images, paired; interval: {made.estimate.method}, for this difference alone. Corrected "
        f"for all {comparison.n_tests} tests of the comparison (Holm) {p_text(made.holm_p)}."
    )
    if np.isfinite(made.detectable) and made.verdict != "undecided":
        basis += (
            f" A true difference of {number_text(made.detectable, made.estimate.unit)} is found with "
            f"{100 * POWER:.0f} % chance."
        )
    more = MEANINGS.get(quantity)
    if quantity == "retained":
        more = f"{more} In px of {_whose(comparison)}."
    return f"{basis} {more}" if more else basis


def _whose(comparison: Comparison) -> str:
    if comparison.unit == "source":
        return "the source picture"
    return f"the input of {name_text(comparison.names[comparison.baseline])}"


def _values(quantity: Quantity, row: Row, base: Row) -> str:
    """Both values in brackets, where the table has them."""
    pairs: dict[Quantity, tuple[Estimate | Skipped, Estimate | Skipped]] = {
        "at-rest": (row.accuracy, base.accuracy),
        "near": (row.near, base.near),
        "worst": (row.worst_of_radius, base.worst_of_radius),
        "retained": (row.retained_area, base.retained_area),
        "side-x": (row.asymmetry_lr, base.asymmetry_lr),
        "side-y": (row.asymmetry_ud, base.asymmetry_ud),
    }
    one, two = pairs.get(quantity, (Skipped("", ""), Skipped("", "")))
    if isinstance(one, Skipped) or isinstance(two, Skipped):
        return ""
    shown = [("at least " if e.at_least else "") + number_text(e.value, e.unit) for e in (one, two)]
    return f" ({shown[0]} against {shown[1]})"


def _size(estimate: Estimate) -> str:
    """A difference with its sign and interval; one whose end the grid hides, as far as it is known."""
    if np.isfinite(estimate.lo) and np.isfinite(estimate.hi):
        return with_interval(estimate.value, estimate.lo, estimate.hi, estimate.unit)
    end = "or more" if np.isfinite(estimate.lo) else "or less"
    return f"{number_text(estimate.value, estimate.unit)} {end} (the grid ends before the region does)"


def _map(each: Against, comparison: Comparison) -> Finding:
    arm, base = _both(each, comparison)
    made, n_tested = each.map, int(each.map.tested.sum())
    clear = made.better | made.worse
    searched = np.where(clear if clear.any() else made.tested, np.abs(made.value), -1.0)
    row, column = np.unravel_index(int(np.argmax(searched)), searched.shape)
    value, lo, hi = (float(cells[row, column]) for cells in (made.value, made.band_lo, made.band_hi))
    place = f"(dx, dy) = ({int(comparison.dxs[column])}, {int(comparison.dys[row])})"
    most = f"{with_interval(value, lo, hi, 'points')} at {place}"
    if made.holds and clear.any():
        counts = f"better at {int(made.better.sum()):,} and worse at {int(made.worse.sum()):,} of {n_tested:,} shifts"
        text = f"Shift by shift, {arm} is {counts} than {base}, all looked at together; most clearly by {most}."
    elif made.holds:
        text = f"Shift by shift, {arm} and {base} differ somewhere, at no shift clearly; most by {most}."
    else:
        text = f"At no single shift do {arm} and {base} differ beyond chance, all looked at together; most by {most}."
    return Finding(
        f"difference-map-{each.which}",
        "D",
        "warn" if made.holds and made.worse.any() else "info",
        text,
        value,
        "points",
        (lo, hi),
        made.holm_p,
        f"{made.n:,} images, paired; the interval holds for all shifts of all sweeps together (max-t bootstrap, "
        f"adjusted Wald). Any difference at all: Simes over exact McNemar tests, corrected for all "
        f"{comparison.n_tests} tests (Holm) {p_text(made.holm_p)}.",
        f"See where: {_plots(comparison)}" if made.holds else None,
    )


def _as_good(made: NonInferiority, each: Against, comparison: Comparison) -> Finding:
    (arm, base), n = _both(each, comparison), len(comparison.against)
    label, margin = LABELS[made.quantity], number_text(made.margin, "points")
    at_worst = f"{number_text(abs(made.lower), 'points')} {'behind' if made.lower < 0 else 'ahead'}"
    if made.holds:
        text = f"As good: {arm} is no more than {margin} behind {base} in {label}; at worst {at_worst}."
    else:
        text = f"Not shown: that {arm} is as good as {base} in {label}, up to {margin}; at worst it is {at_worst}."
    needed = f"If there is no true difference, about {made.n_needed:,} images show it with {100 * POWER:.0f} % chance."
    return Finding(
        f"as-good-{made.quantity}-{each.which}",
        "D",
        "info",
        text,
        made.lower,
        "points",
        evidence=f"Non-inferiority: the lower end of the 95 % interval"
        f"{'' if n == 1 else f', for all {n} sweeps together,'} is compared with -{margin}. "
        f"{'' if made.holds else needed}".strip(),
    )


def _winner(won: Winner | Skipped, comparison: Comparison) -> Finding:
    if isinstance(won, Skipped):
        return Finding("skipped-winner", "D", "info", f"Not measured: {won.site}, since {plain(won.why)}.")
    arm, base = name_text(comparison.names[won.which]), name_text(comparison.names[comparison.baseline])
    on_other = f"on the {won.n_stated:,} images that had no part in the choice"
    text = f"{arm} was chosen for {WON[won.criterion]}; {on_other}: {quoted(won.stated)}"
    if isinstance(won.difference, Estimate):
        text += f", {_size(won.difference)} against {base}"
        if won.criterion != "at-rest" and isinstance(won.difference_at_rest, Estimate):
            text += f", with {_size(won.difference_at_rest)} at (0, 0)"
    elif won.which == comparison.baseline:
        text += ", the baseline itself"
    return Finding(
        f"winner-{won.criterion}",
        "D",
        "info",
        f"{text}.",
        won.stated.value,
        won.stated.unit,
        (won.stated.lo, won.stated.hi),
        evidence=f"Chosen on {won.n_chosen:,} images, a fixed half, where it had "
        f"{number_text(won.chosen_by, won.stated.unit)}: a winner's own score flatters it. "
        f"Interval: {won.stated.method}.",
    )


def _plots(comparison: Comparison) -> str:
    import shlex

    paths = [arm.facts.path for arm in comparison.aligned.arms]
    first = comparison.baseline
    paths = [paths[first], *paths[:first], *paths[first + 1 :]]
    return f"`{shlex.join(['shiftlens', 'compare', *paths, '--plots', 'pictures'])}`"
