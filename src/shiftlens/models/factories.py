"""Running a user's own Python to get a model: that is what naming a file or module means, and nothing else does it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch
from torch import nn

from shiftlens.errors import InputError
from shiftlens.naming import nearest, one_line
from shiftlens.paths import kind_of

_helpers: dict[str, Path] = {}
"""Modules that a user's file imported from its own folder, by name, and that folder."""


def call_factory(spec: str) -> Callable[..., Any]:
    """Load `path/to/file.py:factory` or `package.module:factory` and call the factory without arguments.

    The factory is a function or class, or an `nn.Module`, which is taken as it is. The file's folder (for a module: the
    current directory) can be imported from while this runs. Random numbers are seeded with 0 around the call and left
    as they were, so that a net with random weights is the same every time.

    `InputError`: no such file, module or name (suggests the nearest), code that raises (type, message, file and line),
    or a result that cannot be called.
    """
    where, _, name = spec.rpartition(":")
    path = Path(where)
    is_file = where.endswith(".py")
    if is_file and kind_of(path) != "file":
        raise InputError(f"model: file {where} does not exist")
    folder = path.resolve().parent if is_file else Path.cwd()
    with _importable(folder), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _run_file(path, folder) if is_file else _run_module(where)
        factory = _find(module, name, where)
        if isinstance(factory, nn.Module):
            return factory
        _refuse_arguments(factory, spec)
        try:
            model = factory()
        except (Exception, SystemExit) as error:
            raise InputError(f"model: {spec} raised {_describe(error, folder)}") from error
    if not callable(model):
        raise InputError(f"model: {spec} returned {type(model).__name__}, expected an nn.Module or a callable")
    return model  # type: ignore[no-any-return]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    # A helper of another folder with the same name would be taken for this one's.
    for name in [name for name, home in _helpers.items() if home != folder]:
        sys.modules.pop(name, None)
        del _helpers[name]
    importlib.invalidate_caches()
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and folder in Path(file).parents and "site-packages" not in file:
                _helpers[name] = folder


def _run_file(path: Path, folder: Path) -> ModuleType:
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"shiftlens_user_{path.stem}_{key}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise InputError(f"model: {path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and inspect look classes up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"model: running {path} raised {_describe(error, folder)}") from error
    return module


def _run_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"model: no module {error.name!r} is installed or in the current directory (from {name!r})"
            ) from None
        raise InputError(f"model: importing {name} raised {_describe(error, Path.cwd())}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"model: importing {name} raised {_describe(error, Path.cwd())}") from error


def _find(module: ModuleType, name: str, where: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    if found is not None:
        raise InputError(
            f"model: {name} in {where} is {type(found).__name__}, expected a function that returns the model"
        )
    there = [
        key
        for key, value in vars(module).items()
        if callable(value)
        and not key.startswith("_")
        and (isinstance(value, nn.Module) or getattr(value, "__module__", None) == module.__name__)
    ]
    best = nearest(name, there)
    hint = f"; did you mean {best!r}?" if best else ""
    listed = f" (it has {', '.join(there[:8])})" if there else " (it has nothing that can be called)"
    raise InputError(f"model: {where} has no {name!r}{hint}{listed}")


def _refuse_arguments(factory: Callable[..., Any], spec: str) -> None:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if needed:
        raise InputError(
            f"model: {spec} needs arguments ({', '.join(needed)});"
            " expected a function that takes none and returns the model"
        )


def _describe(error: BaseException, folder: Path) -> str:
    """Type, message, file and line of the last step in the user's own code."""
    text = f"{type(error).__name__}: {one_line(error)}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename).name}:{error.lineno})"
    frame = _last_frame(error.__traceback__, folder)
    return f"{text} ({frame})" if frame else text


def _last_frame(trace: TracebackType | None, folder: Path) -> str | None:
    frames = [frame for frame in traceback.extract_tb(trace) if frame.filename.startswith(str(folder))]
    if not frames:
        return None
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
