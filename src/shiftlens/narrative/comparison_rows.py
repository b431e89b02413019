"""The table of a comparison and the paired differences of each sweep from the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shiftlens.analysis.arm_scores import Quantity
from shiftlens.analysis.paired import Difference, DifferenceMap, NonInferiority
from shiftlens.narrative.finding_parts import finite
from shiftlens.narrative.performance import at_worst
from shiftlens.narrative.words import plain, quoted
from shiftlens.stats import Estimate, Skipped
from shiftlens.tasks.task import Variable


def columns(metric: Variable) -> dict[str, tuple[str, str]]:
    """The numbers of a row: key in the JSON, attribute, unit."""
    unit, difference = metric.unit, metric.difference_unit
    return {
        metric.name: ("unshifted", unit),
        f"{metric.name}_within_8px": ("near", unit),
        "retained_area": ("retained_area", "px^2"),
        "retained_radius": ("retained_radius", "px"),
        "worst_of_radius": ("worst_of_radius", unit),
        "asymmetry_lr": ("asymmetry_lr", difference),
        "asymmetry_ud": ("asymmetry_ud", difference),
        "difference": ("difference", difference),
    }


def interval_key(key: str) -> str:
    """Where the JSON has a column's interval."""
    return "interval" if key == "difference" else f"{key}_interval"


def heads(metric: Variable, near: str) -> tuple[str, ...]:
    """Over the cells of a row; `near` is what the difference is in."""
    return (
        "sweep",
        f"{metric.called} at (0, 0)",
        "retained area",
        "retained radius",
        at_worst(metric, "to 4 px"),
        "right minus left",
        "down minus up",
        "parameters",
        "multiply-adds",
        f"{near}, against the baseline",
    )


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    name
        Of the sweep.
    unshifted, near
        The metric at (0, 0), and its mean within 8 px.
    retained_area, retained_radius
        At 95 %, in px^2 and px of the comparison's unit.
    worst_of_radius
        Mean over images of the worst under all shifts within 4 px: of a share, the images that have it under every one.
    asymmetry_lr, asymmetry_ud
        Points, or the metric's unit: mean over dx > 0 of m(dx, dy) - m(-dx, dy); mean over dy > 0 of m(dx, dy) -
        m(dx, -dy).
    n_parameters, n_macs
        None where not known.
    difference
        `near` against the baseline in the same unit, paired; exactly 0 for the baseline itself.
    """

    name: str
    unshifted: Estimate
    near: Estimate | Skipped
    retained_area: Estimate | Skipped
    retained_radius: Estimate | Skipped
    worst_of_radius: Estimate | Skipped
    asymmetry_lr: Estimate | Skipped
    asymmetry_ud: Estimate | Skipped
    n_parameters: int | None
    n_macs: int | None
    difference: Estimate | Skipped

    def cells(self, is_baseline: bool) -> list[str]:
        """The line as text under the `heads`."""
        counts = ["-" if n is None else f"{n:,}" for n in (self.n_parameters, self.n_macs)]
        estimates = (self.unshifted, self.retained_area, self.retained_radius, self.worst_of_radius)
        shown = [*map(_text, estimates), _text(self.asymmetry_lr), _text(self.asymmetry_ud), *counts]
        return [plain(self.name), *shown, "baseline" if is_baseline else _text(self.difference)]

    def to_dict(self, metric: Variable) -> dict[str, Any]:
        """One of the `rows` of `shiftlens compare --json`; what was not measured is None and has a reason in `skipped`.

        `NAME_interval` is the 95 % interval over images; an end beyond the grid is None.
        """
        out: dict[str, Any] = {"name": self.name}
        skipped = {}
        for key, (attribute, _) in columns(metric).items():
            made: Estimate | Skipped = getattr(self, attribute)
            interval = interval_key(key)
            if isinstance(made, Skipped):
                out[key], out[interval] = None, None
                skipped[key] = made.why
            else:
                out[key], out[interval] = made.value, ends(made)
        kept = self.retained_area
        out["retained_at_least"] = not isinstance(kept, Skipped) and kept.at_least
        return out | {"n_parameters": self.n_parameters, "n_macs": self.n_macs, "skipped": skipped}


@dataclass(frozen=True, eq=False)
class Against:
    """One sweep against the baseline.

    Attributes
    ----------
    which, name
        Position and name of the sweep.
    differences
        One for each quantity, in a fixed order; `Skipped` where the grid or the images do not give it.
    map
        Difference under each shift.
    as_good
        Non-inferiority at (0, 0) and within 8 px.
    """

    which: int
    name: str
    differences: dict[Quantity, Difference | Skipped]
    map: DifferenceMap
    as_good: tuple[NonInferiority | Skipped, ...]

    @property
    def better(self) -> tuple[Quantity, ...]:
        """What improved, corrected for every test of the comparison."""
        return self.with_verdict("better")

    @property
    def worse(self) -> tuple[Quantity, ...]:
        """What got worse, likewise."""
        return self.with_verdict("worse")

    @property
    def undecided(self) -> tuple[Quantity, ...]:
        """What is inconclusive."""
        return self.with_verdict("undecided")

    def with_verdict(self, verdict: str) -> tuple[Quantity, ...]:
        """The quantities with one of "better", "worse", "undecided"."""
        return tuple(q for q, d in self.differences.items() if isinstance(d, Difference) and d.verdict == verdict)

    def to_dict(self) -> dict[str, Any]:
        """One of the entries of `against` of `shiftlens compare --json`."""
        differences = {
            quantity: {"value": found.estimate.value, "interval": ends(found.estimate), "unit": found.estimate.unit}
            | {"p_value": found.holm_p, "verdict": found.verdict, "detectable": finite(found.detectable)}
            for quantity, found in self.differences.items()
            if isinstance(found, Difference)
        }
        as_good = {
            found.quantity: {key: getattr(found, key) for key in ("holds", "margin", "lower", "n_needed")}
            for found in self.as_good
            if isinstance(found, NonInferiority)
        }
        shifts = {
            "n_better": int(self.map.better.sum()),
            "n_worse": int(self.map.worse.sum()),
            "n_tested": int(self.map.tested.sum()),
            "p_value": self.map.holm_p,
        }
        return {"name": self.name, "differences": differences, "as_good": as_good, "shifts": shifts}


def _text(value: Estimate | Skipped) -> str:
    return f"not measured: {plain(value.why)}" if isinstance(value, Skipped) else quoted(value)


def ends(estimate: Estimate) -> list[float | None]:
    """An interval for JSON; an end that is not a number is None."""
    return [finite(estimate.lo), finite(estimate.hi)]
