"""Is padding the cause? What the canvas control says, as findings (question C)."""

from __future__ import annotations

from shiftlens.analysis.controls import PaddingEffect
from shiftlens.analysis.summary import Metrics
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Action, Quantity, Severity
from shiftlens.narrative.patterns import clearest, other_padding
from shiftlens.narrative.performance import tested
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import number_text, quoted, size_of
from shiftlens.stats import Skipped


def cause(metrics: Metrics, setting: Setting) -> list[Finding]:
    """How much of the accuracy, and of its loss under shifts, is due to the padding."""
    made = metrics.padding
    return [] if isinstance(made, Skipped) else [_overall(made, metrics, setting), _fall(made, metrics, setting)]


def _overall(made: PaddingEffect, metrics: Metrics, setting: Setting) -> Finding:
    test, overall = tested(metrics, "padding overall"), made.effect.overall
    severity: Severity = "info"
    action = None
    if not test.holds:
        statement = f"Replacing the padding by fill makes no significant difference to accuracy: {quoted(overall)}."
    elif overall.value > 0:
        severity, action = "warn", other_padding(setting)
        statement = (
            f"The padding costs {quoted(overall)} of accuracy on average over all shifts: the same weights are that "
            "much better on a canvas of fill so large that padding never touches the image."
        )
    else:
        severity = "note"
        statement = (
            f"The padding helps, by {size_of(overall)} of accuracy on average over all shifts: the net was trained "
            "with it and is worse when fill replaces it."
        )
    return Finding(
        "padding-effect",
        statement,
        Quantity("accuracy", of="canvas control", versus="sweep"),
        overall,
        test,
        action,
        f"[own] acc(canvas control) - acc(shift), (0, 0) included. {clearest(made.effect, metrics)}",
        severity,
        "C",
    )


def _fall(made: PaddingEffect, metrics: Metrics, setting: Setting) -> Finding:
    test, part = tested(metrics, "padding fall"), made.fall_of_padding
    unshifted = float(made.effect.effect[metrics.sweep.origin])
    # Intervals of all cells together: (0, 0) is one of them.
    worse_unshifted = float(made.effect.hi[metrics.sweep.origin]) < 0
    action = None
    if worse_unshifted:
        # A net that starts lower has less to lose: that is no merit of the canvas.
        conclusion = (
            f"The two are not comparable: on the canvas, unshifted accuracy is already "
            f"{number_text(-unshifted, 'points')} lower, so the net has less to lose."
        )
        if setting.fill != "mean":
            command = setting.sweep_command(control="canvas", fill="mean")
            action = Action("Surround the image with what zero padding shows, the mean colour", command)
    elif not test.holds:
        conclusion = f"The part due to the padding is not significant: {quoted(part)}."
    elif part.value > 0:
        conclusion = f"So {size_of(part)} of this loss are due to the padding."
    else:
        conclusion = f"So the padding is not the cause: with it, shifts cost {size_of(part)} less."
    return Finding(
        "padding-position-effect",
        f"Shifts cost {quoted(made.fall)} of accuracy on average; without padding, {quoted(made.fall_without)}. "
        f"{conclusion}",
        Quantity("accuracy lost by shifts", of="sweep", versus="canvas control"),
        part,
        test,
        action,
        "[own] acc(0, 0) minus the mean over all other shifts that leave part of the image in view, sweep minus canvas "
        "control.",
        "note" if test.holds or worse_unshifted else "info",
        "C",
    )
