"""Is padding the cause? What the canvas control says, as findings (question C)."""

from __future__ import annotations

from shiftlens.analysis.controls import PaddingEffect
from shiftlens.analysis.summary import Metrics
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Action, Quantity, Severity
from shiftlens.narrative.patterns import clearest, other_padding, worse_by
from shiftlens.narrative.performance import tested
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import number_text, quoted, size_of
from shiftlens.stats import Skipped


def cause(metrics: Metrics, setting: Setting) -> list[Finding]:
    """How much of the metric, and of its loss under shifts, is due to the padding."""
    made = metrics.padding
    return [] if isinstance(made, Skipped) else [_overall(made, metrics, setting), _fall(made, metrics, setting)]


def _overall(made: PaddingEffect, metrics: Metrics, setting: Setting) -> Finding:
    test, overall, metric = tested(metrics, "padding overall"), made.effect.overall, metrics.metric
    severity, action = test.sided(overall.value), None
    text = f"The padding {worse_by(metric, overall)} on average over all shifts: "
    if severity == "info":
        apart = f"{quoted(overall)}{test.left_open(overall)}"
        text = f"Replacing the padding by fill makes no significant difference to {metric.called}: {apart}."
        if not made.effect.effect.any():
            text += " It changes nothing at any shift: a net without padding has none to replace."
    elif severity == "warn":
        action = other_padding(setting)
        text += (
            "the same weights are that much better on a canvas of fill so large that padding never touches the image."
        )
    else:
        text += "the net was trained with it and is worse when fill replaces it."
    note = f"[own] How much worse {metric.called} is in the sweep than with the canvas control, (0, 0) included. "
    note += clearest(made.effect, metrics)
    quantity = Quantity(metric.name, of="canvas control", versus="sweep")
    return Finding("padding-effect", text, quantity, overall, test, action, note, severity, "C")


def _fall(made: PaddingEffect, metrics: Metrics, setting: Setting) -> Finding:
    test, part, metric = tested(metrics, "padding fall"), made.fall_of_padding, metrics.metric
    unshifted = float(made.effect.effect[metrics.sweep.origin])
    # Intervals of all cells together: (0, 0) is one of them.
    worse_unshifted = float(made.effect.hi[metrics.sweep.origin]) < 0
    severity: Severity = "note" if test.holds or worse_unshifted else "info"
    action = None
    if worse_unshifted:
        # A net that starts lower has less to lose: that is no merit of the canvas.
        conclusion = (
            f"The two are not comparable: on the canvas, unshifted {metric.called} is already "
            f"{number_text(-unshifted, metric.difference_unit)} worse, so the net has less to lose."
        )
        if setting.fill != "mean":
            command = setting.sweep_command(control="canvas", fill="mean")
            action = Action("Surround the image with what zero padding shows, the mean colour", command)
    elif not test.holds:
        conclusion = f"The part due to the padding is not significant: {quoted(part)}{test.left_open(part)}."
    elif part.value > 0:
        conclusion = f"So {size_of(part)} of this loss are due to the padding."
    else:
        conclusion = f"So the padding is not the cause: with it, shifts cost {size_of(part)} less."
    text = (
        f"Shifts make {metric.called} worse by {quoted(made.fall)} on average; without padding, by "
        f"{quoted(made.fall_without)}. {conclusion}"
    )
    note = (
        f"[own] How much worse {metric.called} is than at (0, 0), mean over all other shifts that leave part of the "
        "image in view, sweep minus canvas control."
    )
    quantity = Quantity(f"{metric.called} lost by shifts", of="sweep", versus="canvas control")
    return Finding("padding-position-effect", text, quantity, part, test, action, note, severity, "C")
