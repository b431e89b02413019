"""What `compare` returns: rows of the table, paired differences, winners, findings, and how they are shown."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shiftlens.analysis.arm_scores import Quantity
from shiftlens.analysis.arms import Aligned
from shiftlens.analysis.arrays import BoolArray, IntArray
from shiftlens.analysis.paired import Difference, DifferenceMap, NonInferiority
from shiftlens.analysis.winners import Winner
from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.narrative.finding import Findings
from shiftlens.stats import Estimate, FloatArray, Skipped

if TYPE_CHECKING:
    from shiftlens.figures.gallery import Pictures


KIND = "comparison"
"""What the JSON of a comparison says it is."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    name
        Of the sweep.
    accuracy, near
        Shares: at (0, 0), and the mean within 8 px.
    retained_area, retained_radius
        At 95 %, in px^2 and px of the comparison's unit.
    worst_of_radius
        Share of images right under every shift within 4 px.
    asymmetry_lr, asymmetry_ud
        Points: mean over dx > 0 of acc(dx, dy) - acc(-dx, dy); mean over dy > 0 of acc(dx, dy) - acc(dx, -dy).
    n_parameters, n_macs
        None where not known.
    difference
        Mean accuracy within 8 px against the baseline, points, paired; exactly 0 for the baseline itself.
    """

    name: str
    accuracy: Estimate
    near: Estimate | Skipped
    retained_area: Estimate | Skipped
    retained_radius: Estimate | Skipped
    worst_of_radius: Estimate | Skipped
    asymmetry_lr: Estimate | Skipped
    asymmetry_ud: Estimate | Skipped
    n_parameters: int | None
    n_macs: int | None
    difference: Estimate | Skipped

    def to_dict(self) -> dict[str, Any]:
        """One of the `rows` of `shiftlens compare --json`; what was not measured is None and has a reason in `skipped`.

        `NAME_interval` is the 95 % interval over images; an end beyond the grid is None.
        """
        out: dict[str, Any] = {"name": self.name}
        skipped = {}
        for key, unit_value in (
            ("accuracy", self.accuracy),
            ("accuracy_within_8px", self.near),
            ("retained_area", self.retained_area),
            ("retained_radius", self.retained_radius),
            ("worst_of_radius", self.worst_of_radius),
            ("asymmetry_lr", self.asymmetry_lr),
            ("asymmetry_ud", self.asymmetry_ud),
            ("difference", self.difference),
        ):
            interval = "interval" if key == "difference" else f"{key}_interval"
            if isinstance(unit_value, Skipped):
                out[key], out[interval] = None, None
                skipped[key] = unit_value.why
            else:
                out[key], out[interval] = unit_value.value, ends(unit_value)
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
        Difference of the accuracies under each shift.
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
        """What cannot be told."""
        return self.with_verdict("undecided")

    def with_verdict(self, verdict: str) -> tuple[Quantity, ...]:
        """The quantities with one of "better", "worse", "undecided"."""
        return tuple(q for q, d in self.differences.items() if isinstance(d, Difference) and d.verdict == verdict)

    def to_dict(self) -> dict[str, Any]:
        """One of the entries of `against` of `shiftlens compare --json`."""
        differences = {
            quantity: {
                "value": found.estimate.value,
                "interval": ends(found.estimate),
                "unit": found.estimate.unit,
                "p_value": found.holm_p,
                "verdict": found.verdict,
                "detectable": finite(found.detectable),
            }
            for quantity, found in self.differences.items()
            if isinstance(found, Difference)
        }
        as_good = {
            found.quantity: {
                "holds": found.holds,
                "margin": found.margin,
                "lower": found.lower,
                "n_needed": found.n_needed,
            }
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


class ByVerdict(ABC):
    """The findings of a comparison, sorted by what they mean."""

    @abstractmethod
    def _said(self, verdict: str) -> Findings:
        """Those on a difference with one of "better", "worse", "undecided"."""

    @property
    def improved(self) -> Findings:
        """What improved, corrected for every test of the comparison."""
        return self._said("better")

    @property
    def got_worse(self) -> Findings:
        """What got worse, likewise."""
        return self._said("worse")

    @property
    def cannot_be_told(self) -> Findings:
        """What cannot be told, with the smallest difference that would have been found."""
        return self._said("undecided")


@dataclass(frozen=True, eq=False)
class Comparison(ByVerdict):
    """Any number of sweeps of the same images against one of them.

    Attributes
    ----------
    names, baseline
        Of the sweeps in the order given, and which of them the others are compared with.
    rows
        The table, one line a sweep.
    against
        Paired differences, one entry for each sweep but the baseline.
    winners
        By several criteria, chosen on one half of the images and stated on the other.
    findings
        The same in sentences: what improved, what got worse, what cannot be told, what misleads.
    accuracy
        (sweep, dy, dx) share.
    dys, dxs
        Common shifts in px of each net's own input.
    blank
        (dy, dx) shifts that leave nothing of some net's picture; left out of every mean and test.
    n_images
        That all sweeps hold.
    unit
        Whose pixels areas and radii are counted in: "source", or "baseline" where the source's size is not known.
    n_tests
        How many tests were corrected together.
    """

    names: tuple[str, ...]
    baseline: int
    rows: tuple[Row, ...]
    against: tuple[Against, ...]
    winners: tuple[Winner | Skipped, ...]
    accuracy: FloatArray
    dys: IntArray
    dxs: IntArray
    blank: BoolArray
    n_images: int
    unit: str
    n_tests: int
    aligned: Aligned = field(repr=False)
    findings: Findings = field(default_factory=Findings, repr=False)

    def __repr__(self) -> str:
        against = ", ".join(each.name for each in self.against)
        return f"<Comparison of {against} with {self.names[self.baseline]} on {self.n_images} images>"

    def __getitem__(self, name: str) -> Against:
        """One sweep against the baseline, by its name.

        Raises
        ------
        InputError
            There is no sweep of that name, or it is the baseline.
        """
        for each in self.against:
            if each.name == name:
                return each
        if name == self.names[self.baseline]:
            raise InputError(f"{name} is the baseline: it is not compared with itself")
        raise unknown_name("sweep", name, [each.name for each in self.against])

    def _said(self, verdict: str) -> Findings:
        wanted = {f"difference-{q}-{each.which}" for each in self.against for q in each.with_verdict(verdict)}
        return Findings(finding for finding in self.findings if finding.id in wanted)

    def to_dict(self) -> dict[str, Any]:
        """The object of `shiftlens compare --json`."""
        return {
            "kind": KIND,
            "baseline": self.names[self.baseline],
            "rows": [row.to_dict() for row in self.rows],
            "against": [each.to_dict() for each in self.against],
            "winners": [self._winner(each) for each in self.winners if isinstance(each, Winner)],
            "findings": [each.to_dict() for each in self.findings],
            "n_images": self.n_images,
            "n_shifts": len(self.dys) * len(self.dxs),
            "n_tests": self.n_tests,
            "pixels_of": self.unit,
        }

    def _winner(self, won: Winner) -> dict[str, Any]:
        found: dict[str, Any] = {
            "criterion": won.criterion,
            "name": self.names[won.which],
            "value": won.stated.value,
            "interval": ends(won.stated),
            "unit": won.stated.unit,
            "n_chosen": won.n_chosen,
            "n_stated": won.n_stated,
        }
        for key, difference in (("difference", won.difference), ("difference_at_rest", won.difference_at_rest)):
            measured = isinstance(difference, Estimate)
            found[key] = difference.value if isinstance(difference, Estimate) else None
            found[f"{key}_interval"] = ends(difference) if measured and isinstance(difference, Estimate) else None
        return found

    def plot(self, out: str | Path | None = None, *, format: str = "png") -> Pictures:  # noqa: A002
        """Draw difference maps, the accuracy maps side by side, and all profiles in one axes.

        Parameters
        ----------
        out
            Directory, made if it is not there; None writes nothing.
        format
            "png" or "svg".

        Raises
        ------
        InputError
            Another format, or a directory that cannot be written.
        """
        from shiftlens.figures.comparison_figures import Drawable, plot_comparison
        from shiftlens.figures.heatmaps import about
        from shiftlens.figures.profile import profile

        profiles = []
        if self.accuracy[0].size > 1:
            # One arm at a time: its answers, unpacked, are forgotten before the next.
            profiles = [profile(self.aligned.arrays(k), of_loss=False) for k in range(len(self.names))]
        maps = [(each.which, each.map) for each in self.against]
        drawable = Drawable(
            names=self.names,
            baseline=self.baseline,
            dys=self.dys,
            dxs=self.dxs,
            about=about(self.aligned.arrays(self.baseline)),
            profiles=tuple(profiles),
            accuracy=self.accuracy,
            differences={k: found.value for k, found in maps},
            marked={k: found.better.astype(np.int8) - found.worse.astype(np.int8) for k, found in maps},
            blank=self.blank,
        )
        return plot_comparison(drawable, out, format=format)

    def _repr_html_(self) -> str:
        heads = ("sweep", "accuracy", "retained area", "worst of 4 px", "within 8 px, against the baseline")
        body = "".join(
            "<tr>"
            + "".join(
                f"<td style='text-align:left'>{escape(text)}</td>"
                for text in (
                    row.name,
                    _short(row.accuracy),
                    _short(row.retained_area),
                    _short(row.worst_of_radius),
                    _short(row.difference),
                )
            )
            + "</tr>"
            for row in self.rows
        )
        head = "".join(f"<th style='text-align:left'>{text}</th>" for text in heads)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return table + self.findings._repr_html_()


def ends(estimate: Estimate) -> list[float | None]:
    """An interval for JSON; an end that is not a number is None."""
    return [finite(estimate.lo), finite(estimate.hi)]


def finite(value: float) -> float | None:
    """The number, or None where it is infinite or not a number."""
    return float(value) if math.isfinite(value) else None


def _short(estimate: Estimate | Skipped) -> str:
    from shiftlens.narrative.words import quoted

    return "not measured" if isinstance(estimate, Skipped) else quoted(estimate)
