"""What a sweep's file says about itself: the attributes of its Zarr group, read and written in one place."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, InstanceOf, JsonValue

from shiftlens.data.imageset import ImageSet
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.engine.plan import CONTROLS, Plan
from shiftlens.errors import InputError, StoreError
from shiftlens.models.behaviour import Behaviour, behaviour_of
from shiftlens.models.wrapping import Model
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.storage.existing import Kind
from shiftlens.storage.groups import damage_of, open_group
from shiftlens.storage.headers import (
    Header,
    Options,
    Pair,
    Sides,
    Table,
    Text,
    Texts,
    Whole,
    as_json,
    not_null,
    readable,
    stored,
)
from shiftlens.sweeps.looks import Schedule
from shiftlens.tasks.classification import CLASSIFICATION
from shiftlens.tasks.stored_form import task_from_table, task_to_table
from shiftlens.tasks.task import Task

KIND = "sweep"
SCHEMA_VERSION = 3
SWEEP = Kind(KIND, "a sweep", SCHEMA_VERSION, "sweep it again")

PACKAGES = ("shiftlens", "torch", "numpy", "zarr", "pillow")
"""Whose versions are written into a sweep; Pillow's only where it decoded or resized the images."""

_SAME = ("torch", "shiftlens", "pillow")
"""Of which a stored sweep is continued only by the same version: others do not touch its numbers."""


class _Question(Header):
    """The attributes that make a grid and a fill."""

    max_shift: Pair
    step: Whole
    fill: Text
    fill_values: Annotated[JsonValue, stored(object)]

    def grid_and_fill(self) -> tuple[ShiftGrid, Fill]:
        """Both; the fill's name must be what `Fill.parse` makes of it, give or take the rounding of its numbers."""
        values = self.fill_values
        if values is not None and not (isinstance(values, list) and all(type(v) in (int, float) for v in values)):
            raise InputError(f"fill_values must be pixel values from 0 to 1, got {values!r:.80}")
        named = Fill.parse(self.fill)
        fill = Fill(self.fill, None if values is None else tuple(values))  # type: ignore[arg-type]
        if len(named.values or ()) != len(fill.values or ()):
            raise InputError(f"fill {self.fill!r:.80} and fill_values {values!r:.80} differ")
        return ShiftGrid(self.max_shift, self.step), fill


def _preprocessing(table: dict[str, Any]) -> Preprocessing:
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
    return Preprocessing(**values)


def _plan(table: dict[str, Any]) -> Plan:
    return Plan.from_json(json.dumps(table))


class SweepHeader(Header):
    """All that is known about a sweep besides its numbers; no times, no host names.

    `model`, `data` are the specs as the user gave them; `image_size` is `(h, w)` in pixels on the model's input grid;
    `n_macs` counts the multiply-adds of one image (None for a callable that cannot be looked into); `strides` are the
    down-sampling factors met in the net; `training` is what the model's run directory says about its training;
    `control` is None for the sweep itself and the control's name in a control's subgroup; `schedule` is what an
    adaptive sweep declares beforehand, None for one of all images; `behaviour` is what the model answers on fixed
    images, None where it was not asked; `task` is what was measured (a `tasks.task.Task`), which the file names where
    it is not classification; `model_options`, `data_options` are what the user gave beside the specs, by name, which
    the file holds where there are any.
    """

    model: Text
    model_digest: Text
    model_notes: Texts
    data: Text
    data_digest: Text
    data_notes: Texts
    n_classes: Annotated[int, Field(ge=2, lt=2**63, description="a whole number of at least 2")]
    class_names: Texts
    image_size: Sides
    grid: InstanceOf[ShiftGrid]
    fill: InstanceOf[Fill]
    plan: Annotated[InstanceOf[Plan], stored(dict, _plan), Field(description="a JSON object")]
    n_parameters: Whole | None = Field(description="a whole number from 0 to 2**63 - 1")
    n_macs: Whole | None = Field(description="a whole number from 0 to 2**63 - 1")
    strides: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        stored(list, tuple),
        Field(description="a JSON list of whole numbers"),
    ]
    preprocessing: Annotated[
        InstanceOf[Preprocessing], stored(dict, _preprocessing), Field(description="a JSON object")
    ]
    training: Table
    software: Table
    control: Annotated[Literal["occlusion", "flip", "canvas"] | None, not_null] = Field(
        None, description=f"one of {', '.join(CONTROLS)}"
    )
    schedule: Annotated[InstanceOf[Schedule] | None, stored(dict, Schedule.from_table)] = Field(
        None, serialization_alias="adaptive", description="a JSON object"
    )
    behaviour: Annotated[InstanceOf[Behaviour] | None, stored(dict, Behaviour.from_json)] = Field(
        None, description="a JSON object"
    )
    task: Annotated[Any, stored(dict, task_from_table), not_null] = Field(CLASSIFICATION, description="a JSON object")
    model_options: Options = Field(default_factory=dict)
    data_options: Options = Field(default_factory=dict)

    def for_control(self, control: str) -> SweepHeader:
        """The header of a control's subgroup."""
        return self.model_copy(update={"control": control})

    def to_attributes(self, *, complete: bool = False) -> dict[str, Any]:
        """Attributes of the Zarr group, in a fixed order; what is nested is one string of JSON."""
        attributes: dict[str, Any] = {"kind": KIND, "schema_version": SCHEMA_VERSION, "complete": complete}
        if self.control is not None:
            attributes["control"] = self.control
        if self.schedule is not None:
            attributes["adaptive"] = self.schedule.to_json()
        if self.behaviour is not None:
            attributes["behaviour"] = as_json(self.behaviour.to_json())
        if self.task.name != CLASSIFICATION.name:
            attributes["task"] = as_json(task_to_table(self.task))
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "grid":
                attributes |= {"max_shift": [value.max_y, value.max_x], "step": value.step}
            elif name == "fill":
                # The name rounds a number for the eye; these are the numbers that were used.
                attributes |= {"fill": value.name, "fill_values": as_json(value.values)}
            elif name == "plan":
                attributes |= {"engine": value.engine, "dtype": value.dtype, "plan": value.to_json()}
            elif name == "preprocessing":
                attributes[name] = as_json(asdict(value))
            elif name == "image_size":
                attributes[name] = list(value)
            elif name in ("model_options", "data_options"):
                attributes |= {name: as_json(value)} if value else {}
            elif name not in ("control", "schedule", "behaviour", "task"):
                attributes[name] = as_json(value) if isinstance(value, tuple | dict) else value
        return attributes

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any], where: str) -> SweepHeader:
        """Read the attributes of a group whose `kind` and `schema_version` are known to be right.

        Raises
        ------
        StoreError
            An attribute that is missing or of another type; the message names it and `where`.
        """
        question = _Question.read(attributes, where)
        with readable(where):
            grid, fill = question.grid_and_fill()
        return cls.read(attributes, where, grid=grid, fill=fill)

    def refuse_other(self, stored: SweepHeader, where: str) -> None:
        """Refuse to add this run's numbers to a stored sweep that asked another question.

        Raises
        ------
        StoreError
            Says which of model (preprocessing and behaviour included), data, grid or fill differs, what is stored, what
            this run has.
        """
        if stored.control is not None:
            raise StoreError(
                f"{where} holds the control {stored.control} of a sweep: expected the sweep itself; "
                "name that, and ask for the control"
            )

        def other(what: str, there: object, here: object) -> StoreError:
            return StoreError(
                f"{where} holds a sweep {what}: {there}, this run has {here}; choose another path, "
                "or --overwrite (overwrite=True) to replace it"
            )

        there, here = (task_to_table(header.task) for header in (stored, self))
        if there["name"] != here["name"]:
            raise other("of another task", there["name"], here["name"])
        for theirs, own in zip_longest(there["variables"], here["variables"]):
            if theirs != own:
                raise other(f"with other variables of the task {here['name']}", theirs, own)
        settings = [table.get("settings", {}) for table in (there, here)]
        if not all("gallery_digest" in each for each in settings):  # an earlier version wrote none
            settings = [{k: v for k, v in each.items() if k != "gallery_digest"} for each in settings]
        if settings[0] != settings[1]:
            raise other(f"of another task, {here['name']} with other settings", *settings)
        if self.model_digest != stored.model_digest:
            if self.model == stored.model and self.preprocessing != stored.preprocessing:
                raise other("with another preprocessing", *(_entry(h.preprocessing) for h in (stored, self)))
            raise other("of another model", *(f"{h.model} ({_short(h.model_digest)})" for h in (stored, self)))
        if self.data_digest != stored.data_digest:
            raise other("of another data", *(f"{h.data} ({_short(h.data_digest)})" for h in (stored, self)))
        if self.grid != stored.grid:
            widest = [[header.grid.max_y, header.grid.max_x] for header in (stored, self)]
            if widest[0] != widest[1]:
                raise other("with another max-shift [y, x]", *widest)
            if stored.grid.step != self.grid.step:
                raise other("with another step", stored.grid.step, self.grid.step)
        if self.fill != stored.fill:
            raise other("with another fill", _show(stored.fill), _show(self.fill))
        self._refuse_other_behaviour(stored, where)

    def _refuse_other_behaviour(self, stored: SweepHeader, where: str) -> None:
        if self.behaviour is None or stored.behaviour is None:
            return
        found = stored.behaviour.difference(self.behaviour)
        if found is not None:
            raise StoreError(
                f"{where} holds a sweep of {stored.model} as it answered then; this run's, of the same digest "
                f"({_short(self.model_digest)}), answers otherwise on fixed picture {found.picture}: {found.text}. "
                "What the digest does not cover has changed (a file, a library, a setting): undo it or choose another "
                "path"
            )

    def refuse_other_torch(self, where: str) -> None:
        """Refuse to compute more of a stored sweep with another torch, shiftlens or Pillow than began it.

        A version that the sweep does not name is no reason to refuse: older sweeps name no Pillow, and those of arrays
        that are used as they are have none.

        Raises
        ------
        StoreError
            Another version may round differently, so the file would depend on where it was interrupted.
        """
        versions = software_versions()
        for package in _SAME:
            here, there = versions.get(package, "unknown"), self.software.get(package)
            if there is None and package != "torch":
                continue
            if here != there:
                raise StoreError(
                    f"{where} was begun with {package} {there}, this is {package} {here}: its results could differ in "
                    f"the last bits; finish it with {package} {there}, or start a new sweep at another path"
                )


def describe(
    model: Model, images: ImageSet, size: tuple[int, int], grid: ShiftGrid, fill: Fill, plan: Plan, task: Task
) -> SweepHeader:
    """The header of a sweep of `model` on `images` (already on the model's input grid of `size` `(h, w)` pixels)."""
    software = software_versions()
    if not images.through_pillow:
        software.pop("pillow", None)
    return SweepHeader(
        model=model.name,
        model_digest=model.digest,
        model_notes=tuple(getattr(model, "notes", ())),
        data=images.name,
        data_digest=images.digest,
        data_notes=tuple(images.notes),
        n_classes=model.n_classes,
        class_names=tuple(model.class_names or images.class_names or ()),
        image_size=size,
        grid=grid,
        fill=fill,
        plan=plan,
        n_parameters=model.n_parameters,
        n_macs=model.n_macs,
        strides=tuple(model.strides),
        preprocessing=model.preprocessing,
        training=dict(model.training),
        software=software,
        behaviour=behaviour_of(model, (images.n_channels, *size)),
        task=task,
        model_options=dict(model.options),
        data_options=dict(images.options),
    )


def software_versions() -> dict[str, str]:
    """Versions of the packages that can move a result."""
    return {package: _version(package) for package in PACKAGES}


@cache
def _version(package: str) -> str:
    try:
        return version(package)  # reads and parses the package's metadata file
    except PackageNotFoundError:
        return "unknown"


def sweep_exists(path: Path) -> bool:
    """Whether a sweep of ours lies at `path`; False when nothing does (an empty directory is nothing).

    Raises
    ------
    StoreError
        Something else is there, or a sweep of another version. Nothing is touched.
    """
    return SWEEP.readable_at(path)


def read_header(path: Path) -> SweepHeader:
    """What a sweep says of itself, without a look at its arrays.

    Raises
    ------
    StoreError
        An attribute is missing or cannot be read.
    """
    with damage_of(path):
        attributes = open_group(path).attrs.asdict()
    SWEEP.refuse_other_version(path, attributes.get("schema_version"))
    return SweepHeader.from_attributes(attributes, str(path))


def _short(digest: str) -> str:
    return digest[:19]


def _entry(preprocessing: Preprocessing) -> str:
    p = preprocessing
    return f"mean {list(p.mean)}, std {list(p.std)}, size {p.size}, resize {p.resize} ({p.interpolation})"


def _show(fill: Fill) -> str:
    return fill.name if fill.values is None else f"{fill.name} {list(fill.values)}"
