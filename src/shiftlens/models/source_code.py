"""The source of a user's code: which code is the user's, its definitions, and what they change, reach and read."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from types import CodeType, FunctionType
from typing import Any

from torch import nn

KNOWN = ("torch", "torchvision", "timm", "shiftlens", "numpy")
"""Packages whose code is told by their version."""


_STDLIB = Path(os.__file__).resolve().parent

_CHANGING = {
    *("append", "appendleft", "extend", "extendleft", "insert", "add", "update", "clear", "pop", "popitem", "popleft"),
    *("remove", "discard", "setdefault", "sort", "reverse", "__setitem__", "__delitem__"),
}
"""Methods that change what they are called on, beside tensors' own, which end with `_`."""


BUILDING = {"__init__", "__new__", "__post_init__", "__setstate__", "__init_subclass__"}
_Def = ast.FunctionDef | ast.AsyncFunctionDef


def without_addresses(text: str) -> str:
    """A text without the memory addresses in it."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def without_place(text: str) -> str:
    """A text; of an absolute path the file's name at most, so that a checkout may be moved."""
    path = PurePath(text)
    if not path.is_absolute() or "\n" in text:
        return text
    return f"<path>/{path.name}" if path.suffix else "<path>"


def is_own(module_name: str | None) -> bool:
    """Whether code of a module of this name is the user's: not of a known package, of Python, or installed."""
    if not module_name or module_name.partition(".")[0] in KNOWN:
        return False
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if file is None:
        return module_name.partition(".")[0] not in sys.stdlib_module_names
    return not _is_installed(file)


@functools.lru_cache(maxsize=4096)
def _is_installed(file: str) -> bool:
    place = Path(file).resolve()
    return place.is_relative_to(_STDLIB) or bool({"site-packages", "dist-packages"} & set(place.parts))


def has_own_base(cls: type) -> bool:
    """Whether a class, or one that it inherits from, is the user's."""
    if cls.__module__.startswith("torch.nn.modules."):  # most layers, and a net has hundreds
        return False
    return any(is_own(base.__module__) for base in cls.__mro__)


@functools.lru_cache(maxsize=256)
def plain_source(text: str) -> ast.Module | None:
    """A source text, parsed and without docstrings; None where it cannot be."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | _Def) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


class Source:
    """One source file: its definitions by qualified name, and what its functions change."""

    def __init__(self, tree: ast.Module) -> None:
        self._nodes: dict[str, list[ast.AST]] = {}
        self.functions: dict[str, list[ast.AST]] = {}
        self._collect(tree, "")

    def _collect(self, node: ast.AST, scope: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.ClassDef | _Def | ast.Lambda):
                bare = "<lambda>" if isinstance(child, ast.Lambda) else child.name
                self._nodes.setdefault(scope + bare, []).append(child)
                inner = f"{scope}{bare}."
                if not isinstance(child, ast.ClassDef):
                    self.functions.setdefault(bare, []).append(child)
                    inner += "<locals>."
            self._collect(child, inner)

    def text(self, qualname: str) -> str | None:
        """Every definition of this name (two where an `if` chooses, and all lambdas of one function)."""
        nodes = self._nodes.get(qualname)
        return "\n".join(ast.unparse(node) for node in nodes) if nodes else None


class Sources:
    """The source files of one walk, each read once."""

    def __init__(self) -> None:
        self._read: dict[str, Source | None] = {}

    def at(self, file: str) -> Source | None:
        """The source in a file; None where there is none."""
        if file not in self._read:
            linecache.checkcache(file)
            tree = plain_source("".join(linecache.getlines(file)))
            self._read[file] = None if tree is None or not tree.body else Source(tree)
        return self._read[file]

    def file_of(self, cls: type) -> str | None:
        """The file that a class was defined in."""
        for value in vars(cls).values():
            function = function_in(value)
            if function is None or function.__code__.co_filename.startswith("<string>"):  # what a dataclass has made
                continue
            if function.__code__.co_qualname.startswith(f"{cls.__qualname__}."):
                return function.__code__.co_filename
        return getattr(sys.modules.get(cls.__module__), "__file__", None)


def changed_in(sources: Iterable[Source], wanted: Iterable[str]) -> tuple[set[str], set[str]]:
    """Attributes, and globals and closures, that are changed by what functions of these names reach, by bare names."""
    sources, open_names = list(sources), list(wanted)
    changed: dict[bool, set[str]] = {True: set(), False: set()}
    seen: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name in seen or name in BUILDING:
            continue
        seen.add(name)
        for node in (node for source in sources for node in source.functions.get(name, ())):
            for is_attribute, what in changed_by(node):
                changed[is_attribute].add(what)
            for part in ast.walk(node):
                used = part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", None)
                if used is not None and any(used in source.functions for source in sources):
                    open_names.append(used)
    return changed[True], changed[False]


def changed_by(node: ast.AST) -> Iterator[tuple[bool, str]]:
    """(is an attribute, name) of whatever a function changes outside itself."""
    for part in ast.walk(node):
        if isinstance(part, ast.Global | ast.Nonlocal):
            yield from ((False, name) for name in part.names)
        elif isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
            yield from _base(part)
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            method = part.func.attr
            if method in _CHANGING or (method.endswith("_") and not method.endswith("__")):
                yield from _base(part.func.value)
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "setattr":
            yield from (
                (True, a.value) for a in part.args[1:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )


def _base(node: ast.AST) -> Iterator[tuple[bool, str]]:
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        yield True, node.attr
    elif isinstance(node, ast.Name):
        yield False, node.id


def function_in(value: Any) -> FunctionType | None:
    """The plain function in a method, property, partial or wrapper; None where there is none."""
    for _ in range(5):
        if isinstance(value, FunctionType):
            return value
        for inner in ("__func__", "fget", "func", "__wrapped__"):
            if inspect.getattr_static(value, inner, None) is not None and not isinstance(value, type):
                value = getattr(value, inner)
                break
        else:
            return None
    return None


def reachable(cls: type) -> list[FunctionType]:
    """Methods that a call reaches: of a layer from `forward`, of anything else all."""
    wanted = [name for base in cls.__mro__ for name in vars(base) if name not in BUILDING and is_own(base.__module__)]
    if issubclass(cls, nn.Module):
        wanted = ["forward", *(name for name in wanted if name.startswith("__") and name != "__repr__")]
    seen: dict[str, None] = {}
    found: dict[int, FunctionType] = {}
    while wanted:
        name = wanted.pop()
        if name in seen or name in BUILDING:
            continue
        seen[name] = None
        for base in cls.__mro__:
            function = function_in(vars(base).get(name))
            if function is not None:
                found[id(function)] = function
                wanted += [used for used in sorted(names_in(function.__code__)) if used not in seen]
    functions = [
        function
        for function in found.values()
        if is_own(function.__globals__.get("__name__"))
        and not function.__code__.co_qualname.startswith("__create_fn__")  # what a dataclass has made
    ]
    return sorted(functions, key=lambda function: function.__code__.co_qualname)


def names_in(code: CodeType) -> set[str]:
    """Globals and attributes that code reads, that of its inner functions too."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= names_in(constant)
    return found


def compiled(code: CodeType) -> str:
    """Code that has no source."""
    constants = [
        compiled(c) if isinstance(c, CodeType) else str(sorted(map(repr, c))) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def content_of(cell: Any) -> Any:
    """What a closure's cell holds; None where it is not filled yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
