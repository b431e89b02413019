"""A result's header: the attributes of its Zarr group as a model that is checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, ValidationInfo

from shiftlens.errors import InputError, ShiftlensError, StoreError
from shiftlens.naming import one_line

_FROM_FILE = {"from_file": True}


def as_json(value: Any) -> str:
    """One line of JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def stored(kind: type, parse: Callable[[Any], Any] = lambda value: value) -> BeforeValidator:
    """For a field that is one string of JSON in the file: decode it, expect `kind`, and `parse` that."""

    def read(value: Any, info: ValidationInfo) -> Any:
        if not info.context:
            return value  # made in Python
        try:
            decoded = json.loads(value)
        except (TypeError, RecursionError):
            raise ValueError("no JSON") from None
        if not isinstance(value, str) or not isinstance(decoded, kind):
            raise ValueError(f"no JSON of a {kind.__name__}")
        try:
            return parse(decoded)
        except ValueError as error:
            raise InputError(str(error)) from None  # pydantic would drop the reason

    return BeforeValidator(read)


def _not_null(value: Any, info: ValidationInfo) -> Any:
    if value is None and info.context:
        raise ValueError("null")
    return value


not_null = BeforeValidator(_not_null)
"""For a field that may be None in Python only: an attribute that is not there."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


JSON = PlainSerializer(as_json)
"""Writes a field as one string of JSON."""

Text = Annotated[str, Field(description="text")]
Whole = Annotated[int, Field(ge=0, lt=2**63, description="a whole number from 0 to 2**63 - 1")]
Texts = Annotated[tuple[str, ...], stored(list, tuple), JSON, Field(description="a JSON list of texts")]
Table = Annotated[dict[str, Any], stored(dict), JSON, Field(description="a JSON object")]
Options = Annotated[
    dict[str, str | int | float | list[int | float] | dict[str, str | int]],
    stored(dict),
    JSON,
    Field(description="a JSON object of texts, numbers and lists of numbers"),
]
Pair = Annotated[
    tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]],
    BeforeValidator(_tuple),
    Field(description="two whole numbers [y, x]"),
]
Sides = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
    BeforeValidator(_tuple),
    Field(description="two whole numbers [h, w] of at least 1"),
]


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn whatever goes wrong while attributes are made into objects into one `StoreError` that names `where`."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError, ShiftlensError) as error:
        raise StoreError(f"{where}: attributes cannot be read by this version: {one_line(error)}") from None


class Header(BaseModel):
    """Base of the headers. Attributes that it does not name are ignored: a later version may add some.

    The description of a field says what is expected of the attribute; a `serialization_alias` is its name in the file.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    def to_attributes(self) -> dict[str, Any]:
        """The attributes in the order of the fields; what is nested is one string of JSON."""
        values = self.model_dump(by_alias=True)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def attribute_names(cls) -> dict[str, str]:
        """For each field, its name in the file."""
        return {name: field.serialization_alias or name for name, field in cls.model_fields.items()}

    @classmethod
    def read(cls, attributes: Mapping[str, Any], where: str, **made: Any) -> Self:
        """Read the attributes of a group; `made` are fields that the caller has put together itself.

        Raises
        ------
        StoreError
            An attribute that is missing or of another type; the message names it and `where`.
        """
        names = cls.attribute_names()
        values = {name: attributes[key] for name, key in names.items() if key in attributes}
        with readable(where):
            try:
                return cls.model_validate(values | made, context=_FROM_FILE)
            except ValidationError as error:
                fault = error.errors(include_url=False, include_context=False)[0]
        name = str(fault["loc"][0])
        key, expected = names[name], cls.model_fields[name].description or str(fault["msg"]).lower()
        got = repr(attributes[key])[:80] if key in attributes else "nothing"
        raise StoreError(f"{where}: attribute {key!r} must be {expected}, got {got}")
