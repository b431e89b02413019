"""A user's own code, which a run directory names and never holds: its files are compared before any of them is run."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from torch import nn

from shiftlens.errors import InputError
from shiftlens.models.factories import call_factory
from shiftlens.models.runspec import Code, RunSpec
from shiftlens.naming import printable
from shiftlens.paths import kind_of, read_file

MADE_IN_PYTHON = "python:"
"""Prefix of a factory's name where a run holds the weights of a net that was an object in Python."""

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def code_of(where: str | Path) -> Code:
    """Digests of a file (`net.py`) or module (`package.module`) and of all that it imports from its own folder.

    Nothing is run: the files are read and their import statements followed. Of an installed package, only the module's
    own file counts. `InputError`: no such file or module.
    """
    first, root = _place(str(where))
    if "site-packages" in first.parts:
        return Code(digest=_digest(read_file(first, str(where))))
    found: dict[Path, str] = {}
    waiting = [first]
    while waiting:
        file = waiting.pop()
        if file not in found:
            content = read_file(file, str(file))
            found[file] = _digest(content)
            waiting += _imported(content, file, root)
    own = found.pop(first)
    return Code(digest=own, imports={file.relative_to(root).as_posix(): found[file] for file in sorted(found)})


def own_net(where: str | Path, factory: str) -> nn.Module:
    """Run the code that a user names, and build the net by a factory of it (`net.py:make`; its last part counts)."""
    spec = f"{where}:{factory.rpartition(':')[2]}"
    net = call_factory(spec)
    if not isinstance(net, nn.Module):
        raise InputError(f"{spec} returned {type(net).__name__}, expected an nn.Module: a run directory holds weights")
    return net


def named_factory(spec: str) -> str:
    """A factory's spec without the folder that its file lies in."""
    where, _, factory = spec.rpartition(":")
    return f"{Path(where).name if where.endswith('.py') else where}:{factory}"


def net_of_run(spec: RunSpec, run: Path, code: str | Path | None) -> nn.Module:
    """The net of a run that needs its author's code, built by the code that the user names.

    `InputError`, before anything is run: no code is named, or it is not the code that the run was made with.
    """
    factory = printable(spec.build.factory)
    where, _, name = spec.build.factory.rpartition(":")
    if spec.code is None:
        raise InputError(
            f"{run} holds weights of {factory[len(MADE_IN_PYTHON) :]}, a net made in Python: load it with "
            "shiftlens.load_model(run, module=NET), with a net of the same layers"
        )
    if code is None:
        file = printable(where)
        raise InputError(
            f"{run} needs the code of {factory}, which is run only where you name it: give --code {file} (in Python: "
            f"shiftlens.load_model(run, code={file!r}))"
        )
    if not name.isidentifier():
        raise InputError(f"{run} names no factory: {factory}")
    here = code_of(code)
    changed = [] if here.digest == spec.code.digest else [str(code)]
    names = sorted({*here.imports, *spec.code.imports})
    changed += [name for name in names if here.imports.get(name) != spec.code.imports.get(name)]
    if changed:
        raise InputError(
            f"{run} was made with other code, so nothing was run: {printable(', '.join(changed[:3]))} changed since. "
            "Restore it, or repair or train again"
        )
    return own_net(code, spec.build.factory)


def _digest(content: bytes) -> str:
    content = content.replace(b"\r\n", b"\n")  # git may write line ends as the machine has them
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _place(where: str) -> tuple[Path, Path]:
    """The source file, and the folder that its imports start from."""
    if where.endswith(".py"):
        if kind_of(where) != "file":
            raise InputError(f"code: file {where} does not exist")
        file = Path(where).resolve()
        return file, file.parent
    if not _MODULE.fullmatch(where):
        raise InputError(f"code: expected file.py or package.module, got {where!r}")
    parts = where.split(".")
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    for k in range(len(parts)):  # without running the packages around it
        spec = PathFinder.find_spec(".".join(parts[: k + 1]), search)
        search = None if spec is None else [*(spec.submodule_search_locations or ())]
        if not search:
            break
    if spec is None or spec.name != where or not spec.origin or not spec.origin.endswith(".py"):
        raise InputError(f"code: no module {where!r} is installed or in the current directory")
    file = Path(spec.origin).resolve()
    return file, file.parents[len(parts) - (file.name != "__init__.py")]


def _imported(content: bytes, file: Path, root: Path) -> Iterator[Path]:
    """Files under `root` that a source imports."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # running it says why
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            start = root if node.level == 0 else file.parents[node.level - 1]
            if start != root and root not in start.parents:
                continue
            base = (node.module or "").split(".") if node.module else []
            for alias in node.names:
                yield from _files(start, [*base, alias.name])


def _files(start: Path, names: list[str]) -> Iterator[Path]:
    """The packages on the way to a module, and the module, as far as they are files there."""
    place = start
    for name in names:
        place = place / name
        for file in (place.with_name(f"{name}.py"), place / "__init__.py"):
            if kind_of(file) == "file":
                yield file
