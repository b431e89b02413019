"""Run directories: `model.json` and `model.safetensors`, enough to build a net again without running their code.

A run directory may come from a stranger. So `model.json` can only name a factory of `FACTORIES`, with arguments that
are checked, and the weights are tensors and nothing else. A net of a user's own code is named too (`named_code`): that
code is run only where the user names it, and is as it was.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError, StoreError
from shiftlens.models.checkpoints import describe_misfit, fit_weights, read_safetensors
from shiftlens.models.digests import state_digest, structure
from shiftlens.models.named_code import MADE_IN_PYTHON, code_of, net_of_run, own_net
from shiftlens.models.runspec import (
    MODEL_JSON,
    WEIGHTS,
    Build,
    RunSpec,
    Side,
    StoredPreprocessing,
    Strict,
    first_fault,
    parse_spec,
    read_spec,
)
from shiftlens.models.wrapping import Model, build_model
from shiftlens.models.zoo import LIBRARIES
from shiftlens.naming import count_of, one_line, unknown_name
from shiftlens.nn.center_points import CenterPoints
from shiftlens.nn.edits import carry_out
from shiftlens.nn.unet import UNet
from shiftlens.nn.vgg import VGG
from shiftlens.paths import entries_of, kind_of

Count = Annotated[int, Field(ge=1, le=100_000)]
_STRAY = re.compile(r"\..+\.\d+\.partial")


class VGGArguments(Strict):
    """Arguments of `VGG` that a run directory may set."""

    arch: str = "vgg8"
    n_classes: Count = 10
    in_channels: Annotated[int, Field(ge=1, le=64)] = 3
    padding: str = "zeros"
    downsample: str = "max"
    head: str = "gap"
    size: Annotated[list[Side], Field(min_length=2, max_length=2, default_factory=lambda: [32, 32])]
    width: Annotated[int, Field(ge=1, le=4_096)] = 64


class MapArguments(Strict):
    """Arguments of `UNet` and `CenterPoints` that a run directory may set."""

    n_classes: Count
    in_channels: Annotated[int, Field(ge=1, le=64)] = 1
    width: Annotated[int, Field(ge=1, le=4_096)] = 16
    padding: str = "zeros"


class LibraryArguments(Strict):
    """Arguments of a library's net that a run directory may set."""

    num_classes: Count | None = None


@dataclass(frozen=True)
class Factory:
    """A way to build a net that a run directory may name: its arguments, and what builds it (with the name's tail)."""

    arguments: type[BaseModel]
    build: Callable[[str, Any], nn.Module]


FACTORIES: dict[str, Factory] = {
    "shiftlens.nn.vgg:VGG": Factory(VGGArguments, lambda _, arguments: VGG(**arguments.model_dump())),
    "shiftlens.nn.unet:UNet": Factory(MapArguments, lambda _, arguments: UNet(**arguments.model_dump())),
    "shiftlens.nn.center_points:CenterPoints": Factory(
        MapArguments, lambda _, arguments: CenterPoints(**arguments.model_dump())
    ),
    "torchvision:": Factory(LibraryArguments, lambda name, a: LIBRARIES["torchvision"].net(name, a.num_classes)),
    "timm:": Factory(LibraryArguments, lambda name, a: LIBRARIES["timm"].net(name, a.num_classes)),
}
"""Everything that a run directory can build. A key that ends with a colon is followed by a name of that library."""


def build_net(build: Build, edits: Sequence[Mapping[str, Any]] = ()) -> nn.Module:
    """Build the net that a run directory names, with random weights, and carry out the edits that it lists.

    `InputError`: a factory that is not in `FACTORIES`, arguments that it does not take, or an edit that the net does
    not.
    """
    return carry_out(_as_named(build), edits)


def _as_named(build: Build) -> nn.Module:
    prefix, colon, name = build.factory.partition(":")
    key = build.factory if build.factory in FACTORIES else prefix + colon
    if key not in FACTORIES or (key.endswith(":") and not name):
        known = [f"{known}NAME" if known.endswith(":") else known for known in FACTORIES]
        raise unknown_name("factory", build.factory, known)
    factory = FACTORIES[key]
    try:
        arguments = factory.arguments.model_validate_json(json.dumps(build.kwargs))
    except ValidationError as error:
        raise InputError(f"arguments of {build.factory}: {first_fault(error)}") from None
    return factory.build(name, arguments)


def check_run_target(path: str | Path) -> None:
    """Refuse a place where a run directory must not be written: a file, or a folder that holds something else.

    A folder that does not exist, is empty, was just made by a process that was killed, or is a run directory is fine.
    """
    path = Path(path)
    _refuse_file(path)
    if kind_of(path / MODEL_JSON) != "nothing":
        read_spec(path)
    elif kind_of(path) == "folder" and holds_more_than_strays(path):
        raise StoreError(f"{path} holds something else (no {MODEL_JSON} in it); choose a new name")


def _refuse_file(path: Path) -> None:
    if kind_of(path) == "file":
        raise StoreError(f"{path} is a file, expected a run directory or a new name")
    if kind_of(path) == "nothing" and os.path.lexists(path):
        raise StoreError(f"{path} is a device, or a link that leads nowhere; expected a run directory or a new name")


def save_run(
    path: str | Path,
    module: nn.Module,
    *,
    build: Mapping[str, Any],
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None = None,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    parents: Sequence[str] = (),
    edits: Sequence[Mapping[str, Any]] = (),
    code: str | Path | None = None,
) -> None:
    """Write a run directory, or replace one. Killed at any moment, it leaves the old run or the new one, whole.

    `build` names an entry of `FACTORIES` and its arguments (`{"factory": "shiftlens.nn.vgg:VGG", "kwargs":
    module.config}`), `edits` what was changed since, as `nn.edits.Edit.to_dict` gives it: both are tried here, and must
    give a net of the same structure. A net that a user's own code builds has the factory's name there (`net.py:make`),
    and `code` says where that code lies: its digest is stored, its place is not. `parents` are digests of the models
    that this one was made from. Other files in the directory are left alone.

    `InputError`: another net, or facts that JSON cannot hold. `StoreError`: `path` is a file, holds a `model.json` of
    something else, or cannot be written.
    """
    path = Path(path)
    _refuse_file(path)
    if kind_of(path / MODEL_JSON) != "nothing":
        read_spec(path)
    state = {name: value.detach().cpu() for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    try:
        spec = RunSpec(
            build=Build(factory=build["factory"], kwargs=dict(build.get("kwargs", {}))),
            preprocessing=StoredPreprocessing.of(preprocessing),
            class_names=None if class_names is None else [str(name) for name in class_names],
            training=_plain(training or {}),
            metrics=_plain(metrics or {}),
            parents=list(parents),
            edits=[_plain(edit) for edit in edits],
            code=None if code is None else code_of(code),
            weights=state_digest(state),
        )
        facts = spec.model_dump(mode="json", exclude={"code"} if code is None else None)
        text = json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n"
    except ValidationError as error:
        raise InputError(f"run facts do not fit: {first_fault(error)}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"run facts must be plain JSON: {one_line(error)}") from None
    if not spec.build.factory.startswith(MADE_IN_PYTHON):
        _refuse_another(spec, module, code)
    # A clone unties tensors that share memory, which safetensors refuses. The whole spec rides along in the weights, so
    # that a run killed between the two renames is still whole: the weights then say themselves what they are.
    weights = to_safetensors({name: value.contiguous().clone() for name, value in state.items()}, {MODEL_JSON: text})
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / WEIGHTS, weights)
        write_atomically(path / MODEL_JSON, text.encode())
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None


def _refuse_another(spec: RunSpec, module: nn.Module, code: str | Path | None) -> None:
    with torch.random.fork_rng(devices=[]):
        first = _as_named(spec.build) if code is None else own_net(code, spec.build.factory)
        rebuilt = carry_out(first, spec.edits)
    if structure(rebuilt) != structure(module):
        edited = f" and {count_of(len(spec.edits), 'edit')}" if spec.edits else ""
        raise InputError(
            f"build {spec.build.factory} with {spec.build.kwargs}{edited} gives another net than the one to save"
        )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    # Tuples become lists and keys text here rather than at the next reading; NaN and objects are refused.
    plain: dict[str, Any] = json.loads(json.dumps(dict(facts), allow_nan=False))
    return plain


def holds_more_than_strays(folder: Path) -> bool:
    """Whether a folder holds more than what a process left that was killed within `write_atomically`."""
    return any(not _STRAY.fullmatch(each.name) for each in entries_of(folder))


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file so that a reader, a kill or a power loss finds the old content or the new one; cleans up strays."""
    for stray in target.parent.glob(f".{target.name}.*.partial"):
        stray.unlink(missing_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_run(
    path: str | Path,
    *,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    code: str | Path | None = None,
    module: nn.Module | None = None,
) -> Model:
    """Build the model of a run directory again, on the CPU, in evaluation mode.

    `overrides` may hold `mean`, `std`, `size`, `picture_size` and `picture_channels`. `code` is the source file that
    the user names for a run that needs it, `module` a net for a run of a net that was made in Python. `InputError`: no
    run directory, an unknown factory, code that is not named or not the same, or weights that do not fit or are broken.
    `StoreError`: `model.json` or the weights are not as a run is written, or do not belong together.
    """
    path = Path(path)
    title = name or str(path)
    spec = read_spec(path)
    state, spec = _read_weights(path, spec)
    in_python = spec.build.factory.startswith(MADE_IN_PYTHON)
    needs_code = spec.code is not None or in_python
    if code is not None and spec.code is None:
        raise InputError(f"{path} needs no code of yours: leave out --code")
    if module is not None and not in_python:
        raise InputError(f"{path} says itself how its net is built: leave out module=")
    with told_by(path / MODEL_JSON):
        if not needs_code:
            _refuse_misfit(spec, state, path / MODEL_JSON)
        copied = None if module is None else copy.deepcopy(module)
        net = rebuilt(spec, path, code) if copied is None else carry_out(copied, spec.edits)
        preprocessing = spec.preprocessing.restored()
    fit_weights(net, state, str(path / MODEL_JSON))
    changes = dict(overrides or {})
    pictures = {key: changes.pop(key, None) for key in ("picture_size", "picture_channels")}
    return build_model(
        net.eval(),
        preprocessing.overridden(**changes),
        title,
        class_names=spec.class_names,
        native_size=preprocessing.size,
        training=spec.training,
        **pictures,
    )


def rebuilt(spec: RunSpec, run: Path, code: str | Path | None = None) -> nn.Module:
    """The net of a run with its edits and without its weights; a user's own code is run where the user names it."""
    with torch.random.fork_rng(devices=[]):
        if spec.code is not None or spec.build.factory.startswith(MADE_IN_PYTHON):
            return carry_out(net_of_run(spec, run, code), spec.edits)
        return build_net(spec.build, spec.edits)


@contextmanager
def told_by(file: Path) -> Iterator[None]:
    """Name the file in an error about what it says."""
    try:
        yield
    except InputError as error:
        text = str(error)
        is_told = str(file) in text or text.startswith(f"{file.parent} ")
        raise InputError(text if is_told else f"{file}: {text}") from None


def _refuse_misfit(spec: RunSpec, state: dict[str, Tensor], where: Path) -> None:
    """Compare shapes before any memory is taken: a hostile file may ask for a net of any size."""
    try:
        with torch.device("meta"):
            skeleton = build_net(spec.build, spec.edits)
    except (RuntimeError, NotImplementedError):
        return  # some library nets compute numbers while they are built, which needs memory; their size is bounded
    misfit = describe_misfit(dict(skeleton.state_dict(keep_vars=True)), state)
    if misfit:
        raise InputError(f"weights do not fit {where}: {misfit}")


def _read_weights(path: Path, spec: RunSpec) -> tuple[dict[str, Tensor], RunSpec]:
    file = path / WEIGHTS
    if kind_of(file) != "file":
        raise InputError(f"{path} has no {WEIGHTS}")
    state = read_safetensors(file)
    digest = state_digest(state)
    if digest == spec.weights:
        return state, spec
    with safe_open(file, framework="pt") as opened:
        inside = (opened.metadata() or {}).get(MODEL_JSON)
    if inside is not None:
        own = parse_spec(inside, f"{file} ({MODEL_JSON} inside)")
        if own.weights == digest:
            return state, own
    raise StoreError(f"{file} does not belong to {path / MODEL_JSON}: its weights have another digest")
