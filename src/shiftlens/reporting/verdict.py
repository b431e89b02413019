"""The verdict on a sweep: how good, how far, and which side is worse than its opposite."""

from __future__ import annotations

from shiftlens.analysis.asymmetry import SIDES
from shiftlens.analysis.directions import Directions
from shiftlens.analysis.regions import Retained
from shiftlens.analysis.summary import Metrics
from shiftlens.naming import count_of
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.performance import at_worst, kept_text, tested
from shiftlens.narrative.words import capital, number_text, plain, quoted, way
from shiftlens.stats import Estimate, Skipped


def verdict(
    metrics: Metrics, sectors: Directions | Skipped, model: str, data: str, found: Findings
) -> tuple[str, str, str]:
    """Return the three answers; which side is worse is what the corrected tests among the findings say."""
    return _good(metrics, plain(model), plain(data)), _far(metrics), _worst(metrics, sectors, found)


def _good(metrics: Metrics, model: str, data: str) -> str:
    metric, rest = metrics.metric, metrics.profile(metrics.metric.name).at_origin
    if isinstance(rest, Skipped):
        return f"How good {model} is on {data} is not known: {plain(rest.why)}."
    first = f"On {count_of(rest.n, 'unshifted image')} of {data}, {metric.called} of {model} is {quoted(rest)}"
    worst = metrics.worst_of_radius
    return f"{first}; {at_worst(metric)} is {quoted(worst)}." if isinstance(worst, Estimate) else f"{first}."


def _far(metrics: Metrics) -> str:
    by_level = {round(100 * each.level): each for each in metrics.retained if isinstance(each, Retained)}
    strong, half = by_level.get(95), by_level.get(50)
    if strong is None:
        why = next((each.why for each in metrics.retained if isinstance(each, Skipped)), "it was not measured")
        return f"How far the image may be shifted is not known: {plain(why)}."
    # Not "within": the region is no circle, and the slider beside shows what a circle would promise too much.
    kept = f"{capital(metrics.metric.called)} stays {kept_text(metrics, strong.level)} that"
    if strong.region.all():
        return f"{kept} under every shift that was measured."
    text = f"{kept} over an area as large as a circle with a radius of {quoted(strong.radius)}"
    if half is None:
        return f"{text}."
    where = "under every shift that was measured" if half.region.all() else f"over one of {quoted(half.radius)}"
    return f"{text}, and {kept_text(metrics, half.level)} it {where}."


def _worst(metrics: Metrics, sectors: Directions | Skipped, found: Findings) -> str:
    sides = found.of_kind("asymmetry")
    if not sides:
        return f"Whether one side is worse than its opposite is not known: {worse_side(metrics)[1]}."
    held = [each for each in sides if each.test is not None and each.test.holds]
    # A mean over a whole side says more than the single pair of shifts that differs most.
    whole = [each for each in held if each.quantity is not None and each.quantity.shift is None]
    if whole:
        return " ".join(each.statement for each in whole)
    none = "No whole side is significantly worse than its opposite."
    if held:
        return f"{none} {max(held, key=lambda each: abs(each.estimate.value if each.estimate else 0)).statement}"
    if isinstance(sectors, Skipped):
        return none
    n_pairs, reach = count_of(len(sectors.means) // 2, "pair"), number_text(sectors.reach, "px", 0)
    return (
        f"{none} Of {n_pairs} of opposite 45° sectors, the largest gap, chosen by looking and not tested, is "
        f"{quoted(sectors.gap)} over shifts of at most {reach}: {sectors.names[sectors.worst]} (worse) against "
        f"{sectors.names[sectors.opposite]}."
    )


def worse_side(metrics: Metrics) -> tuple[str, str]:
    """Which whole sides the corrected tests found worse, and the difference of every pair of sides."""
    names: dict[str, None] = {}
    sizes, unknown = [], ""
    for name, made in (
        ("x", metrics.asymmetry_x),
        ("x model", metrics.asymmetry_x_model),
        ("y", metrics.asymmetry_y),
    ):
        if isinstance(made, Skipped):
            unknown = unknown or plain(made.why)
            continue
        (plus, minus), gap = SIDES[made.axis], made.overall
        holds = tested(metrics, f"asymmetry {name} overall").holds
        bias = " without the dataset bias" if made.without_data else ""
        sizes.append(f"{plus} minus {minus}{bias} {quoted(gap)} ({'' if holds else 'not '}significant)")
        if holds:
            names[way(made.axis, -metrics.metric.sign * gap.value)] = None
    if not sizes:
        return "not measured", unknown
    return " and ".join(names) or "none on average", f"{', '.join(sizes)}, corrected for all tests"
