"""The functions that read each sort of file for the commands, each under the name of a command that calls it.

A reader takes the lawful ground and what names the hostile file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from hostile.commands import Ground
from shiftlens.cli.look import opened
from shiftlens.data.images import load_images
from shiftlens.errors import StoreError
from shiftlens.lens.feature_store import open_features
from shiftlens.lens.inputs import shown
from shiftlens.models.loading import load_model
from shiftlens.models.matching import labelled_for, on_input_grid
from shiftlens.models.skeletons import load_skeleton
from shiftlens.models.wrapping import Model
from shiftlens.narrative.comparing import compare
from shiftlens.narrative.findings import findings
from shiftlens.reporting.given_items import given
from shiftlens.sweeps.integrity import verify_sweep
from shiftlens.sweeps.reuse import Reuse
from shiftlens.training.data import check_images, pixels

Reader = Callable[[Ground, str], object]


@cache
def _model(run: Path) -> Model:
    return load_model(run)


def _picture(ground: Ground, path: str) -> None:
    shown(_model(ground.run), path, 0)


def _measured(ground: Ground, spec: str) -> None:
    images = load_images(spec, split="test")
    model = _model(ground.run)
    labelled_for(model, images)
    fitted, _ = on_input_grid(model, images)
    fitted.batch(np.arange(len(fitted)))


def _trained(ground: Ground, spec: str) -> None:
    images = load_images(spec, split="train")
    check_images(images)
    pixels(images.fitted((16, 16)))


def _told(ground: Ground, path: str) -> None:
    findings(opened(Path(path), False))


def _reported(ground: Ground, path: str) -> None:
    for sweep in given([path]).sweeps:
        for each in (sweep, *(sweep.control(name, partial=True) for name in sweep.controls)):
            each.dataset.load()


def _verified(ground: Ground, path: str) -> None:
    found = verify_sweep(path)
    if not found.ok:
        raise StoreError(f"{path}: {'; '.join(found.lines())}")


def _reused(ground: Ground, path: str) -> None:
    images, _ = on_input_grid(_model(ground.run), load_images(f"folder:{ground.pictures}"))
    Reuse(Path(path), images)


WEIGHT_FILES: dict[str, Reader] = {
    "evaluate": lambda g, p: load_model(f"{g.net}:make", weights=p, input_size=16, mean=0.5, std=0.5),
}
RUN_DIRECTORIES: dict[str, Reader] = {"evaluate": lambda g, p: load_model(p), "inspect": lambda g, p: load_skeleton(p)}
PICTURE_FILE: dict[str, Reader] = {"features": _picture}
IMAGES: dict[str, Reader] = {"evaluate": _measured, "train": _trained}
STORED_SWEEPS: dict[str, Reader] = {
    "findings": _told,
    "compare": lambda g, p: compare([g.sweep, p]),
    "report": _reported,
    "verify": _verified,
    "reuse": _reused,
}
FEATURE_RUNS: dict[str, Reader] = {"plot": lambda g, p: open_features(p), "report": lambda g, p: given([g.sweep, p])}
ARITHMETIC_FILES: dict[str, Reader] = {"report": lambda g, p: given([p])}
