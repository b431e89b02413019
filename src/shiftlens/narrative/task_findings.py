"""What a task shows beside its metrics: the swing of each object, and the border against the interior."""

from __future__ import annotations

from shiftlens.analysis.places import OBJECT_RADIUS, Places, object_swing, places
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Quantity
from shiftlens.narrative.words import number_text, quoted
from shiftlens.stats import Estimate, Skipped
from shiftlens.sweeps.sweep_result import Sweep

OWN = "[own]"


def task_findings(sweep: Sweep) -> list[Finding]:
    """Return what is stored of objects and by place; nothing for tasks that store neither."""
    found, swing, by_place = [], object_swing(sweep), places(sweep)
    if isinstance(swing, Estimate):
        points = swing.scaled(100, "points")
        found.append(
            Finding(
                "object-swing",
                f"The confidence of the same object swings by {quoted(points)} within {OBJECT_RADIUS:g} px.",
                Quantity("object confidence", of=f"shifts within {OBJECT_RADIUS:g} px"),
                points,
                note=f"{OWN} Largest less smallest over the shifts under which the object is in view; mean over the "
                "objects of an image, interval over images.",
                severity="note",
            )
        )
    if not isinstance(by_place, Skipped):
        found.append(_border(by_place))
    return found


def _border(by_place: Places) -> Finding:
    what, width = by_place.what, by_place.border
    near, inside = (number_text(value, what.unit) for value in (by_place.near, by_place.inside))
    text = f"The {what.name} is {near} within {width} px of a border and {inside} further inside"
    estimate = by_place.difference
    note = f"{OWN} Summed over all shifts and images; padding, fill and what stands there are not told apart."
    quantity = Quantity(what.name, of="border", versus="interior")
    if isinstance(estimate, Skipped):
        return Finding("border-rate", f"{text}.", quantity, note=f"{note} {estimate.why.capitalize()}.")
    scaled = estimate.scaled(100, "points") if what.unit == "share" else estimate
    return Finding(
        "border-rate",
        f"{text}: a difference of {quoted(scaled)}.",
        quantity,
        scaled,
        note=f"{note} The interval is over chunks of images.",
        severity="note",
    )
