"""All metrics of a sweep at once, and which of its tests hold when all of them are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from shiftlens.analysis.aliasing import Aliasing, aliasing
from shiftlens.analysis.arrays import SweepArrays, Values
from shiftlens.analysis.asymmetry import Asymmetry, asymmetry
from shiftlens.analysis.consistency import Consistency, consistency
from shiftlens.analysis.controls import (
    Blank,
    Emptying,
    PaddingEffect,
    blank_limit,
    emptying,
    occlusion_effects,
    padding_effect,
)
from shiftlens.analysis.differences import Effects, mean_of
from shiftlens.analysis.estimated_maps import ClassMaps, MapEstimate, Replicates, class_maps, estimated_map
from shiftlens.analysis.irregularity import Irregularity, irregularity
from shiftlens.analysis.regions import LEVELS, WORST_RADIUS, Centre, Retained, centre, retained, worst_of_radius
from shiftlens.stats import Estimate, Skipped, holm, resample_weights
from shiftlens.tasks.task import Variable

N_RESAMPLES = 2000
FAMILY_ALPHA = 0.02
"""Level of all tests of a sweep together. Not 5 %: bootstrap p-values and the images' correlation make the level
approximate, and at 2 % no more than 5 in 100 null sweeps warn with room to spare (docs/metrics.md has the counts)."""


@dataclass(frozen=True)
class Test:
    """One of the tests that may warn.

    Attributes
    ----------
    name
        Which: "asymmetry x overall", "asymmetry x pairs", "irregular loss", "aliasing 4 x", ...
    p_value
        Its own, corrected for everything inside it (pairs, rays).
    holm_p
        Corrected for all tests of the sweep: reading those at most `FAMILY_ALPHA` as true errs
        anywhere in about that share of null sweeps.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    name: str
    p_value: float
    holm_p: float

    @property
    def holds(self) -> bool:
        """Whether it stands after correction."""
        return self.holm_p <= FAMILY_ALPHA


@dataclass(frozen=True, eq=False)
class Profile:
    """What is said of every metric of a sweep.

    Attributes
    ----------
    metric
        Which.
    at_origin
        At the shift (0, 0).
    map
        Under every shift.
    irregular
        Reversals along rays.
    emptying
        For each of them, in order, whether the occlusion control shows it too.
    """

    metric: Variable
    at_origin: Estimate | Skipped
    map: MapEstimate | Skipped
    irregular: Irregularity | Skipped
    emptying: tuple[Emptying | Skipped, ...]


@dataclass(frozen=True, eq=False)
class Metrics:
    """Everything that question A asks of one sweep; what could not be measured is `Skipped`.

    Attributes
    ----------
    sweep
        The arrays, for the grid, the names and the cells.
    metric
        The metric of everything but `profiles`, `consistency` and `blank`.
    profiles
        For every metric of the task.
    mean
        Over all shifts that leave some of the picture.
    per_class
        Maps.
    retained
        At 95, 90 and 50 %.
    centre, worst_of_radius
        See `regions`.
    asymmetry_x, asymmetry_y
        Left/right and up/down as they are.
    asymmetry_x_model
        Left/right without the data's own, by the flip control.
    aliasing
        One entry for each axis and stride.
    consistency, blank, occlusion, placement
        See `consistency` and `controls`.
    padding
        See `controls`; by the canvas control.
    beside
        By name, p-values of tests that were made of more than the arrays: they are corrected with the others.
    """

    sweep: SweepArrays
    metric: Variable
    profiles: tuple[Profile, ...]
    mean: Estimate | Skipped
    per_class: ClassMaps | Skipped
    retained: tuple[Retained | Skipped, ...]
    centre: Centre | Skipped
    worst_of_radius: Estimate | Skipped
    asymmetry_x: Asymmetry | Skipped
    asymmetry_y: Asymmetry | Skipped
    asymmetry_x_model: Asymmetry | Skipped
    aliasing: tuple[Aliasing | Skipped, ...]
    consistency: Consistency | Skipped
    blank: Blank | Skipped
    occlusion: Effects | Skipped
    placement: Effects | Skipped
    padding: PaddingEffect | Skipped
    beside: Mapping[str, float] = field(default_factory=dict)

    def profile(self, metric: str) -> Profile:
        """What is said of one metric."""
        return next(each for each in self.profiles if each.metric.name == metric)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Everything that could not be measured, with reasons."""
        found: list[Skipped] = []
        parts: tuple[Profile | Metrics, ...] = (*self.profiles, self)
        for made in parts:
            for each in fields(made):
                value: Any = getattr(made, each.name)
                found += [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, Skipped)]
        return tuple(dict.fromkeys(found))

    @cached_property
    def tests(self) -> tuple[Test, ...]:
        """Every test that may warn, with Holm's correction over all of them."""
        named: dict[str, float | None] = dict(self.beside)
        sides = {"x": self.asymmetry_x, "y": self.asymmetry_y, "x model": self.asymmetry_x_model}
        for name, found in sides.items():
            if not isinstance(found, Skipped):
                named |= {f"asymmetry {name} overall": found.overall.p_value, f"asymmetry {name} pairs": found.family_p}
        for each in self.profiles:
            if not isinstance(each.irregular, Skipped):
                named[f"irregular {each.metric.called}"] = each.irregular.p_value
        if not isinstance(self.centre, Skipped):
            named |= {"centre x": self.centre.x.p_value, "centre y": self.centre.y.p_value}
        for ripple in self.aliasing:
            if not isinstance(ripple, Skipped):
                named[f"aliasing {ripple.stride} {ripple.axis}"] = ripple.p_value
        if not isinstance(self.placement, Skipped):
            named["placement overall"] = self.placement.overall.p_value
        if not isinstance(self.padding, Skipped):
            named["padding overall"] = self.padding.effect.overall.p_value
            named["padding fall"] = self.padding.fall_of_padding.p_value
        measured = {name: p for name, p in named.items() if p is not None}
        corrected = holm(np.array(list(measured.values()), np.float64))
        return tuple(Test(name, p, float(c)) for (name, p), c in zip(measured.items(), corrected, strict=True))

    def test(self, name: str) -> Test | Skipped:
        """Return one test by its name."""
        for each in self.tests:
            if each.name == name:
                return each
        return Skipped(name, "it was not made on this sweep")


def all_metrics(
    sweep: SweepArrays,
    *,
    metric: str | None = None,
    n_resamples: int = N_RESAMPLES,
    radius: float = WORST_RADIUS,
    seed: int = 0,
    beside: Mapping[str, float] | None = None,
) -> Metrics:
    """Return every metric of a sweep.

    Parameters
    ----------
    sweep
        The arrays, see `from_sweep`.
    metric
        Of areas, sides, ripples and controls; the task's default by default.
    n_resamples, seed
        Bootstrap samples over images; their number limits how small a p-value of a reversal can be.
    radius
        Of the worst-of-radius value, in pixels.
    beside
        See `Metrics`.
    """
    values = sweep.values(metric)
    weights = resample_weights(sweep.positions, n_resamples, seed)
    profiles: list[Profile] = []
    spread: Replicates | Skipped = Skipped("", "")
    for each in sweep.metrics:
        made, sampled = _profile(sweep.values(each), weights)
        profiles.append(made)
        if each == values.metric:
            spread = sampled
    del sampled  # as large as the maps of all samples
    occlusion, placement = occlusion_effects(values)
    return Metrics(
        sweep=sweep,
        metric=values.metric,
        profiles=tuple(profiles),
        mean=mean_of(values.metric, values.per_image(~sweep.blank), f"mean {values.metric.called}"),
        per_class=class_maps(values),
        retained=tuple(spread if isinstance(spread, Skipped) else retained(spread, sweep, each) for each in LEVELS),
        centre=spread if isinstance(spread, Skipped) else centre(spread, sweep),
        worst_of_radius=worst_of_radius(values, radius),
        asymmetry_x=asymmetry(values, "x"),
        asymmetry_y=asymmetry(values, "y"),
        asymmetry_x_model=asymmetry(values, "x", without_data=True),
        aliasing=aliasing(values),
        consistency=consistency(sweep),
        blank=blank_limit(sweep),
        occlusion=occlusion,
        placement=placement,
        padding=padding_effect(values),
        beside=beside or {},
    )


def _profile(values: Values, weights: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[Profile, Replicates | Skipped]:
    metric, sweep = values.metric, values.sweep
    found = estimated_map(values, weights)
    if isinstance(found, Skipped):
        skipped = Skipped(f"{metric.called} at (0, 0)", found.why)
        irregular = Skipped(f"irregularities of {metric.called}", f"there is no {metric.called} with an interval")
        return Profile(metric, skipped, found, irregular, ()), found
    made, sampled = found
    value, lo, hi = (float(cells[sweep.origin]) for cells in (made.value, made.lo, made.hi))
    n = made.n if made.n_each is None else int(made.n_each[sweep.origin])
    method = "Wilson" if metric.is_share else "Student t over images"
    reversals = irregularity(sampled, sweep)
    emptied: tuple[Emptying | Skipped, ...] = ()
    if not isinstance(reversals, Skipped):
        nothing = Skipped("emptying", "there is no occlusion control")
        has_control = "occlusion" in sweep.controls
        emptied = tuple(emptying(r, values.of("occlusion")) if has_control else nothing for r in reversals.reversals)
    at_origin: Estimate | Skipped = Estimate(value, lo, hi, metric.unit, n, method)
    if not n:
        at_origin = Skipped(f"{metric.called} at (0, 0)", f"no image has a {metric.called} there")
    return Profile(metric, at_origin, made, reversals, emptied), sampled
