"""The nets of a study: factors, their levels, and the budget that all runs share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shiftlens.errors import InputError
from shiftlens.naming import one_line, unknown_name
from shiftlens.nn.vgg import VGG
from shiftlens.training import Recipe, TrainSettings

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "none": {"crop": 0, "flip": "none"},
    "flip": {"crop": 0},
    "shift": {"flip": "none"},
    "wide-shift": {"crop": 8},
}
"""Levels of the factor `augmentation`, as changes of the recipe, which shifts by up to 2 px and mirrors."""


class Table(BaseModel):
    """A table of the file; an unknown key is refused with the nearest one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    raise unknown_name("key", key, cls.model_fields)
        return value


def _sides(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


Sides = Annotated[tuple[int, int], BeforeValidator(_sides)]
Count = Annotated[int, Field(ge=1)]


class Training(Table):
    """The budget of each run, `epochs` or `minutes` (the recipe's default without), and changes of the recipe."""

    epochs: Count | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    dtype: str = "auto"
    recipe: dict[str, Any] = {}


class Arm(Table):
    """One kind of net: a level of every factor.

    Attributes
    ----------
    padding, downsample, head, arch, width, size
        Of the net: see `shiftlens.nn.VGG`. `size` is its input in pixels, one number or [h, w].
    augmentation
        A key of `AUGMENTATIONS`.
    cut
        The middle of each image is cut out at `size`; without, images are resized.
    recipe
        Numbers of the recipe that this arm changes (`shiftlens.training.Recipe`).
    """

    padding: str = "zeros"
    downsample: str = "max"
    size: Sides = (32, 32)
    augmentation: str = "recipe"
    head: str = "gap"
    arch: str = "vgg8"
    width: Count = 64
    cut: bool = False
    recipe: dict[str, Any] = {}

    @model_validator(mode="after")
    def _levels(self) -> Self:
        settings = self.settings(Training())
        VGG(  # refuses a size that the net cannot take
            arch=settings.arch,
            padding=settings.padding,
            downsample=settings.downsample,
            head=settings.head,
            size=settings.size,
            width=1,
        )
        return self

    def settings(self, training: Training) -> TrainSettings:
        """What `shiftlens.train` is asked for."""
        if self.augmentation not in AUGMENTATIONS:
            raise unknown_name("augmentation", self.augmentation, AUGMENTATIONS)
        changes = AUGMENTATIONS[self.augmentation] | training.recipe | self.recipe
        known = [each.name for each in fields(Recipe)]
        for name in changes:
            if name not in known or name == "stages":
                raise unknown_name("number of the recipe", name, known)
        net = {name: getattr(self, name) for name in ("padding", "downsample", "size", "head", "arch", "width")}
        budget = {name: getattr(training, name) for name in ("epochs", "minutes", "dtype")}
        try:
            return TrainSettings(**net, **budget, glance=0, recipe=replace(Recipe(), **changes))
        except TypeError as error:
            raise InputError(f"a number of the recipe has another type: {one_line(error)}") from None


class Factors(Table):
    """The levels that are combined: each a single one, or a list, of which every combination is an arm."""

    padding: str | list[str] = "zeros"
    downsample: str | list[str] = "max"
    size: int | list[int] = 32
    augmentation: str | list[str] = "recipe"
    head: str | list[str] = "gap"
    arch: str | list[str] = "vgg8"
    width: Count | list[Count] = 64
