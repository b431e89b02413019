"""A task as a sweep's header has it: its name and what it stores, as JSON."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from shiftlens.errors import InputError
from shiftlens.naming import unknown_name
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.dense import Dense
from shiftlens.tasks.detection import Detection, DetectionConsistency
from shiftlens.tasks.embedding import Embedding
from shiftlens.tasks.segmentation import Segmentation
from shiftlens.tasks.task import OBJECT, Stored, Task, Variable

KNOWN_TASKS: dict[str, Task] = {
    task.name: task
    for task in (CLASSIFICATION, Segmentation(), Dense(), Detection(), DetectionConsistency(), Embedding())
}
"""Tasks by name. Of one that is not here, a sweep can be made, and what is read of its file are its variables."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def known_task(task: Task | str) -> Task:
    """The task of a name, or a task as it is.

    Raises
    ------
    InputError
        An unknown name, or a task that cannot be stored.
    """
    if isinstance(task, str):
        if task not in KNOWN_TASKS:
            raise unknown_name("task", task, tuple(KNOWN_TASKS))
        return KNOWN_TASKS[task]
    if not isinstance(task, Task):
        raise InputError(f"expected a task or the name of one ({', '.join(KNOWN_TASKS)}), got {type(task).__name__}")
    if type(KNOWN_TASKS.get(task.name, task)) is not type(task):
        raise InputError(f"{task.name} is the name of another task; give this one its own name")
    task_from_table(task_to_table(task))
    return task


def task_to_table(task: Task) -> dict[str, Any]:
    """JSON values; a bound that is infinite is null."""
    table = {"name": task.name, "variables": [_variable_to_table(each) for each in task.variables]}
    return table | ({"settings": task.settings} if task.settings else {})


def task_from_table(table: dict[str, Any]) -> Task:
    """Return the task of a file, with the variables that the file names.

    Raises
    ------
    InputError
        A variable's description cannot be understood.
    """
    name, variables = table.get("name"), table.get("variables")
    if not isinstance(name, str) or not isinstance(variables, list) or not variables:
        raise InputError(f"expected a task with a name and variables, got {table!r:.80}")
    read = tuple(_variable_from_table(each) for each in variables)
    if len({each.name for each in read}) < len(read):
        raise InputError(f"expected variables of different names, got {', '.join(each.name for each in read):.80}")
    known = KNOWN_TASKS.get(name)
    if known is not None:
        if not set(read) <= set(known.variables):
            raise InputError(f"expected the variables of {name}, got others")
        known = _with_settings(known, table.get("settings", {}))
        # A sweep of an earlier version may lack some.
        return known if read == known.variables else replace(known, variables=read)  # type: ignore[type-var]
    settings = table.get("settings", {})
    if not isinstance(settings, dict):
        raise InputError(f"expected settings of {name} by name, got {settings!r:.80}")
    return Stored(read, name, stored_settings=settings)


def _with_settings(task: Task, settings: Any) -> Task:
    usual = task.settings
    # A sweep of an earlier version has no digest of its gallery.
    if isinstance(task, Embedding) and isinstance(settings, dict) and "gallery_digest" in settings:
        digest = settings["gallery_digest"]
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise InputError(f"expected a gallery_digest of {task.name}, got {digest!r:.80}")
        settings = {name: value for name, value in settings.items() if name != "gallery_digest"}
        task = replace(task, gallery_digest=digest)
    if not isinstance(settings, dict) or settings.keys() != usual.keys():
        raise InputError(f"expected the settings {', '.join(usual)} of {task.name}, got {settings!r:.80}")
    if any(type(value) not in (int, float) or not np.isfinite(value) for value in settings.values()):
        raise InputError(f"expected numbers as settings of {task.name}, got {settings!r:.80}")
    return replace(task, **settings) if settings else task  # type: ignore[type-var]


def _variable_to_table(variable: Variable) -> dict[str, Any]:
    table = asdict(variable)
    table["bounds"] = [float(bound) if np.isfinite(bound) else None for bound in variable.bounds]
    return table | {"dims": list(variable.dims), "needs": list(variable.needs)}


def _variable_from_table(table: Any) -> Variable:
    try:
        low, high = table["bounds"]
        bounds = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
        made = Variable(**table | {"bounds": bounds, "dims": tuple(table["dims"]), "needs": tuple(table["needs"])})
        dtype = np.dtype(made.dtype)
        names = (made.name, *made.dims)
        right = all(_NAME.fullmatch(name) for name in names) and dtype.kind in "bfu" and bounds[0] <= bounds[1]
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"expected a variable with name, dtype, dims and bounds, got {table!r:.80}") from error
    words = (made.unit, made.long_name)
    if (
        not right
        or made.better not in ("higher", "lower", None)
        or made.kind not in ("share", "number", None)
        or not isinstance(made.optional, bool)
        or not all(isinstance(word, str) and word.isprintable() for word in words)
        or ((made.is_accumulator or made.dims == OBJECT) and dtype.kind != "f")
    ):
        raise InputError(f"expected a variable that can be stored, got {table!r:.80}")
    return made
