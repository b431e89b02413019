"""A model as files that run without shiftlens."""

from shiftlens.exporting.exported import ExportResult, export

__all__ = ["ExportResult", "export"]
