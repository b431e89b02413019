"""What a task shows beside its metrics: the swing of each object, and the border against the interior."""

from __future__ import annotations

import math

import numpy as np

from shiftlens.analysis.object_curves import OBJECT_RADIUS, object_swing
from shiftlens.analysis.places import Places
from shiftlens.analysis.summary import Metrics
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Action, Quantity, number
from shiftlens.narrative.performance import tested
from shiftlens.narrative.words import capital, number_text, quoted
from shiftlens.stats import Estimate, Skipped
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.moving import FROM_NET, inner_margin

OWN = "[own]"
BORDER_TEST = "border rate"
MOST_SHIFTS = 1_000
"""At how many shifts a metric of the data set is computed for a finding, about: AP takes a millisecond a class."""
RARE = 0.02
"""Below it, shares are said with two digits after the point."""


def border_test(by_place: Places | Skipped) -> dict[str, float]:
    """The test that the border differs from the interior, by its name among the tests of the sweep; none without."""
    made = None if isinstance(by_place, Skipped) else by_place.difference
    return {BORDER_TEST: made.p_value} if isinstance(made, Estimate) and made.p_value is not None else {}


def task_findings(sweep: Sweep, by_place: Places | Skipped, metrics: Metrics) -> list[Finding]:
    """Return what all images together, objects and places tell; nothing for tasks that store nothing of it.

    Parameters
    ----------
    sweep
        Whose objects and data set metrics are read.
    by_place
        What `places` finds in it.
    metrics
        Whose tests hold `border_test`.
    """
    found, swing = _of_dataset(sweep), object_swing(sweep)
    if isinstance(swing, Estimate):
        points = swing.scaled(100, "points")
        found.append(
            Finding(
                "object-swing",
                f"The confidence of the same object swings by {quoted(points)} within {OBJECT_RADIUS:g} px.",
                Quantity("object confidence", of=f"shifts within {OBJECT_RADIUS:g} px"),
                points,
                note=f"{OWN} Largest less smallest over the shifts under which the object is in view; mean over the "
                "objects of an image; 95 % interval over images. No test: a swing is never below 0.",
                severity="note",
            )
        )
    if not isinstance(by_place, Skipped):
        found.append(_border(by_place, metrics))
    return [*found, *_interior(sweep)]


def _interior(sweep: Sweep) -> list[Finding]:
    """That the interior is not free of the border, where the receptive field is larger than what is left out."""
    margin, most = sweep.header.task.settings.get("margin"), inner_margin(FROM_NET, sweep.header.image_size)
    if margin != most:
        return []
    return [
        Finding(
            "interior-margin",
            f"The interior begins {most} px from every border, a quarter of the image's shorter side: the receptive "
            "field reaches that far or farther, or is not known, so the border may change the interior too.",
            Quantity("margin of the interior"),
            number(float(most), "px"),
            action=Action("Measure images large enough for the receptive field"),
            note="The margin is the reach of the receptive field, at most a quarter of the image.",
            severity="note",
        )
    ]


def _of_dataset(sweep: Sweep) -> list[Finding]:
    """The first metric of all images together: unshifted, and where it is worst."""
    if not sweep.dataset_metrics or not sweep.n_written:
        return []
    metric = sweep.dataset_metrics[0]
    every = max(1, math.ceil(math.sqrt(sweep.grid.n_shifts / MOST_SHIFTS)))
    values = sweep.of_dataset(metric, every=every)
    finite = values.where(np.isfinite(values))
    if not finite.notnull().any():
        return []
    worst = finite[(-metric.sign * finite).argmax(...)]
    unshifted, least = (number_text(float(each), metric.unit) for each in (values.sel(dy=0, dx=0), worst))
    name = capital(metric.called.removeprefix("dataset "))
    at = f"({int(worst.dx)}, {int(worst.dy)})"
    # What is compared with the unshifted image has no error there, or that of rounding.
    still = "" if sweep.header.task.uses is None else f"{unshifted} unshifted and "
    of = "" if every == 1 else f" Of every {every} shifts along each axis one was computed."
    counted = sweep.header.task.settings.get("score_threshold")
    every_score = (
        "" if counted is None else f"; it counts detections of every score, recall those of at least {counted:g}"
    )
    return [
        Finding(
            "dataset-metric",
            f"{name} of all images together is {still}{least} at its worst, under the shift {at}{every_score}.",
            Quantity(metric.name, of="data set"),
            note=f"{OWN} {capital(metric.long_name)}: exact for these images, the worst of {values.size:,} "
            f"shifts; `shiftlens evaluate --shift DX DY` gives its interval.{of}",
            severity="note",
        )
    ]


def _border(by_place: Places, metrics: Metrics) -> Finding:
    what, width = by_place.what, by_place.border
    quantity, estimate = Quantity(what.name, of="border", versus="interior"), by_place.difference
    note = f"{OWN} Summed over all shifts and images; padding, fill and what stands there are not told apart."
    text = _rates(by_place)
    if isinstance(estimate, Skipped):
        return Finding("border-rate", f"{text}.", quantity, note=f"{note} {capital(estimate.why)}.")
    scaled = estimate.scaled(100, "points") if what.unit == "share" else estimate
    test = tested(metrics, BORDER_TEST)
    cost = -scaled.value if what.better == "higher" else scaled.value
    return Finding(
        "border-rate",
        f"{text}. Border minus interior: {quoted(scaled)}{test.left_open(scaled)}.",
        quantity,
        scaled,
        test,
        note=f"{note} Border: at most {width} px from it. The interval is a jackknife over {estimate.n} groups of "
        "images.",
        severity=test.sided(cost),
    )


def _rates(by_place: Places) -> str:
    """The rate at the border, inside, and at the worst side."""
    what = by_place.what
    # Errors may be rarer than a per mille.
    digits = 2 if what.unit == "share" and max(by_place.near, by_place.inside) < RARE else None
    for value, empty, rest, where in (
        (by_place.near, f"Within {by_place.border} px of a border", by_place.inside, "further inside"),
        (by_place.inside, f"More than {by_place.border} px from every border", by_place.near, "nearer to one"),
    ):
        if np.isnan(value):
            other = "" if np.isnan(rest) else f"; {where} it is {number_text(rest, what.unit)}"
            return f"{empty}, the {what.name} is not known, since nothing came there under these shifts{other}"
    near, inside = (number_text(value, what.unit, digits) for value in (by_place.near, by_place.inside))
    text = f"Within {by_place.border} px of a border, the {what.name} is {near}"
    if what.better == "lower" and by_place.inside > 0:
        ratio = by_place.near / by_place.inside
        times = "more than 1,000" if ratio > 1000 else number_text(ratio, "", 1)
        text += f", {times} times that further inside ({inside})"
    else:
        text += f"; further inside it is {inside}"
    known = {side: value for side, value in by_place.sides.items() if not np.isnan(value)}
    if len(known) < 2:
        return text
    worst = (min if what.better == "higher" else max)(known, key=lambda side: known[side])
    end = "lowest" if what.better == "higher" else "highest"
    return f"{text}; it is {end} at the {worst} border, {number_text(known[worst], what.unit, digits)}"
