"""A repaired model as a run directory: how the original is built, and every edit since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from shiftlens.errors import InputError
from shiftlens.models.loading import FILES, run_of
from shiftlens.models.named_code import MADE_IN_PYTHON, named_factory
from shiftlens.models.runs import save_run
from shiftlens.models.runspec import read_spec
from shiftlens.models.wrapping import Model
from shiftlens.models.zoo import LIBRARIES
from shiftlens.nn.edits import Edit
from shiftlens.surgery.healing import Healing


@dataclass(frozen=True)
class Origin:
    """Where a model came from, as far as a run directory must know: see `save_run`.

    `edits` had been made before; `parents` are digests, the oldest first, the model itself last.
    `code` is the file or module of a user's own factory.
    """

    build: Mapping[str, Any]
    edits: tuple[Mapping[str, Any], ...] = ()
    parents: tuple[str, ...] = ()
    code: str | None = None


def origin_of(spec: str | Path, model: Model, in_python: str = "") -> Origin:
    """How the model that `load_model` made of a spec can be built again; of a user's own factory, its name.

    `in_python` is what to run instead where it cannot, for the error.
    """
    name, path = str(spec), run_of(spec)
    kind, _, rest = name.partition(":")
    if path is not None:
        stored = read_spec(path)
        if stored.build.factory.startswith(MADE_IN_PYTHON):
            raise InputError(f"{name} holds a net that was made in Python: repair it there (shiftlens.repair)")
        code = model.options.get("code")
        return Origin(stored.build.model_dump(), tuple(stored.edits), (*stored.parents, model.digest), code)
    if kind in LIBRARIES and rest:
        return Origin({"factory": name, "kwargs": {"num_classes": model.n_classes}}, (), (model.digest,))
    if kind in FILES and rest:
        instead = in_python or "sl.repair"
        raise InputError(f"{name} is built of files that a run directory cannot name: repair it in Python: {instead}")
    if not model.is_module:
        raise InputError(f"{name} gives a plain callable: it has no weights that a run directory could hold")
    return Origin({"factory": named_factory(name)}, (), (model.digest,), name.rpartition(":")[0])


def save_repaired(
    out: str | Path,
    model: Model,
    origin: Origin,
    edits: Sequence[Edit],
    *,
    healed: Sequence[Healing] = (),
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write a repaired model as a run directory, which `load_model` opens like any other.

    Parameters
    ----------
    out
        The directory.
    model
        After all edits, and after what made it whole again.
    origin
        From `origin_of`, for the model before.
    edits
        In order.
    healed
        Re-estimations and fine-tunings, in order; kept among the run's training facts.
    metrics
        JSON-able.

    Raises
    ------
    InputError
        The edits do not lead from the original to this net.
    StoreError
        `out` holds something else or cannot be written.
    """
    if not isinstance(model.module, nn.Module):
        raise InputError(f"{model.name} is a plain callable: it cannot be saved")
    told = model.training.get("healed", [])
    before = list(told) if isinstance(told, list | tuple) else []
    training = {**model.training}
    if healed or before:
        training["healed"] = [*before, *(each.to_dict() for each in healed)]
    save_run(
        out,
        model.module,
        build=origin.build,
        preprocessing=model.preprocessing,
        class_names=model.class_names,
        training=training,
        metrics=metrics,
        parents=origin.parents,
        edits=[*origin.edits, *(edit.to_dict() for edit in edits)],
        code=origin.code,
    )
