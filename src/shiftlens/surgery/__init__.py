"""Repair: a copy of a net with other padding or down-sampling, and what makes it whole again."""

from shiftlens.nn.edits import Edit, carry_out
from shiftlens.surgery.planning import repair

__all__ = ["Edit", "carry_out", "repair"]
