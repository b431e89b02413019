"""Is padding the cause? What the canvas control says, as findings (question C)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shiftlens.analysis.padding_effect import PaddingEffect
from shiftlens.analysis.summary import Metrics, Test
from shiftlens.narrative.finding import Finding, Severity
from shiftlens.narrative.patterns import PADDING_CURE
from shiftlens.narrative.performance import measured, verdict
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import number_text, quoted, size_of
from shiftlens.stats import Skipped


def cause(metrics: Metrics, setting: Setting) -> list[Finding]:
    """How much of the accuracy, and of what moving costs, is the padding's doing."""
    made = metrics.padding
    if isinstance(made, Skipped):
        return []
    return [_overall(made, metrics, setting), _fall(made, metrics, setting)]


def _overall(made: PaddingEffect, metrics: Metrics, setting: Setting) -> Finding:
    test = metrics.test("padding overall")
    overall, effect = made.effect.overall, made.effect
    severity: Severity = "info"
    remedy = None
    if not (isinstance(test, Test) and test.holds):
        statement = f"Fill in the padding's place makes no significant difference to accuracy: {quoted(overall)}."
    elif overall.value > 0:
        severity = "warn"
        statement = (
            f"The padding costs {quoted(overall)} of accuracy on average over all shifts: with fill in its place, far "
            "beyond the picture's edges, the same weights do that much better."
        )
        remedy = PADDING_CURE.format(command=setting.train_command())
    else:
        severity = "note"
        statement = (
            f"The padding helps, by {size_of(overall)} of accuracy on average over all shifts: the net was trained "
            "with it and does worse when fill takes its place."
        )
    strongest = np.unravel_index(
        int(np.lexsort((-np.abs(effect.effect).ravel(), effect.p.ravel()))[0]), effect.effect.shape
    )
    dy, dx = int(metrics.sweep.dys[strongest[0]]), int(metrics.sweep.dxs[strongest[1]])
    most = f"Clearest at (dx, dy) = ({dx}, {dy}): {number_text(float(effect.effect[strongest]), 'points')}."
    found = measured(
        "padding-effect",
        statement,
        overall,
        f"[own] acc(canvas control) - acc(shift), (0, 0) included. {most} {verdict(test, metrics)}",
        severity=severity,
        p_value=test.holm_p if isinstance(test, Test) else None,
        remedy=remedy,
    )
    return replace(found, question="C")


def _fall(made: PaddingEffect, metrics: Metrics, setting: Setting) -> Finding:
    test = metrics.test("padding fall")
    part = made.fall_of_padding
    holds = isinstance(test, Test) and test.holds
    with_it, without = quoted(made.fall), quoted(made.fall_without)
    rest = float(made.effect.effect[metrics.sweep.origin])
    # Intervals of all cells together: (0, 0) is one of them.
    worse_at_rest = float(made.effect.hi[metrics.sweep.origin]) < 0
    remedy = None
    if worse_at_rest:
        # From less height one cannot fall as far: that is no merit of the canvas.
        verdict_text = (
            f"The two cannot be compared: on the canvas the net is {number_text(-rest, 'points')} worse even at rest, "
            "so it has less to lose."
        )
        if setting.fill != "mean":
            remedy = (
                "Surround the picture with what zero padding shows, the mean colour: "
                f"{setting.sweep_command(control='canvas', fill='mean')}"
            )
    elif not holds:
        verdict_text = f"No part of it is shown to be the padding's ({quoted(part)})."
    elif part.value > 0:
        verdict_text = f"So {size_of(part)} of it are the padding's doing."
    else:
        verdict_text = f"So the padding is not the cause: with it, moving costs {size_of(part)} less."
    found = measured(
        "padding-position-effect",
        f"Moving the picture costs {with_it} on average; with the padding out of its sight, {without}. {verdict_text}",
        part,
        "[own] acc(0, 0) minus the mean over all other shifts that leave something in view, sweep minus canvas "
        f"control. {verdict(test, metrics)}",
        severity="note" if holds or worse_at_rest else "info",
        p_value=test.holm_p if isinstance(test, Test) else None,
        remedy=remedy,
    )
    return replace(found, question="C")
