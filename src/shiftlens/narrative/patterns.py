"""Sides, recoveries further out, ripples, and what the controls say."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.aliasing import Aliasing
from shiftlens.analysis.asymmetry import Asymmetry
from shiftlens.analysis.controls import ControlEffect, Emptying
from shiftlens.analysis.irregularity import FRAME, Irregularity, Reversal
from shiftlens.analysis.summary import Metrics, Test
from shiftlens.narrative.finding import Finding, Severity
from shiftlens.narrative.performance import measured, verdict
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import number_text, other_way, p_text, quoted, size_of, way
from shiftlens.stats import Estimate, Skipped

PAIRS_LEVEL = 0.05
PADDING_CURE = (
    "Train such a net with another padding and sweep it the same way: {command}. Whether that helps is what the "
    "second sweep tells; mirrored padding is not always better (arXiv 2307.07725)."
)


def sides(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Left/right and up/down, as they are and without the data's own part."""
    found: list[Finding] = []
    for name, made in (
        ("x", metrics.asymmetry_x),
        ("y", metrics.asymmetry_y),
        ("x-model", metrics.asymmetry_x_model),
    ):
        if not isinstance(made, Skipped):
            found += [_overall(name, made, metrics, setting), _pairs(name, made, metrics, setting)]
    return found


def _holds(test: Test | Skipped) -> bool:
    return not isinstance(test, Skipped) and test.holds


def _p(test: Test | Skipped) -> float | None:
    return None if isinstance(test, Skipped) else test.holm_p


def _whose(made: Asymmetry) -> str:
    return "Without the data's own asymmetry (flip control), " if made.without_data else ""


def _overall(name: str, made: Asymmetry, metrics: Metrics, setting: Setting) -> Finding:
    test = metrics.test(f"asymmetry {name.replace('-', ' ')} overall")
    holds, value = _holds(test), made.overall.value
    both = "right and left" if made.axis == "x" else "down and up"
    if holds:
        statement = (
            f"{_whose(made)}the model bears moves {way(made.axis, value)} better than moves "
            f"{other_way(made.axis, value)}: accuracy is {size_of(made.overall)} higher on average over all "
            f"{len(made.effect):,} pairs of opposite shifts."
        )
    else:
        statement = (
            f"{_whose(made)}{both} do not differ significantly on average, corrected for all tests: "
            f"{quoted(made.overall)} over {len(made.effect):,} pairs of opposite shifts."
        )
    plus, minus = way(made.axis, 1), way(made.axis, -1)
    meaning = f"[own] Accuracy {plus} minus accuracy {minus}: positive is better {plus}."
    if not made.without_data:
        meaning += " What the data themselves favour is in it."
    return measured(
        f"asymmetry-{name}",
        _capital(statement),
        made.overall,
        f"{meaning} {verdict(test, metrics)}",
        severity="warn" if holds else "info",
        p_value=_p(test),
        remedy=_remedy_for_side(made, setting) if holds else None,
    )


def _pairs(name: str, made: Asymmetry, metrics: Metrics, setting: Setting) -> Finding:
    """The clearest single pair: a mean of 0 may hide one corner that is better right, and another better left."""
    test = metrics.test(f"asymmetry {name.replace('-', ' ')} pairs")
    holds, k = _holds(test), made.strongest
    dx, dy = int(made.dxs[k]), int(made.dys[k])
    method = "adjusted Wald" if not made.without_data else "Student t"
    effect = Estimate(
        float(made.effect[k]), float(made.lo[k]), float(made.hi[k]), "points", made.n, f"{method}, all pairs together"
    )
    here, there = (dx, dy), ((-dx, dy) if made.axis == "x" else (dx, -dy))
    if effect.value < 0:
        here, there = there, here
    passing = made.q <= PAIRS_LEVEL
    plus, minus = (int(np.sum(passing & (sign * made.effect > 0))) for sign in (1, -1))
    if holds:
        statement = (
            f"{_whose(made)}single pairs of opposite shifts differ: most clearly, accuracy at (dx, dy) = {here} is "
            f"{size_of(effect)} higher than at {there}."
        )
    else:
        statement = f"{_whose(made)}no single pair of opposite shifts along {made.axis} differs significantly."
    counts = (
        f"[own] Of {len(made.effect):,} pairs, {plus:,} are better {way(made.axis, 1)} and {minus:,} better "
        f"{way(made.axis, -1)} (Benjamini-Hochberg at {100 * PAIRS_LEVEL:.0f} %)."
    )
    return measured(
        f"asymmetry-{name}-pairs",
        _capital(statement),
        effect,
        f"{counts} The value is that of the clearest pair, at (dx, dy) = ({dx}, {dy}). {verdict(test, metrics)}",
        severity="warn" if holds else "info",
        p_value=_p(test),
        remedy=_remedy_for_side(made, setting) if holds else None,
    )


def _remedy_for_side(made: Asymmetry, setting: Setting) -> str:
    if made.axis == "x" and not made.without_data and "flip" not in setting.n_controlled:
        return f"Find out whether the data or the model is to blame: {setting.sweep_command(control='flip')}"
    if made.axis == "x" and not made.without_data:
        return f"See the finding on the model alone, and the pictures: {setting.plot_command()}"
    return PADDING_CURE.format(command=setting.train_command())


def irregularities(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Falls of performance with a recovery further out, for accuracy and for loss."""
    found = []
    for made, emptied in (
        (metrics.irregular_accuracy, metrics.emptying_accuracy),
        (metrics.irregular_loss, metrics.emptying_loss),
    ):
        if not isinstance(made, Skipped):
            found.append(_irregularity(made, emptied, metrics, setting))
    return found


def _irregularity(
    made: Irregularity, emptied: tuple[Emptying | Skipped, ...], metrics: Metrics, setting: Setting
) -> Finding:
    test = metrics.test(f"irregular {made.quantity}")
    name, looked = f"irregular-{made.quantity}", f"[own] {made.n_contrasts:,} pairs of shifts on rays and frames."
    if not (_holds(test) and made.reversals):
        turn = "falls and then rises" if made.quantity == "accuracy" else "rises and then falls"
        statement = f"No irregularity of the {made.quantity} is significant: on no ray outward it {turn} beyond chance."
        return Finding(name, "A", "info", statement, p_value=_p(test), evidence=f"{looked} {verdict(test, metrics)}")
    # Of those that share the smallest p-value, as many do, the largest recovery is what a reader cares about.
    clearest = [k for k, each in enumerate(made.reversals) if each.p_value <= made.p_value]
    first = max(clearest, key=lambda k: abs(made.reversals[k].rise.value))
    strongest = made.reversals[first]
    others = len(made.reversals) - 1
    share = abs(strongest.rise.value / strongest.fall.value)
    also = f"{others} other ray{'s show' if others > 1 else ' shows'} one too. " if others else ""
    evidence = (
        f"{looked} The value is the recovery: it is {100 * share:.1f} % of the change before it. "
        f"{also}{verdict(test, metrics)}"
    )
    known = emptied[first] if first < len(emptied) else None
    statement, severity = _reversal_text(strongest, made.quantity), "warn"
    remedy: str | None = f"See where: {setting.plot_command()}"
    if isinstance(known, Emptying) and known.shown:
        statement += " The occlusion control recovers too: the picture has emptied, and the place is not to blame."
        severity = "note"
    elif isinstance(known, Emptying):
        statement += " The occlusion control does not recover: it is the place."
    elif setting.fill_values is not None and "occlusion" not in setting.n_controlled:
        remedy = f"Find out whether the picture has only emptied: {setting.sweep_command(control='occlusion')}"
    return measured(
        name,
        statement,
        strongest.rise,
        evidence,
        severity="note" if severity == "note" else "warn",
        p_value=_p(test),
        remedy=remedy,
    )


def _reversal_text(found: Reversal, quantity: str) -> str:
    first, then = ("falls", "rises") if quantity == "accuracy" else ("rises", "falls")
    if found.ray == FRAME:
        start, dip, recovery = (f"max(|dx|, |dy|) = {shift[0]}" for shift in (found.start, found.dip, found.recovery))
        where = "Over square frames of shifts"
    else:
        start, dip, recovery = (f"(dx, dy) = {shift}" for shift in (found.start, found.dip, found.recovery))
        where = f"Moving {found.ray}"
    return (
        f"{where}, {quantity} {first} by {size_of(found.fall)} from {start} to {dip}, and then {then} again by "
        f"{size_of(found.rise)} to {recovery}."
    )


def ripples(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Aliasing with the period of each stride."""
    return [_ripple(each, metrics, setting) for each in metrics.aliasing if not isinstance(each, Skipped)]


def _ripple(made: Aliasing, metrics: Metrics, setting: Setting) -> Finding:
    test = metrics.test(f"aliasing {made.stride} {made.axis}")
    holds, estimate, where = _holds(test), made.ripple, "at multiples of"
    quarter = made.quadrature
    if isinstance(quarter, Estimate) and abs(quarter.value) > abs(estimate.value):
        estimate, where = quarter, f"{made.stride / 4:g} px {way(made.axis, 1).removeprefix('to the ')} of multiples of"
    evidence = (
        f"[own] Amplitude of a wave of the net's stride, trend taken out; positive is higher {where} {made.stride} px. "
        f"The test asks for more than every neighbouring period has. {verdict(test, metrics)}"
    )
    if not holds:
        statement = (
            f"Along {made.axis}, no ripple of period {made.stride} px (a stride of the net) stands out: "
            f"{quoted(estimate)}, while neighbouring periods reach {number_text(made.neighbour, 'points')}."
        )
        return measured(f"aliasing-{made.axis}-{made.stride}", statement, estimate, evidence, p_value=_p(test))
    side = "higher" if estimate.value > 0 else "lower"
    statement = (
        f"Along {made.axis}, accuracy ripples with period {made.stride} px, a stride of the net: it is {side} "
        f"{where} {made.stride} px, with an amplitude of {size_of(estimate)}."
    )
    return measured(
        f"aliasing-{made.axis}-{made.stride}",
        statement,
        estimate,
        evidence,
        severity="warn",
        p_value=_p(test),
        remedy="Train with averages in place of maxima where the net steps down, and sweep that: "
        + setting.train_command(downsample="avg"),
    )


def controlled(metrics: Metrics, setting: Setting) -> list[Finding]:
    """What losing the content costs, and what moving it costs."""
    found = []
    if not isinstance(metrics.occlusion, Skipped):
        lost = metrics.occlusion.overall
        verb = "costs" if lost.value >= 0 else "gains"
        found.append(
            measured(
                "occlusion-effect",
                f"Losing the pixels that a shift pushes out, with the rest left in place, {verb} {size_of(lost)} of "
                "accuracy on average over all shifts.",
                lost,
                "[own] acc(0, 0) - acc(occlusion control).",
            )
        )
    if not isinstance(metrics.placement, Skipped):
        found.append(_placement(metrics.placement, metrics, setting))
    return found


def _placement(made: ControlEffect, metrics: Metrics, setting: Setting) -> Finding:
    test = metrics.test("placement overall")
    moved, holds = made.overall, _holds(test)
    severity: Severity = "info"
    remedy = None
    if not holds:
        statement = f"Beyond the lost content, the move itself makes no significant difference: {quoted(moved)}."
    elif moved.value > 0:
        severity = "warn"
        statement = (
            f"The move itself costs {quoted(moved)} of accuracy on average, beyond what the lost content costs: "
            "the model depends on where things are."
        )
        remedy = PADDING_CURE.format(command=setting.train_command())
    else:
        severity = "note"
        statement = (
            f"Moved pictures are recognised better, by {size_of(moved)}, than pictures that lose the same pixels in "
            "place: the control has its blank on the other side."
        )
    strongest = np.unravel_index(int(np.lexsort((-np.abs(made.effect).ravel(), made.p.ravel()))[0]), made.effect.shape)
    dy, dx = int(metrics.sweep.dys[strongest[0]]), int(metrics.sweep.dxs[strongest[1]])
    most = f"Clearest at (dx, dy) = ({dx}, {dy}): {number_text(float(made.effect[strongest]), 'points')}."
    return measured(
        "placement-effect",
        statement,
        moved,
        f"[own] acc(occlusion control) - acc(shift). {most} {verdict(test, metrics)}",
        severity=severity,
        p_value=_p(test),
        remedy=remedy,
    )


def overview(metrics: Metrics) -> Finding:
    """How many tests were made, and which hold; that nothing holds is a finding too."""
    held = [test.name for test in metrics.tests if test.holds]
    n = len(metrics.tests)
    if not n:
        statement = "Nothing could be tested on this sweep: the findings that were skipped say why."
        return Finding("nothing-tested", "A", "note", statement)
    rule = (
        "[own] Tests are corrected together (Holm) at 2 %: of 100 sweeps of a model with nothing to find, at most 5 "
        "are to warn."
    )
    if held:
        statement = f"{len(held)} of {n} tests hold after correction for all of them: {', '.join(held)}."
        return Finding("tests", "A", "info", statement, float(len(held)), "tests", evidence=rule)
    smallest = min(test.holm_p for test in metrics.tests)
    statement = (
        f"Nothing significant: none of the {n} tests of sides, irregularities, ripples, centre and controls holds "
        f"(smallest corrected {p_text(smallest)}). Differences smaller than the intervals here may still exist."
    )
    return Finding("nothing-significant", "A", "note", statement, 0.0, "tests", p_value=smallest, evidence=rule)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
