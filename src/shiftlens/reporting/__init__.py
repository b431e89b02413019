"""Everything that was measured as one HTML file to look at."""

from shiftlens.reporting.gather import Item, Report, report

__all__ = ["Item", "Report", "report"]
