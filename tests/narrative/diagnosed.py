"""Diagnoses of synthetic sweeps, with what a header would have said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.summary import all_metrics
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.findings import diagnose
from shiftlens.narrative.setting import Setting
from shiftlens.shifts import Fill, ShiftGrid
from sweeps.small_sweeps import header

PLAIN = {
    "model": "MODEL",
    "model_notes": (),
    "data": "DATA",
    "training": {},
    "image_size": (32, 32),
    "preprocessing": Preprocessing((0.0,), (1.0,), declared=True),
}
OF_THE_SETTING = ("path", "n_images", "n_controlled", "n_population", "half_width_asked", "half_width")


def said_of(
    made: SweepArrays,
    *,
    n_resamples: int = 400,
    fill: str = "black",
    max_shift: tuple[int, int] = (16, 16),
    step: int = 1,
    **more: Any,
) -> Findings:
    """Findings; `more` is what a `Setting` or a header has."""
    setting = {key: more.pop(key) for key in OF_THE_SETTING if key in more}
    if "path" in setting:
        setting["path"] = Path(setting["path"])
    made_header = header(**(PLAIN | {"fill": Fill.parse(fill), "grid": ShiftGrid(max_shift, step)} | more))
    return diagnose(all_metrics(made, n_resamples=n_resamples), Setting(made_header, **setting))
