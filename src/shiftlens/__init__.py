"""Audit a vision model's spatial behaviour: every shift, every border, proved cause and repair.

The names below are loaded when they are first used, so that `import shiftlens` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_WHERE = {
    "CheckResult": "shiftlens.gate.check_result",
    "Comparison": "shiftlens.narrative.comparison_result",
    "Edit": "shiftlens.nn.edits",
    "FeatureRun": "shiftlens.lens.feature_run",
    "Fill": "shiftlens.shifts",
    "Finding": "shiftlens.narrative.finding",
    "Inspection": "shiftlens.arithmetic",
    "ImageSet": "shiftlens.data.images",
    "Model": "shiftlens.models.loading",
    "ModelOutputError": "shiftlens.errors",
    "InputError": "shiftlens.errors",
    "NoEffectWarning": "shiftlens.errors",
    "Report": "shiftlens.reporting",
    "Shift": "shiftlens.shifts",
    "ShiftGrid": "shiftlens.shifts",
    "ShiftlensError": "shiftlens.errors",
    "StoreError": "shiftlens.errors",
    "TileReport": "shiftlens.tiles.tile_result",
    "Sweep": "shiftlens.sweeps.sweep_result",
    "assert_robust": "shiftlens.gate.robustness",
    "check": "shiftlens.gate.gating",
    "compare": "shiftlens.narrative.comparing",
    "consistency": "shiftlens.protocols",
    "probe": "shiftlens.pasting",
    "PositionMap": "shiftlens.position_map",
    "evaluate": "shiftlens.evaluation",
    "export": "shiftlens.exporting",
    "features": "shiftlens.lens.feature_maps",
    "findings": "shiftlens.narrative.findings",
    "inspect": "shiftlens.arithmetic",
    "foveation": "shiftlens.lens.foveation",
    "kernels": "shiftlens.lens.kernels",
    "load_images": "shiftlens.data.images",
    "load_model": "shiftlens.models.loading",
    "neurons": "shiftlens.lens.neurons",
    "open_features": "shiftlens.lens.feature_store",
    "open_sweep": "shiftlens.sweeps.sweep_result",
    "open_tiles": "shiftlens.tiles.tile_store",
    "plot": "shiftlens.figures",
    "plot_features": "shiftlens.figures.feature_figures",
    "plot_tiles": "shiftlens.figures.tile_figures",
    "predict_tiled": "shiftlens.tiles.predicting",
    "position_probe": "shiftlens.lens.position_probe",
    "repair": "shiftlens.surgery",
    "report": "shiftlens.reporting",
    "study": "shiftlens.studies.studying",
    "StudyResult": "shiftlens.studies.study_result",
    "sweep": "shiftlens.sweeping",
    "tile_report": "shiftlens.tiles.doctor",
    "train": "shiftlens.training",
    "translate": "shiftlens.shifts",
    "verify_sweep": "shiftlens.sweeps.integrity",
    "wrap": "shiftlens.models.loading",
    "ByPlace": "shiftlens.tasks.variable",
    "Dense": "shiftlens.tasks.dense",
    "Detection": "shiftlens.tasks.detection",
    "Embedding": "shiftlens.tasks.embedding",
    "OutputForm": "shiftlens.tasks.outputs",
    "Segmentation": "shiftlens.tasks.segmentation",
    "Task": "shiftlens.tasks.task",
    "Variable": "shiftlens.tasks.variable",
}
_ROOMS = ("nn",)

if TYPE_CHECKING:
    from shiftlens import nn as nn
    from shiftlens.arithmetic import Inspection as Inspection
    from shiftlens.arithmetic import inspect as inspect
    from shiftlens.data.images import ImageSet as ImageSet
    from shiftlens.data.images import load_images as load_images
    from shiftlens.errors import InputError as InputError
    from shiftlens.errors import ModelOutputError as ModelOutputError
    from shiftlens.errors import NoEffectWarning as NoEffectWarning
    from shiftlens.errors import ShiftlensError as ShiftlensError
    from shiftlens.errors import StoreError as StoreError
    from shiftlens.evaluation import evaluate as evaluate
    from shiftlens.exporting import export as export
    from shiftlens.figures import plot as plot
    from shiftlens.figures.feature_figures import plot_features as plot_features
    from shiftlens.figures.tile_figures import plot_tiles as plot_tiles
    from shiftlens.gate.check_result import CheckResult as CheckResult
    from shiftlens.gate.gating import check as check
    from shiftlens.gate.robustness import assert_robust as assert_robust
    from shiftlens.lens.feature_maps import features as features
    from shiftlens.lens.feature_run import FeatureRun as FeatureRun
    from shiftlens.lens.feature_store import open_features as open_features
    from shiftlens.lens.foveation import foveation as foveation
    from shiftlens.lens.kernels import kernels as kernels
    from shiftlens.lens.neurons import neurons as neurons
    from shiftlens.lens.position_probe import position_probe as position_probe
    from shiftlens.models.loading import Model as Model
    from shiftlens.models.loading import load_model as load_model
    from shiftlens.models.loading import wrap as wrap
    from shiftlens.narrative.comparing import compare as compare
    from shiftlens.narrative.comparison_result import Comparison as Comparison
    from shiftlens.narrative.finding import Finding as Finding
    from shiftlens.narrative.findings import findings as findings
    from shiftlens.nn.edits import Edit as Edit
    from shiftlens.pasting import probe as probe
    from shiftlens.position_map import PositionMap as PositionMap
    from shiftlens.protocols import consistency as consistency
    from shiftlens.reporting import Report as Report
    from shiftlens.reporting import report as report
    from shiftlens.shifts import Fill as Fill
    from shiftlens.shifts import Shift as Shift
    from shiftlens.shifts import ShiftGrid as ShiftGrid
    from shiftlens.shifts import translate as translate
    from shiftlens.studies.study_result import StudyResult as StudyResult
    from shiftlens.studies.studying import study as study
    from shiftlens.surgery import repair as repair
    from shiftlens.sweeping import sweep as sweep
    from shiftlens.sweeps.integrity import verify_sweep as verify_sweep
    from shiftlens.sweeps.sweep_result import Sweep as Sweep
    from shiftlens.sweeps.sweep_result import open_sweep as open_sweep
    from shiftlens.tasks.dense import Dense as Dense
    from shiftlens.tasks.detection import Detection as Detection
    from shiftlens.tasks.embedding import Embedding as Embedding
    from shiftlens.tasks.outputs import OutputForm as OutputForm
    from shiftlens.tasks.segmentation import Segmentation as Segmentation
    from shiftlens.tasks.task import Task as Task
    from shiftlens.tasks.variable import ByPlace as ByPlace
    from shiftlens.tasks.variable import Variable as Variable
    from shiftlens.tiles.doctor import tile_report as tile_report
    from shiftlens.tiles.predicting import predict_tiled as predict_tiled
    from shiftlens.tiles.tile_result import TileReport as TileReport
    from shiftlens.tiles.tile_store import open_tiles as open_tiles
    from shiftlens.training import train as train

__all__ = [*sorted(_WHERE), *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"shiftlens.{name}")
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'shiftlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _register_notebook_display() -> None:
    """Tell a running notebook how to show a `Sweep` and a `FeatureRun`; by name, so that nothing is loaded for it.

    They cannot do it by themselves: pictures stand on a higher floor.
    """
    notebook = sys.modules.get("IPython")
    shell = notebook.get_ipython() if notebook is not None else None
    if shell is not None:
        formatter = shell.display_formatter.formatters["text/html"]
        formatter.for_type_by_name("shiftlens.sweeps.sweep_result", "Sweep", _sweep_html)
        formatter.for_type_by_name("shiftlens.lens.feature_run", "FeatureRun", _features_html)
        formatter.for_type_by_name("shiftlens.tiles.tile_result", "TileReport", _tiles_html)


def _sweep_html(sweep: Any) -> str:
    from shiftlens.figures.notebook import sweep_html

    return sweep_html(sweep)


def _features_html(run: Any) -> str:
    from shiftlens.figures.notebook import features_html

    return features_html(run)


def _tiles_html(report: Any) -> str:
    from shiftlens.figures.notebook import tiles_html

    return tiles_html(report)


_register_notebook_display()
