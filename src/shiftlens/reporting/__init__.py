"""Everything that was measured as one HTML file to look at."""

from shiftlens.reporting.writing import Item, Report, report

__all__ = ["Item", "Report", "report"]
