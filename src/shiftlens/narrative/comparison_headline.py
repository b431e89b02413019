"""A comparison in five lines: which is better, by how much, where, at what cost, what could not be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, get_args

import numpy as np

from shiftlens.analysis.arm_scores import Quantity as Score
from shiftlens.analysis.arms import NEAR
from shiftlens.analysis.arrays import IntArray
from shiftlens.analysis.regions import WORST_RADIUS
from shiftlens.naming import count_of
from shiftlens.narrative.comparison_rows import Row
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.performance import at_worst
from shiftlens.narrative.words import name_text, with_interval
from shiftlens.tasks.task import Variable

MOST_NAMES = 4
"""Sweeps that a line names; the table has all of them."""

MAIN: tuple[Score, ...] = ("near", "everywhere", "at-rest")
"""What says which sweep is better: the first that was measured."""


class Compared(Protocol):
    """What the five lines are made of, whether measured or read from a file."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The table."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sweeps."""

    @property
    def baseline(self) -> int:
        """Position of what the others are compared with."""

    @property
    def metric(self) -> Variable:
        """What is compared."""

    @property
    def findings(self) -> Findings:
        """All sentences."""

    @property
    def n_images(self) -> int:
        """That all sweeps hold."""


def within(radius: float, dys: IntArray, dxs: IntArray) -> str:
    """Which shifts of at most `radius` px a grid holds, in words: it may end sooner, and have steps.

    Examples
    --------
    >>> within(8, np.arange(-9, 10), np.arange(-9, 10)), within(8, np.arange(-8, 9, 2), np.arange(-8, 9, 2))
    ('within 8 px', 'within 8 px, every 2 px')
    >>> within(8, np.arange(-5, 6), np.arange(-5, 6))
    'up to 5 px'
    >>> within(8, np.arange(-2, 3, 2), np.arange(-12, 13, 2))
    'within 8 px, to 2 px along y, every 2 px'
    >>> within(8, np.zeros(1, int), np.arange(-4, 5))
    'up to 4 px along x'
    """
    axes = {axis: shifts for axis, shifts in (("y", dys), ("x", dxs)) if len(shifts) > 1}
    reach = {axis: min(int(shifts.max()), int(-shifts.min())) for axis, shifts in axes.items()}
    ends = {axis: side for axis, side in reach.items() if side < radius}
    square = f"{reach['x']} px" if len(ends) == 2 and reach["x"] == reach["y"] else ""
    where = " and ".join(f"{side} px along {axis}" for axis, side in ends.items())
    step = max(int(np.diff(shifts).max(initial=1)) for shifts in (dys, dxs))
    if not ends:
        text = f"within {radius:g} px" + "".join(f" along {axis}" for axis in axes if len(axes) == 1)
    elif float(np.hypot(np.abs(dys).max(), np.abs(dxs).max())) <= radius:
        text = f"up to {square or where}"
    else:
        text = f"within {radius:g} px, to {f'{square} along each axis' if square else where}"
    return f"{text}, every {step} px" if step > 1 else text


def label(score: Score, metric: Variable, grid: tuple[IntArray, IntArray] | None = None) -> str:
    """What a difference is in; `grid` are the shifts (dys, dxs) in px, None where they are not known."""
    what, mean = metric.called, f"mean {metric.called.removeprefix('mean ')}"
    near, worst = (within(r, *grid) if grid else f"within {r:g} px" for r in (NEAR, WORST_RADIUS))
    return {
        "at-rest": f"{what} at (0, 0)",
        "near": f"{mean} {near}",
        "everywhere": f"{mean} over all shifts",
        "worst": at_worst(metric, worst),
        "retained": "the retained area (95 %)",
        "side-x": "the size of the left/right asymmetry",
        "side-y": "the size of the up/down asymmetry",
        "agreement": f"agreement with the prediction at (0, 0) {near}",
    }[score]


def headline(made: Compared) -> tuple[tuple[str, str], ...]:
    """Five pairs of a question and its answer, made of the findings and the table."""
    others = [k for k in range(len(made.rows)) if k != made.baseline]
    main = next((score for score in MAIN if any(_difference(made, score, k) for k in others)), None)
    if main is None:
        return (("Which is better", "No difference could be measured: see the table."),)
    found = {k: each for k in others if (each := _difference(made, main, k))}
    # The largest improvement first; with none, the sweep that loses least.
    ranked = sorted(found, key=lambda k: -made.metric.sign * _value(found[k]))
    leader = ranked[0]
    return (
        ("Which is better", _which(made, found, ranked, main)),
        ("By how much", _how_much(made, found, ranked, main)),
        ("Where", _where(made, leader)),
        ("At what cost", _cost(made, leader)),
        ("What could not be told", _open(made, others, leader)),
    )


def _difference(made: Compared, score: Score, k: int) -> Finding | None:
    return made.findings.named(f"difference-{score}-{k}")


def _named(found: Finding, score: Score, metric: Variable) -> str:
    """What a difference is in, as its finding says it: that knows the grid."""
    return label(score, metric) if found.quantity is None else found.quantity.metric


def near_label(made: Compared) -> str:
    """What the difference of the table is in."""
    found = next((each for k in range(len(made.rows)) if (each := _difference(made, "near", k))), None)
    return label("near", made.metric) if found is None else _named(found, "near", made.metric)


def _value(found: Finding) -> float:
    return 0.0 if found.estimate is None else found.estimate.value


def _listed(made: Compared, which: Sequence[int]) -> str:
    names = [name_text(made.names[k]) for k in which[:MOST_NAMES]]
    last = f"{len(which) - MOST_NAMES} more" if len(which) > MOST_NAMES else names.pop()
    return f"{', '.join(names)} and {last}" if names else last


def _which(made: Compared, found: dict[int, Finding], ranked: Sequence[int], main: Score) -> str:
    base, what = name_text(made.names[made.baseline]), _named(found[ranked[0]], main, made.metric)
    groups = {name: [k for k in ranked if found[k].section == name] for name in ("improved", "worse", "inconclusive")}
    said = [
        f"{_listed(made, group)} {verbs[len(group) > 1]}"
        for group, verbs in (
            (groups["improved"], ("is better", "are better")),
            (groups["worse"], ("is worse", "are worse")),
            (groups["inconclusive"], ("does not differ significantly", "do not differ significantly")),
        )
        if group
    ]
    said[0] += f" {'from' if said[0].endswith('significantly') else 'than'} {base}"
    return f"In {what}, {'; '.join(said)}."


def _how_much(made: Compared, found: dict[int, Finding], ranked: Sequence[int], main: Score) -> str:
    sizes = [f"{name_text(made.names[k])} {_signed(found[k])}{_left_open(found[k])}" for k in ranked[:MOST_NAMES]]
    more = f"; {len(ranked) - MOST_NAMES} more in the table" if len(ranked) > MOST_NAMES else ""
    return f"{'; '.join(sizes)}{more} (paired over {count_of(made.n_images, 'image')}, 95 % interval)."


def _signed(found: Finding) -> str:
    estimate = found.estimate
    if estimate is None:
        return "not measured"
    return (
        f"{'+' if estimate.value > 0 else ''}{with_interval(estimate.value, estimate.lo, estimate.hi, estimate.unit)}"
    )


def _left_open(found: Finding) -> str:
    return "" if found.test is None or found.estimate is None else found.test.left_open(found.estimate)


def _where(made: Compared, leader: int) -> str:
    shifts = made.findings.named(f"difference-map-{leader}")
    return "Not known shift by shift." if shifts is None else shifts.statement


def _cost(made: Compared, leader: int) -> str:
    name, (row, base) = name_text(made.names[leader]), (made.rows[leader], made.rows[made.baseline])
    unshifted = _difference(made, "at-rest", leader)
    parts = []
    if unshifted is not None and unshifted.estimate is not None:
        how = "" if unshifted.section != "inconclusive" else ", not significant"
        parts.append(f"{label('at-rest', made.metric)} {_signed(unshifted)}{how}")
    for what, ours, theirs in (
        ("multiply-adds", row.n_macs, base.n_macs),
        ("parameters", row.n_parameters, base.n_parameters),
    ):
        if ours is None or theirs is None:
            parts.append(f"{what} not known")
        elif ours == theirs:
            parts.append(f"as many {what}")
        else:
            parts.append(f"{ours:,} {what} versus {theirs:,}")
    others = {score: each for score in _scores() if (each := _difference(made, score, leader)) and score != "at-rest"}
    worse = [_named(each, score, made.metric) for score, each in others.items() if each.section == "worse"]
    parts += [f"worse in {', '.join(worse)}"] if worse else []
    return f"{name}: {'; '.join(parts)}."


def _scores() -> tuple[Score, ...]:
    return get_args(Score)


def _open(made: Compared, others: Sequence[int], leader: int) -> str:
    n_all, parts = 0, []
    for k in sorted(others, key=lambda k: k != leader):
        each = {score: found for score in _scores() if (found := _difference(made, score, k))}
        n_all += len(each)
        open_ = [_named(found, score, made.metric) for score, found in each.items() if found.section == "inconclusive"]
        if open_:
            parts.append((len(open_), k, "all of them" if len(open_) == len(each) > 1 else ", ".join(open_)))
    told = f"{sum(n for n, _, _ in parts)} of {count_of(n_all, 'difference')}" if parts else "no difference"
    if len(others) == 1:
        told += "".join(f", in {which}" for _, _, which in parts).replace(", in all of them", "")
    else:
        told += "".join(f"; for {name_text(made.names[k])}: {which}" for _, k, which in parts[:MOST_NAMES])
        told += f"; for {len(parts) - MOST_NAMES} more: see the table" if len(parts) > MOST_NAMES else ""
    n_caveats = len(made.findings.in_section("caveats"))
    caveats = f"; {count_of(n_caveats, 'caveat')}" if n_caveats else ""
    return (
        f"{told[0].upper()}{told[1:]}{caveats}. Intervals are over images, for these checkpoints: another training "
        "may differ more."
    )
