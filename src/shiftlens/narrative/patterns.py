"""Asymmetries, recoveries at larger shifts, ripples, and what the controls say."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.aliasing import Aliasing
from shiftlens.analysis.asymmetry import Asymmetry
from shiftlens.analysis.controls import Emptying
from shiftlens.analysis.differences import Effects
from shiftlens.analysis.irregularity import FRAME, Reversal
from shiftlens.analysis.summary import Metrics, Profile
from shiftlens.naming import count_of
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Action, Quantity, Severity, Significance, number
from shiftlens.narrative.performance import chosen_first, tested
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import capital, number_text, p_text, quoted, size_of, way
from shiftlens.stats import Estimate, Skipped
from shiftlens.tasks.task import Variable

PAIRS_LEVEL = 0.05


def other_padding(setting: Setting) -> Action | None:
    """Another padding may help; a second sweep tells. None for a net that `train` does not make."""
    text = (
        "Train such a net with another padding and sweep it in the same way to see whether it helps; reflect padding "
        "is not always better (arXiv 2307.07725)"
    )
    command = setting.train_command()
    return Action(text, command) if command else None


def clearest(made: Effects, metrics: Metrics) -> str:
    """The shift with the clearest effect of a control, for the note."""
    order = np.lexsort((-np.abs(made.effect).ravel(), made.p.ravel()))
    row, column = np.unravel_index(int(order[0]), made.effect.shape)
    shift = int(metrics.sweep.dxs[column]), int(metrics.sweep.dys[row])
    value = number_text(float(made.effect[row, column]), metrics.metric.difference_unit)
    return f"Clearest at (dx, dy) = {shift}: {value}."


def worse_by(metric: Variable, cost: Estimate) -> str:
    """A cost in words: "makes accuracy 2.0 points [1.0, 3.0] worse", or better where it is negative."""
    return f"makes {metric.called} {size_of(cost)} {'worse' if cost.value >= 0 else 'better'}"


def sides(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Left/right and up/down, with and without the dataset bias: on average, and for the clearest pair of shifts."""
    found: list[Finding] = []
    named = {"x": metrics.asymmetry_x, "y": metrics.asymmetry_y, "x-model": metrics.asymmetry_x_model}
    for name, made in named.items():
        if isinstance(made, Skipped):
            continue
        control = "flip" if made.without_data else None
        for kind, measure in (("overall", _overall), ("pairs", _pairs)):
            test = tested(metrics, f"asymmetry {name.replace('-', ' ')} {kind}")
            text, shift, estimate, note = measure(made, test.holds)
            text = f"{text}{test.left_open(estimate)}."
            text = f"Without the dataset bias (flip control), {text}" if control else capital(text)
            quantity = Quantity(made.metric.name, made.axis, shift, control=control)
            action = _which_side(made, setting) if test.holds else None
            which = name if kind == "overall" else f"{name}-pairs"
            found.append(Finding("asymmetry", text, quantity, estimate, test, action, note, test.warn, which=which))
    return found


_Measured = tuple[str, tuple[int, int] | None, Estimate, str]
"""Statement, shift, estimate, note."""


def _overall(made: Asymmetry, holds: bool) -> _Measured:
    plus, minus, what = way(made.axis, 1), way(made.axis, -1), made.metric.called
    higher, lower = (plus, minus) if made.overall.value > 0 else (minus, plus)
    pairs = f"over {count_of(len(made.effect), 'pair')} of opposite shifts"
    text = f"{what} does not differ significantly between shifts {plus} and {minus}: {quoted(made.overall)} {pairs}"
    if holds:
        size = size_of(made.overall)
        text = f"{what} is {size} higher for shifts {higher} than for shifts {lower}, averaged {pairs}"
    better = "better" if made.metric.sign > 0 else "worse"
    note = f"[own] {capital(what)} {plus} minus {what} {minus}: positive is {better} {plus}."
    return text, None, made.overall, note if made.without_data else f"{note} Includes the dataset bias."


def _pairs(made: Asymmetry, holds: bool) -> _Measured:
    """The clearest single pair: a mean of 0 may hide one corner that is better right, and another better left."""
    k, metric = made.strongest, made.metric
    method = "Student t" if made.without_data or not metric.is_share else "adjusted Wald"
    value, lo, hi = (float(each[k]) for each in (made.effect, made.lo, made.hi))
    effect = Estimate(value, lo, hi, metric.difference_unit, made.n, f"{method}, all pairs together")
    shift = here = int(made.dxs[k]), int(made.dys[k])
    there = (-here[0], here[1]) if made.axis == "x" else (here[0], -here[1])
    if effect.value < 0:
        here, there = there, here
    differ = "single pairs of opposite shifts differ significantly"
    if not holds:
        differ = f"no single pair of opposite shifts along {made.axis} differs significantly"
    passing = made.q <= PAIRS_LEVEL
    plus, minus = (int(np.sum(passing & (sign * metric.sign * made.effect > 0))) for sign in (1, -1))
    note = (
        f"[own] Of {len(made.effect):,} pairs, {plus:,} are better {way(made.axis, 1)} and {minus:,} better "
        f"{way(made.axis, -1)} (Benjamini-Hochberg at {100 * PAIRS_LEVEL:.0f} %). The value is that of the clearest "
        f"pair, {metric.called} at {shift} minus its opposite."
    )
    most = f"most clearly, {metric.called} at (dx, dy) = {here} is {size_of(effect)} higher than at {there}"
    return f"{differ}; {most}", shift, effect, note


def _which_side(made: Asymmetry, setting: Setting) -> Action | None:
    if made.axis == "y" or made.without_data:
        return other_padding(setting)
    if "flip" not in setting.n_controlled:
        return Action("Find out whether the data or the model is the cause", setting.sweep_command(control="flip"))
    return Action("See the finding without the dataset bias, and the figures", setting.plot_command())


def irregularities(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Losses of performance with a recovery at larger shifts, for every metric."""
    return [found for each in chosen_first(metrics) for found in _irregularity(each, metrics, setting)]


def _irregularity(of: Profile, metrics: Metrics, setting: Setting) -> list[Finding]:
    made, metric = of.irregular, of.metric
    if isinstance(made, Skipped):
        return []
    turns = ("falls", "rises") if metric.sign > 0 else ("rises", "falls")
    test, quantity, which = tested(metrics, f"irregular {metric.called}"), Quantity(metric.name), metric.name
    note = f"[own] {count_of(made.n_contrasts, 'pair')} of shifts on rays and frames."
    if not (test.holds and made.reversals):
        turn = " and then ".join(turns)
        text = f"No irregularity of {metric.called} is significant: on no ray outward it {turn} beyond chance."
        return [Finding("irregular", text, quantity, test=test, note=note, which=which)]
    # Of those that share the smallest p-value, as many do, the largest recovery is what a reader cares about.
    smallest = [k for k, each in enumerate(made.reversals) if each.p_value <= made.p_value]
    first = max(smallest, key=lambda k: abs(made.reversals[k].rise.value))
    strongest, others = made.reversals[first], len(made.reversals) - 1
    share = abs(strongest.rise.value / strongest.fall.value)
    note += f" The value is the recovery: {share:.3f} of the change before it."
    if others:
        note += f" {others} other ray{'s show' if others > 1 else ' shows'} one too."
    known = of.emptying[first] if first < len(of.emptying) else None
    text = _reversal_text(strongest, metric.called, turns)
    severity: Severity = "warn"
    action = Action("See where", setting.plot_command())
    if isinstance(known, Emptying) and known.shown:
        text += " The occlusion control recovers too: the image has left the view, and position is not the cause."
        severity = "note"
    elif isinstance(known, Emptying):
        text += " The occlusion control does not recover: position is the cause."
    elif setting.may_have("occlusion") and "occlusion" not in setting.n_controlled:
        command = setting.sweep_command(control="occlusion")
        action = Action("Find out whether the image has only left the view", command)
    return [Finding("irregular", text, quantity, strongest.rise, test, action, note, severity, which=which)]


def _reversal_text(found: Reversal, what: str, turns: tuple[str, str]) -> str:
    places = (found.start, found.dip, found.recovery)
    if found.ray == FRAME:
        where, (start, dip, end) = "On square frames of shifts", (f"max(|dx|, |dy|) = {shift[0]}" for shift in places)
    else:
        where, (start, dip, end) = f"Shifting {found.ray}", (f"(dx, dy) = {shift}" for shift in places)
    return (
        f"{where}, {what} {turns[0]} by {size_of(found.fall)} from {start} to {dip}, and then {turns[1]} again by "
        f"{size_of(found.rise)} to {end}."
    )


def ripples(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Aliasing with the period of each stride."""
    return [_ripple(each, metrics, setting) for each in metrics.aliasing if not isinstance(each, Skipped)]


def _ripple(made: Aliasing, metrics: Metrics, setting: Setting) -> Finding:
    test, metric = tested(metrics, f"aliasing {made.stride} {made.axis}"), metrics.metric
    estimate, where, quarter = made.ripple, "at multiples of", made.quadrature
    if isinstance(quarter, Estimate) and abs(quarter.value) > abs(estimate.value):
        estimate, where = quarter, f"{made.stride / 4:g} px {way(made.axis, 1).removeprefix('to the ')} of multiples of"
    action = None
    if test.holds:
        side = "higher" if estimate.value > 0 else "lower"
        text = (
            f"Along {made.axis}, {metric.called} ripples with period {made.stride} px, a stride of the net: it is "
            f"{side} {where} {made.stride} px, with an amplitude of {size_of(estimate)}."
        )
        command = setting.train_command(downsample="avg")
        advice = "Train with average pooling where the net downsamples, and sweep that"
        action = Action(advice, command) if command else None
    else:
        neighbour = number_text(made.neighbour, metric.difference_unit)
        text = (
            f"Along {made.axis}, no ripple of period {made.stride} px (a stride of the net) stands out: "
            f"{quoted(estimate)}, while neighbouring periods reach {neighbour}."
        )
    note = (
        f"[own] Amplitude of a wave of the net's stride, trend removed; positive is higher {where} {made.stride} px. "
        "The test asks for more than every neighbouring period has."
    )
    quantity, which = Quantity(f"amplitude of the {metric.called}", made.axis), f"{made.axis}-{made.stride}"
    return Finding("aliasing", text, quantity, estimate, test, action, note, test.warn, which=which)


def controlled(metrics: Metrics, setting: Setting) -> list[Finding]:
    """What losing the content costs, and what its position costs."""
    found, metric = [], metrics.metric
    if not isinstance(metrics.occlusion, Skipped):
        lost = metrics.occlusion.overall
        text = (
            f"Losing the pixels that a shift pushes out, with the rest left in place, {worse_by(metric, lost)} on "
            "average over all shifts."
        )
        note = f"[own] How much worse {metric.called} is with the occlusion control than at (0, 0)."
        quantity = Quantity(metric.name, of="unshifted", versus="occlusion control")
        found.append(Finding("occlusion-effect", text, quantity, lost, note=note))
    if not isinstance(metrics.placement, Skipped):
        found.append(_placement(metrics.placement, metrics, setting))
    return found


def _placement(made: Effects, metrics: Metrics, setting: Setting) -> Finding:
    test, moved, metric = tested(metrics, "placement overall"), made.overall, metrics.metric
    severity, action = test.sided(moved.value), None
    if severity == "info":
        apart = f"{quoted(moved)}{test.left_open(moved)}"
        text = f"Beyond the lost content, position makes no significant difference: {apart}."
    elif severity == "warn":
        action = other_padding(setting)
        text = (
            f"Position itself {worse_by(metric, moved)} on average, beyond the cost of the lost content: the model "
            "depends on where things are."
        )
    else:
        text = (
            f"{capital(metric.called)} on shifted images is {size_of(moved)} better than on unshifted images that lose "
            "the same pixels: the control has its blank part on the other side."
        )
    note = f"[own] How much worse {metric.called} is under the shift than with the occlusion control. "
    quantity = Quantity(metric.name, of="occlusion control", versus="sweep")
    note += clearest(made, metrics)
    return Finding("placement-effect", text, quantity, moved, test, action, note, severity)


def overview(metrics: Metrics) -> Finding:
    """How many tests were made, and which are significant; that none is is a finding too."""
    held, n = [test.name for test in metrics.tests if test.holds], len(metrics.tests)
    if not n:
        text = "Nothing could be tested on this sweep; the findings that were skipped give the reasons."
        return Finding("nothing-tested", text, severity="note")
    quantity, count = Quantity("significant tests"), number(float(len(held)), "tests")
    note = (
        "[own] Tests are corrected together (Holm) at 2 %: of 100 sweeps of a model without any effect, at most 5 "
        "should warn."
    )
    if held:
        which = f"{len(held)} of {count_of(n, 'test')} {'is' if len(held) == 1 else 'are'}"
        text = f"{which} significant at 2 % after correction for all of them: {', '.join(held)}."
        return Finding("tests", text, quantity, count, note=note)
    smallest, border = min(test.holm_p for test in metrics.tests), ", border" if metrics.beside else ""
    text = (
        f"Nothing significant: none of the {n} tests of asymmetry, irregularity, ripples, centre{border} and controls "
        f"holds (smallest corrected {p_text(smallest)}). Differences smaller than the intervals here may still exist."
    )
    test = Significance(smallest)
    return Finding("nothing-significant", text, quantity, count, test, note=note, severity="note")
