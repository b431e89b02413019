"""All metrics of a sweep at once, and which of its tests hold when all of them are looked at."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from shiftlens.analysis.aliasing import Aliasing, aliasing
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.asymmetry import Asymmetry, asymmetry, asymmetry_without_data
from shiftlens.analysis.consistency import Consistency, consistency
from shiftlens.analysis.controls import Blank, ControlEffect, Emptying, blank_limit, emptying, occlusion_effects
from shiftlens.analysis.estimated_maps import (
    ClassMaps,
    MapEstimate,
    accuracy_map,
    accuracy_replicates,
    class_maps,
    loss_map,
)
from shiftlens.analysis.irregularity import Irregularity, irregularity
from shiftlens.analysis.padding_effect import PaddingEffect, padding_effect
from shiftlens.analysis.regions import LEVELS, WORST_RADIUS, Centre, Retained, centre, retained, worst_of_radius
from shiftlens.stats import Estimate, Skipped, holm, mean_estimate, resample_weights, wilson

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
class Metrics:
    """Everything that question A asks of one sweep; what could not be measured is `Skipped`.

    Attributes
    ----------
    sweep
        The arrays, for the grid, the names and the cells.
    accuracy_at_origin, loss_at_origin
        At the shift (0, 0).
    mean_accuracy
        Over all shifts that leave some of the picture.
    accuracy, loss, per_class
        Maps.
    retained
        At 95, 90 and 50 %.
    centre, worst_of_radius
        See `regions`.
    asymmetry_x, asymmetry_y
        Left/right and up/down as they are.
    asymmetry_x_model
        Left/right without the data's own, by the flip control.
    irregular_accuracy, irregular_loss
        Reversals along rays; `emptying` tells for each of them, in order, whether the occlusion control shows it too.
    aliasing
        One entry for each axis and stride.
    consistency, blank, occlusion, placement
        See `consistency` and `controls`.
    padding
        See `padding`; by the canvas control.
    tests
        Every test that may warn, corrected together (Holm).
    """

    sweep: SweepArrays
    accuracy_at_origin: Estimate
    loss_at_origin: Estimate | Skipped
    mean_accuracy: Estimate | Skipped
    accuracy: MapEstimate
    loss: MapEstimate | Skipped
    per_class: ClassMaps | Skipped
    retained: tuple[Retained | Skipped, ...]
    centre: Centre | Skipped
    worst_of_radius: Estimate | Skipped
    asymmetry_x: Asymmetry | Skipped
    asymmetry_y: Asymmetry | Skipped
    asymmetry_x_model: Asymmetry | Skipped
    irregular_accuracy: Irregularity | Skipped
    irregular_loss: Irregularity | Skipped
    emptying_accuracy: tuple[Emptying | Skipped, ...]
    emptying_loss: tuple[Emptying | Skipped, ...]
    aliasing: tuple[Aliasing | Skipped, ...]
    consistency: Consistency | Skipped
    blank: Blank | Skipped
    occlusion: ControlEffect | Skipped
    placement: ControlEffect | Skipped
    padding: PaddingEffect | Skipped
    tests: tuple[Test, ...]

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Everything that could not be measured, with reasons."""
        found: list[Skipped] = []
        for each in fields(self):
            value: Any = getattr(self, each.name)
            found += [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, Skipped)]
        return tuple(dict.fromkeys(found))

    def test(self, name: str) -> Test | Skipped:
        """Return one test by its name."""
        for each in self.tests:
            if each.name == name:
                return each
        return Skipped(name, "it was not made on this sweep")


def all_metrics(
    sweep: SweepArrays, *, n_resamples: int = N_RESAMPLES, radius: float = WORST_RADIUS, seed: int = 0
) -> Metrics:
    """Return every metric of a sweep.

    Parameters
    ----------
    sweep
        The arrays, see `from_sweep`.
    n_resamples
        Bootstrap samples over images; their number limits how small a p-value of a reversal can be.
    radius
        Of the worst-of-radius accuracy, in pixels.
    seed
        Of the bootstrap.
    """
    correct, n = sweep.correct, sweep.n_images
    weights = resample_weights(sweep.positions, n_resamples, seed)
    replicates = accuracy_replicates(correct, weights)
    measured = loss_map(sweep, weights)
    loss, loss_replicates = (measured, None) if isinstance(measured, Skipped) else measured
    right = int(correct[:, *sweep.origin].sum())
    lo, hi = wilson(right, n)
    irregular_accuracy = irregularity(replicates, sweep, "accuracy")
    irregular_loss = (
        irregularity(loss_replicates, sweep, "loss")
        if loss_replicates
        else Skipped("irregularities of loss", "there is no loss with an interval")
    )
    x_model, occlusion, placement = _controlled(sweep)
    made: dict[str, Any] = {
        "asymmetry_x": asymmetry(correct, sweep, "x"),
        "asymmetry_y": asymmetry(correct, sweep, "y"),
        "asymmetry_x_model": x_model,
        "irregular_accuracy": irregular_accuracy,
        "irregular_loss": irregular_loss,
        "centre": centre(replicates, sweep),
        "aliasing": aliasing(correct, sweep),
        "placement": placement,
        "padding": padding_effect(sweep),
    }
    return Metrics(
        sweep=sweep,
        accuracy_at_origin=Estimate(right / n, float(lo), float(hi), "share", n, "Wilson"),
        loss_at_origin=_loss_at_origin(loss, sweep.origin),
        mean_accuracy=_mean_accuracy(sweep),
        accuracy=accuracy_map(correct, replicates),
        loss=loss,
        per_class=class_maps(correct, sweep.labels, sweep.class_names),
        retained=tuple(retained(replicates, sweep, level) for level in LEVELS),
        worst_of_radius=worst_of_radius(correct, sweep, radius),
        emptying_accuracy=_emptying(irregular_accuracy, sweep),
        emptying_loss=_emptying(irregular_loss, sweep),
        consistency=consistency(sweep),
        blank=blank_limit(sweep, correct),
        occlusion=occlusion,
        tests=tests_of(**made),
        **made,
    )


def _controlled(
    sweep: SweepArrays,
) -> tuple[Asymmetry | Skipped, ControlEffect | Skipped, ControlEffect | Skipped]:
    x_model: Asymmetry | Skipped = Skipped("asymmetry left/right without the data's own", "there is no flip control")
    if "flip" in sweep.controls:
        flip = sweep.controls["flip"]
        x_model = asymmetry_without_data(sweep.correct, flip.correct, sweep, flip)
    if "occlusion" not in sweep.controls:
        why = "there is no occlusion control"
        return x_model, Skipped("occlusion effect", why), Skipped("placement effect", why)
    control = sweep.controls["occlusion"]
    effects = occlusion_effects(sweep.correct, control.correct, sweep, control)
    return (x_model, effects, effects) if isinstance(effects, Skipped) else (x_model, *effects)


def _emptying(found: Irregularity | Skipped, sweep: SweepArrays) -> tuple[Emptying | Skipped, ...]:
    if isinstance(found, Skipped):
        return ()
    if "occlusion" not in sweep.controls:
        return tuple(Skipped("emptying", "there is no occlusion control") for _ in found.reversals)
    control = sweep.controls["occlusion"]
    return tuple(emptying(each, control, of_loss=found.quantity == "loss") for each in found.reversals)


def _loss_at_origin(loss: MapEstimate | Skipped, origin: tuple[int, int]) -> Estimate | Skipped:
    if isinstance(loss, Skipped):
        return Skipped("loss at (0, 0)", loss.why)
    value, lo, hi = (float(cells[origin]) for cells in (loss.value, loss.lo, loss.hi))
    return Estimate(value, lo, hi, "nats", loss.n, "Student t over images")


def _mean_accuracy(sweep: SweepArrays) -> Estimate | Skipped:
    if sweep.n_images < 2:
        return Skipped("mean accuracy", "one image has no interval")
    return mean_accuracy_within(sweep, np.inf)


def mean_accuracy_within(sweep: SweepArrays, radius: float) -> Estimate:
    """Return the mean accuracy over all shifts of at most `radius` pixels (Euclidean), blank ones left out."""
    return mean_estimate(accuracy_per_image(sweep, radius), "share", bounds=(0, 1))


def accuracy_per_image(sweep: SweepArrays, radius: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return each image's share of right shifts within `radius` pixels, shape (image,): what sweeps are compared by."""
    inside = (sweep.distance <= radius) & ~sweep.blank
    shares = [sweep.correct[s][:, inside].mean(axis=1) for s in sweep.slices()]
    return np.concatenate(shares).astype(np.float64)


def tests_of(
    *,
    asymmetry_x: Asymmetry | Skipped,
    asymmetry_y: Asymmetry | Skipped,
    asymmetry_x_model: Asymmetry | Skipped,
    irregular_accuracy: Irregularity | Skipped,
    irregular_loss: Irregularity | Skipped,
    centre: Centre | Skipped,
    aliasing: tuple[Aliasing | Skipped, ...],
    placement: ControlEffect | Skipped,
    padding: PaddingEffect | Skipped,
) -> tuple[Test, ...]:
    """Return every test that may warn, with Holm's correction over all of them."""
    named: dict[str, float | None] = {}
    for name, found in (("x", asymmetry_x), ("y", asymmetry_y), ("x model", asymmetry_x_model)):
        if not isinstance(found, Skipped):
            named[f"asymmetry {name} overall"] = found.overall.p_value
            named[f"asymmetry {name} pairs"] = found.family_p
    for irregular in (irregular_accuracy, irregular_loss):
        if not isinstance(irregular, Skipped):
            named[f"irregular {irregular.quantity}"] = irregular.p_value
    if not isinstance(centre, Skipped):
        named["centre x"], named["centre y"] = centre.x.p_value, centre.y.p_value
    for ripple in aliasing:
        if not isinstance(ripple, Skipped):
            named[f"aliasing {ripple.stride} {ripple.axis}"] = ripple.p_value
    if not isinstance(placement, Skipped):
        named["placement overall"] = placement.overall.p_value
    if not isinstance(padding, Skipped):
        named["padding overall"] = padding.effect.overall.p_value
        named["padding fall"] = padding.fall_of_padding.p_value
    measured = {name: p for name, p in named.items() if p is not None}
    corrected = holm(np.array(list(measured.values()), np.float64))
    return tuple(Test(name, p, float(c)) for (name, p), c in zip(measured.items(), corrected, strict=True))
