"""What the `model.json` of a run directory holds, checked: it may come from a stranger."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError, StoreError
from shiftlens.naming import one_line, printable
from shiftlens.paths import kind_of

KIND = "run"
SCHEMA_VERSION = 1
MODEL_JSON = "model.json"
WEIGHTS = "model.safetensors"
MAX_JSON_BYTES = 16 * 2**20
MAX_PIXELS = 2048 * 2048
"""Largest input that a run directory may declare: blank pictures of that size are shown to the net when it is loaded,
and the file is anybody's. A user may ask for more."""

Side = Annotated[int, Field(ge=1, le=16_384)]


def _of_some_pixels(size: list[int]) -> list[int]:
    if math.prod(size) > MAX_PIXELS:
        raise ValueError(f"expected at most {MAX_PIXELS} pixels, got {size[0]}x{size[1]}")
    return size


Sides = Annotated[list[Side], Field(min_length=2, max_length=2), AfterValidator(_of_some_pixels)]


class Strict(BaseModel):
    """Exactly these keys, exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Build(Strict):
    """How to build the net: a key of `FACTORIES` and keyword arguments."""

    factory: Annotated[str, Field(max_length=200)]
    kwargs: dict[str, JsonValue] = {}


class Code(Strict):
    """A user's own source files: the digest of the one that has the factory, and of what it imports, by path."""

    digest: Annotated[str, Field(max_length=100)]
    imports: Annotated[dict[str, str], Field(max_length=10_000)] = {}


class StoredPreprocessing(BaseModel):
    """`Preprocessing` in JSON."""

    model_config = ConfigDict(strict=True, frozen=True)

    mean: Annotated[list[float], Field(min_length=1, max_length=64)]
    std: Annotated[list[float], Field(min_length=1, max_length=64)]
    size: Sides | None = None
    resize: Side | Sides | None = None
    interpolation: str = "bilinear"
    declared: bool = True

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> StoredPreprocessing:
        """As JSON has it: lists for tuples."""
        values: dict[str, Any] = asdict(preprocessing)
        return cls.model_validate({k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})

    def restored(self) -> Preprocessing:
        """`of` undone; `InputError` for numbers out of range."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in self.model_dump().items()}
        return Preprocessing(**values)


class RunSpec(BaseModel):
    """What `model.json` holds. Unknown keys are ignored: a later version may add some."""

    model_config = ConfigDict(strict=True, frozen=True)

    kind: Literal["run"] = "run"
    schema_version: Literal[1] = 1
    build: Build
    preprocessing: StoredPreprocessing
    class_names: list[str] | None = None
    training: dict[str, JsonValue] = {}
    metrics: dict[str, JsonValue] = {}
    parents: list[str] = []
    edits: Annotated[list[dict[str, JsonValue]], Field(max_length=10_000)] = []
    code: Code | None = None
    """Of a net that code of a user's builds: what that code was. Only the user can name it, to have it run."""
    weights: str
    """Digest of the tensors in `model.safetensors`: tells a torn pair, and a file from elsewhere."""


def first_fault(error: ValidationError) -> str:
    """The first thing wrong with a JSON document, in one line: where, and what was expected."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    return printable(f"{where}: {fault['msg']}" if where else str(fault["msg"]))


def read_spec(path: str | Path) -> RunSpec:
    """Read and check the `model.json` of a run directory.

    `InputError`: no such directory, or no `model.json` in it. `StoreError`: not a run, of another schema version, or
    not as a run is written (says where).
    """
    file = Path(path) / MODEL_JSON
    if kind_of(file) != "file":
        what = f"no {MODEL_JSON} in it" if kind_of(path) == "folder" else "no such directory"
        raise InputError(f"{path} is not a run directory: {what}")
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise StoreError(f"{file} has {file.stat().st_size} bytes, more than a run's {MAX_JSON_BYTES}")
        content = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}") from None
    return parse_spec(content, str(file))


def parse_spec(content: bytes | str, where: str) -> RunSpec:
    """Check the text of a `model.json`; `where` names it in errors, which are those of `read_spec`."""
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where} is no readable JSON: {one_line(error)}") from None
    if not isinstance(header, dict) or header.get("kind") != KIND:
        kind = header.get("kind") if isinstance(header, dict) else type(header).__name__
        raise StoreError(f"{where} is of kind {str(kind)[:60]!r}, expected {KIND!r}")
    version = header.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StoreError(f"{where} has schema_version {str(version)[:60]}, this shiftlens reads {SCHEMA_VERSION}")
    try:
        return RunSpec.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(f"{where}: {first_fault(error)}") from None
