"""What `compare` returns: the table, paired differences, winners, findings, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftlens.analysis.arms import Aligned
from shiftlens.analysis.arrays import BoolArray, IntArray
from shiftlens.analysis.winners import Winner
from shiftlens.errors import InputError
from shiftlens.naming import count_of, unknown_name
from shiftlens.narrative.comparison_headline import headline, near_label
from shiftlens.narrative.comparison_rows import Against, Row, ends, heads
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.words import plain
from shiftlens.stats import Estimate, FloatArray, Skipped
from shiftlens.tasks.task import Variable

if TYPE_CHECKING:
    from shiftlens.figures.gallery import Pictures

KIND = "comparison"
"""What the JSON of a comparison says it is."""

METRIC_KEYS = ("name", "unit", "better", "kind", "long_name")
"""What it says of its metric."""


@dataclass(frozen=True, eq=False, repr=False)
class Compared:
    """What is said of any number of sweeps of the same images against one of them.

    Attributes
    ----------
    rows
        The table, one line a sweep, in the order given.
    baseline
        Which of them the others are compared with.
    metric
        What is compared.
    findings
        What improved, what got worse, what is inconclusive, caveats.
    n_images, n_shifts
        That all sweeps hold.
    unit
        Whose pixels areas are counted in: "source", or "baseline" where the source's size is not known.
    """

    rows: tuple[Row, ...]
    baseline: int
    metric: Variable
    findings: Findings
    n_images: int
    n_shifts: int
    unit: str

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sweeps in the order given."""
        return tuple(row.name for row in self.rows)

    @property
    def summary(self) -> tuple[tuple[str, str], ...]:
        """Five questions with their answers: which is better, by how much, where, at what cost, what is not known."""
        return headline(self)

    @property
    def near(self) -> str:
        """What the difference in the table is in, such as "mean accuracy within 8 px"."""
        return near_label(self)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Compared):
    """The same with all numbers behind it.

    Attributes
    ----------
    against
        Paired differences, one entry for each sweep but the baseline.
    winners
        By several criteria, chosen on one half of the images and measured on the other.
    means
        (sweep, dy, dx) of the metric, in its unit.
    n_tests
        How many tests were corrected together.
    aligned
        The sweeps on their common images and shifts.

    Examples
    --------
    >>> found = sl.compare(["zeros.zarr", "symmetric.zarr"])
    >>> found.names, found.means.shape  # (sweep, dy, dx)
    (('zeros', 'symmetric'), (2, 9, 9))
    >>> found["symmetric"].differences["near"].estimate.unit
    'points'
    """

    against: tuple[Against, ...]
    winners: tuple[Winner | Skipped, ...]
    means: FloatArray
    n_tests: int
    aligned: Aligned

    def __repr__(self) -> str:
        against = ", ".join(each.name for each in self.against)
        return f"<Comparison of {against} with {self.names[self.baseline]} on {count_of(self.n_images, 'image')}>"

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

    @property
    def dys(self) -> IntArray:
        """Common shifts down in px of each net's own input."""
        return self.aligned.dys

    @property
    def dxs(self) -> IntArray:
        """Common shifts to the right."""
        return self.aligned.dxs

    @property
    def blank(self) -> BoolArray:
        """(dy, dx) shifts that leave nothing of some net's image; left out of every mean and test."""
        return ~self.aligned.tested

    @property
    def improved(self) -> Findings:
        """What improved, corrected for every test of the comparison."""
        return self.findings.in_section("improved")

    @property
    def got_worse(self) -> Findings:
        """What got worse, likewise."""
        return self.findings.in_section("worse")

    @property
    def cannot_be_told(self) -> Findings:
        """What is inconclusive, with the smallest difference that would have been found."""
        return self.findings.in_section("inconclusive")

    def to_dict(self) -> dict[str, Any]:
        """The object of `shiftlens compare --json`."""
        return {
            "kind": KIND,
            "metric": {key: getattr(self.metric, key) for key in METRIC_KEYS},
            "baseline": self.names[self.baseline],
            "summary": [f"{question}: {answer}" for question, answer in self.summary],
            "rows": [row.to_dict(self.metric) for row in self.rows],
            "against": [each.to_dict() for each in self.against],
            "winners": [self._winner(each) for each in self.winners if isinstance(each, Winner)],
            "findings": [each.to_dict() for each in self.findings],
            "n_images": self.n_images,
            "n_shifts": self.n_shifts,
            "n_tests": self.n_tests,
            "pixels_of": self.unit,
        }

    def _winner(self, won: Winner) -> dict[str, Any]:
        found: dict[str, Any] = {"criterion": won.criterion, "name": self.names[won.which], "value": won.stated.value}
        found |= {"interval": ends(won.stated), "unit": won.stated.unit}
        found |= {"n_chosen": won.n_chosen, "n_stated": won.n_stated}
        for key, made in (("difference", won.difference), ("difference_at_rest", won.difference_at_rest)):
            found[key] = made.value if isinstance(made, Estimate) else None
            found[f"{key}_interval"] = ends(made) if isinstance(made, Estimate) else None
        return found

    def plot(self, out: str | Path | None = None, *, format: str = "png") -> Pictures:  # noqa: A002
        """Draw `differences`, `maps` side by side, and where there are shifts all `profiles` in one axes.

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
        from shiftlens.figures.comparison_figures import plot_comparison

        changes = {each.which: each.map for each in self.against}
        return plot_comparison(self.aligned, self.means, changes, out, format=format)

    def _repr_html_(self) -> str:
        def line(cells: Iterable[str], tag: str) -> str:
            return f"<tr>{''.join(f'<{tag} style=text-align:left>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

        body = "".join(line(row.cells(k == self.baseline), "td") for k, row in enumerate(self.rows))
        table = f"<table><thead>{line(heads(self.metric, self.near), 'th')}</thead><tbody>{body}</tbody></table>"
        summary = "".join(
            f"<p><strong>{escape(name)}</strong>: {escape(plain(text))}</p>" for name, text in self.summary
        )
        rest = f"<details><summary>All {len(self.findings)} findings</summary>{self.findings._repr_html_()}</details>"
        return summary + table + rest
