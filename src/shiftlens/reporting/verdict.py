"""The verdict on a sweep in three sentences: how good, how far, and which direction is worse than its opposite."""

from __future__ import annotations

from shiftlens.analysis.directions import Directions
from shiftlens.analysis.regions import Retained
from shiftlens.analysis.summary import Metrics
from shiftlens.narrative.words import number_text, plain, quoted
from shiftlens.stats import Estimate, Skipped


def verdict(metrics: Metrics, way: Directions | Skipped, model: str, data: str) -> tuple[str, str, str]:
    """Return the three sentences.

    Parameters
    ----------
    metrics
        Of the sweep.
    way
        See `directions`.
    model, data
        What they are called.
    """
    return _good(metrics, plain(model), plain(data)), _far(metrics), _worst(way)


def _good(metrics: Metrics, model: str, data: str) -> str:
    rest = metrics.accuracy_at_origin
    first = f"{model} classifies {quoted(rest)} of {rest.n:,} unshifted images of {data} correctly"
    worst = metrics.worst_of_radius
    if isinstance(worst, Estimate):
        return f"{first}; {quoted(worst)} of the images are classified correctly under every shift of at most 4 px."
    return f"{first}."


def _far(metrics: Metrics) -> str:
    by_level = {round(100 * each.level): each for each in metrics.retained if isinstance(each, Retained)}
    strong = by_level.get(95)
    if strong is None:
        why = next((each.why for each in metrics.retained if isinstance(each, Skipped)), "it was not measured")
        return f"How far the image may be shifted is not known: {plain(why)}."
    # Not "within": the region is no circle, and the slider beside shows what a circle would promise too much.
    text = f"It keeps 95 % of that accuracy over an area as large as a circle with a radius of {quoted(strong.radius)}"
    half = by_level.get(50)
    if half is None:
        return f"{text}."
    if half.at_least:
        return f"{text}, and half of it to the edge of the grid."
    return f"{text}; half of it, over one of {quoted(half.radius)}."


def _worst(way: Directions | Skipped) -> str:
    if isinstance(way, Skipped):
        return f"Whether one direction is worse than its opposite is not known: {plain(way.why)}."
    low, high = way.accuracy[way.worst], way.accuracy[way.opposite]
    reach = number_text(way.reach, "px", 0)
    if way.differs:
        return (
            f"It is worse in one direction: for shifts {way.names[way.worst]} of at most {reach}, accuracy averages "
            f"{quoted(low)}, {quoted(way.gap)} lower than for shifts {way.names[way.opposite]} ({quoted(high)})."
        )
    return (
        f"No direction is significantly worse than its opposite: the largest difference, over shifts of at most "
        f"{reach}, is {quoted(way.gap)}, {way.names[way.worst]} ({quoted(low)}) versus {way.names[way.opposite]} "
        f"({quoted(high)})."
    )
