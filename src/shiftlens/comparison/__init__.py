"""Sweeps of the same images side by side: paired differences, what improved, what got worse, what cannot be told."""

from shiftlens.comparison.gather import compare
from shiftlens.comparison.paired import Difference, DifferenceMap, NonInferiority
from shiftlens.comparison.result import Against, Comparison, Row
from shiftlens.comparison.winners import Winner

__all__ = [
    "Against",
    "Comparison",
    "Difference",
    "DifferenceMap",
    "NonInferiority",
    "Row",
    "Winner",
    "compare",
]
