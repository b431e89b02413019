"""From numbers to sentences: what a sweep says, with evidence, and what misleads in it."""

from shiftlens.diagnosis.finding import Finding, Findings
from shiftlens.diagnosis.gather import diagnose, findings
from shiftlens.diagnosis.setting import Setting

__all__ = ["Finding", "Findings", "Setting", "diagnose", "findings"]
