"""What a sweep's file says about itself: the attributes of its Zarr group, read and written in one place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from shiftlens.data.imageset import ImageSet
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.engine.plan import CONTROLS, Plan
from shiftlens.errors import InputError, StoreError
from shiftlens.models.behaviour import Behaviour, behaviour_of
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps.looks import Schedule

KIND = "sweep"
SCHEMA_VERSION = 3
"""2 added the seal and the checksums, 3 the seal over the attributes that change later; 1 and 2 are still read and gone
on with, as they are."""

PACKAGES = ("shiftlens", "torch", "numpy", "zarr", "pillow")
"""Whose versions are written into a sweep; Pillow's only where it decoded or resized the images."""

_SAME = ("torch", "shiftlens", "pillow")
"""Of which a stored sweep is continued only by the same version: others do not touch its numbers."""


@dataclass(frozen=True)
class SweepHeader:
    """All that is known about a sweep besides its numbers; no times, no host names.

    `model`, `data` are the specs as the user gave them; `image_size` is `(h, w)` in pixels on the model's input grid;
    `n_macs` counts the multiply-adds of one image (None for a callable that cannot be looked into); `strides` are the
    down-sampling factors met in the net; `training` is what the model's run directory says about its training;
    `control` is None for the sweep itself and the control's name in a control's subgroup; `schedule` is what an
    adaptive sweep declares beforehand, None for one of all images; `behaviour` is what the model answers on fixed
    pictures, None where an older shiftlens wrote the sweep.
    """

    model: str
    model_digest: str
    model_notes: tuple[str, ...]
    data: str
    data_digest: str
    data_notes: tuple[str, ...]
    n_classes: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    grid: ShiftGrid
    fill: Fill
    plan: Plan
    n_parameters: int | None
    n_macs: int | None
    strides: tuple[int, ...]
    preprocessing: Preprocessing
    training: Mapping[str, Any]
    software: Mapping[str, str]
    control: str | None = None
    schedule: Schedule | None = None
    behaviour: Behaviour | None = None

    def for_control(self, control: str) -> SweepHeader:
        """The header of a control's subgroup."""
        return replace(self, control=control)

    def to_attributes(self, *, complete: bool) -> dict[str, Any]:
        """Attributes of the Zarr group, in a fixed order; what is nested is one string of JSON."""
        attributes: dict[str, Any] = {"kind": KIND, "schema_version": SCHEMA_VERSION, "complete": complete}
        if self.control is not None:
            attributes["control"] = self.control
        if self.schedule is not None:
            attributes["adaptive"] = self.schedule.to_json()
        if self.behaviour is not None:
            attributes["behaviour"] = _dump(self.behaviour.to_json())
        return attributes | {
            "model": self.model,
            "model_digest": self.model_digest,
            "model_notes": _dump(self.model_notes),
            "data": self.data,
            "data_digest": self.data_digest,
            "data_notes": _dump(self.data_notes),
            "n_classes": self.n_classes,
            "class_names": _dump(self.class_names),
            "image_size": list(self.image_size),
            "max_shift": [self.grid.max_y, self.grid.max_x],
            "step": self.grid.step,
            "fill": self.fill.name,
            # The name rounds a number for the eye; these are the numbers that were used.
            "fill_values": _dump(self.fill.values),
            "engine": self.plan.engine,
            "dtype": self.plan.dtype,
            "plan": self.plan.to_json(),
            "n_parameters": self.n_parameters,
            "n_macs": self.n_macs,
            "strides": _dump(self.strides),
            "preprocessing": _dump(asdict(self.preprocessing)),
            "training": _dump(dict(self.training)),
            "software": _dump(dict(self.software)),
        }

    @staticmethod
    def from_attributes(attributes: Mapping[str, Any], where: str) -> SweepHeader:
        """Read the attributes of a group whose `kind` and `schema_version` are known to be right.

        Raises
        ------
        StoreError
            An attribute that is missing or of another type; the message names it and `where`.
        """
        read = _Reader(attributes, where)
        max_y, max_x = read.pair("max_shift")
        fill_values = read.json("fill_values")
        try:
            return SweepHeader(
                model=read.text("model"),
                model_digest=read.text("model_digest"),
                model_notes=read.texts("model_notes"),
                data=read.text("data"),
                data_digest=read.text("data_digest"),
                data_notes=read.texts("data_notes"),
                n_classes=read.number("n_classes", least=2),
                class_names=read.texts("class_names"),
                image_size=read.pair("image_size", least=1),
                grid=ShiftGrid((max_y, max_x), read.number("step")),
                fill=_fill(read.text("fill"), fill_values),
                plan=Plan.from_json(read.text("plan")),
                n_parameters=read.optional_number("n_parameters"),
                n_macs=read.optional_number("n_macs"),
                strides=tuple(read.numbers("strides")),
                preprocessing=Preprocessing(**{key: _tupled(v) for key, v in read.table("preprocessing").items()}),
                training=read.table("training"),
                software=read.table("software"),
                control=read.control() if "control" in attributes else None,
                schedule=Schedule.from_table(read.table("adaptive")) if "adaptive" in attributes else None,
                behaviour=Behaviour.from_json(read.json("behaviour")) if "behaviour" in attributes else None,
            )
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError, InputError) as error:
            raise StoreError(f"{where}: attributes cannot be read by this version: {one_line(error)}") from None

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
        for what, mine, theirs, shown, stored_shown in (
            ("model", self.model_digest, stored.model_digest, self.model, stored.model),
            ("data", self.data_digest, stored.data_digest, self.data, stored.data),
        ):
            if mine == theirs:
                continue
            if what == "model" and shown == stored_shown and self.preprocessing != stored.preprocessing:
                raise StoreError(
                    f"{where} holds a sweep with another preprocessing: {_entry(stored.preprocessing)}, this run has "
                    f"{_entry(self.preprocessing)}; choose another path"
                )
            raise StoreError(
                f"{where} holds a sweep of another {what}: {stored_shown} ({_short(theirs)}), this run has {shown} "
                f"({_short(mine)}); choose another path"
            )
        for name, mine_, theirs_ in (
            ("max-shift [y, x]", [self.grid.max_y, self.grid.max_x], [stored.grid.max_y, stored.grid.max_x]),
            ("step", self.grid.step, stored.grid.step),
            ("fill", self.fill, stored.fill),
        ):
            if mine_ != theirs_:
                raise StoreError(
                    f"{where} holds a sweep with another {name}: {_show(theirs_)}, this run has {_show(mine_)}; "
                    "choose another path"
                )
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
    model: Model, images: ImageSet, size: tuple[int, int], grid: ShiftGrid, fill: Fill, plan: Plan
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
        training=model.training,
        software=software,
        behaviour=behaviour_of(model, (images.n_channels, *size)),
    )


def software_versions() -> dict[str, str]:
    """Versions of the packages that can move a result."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


class _Reader:
    """Typed access to attributes; every failure names the attribute and the place."""

    def __init__(self, attributes: Mapping[str, Any], where: str) -> None:
        self._attributes = attributes
        self._where = where

    def _fail(self, key: str, expected: str) -> StoreError:
        got = repr(self._attributes[key])[:80] if key in self._attributes else "nothing"
        return StoreError(f"{self._where}: attribute {key!r} must be {expected}, got {got}")

    def text(self, key: str) -> str:
        value = self._attributes.get(key)
        if not isinstance(value, str):
            raise self._fail(key, "text")
        return value

    def number(self, key: str, least: int = 0) -> int:
        value = self.optional_number(key)
        if value is None or value < least:
            raise self._fail(key, f"a whole number of at least {least}")
        return value

    def optional_number(self, key: str) -> int | None:
        value = self._attributes.get(key)
        if key not in self._attributes or isinstance(value, bool) or not isinstance(value, int | None):
            raise self._fail(key, "a whole number")
        if value is not None and not 0 <= value < 2**63:
            raise self._fail(key, "a whole number from 0 to 2**63 - 1")
        return value

    def pair(self, key: str, least: int = 0) -> tuple[int, int]:
        value = self._attributes.get(key)
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(v) is int for v in value):
            raise self._fail(key, "two whole numbers [y, x]")
        if min(value) < least:
            raise self._fail(key, f"two whole numbers of at least {least}")
        return value[0], value[1]

    def json(self, key: str) -> Any:
        try:
            return json.loads(self.text(key))
        except (ValueError, RecursionError):
            raise self._fail(key, "JSON") from None

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.json(key)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self._fail(key, "a JSON list of texts")
        return tuple(values)

    def numbers(self, key: str) -> list[int]:
        values = self.json(key)
        if not isinstance(values, list) or not all(type(value) is int and value > 0 for value in values):
            raise self._fail(key, "a JSON list of whole numbers")
        return values

    def table(self, key: str) -> dict[str, Any]:
        values = self.json(key)
        if not isinstance(values, dict):
            raise self._fail(key, "a JSON object")
        return values

    def control(self) -> str:
        name = self.text("control")
        if name not in CONTROLS:
            raise self._fail("control", f"one of {', '.join(CONTROLS)}")
        return name


def _fill(name: str, values: Any) -> Fill:
    """The stored fill; its name must be what `Fill.parse` makes of it, give or take the rounding of its numbers."""
    if values is not None and not (isinstance(values, list) and all(type(v) in (int, float) for v in values)):
        raise InputError(f"fill_values must be pixel values from 0 to 1, got {values!r:.80}")
    named = Fill.parse(name)
    fill = Fill(name, None if values is None else tuple(values))
    if len(named.values or ()) != len(fill.values or ()):
        raise InputError(f"fill {name!r:.80} and fill_values {values!r:.80} differ")
    return fill


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _short(digest: str) -> str:
    return digest[:19]


def _entry(preprocessing: Preprocessing) -> str:
    p = preprocessing
    return f"mean {list(p.mean)}, std {list(p.std)}, size {p.size}, resize {p.resize} ({p.interpolation})"


def _show(value: object) -> str:
    if isinstance(value, Fill):
        return value.name if value.values is None else f"{value.name} {list(value.values)}"
    return str(value)
