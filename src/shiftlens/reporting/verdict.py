"""The verdict on a sweep in three sentences: how good, how far, and which direction is worse than its opposite."""

from __future__ import annotations

from collections.abc import Sequence

from shiftlens.analysis.directions import Directions
from shiftlens.analysis.regions import Retained
from shiftlens.analysis.summary import Metrics
from shiftlens.naming import count_of
from shiftlens.narrative.performance import at_worst, kept_text
from shiftlens.narrative.words import capital, number_text, plain, quoted
from shiftlens.stats import Estimate, Skipped
from shiftlens.tasks.task import Variable


def verdict(
    metrics: Metrics, way: Directions | Skipped, model: str, data: str, sides: Sequence[str] = ()
) -> tuple[str, str, str]:
    """Return the three sentences; `sides` are the statements that found whole sides to differ."""
    return _good(metrics, plain(model), plain(data)), _far(metrics), _worst(metrics.metric, way, sides)


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


def _worst(metric: Variable, way: Directions | Skipped, sides: Sequence[str]) -> str:
    if isinstance(way, Skipped):
        return f"Whether one direction is worse than its opposite is not known: {plain(way.why)}."
    worst, other = quoted(way.means[way.worst]), quoted(way.means[way.opposite])
    reach, gap = number_text(way.reach, "px", 0), quoted(way.gap)
    if way.differs:
        return (
            f"It is worse in one direction: for shifts {way.names[way.worst]} of at most {reach}, {metric.called} "
            f"averages {worst}, {gap} worse than for shifts {way.names[way.opposite]} ({other})."
        )
    which = f"{sides[0]} No sector of 45°" if sides else "No direction"
    return (
        f"{which} is significantly worse than its opposite: the largest difference, over shifts of at most "
        f"{reach}, is {gap}, {way.names[way.worst]} ({worst}) versus {way.names[way.opposite]} ({other})."
    )
