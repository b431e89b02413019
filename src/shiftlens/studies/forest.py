"""Forest plots: every contrast with its interval, and every arm with its runs, one picture a unit or measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shiftlens.figures.drawing import new_figure, short, suptitle
from shiftlens.studies.study_result import StudyResult
from shiftlens.studies.study_statistics import ContrastResult
from shiftlens.styling import default_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"confirmed": "#31688e", "refuted": "#b3261e", "undecided": "#6b6b6b"}
MARKERS = {"confirmed": "o", "refuted": "X", "undecided": "s"}
LONGEST = 60
_ROW = 0.34  # inches


def pictures(result: StudyResult) -> dict[str, Figure]:
    """Every picture by its file's name, without those of what was not measured."""
    made: dict[str, Figure] = {}
    found = [each for each in result.contrasts if isinstance(each, ContrastResult)]
    for unit in dict.fromkeys(each.unit for each in found):
        name = unit.replace("%", "per-cent").replace("^", "") or "no-unit"
        made[f"contrasts-{name}"] = contrast_forest([each for each in found if each.unit == unit], unit)
    for measure in shown_measures(result):
        if any(result.mean(arm, measure).n for arm in result.study.variants):
            made[f"arms-{measure.replace('.', '-').replace('@', '-at-')}"] = arm_forest(result, measure)
    return made


def shown_measures(result: StudyResult) -> list[str]:
    """The measures that contrasts are about; all where there are none."""
    study = result.study
    asked = [name for each in study.contrasts for name in (each.measure, each.against_measure) if name]
    return list(dict.fromkeys(asked)) or list(study.measures)


@default_style()
def contrast_forest(found: Sequence[ContrastResult], unit: str) -> Figure:
    """Differences with 95 % t intervals over runs; a short line marks the value that each is tested against."""
    figure, axes = _rows(len(found))
    for row, each in enumerate(found):
        colour, marker = COLOURS[each.verdict], MARKERS[each.verdict]
        axes.plot([each.lo, each.hi], [row, row], color=colour, linewidth=2)
        axes.plot(each.estimate, row, marker=marker, color=colour, markersize=7)
        axes.plot([each.contrast.bound] * 2, [row - 0.35, row + 0.35], color="black", linewidth=1.2)
    axes.axvline(0, color="0.75", linewidth=0.8, zorder=0)
    _label(axes, [f"{each.contrast.name} ({each.verdict})" for each in found])
    axes.set_xlabel(unit or "difference", parse_math=False)
    about = "Mean over seeds, 95 % t interval over training runs. Black: the value tested against"
    suptitle(figure, f"Contrasts\n{about}\nVerdicts hold together (Holm, 5 %)", 11)
    return figure


@default_style()
def arm_forest(result: StudyResult, measure: str) -> Figure:
    """Each arm's runs as dots, its mean and 95 % t interval."""
    arms = list(result.study.variants)
    known = result.study.measures[measure.partition("@")[0]]
    figure, axes = _rows(len(arms))
    for row, arm in enumerate(arms):
        values, made = result.values(arm, measure), result.mean(arm, measure)
        axes.plot(values, np.full(len(values), row), "o", color="#d1783c", alpha=0.55, markersize=4)
        if not np.isnan(made.lo):
            axes.plot([float(made.lo), float(made.hi)], [row, row], color="#31688e", linewidth=2)
        if made.n:
            axes.plot(float(made.mean), row, "|", color="#31688e", markersize=12, markeredgewidth=2.2)
    _label(axes, arms)
    axes.set_xlabel(f"{measure}{f' ({known.unit})' if known.unit else ''}", parse_math=False)
    what = f"{known.called[0].upper()}{known.called[1:]}"
    suptitle(figure, f"{short(what, 90)}\nDots: runs. Lines: mean and 95 % t interval over runs", 11)
    return figure


def _rows(n: int) -> tuple[Figure, Axes]:
    figure = new_figure(8.6, 1.6 + _ROW * n)
    return figure, figure.add_subplot()


def _label(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [short(name, LONGEST) for name in names])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
