"""Diagnoses of synthetic sweeps, with what a header would have said of them."""

from __future__ import annotations

from typing import Any

from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.summary import all_metrics
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.findings import diagnose
from shiftlens.narrative.setting import Setting


def said_of(made: SweepArrays, *, n_resamples: int = 400, **setting: Any) -> Findings:
    return diagnose(all_metrics(made, n_resamples=n_resamples), Setting(**setting))
