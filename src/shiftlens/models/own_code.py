"""What of a net is the user's own: the code that its `forward` reaches, and the values which that code reads.

Known packages (`KNOWN`), Python itself and whatever is installed beside them are named and not looked into. Read is the
source, without comments, layout and docstrings; where there is none (typed into a session), the compiled code. Two
things are left out, or every call would make another model of the same net: names that begin with `_`, and what the
code itself changes while the net runs. Nothing here depends on memory addresses, on the order of sets and
dictionaries, or on the folder that the code lies in.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import linecache
import os
import re
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

KNOWN = ("torch", "torchvision", "timm", "shiftlens", "numpy")
"""Packages whose code is told by their version."""

_STDLIB = Path(os.__file__).resolve().parent
_MOST_VALUES = 20_000
_DEEPEST = 40

_CHANGING = {
    *("append", "appendleft", "extend", "extendleft", "insert", "add", "update", "clear", "pop", "popitem", "popleft"),
    *("remove", "discard", "setdefault", "sort", "reverse", "__setitem__", "__delitem__"),
}
"""Methods that change what they are called on, beside tensors' own, which end with `_`."""

_BUILDING = {"__init__", "__new__", "__post_init__", "__setstate__", "__init_subclass__"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range, torch.dtype, re.Pattern)
_Def = ast.FunctionDef | ast.AsyncFunctionDef


def own_parts(root: nn.Module) -> list[str]:
    """What is the user's own in a net, as texts; empty for a net of known classes that nothing was hung on.

    It never raises: what cannot be looked into is named by its type.
    """
    try:
        return _Walk(root).parts()
    except Exception as error:  # odd objects may raise at every touch
        return [f"not looked into: {type(error).__name__}"]


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


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, row by row, whatever its device."""
    plain = tensor.detach().dequantize() if tensor.is_quantized else tensor.detach()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    return plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().data


def without_addresses(text: str) -> str:
    """A text without the memory addresses in it."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def without_place(text: str) -> str:
    """A text; of an absolute path the file's name at most, so that a checkout may be moved."""
    path = PurePath(text)
    if not path.is_absolute() or "\n" in text:
        return text
    return f"<path>/{path.name}" if path.suffix else "<path>"


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


class _Source:
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


def _changed_by(node: ast.AST) -> Iterator[tuple[bool, str]]:
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


class _Walk:
    """One walk through a net."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._places = {id(part): path for path, part in root.named_modules()}
        self._sources: dict[str, _Source | None] = {}
        self._done: set[int] = set()
        self._stack: set[int] = set()
        self._n_values = 0
        self._state: set[str] = set()  # attributes that change while the net runs
        self._changing_names: set[str] = set()  # globals and closures that do

    def parts(self) -> list[str]:
        """See `own_parts`."""
        found = []
        modules = list(self._root.named_modules())
        classes = dict.fromkeys(type(part) for _, part in modules if _has_own_base(type(part)))
        hooks = [(path, kind, hook) for path, part in modules for kind, hook in _hooks_of(part) if self._is_own(hook)]
        self._find_state(modules, classes, [hook for _, _, hook in hooks])
        found += [self._text(cls) for cls in classes]
        for path, part in modules:
            for name, value in sorted(vars(part).items()):
                if self._counts(part, name, value):
                    found.append(f"{path}.{name}={self._text(value)}")
            found += [f"{path}:{text}" for text in self._generated(path, part)]
        found += [f"{path}.{kind}={self._text(hook)}" for path, kind, hook in hooks]
        return found

    def _counts(self, part: nn.Module, name: str, value: Any) -> bool:
        if name in self._state or name == "training":
            return False
        if self._is_own(value):
            return True
        if not _has_own_base(type(part)) or name.startswith("_"):
            return False
        return not isinstance(value, bool | int | float | str | None)  # these count already

    def _generated(self, path: str, part: nn.Module) -> Iterator[str]:
        """Buffers that are not saved, and code that torch made."""
        if _has_own_base(type(part)):
            for name in sorted(getattr(part, "_non_persistent_buffers_set", ())):
                if name not in self._state:
                    yield f"{name}={self._text(part._buffers.get(name))}"
        if isinstance(part, fx.GraphModule):
            yield without_addresses(part.code)
            for node in part.graph.nodes:
                if node.op == "get_attr":
                    yield f"{node.target}={self._text(_reached(part, str(node.target)))}"
                elif node.op == "call_function" and self._is_own(node.target):
                    yield self._text(node.target)
        elif isinstance(part, torch.jit.ScriptModule) and not self._is_inside_script(path):
            yield from self._script(part)

    def _is_inside_script(self, path: str) -> bool:
        above = path.rpartition(".")[0]
        return bool(path) and isinstance(_reached(self._root, above), torch.jit.ScriptModule)

    def _script(self, part: torch.jit.ScriptModule) -> Iterator[str]:
        try:
            text = part._c.dump_to_str(True, False, False)
        except Exception:  # not there in every version
            text = "\n".join(str(getattr(inner, "code", "")) for inner in part.modules())
        names = sorted(set(re.findall(r'GetAttr\[name="(\w+)"\]', text)))
        text = re.sub(r" # \S+:\d+:\d+", "", text)
        yield re.sub(r"__torch__(\.\w+)*\.(\w+)", r"\2", without_addresses(text))
        for path, inner in part.named_modules():
            for name in names:
                value = getattr(inner, name, None)
                if value is not None and not isinstance(value, nn.Module | nn.Parameter):
                    yield f"{path}.{name}={self._text(value)}"

    # ---- what changes while the net runs

    def _find_state(self, modules: list[tuple[str, nn.Module]], classes: Iterable[type], hooks: Iterable[Any]) -> None:
        """Which attributes, globals and closures are changed by what `forward` and the hooks reach, by bare names."""
        values = [value for _, part in modules for value in vars(part).values()]
        objects = [cls for cls in dict.fromkeys(map(type, values)) if is_own(cls.__module__)]
        own_functions = [value for value in (*values, *hooks) if self._is_own(value)]
        files = dict.fromkeys(
            [self._file_of(base) for cls in (*classes, *objects) for base in cls.__mro__ if is_own(base.__module__)]
        )
        files |= dict.fromkeys(
            function.__code__.co_filename for function in map(_function_in, own_functions) if function
        )
        sources = [source for file in files if file and (source := self._source(file)) is not None]
        wanted = ["forward", "__call__", "<lambda>"]
        wanted += [function.__code__.co_name for function in map(_function_in, own_functions) if function]
        seen: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name in seen or name in _BUILDING:
                continue
            seen.add(name)
            for node in (node for source in sources for node in source.functions.get(name, ())):
                for is_attribute, changed in _changed_by(node):
                    (self._state if is_attribute else self._changing_names).add(changed)
                for part in ast.walk(node):
                    used = part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", None)
                    if used is not None and any(used in source.functions for source in sources):
                        wanted.append(used)

    def _source(self, file: str) -> _Source | None:
        if file not in self._sources:
            linecache.checkcache(file)
            tree = plain_source("".join(linecache.getlines(file)))
            self._sources[file] = None if tree is None or not tree.body else _Source(tree)
        return self._sources[file]

    def _file_of(self, cls: type) -> str | None:
        for value in vars(cls).values():
            function = _function_in(value)
            if function is None or function.__code__.co_filename.startswith("<string>"):  # what a dataclass has made
                continue
            if function.__code__.co_qualname.startswith(f"{cls.__qualname__}."):
                return function.__code__.co_filename
        return getattr(sys.modules.get(cls.__module__), "__file__", None)

    # ---- values

    def _is_own(self, value: Any, depth: int = 0) -> bool:
        """Whether something that can be called is, or holds, code of the user's."""
        if depth > 4 or not callable(value) or isinstance(value, nn.Module | BuiltinFunctionType):
            return False
        if isinstance(value, FunctionType):
            inner = [_content(cell) for cell in value.__closure__ or ()]
            return is_own(value.__globals__.get("__name__")) or any(
                self._is_own(each, depth + 1) for each in inner if isinstance(each, FunctionType | MethodType)
            )
        if isinstance(value, MethodType):
            return self._is_own(value.__func__, depth + 1) or is_own(type(value.__self__).__module__)
        if isinstance(value, functools.partial):
            return any(self._is_own(each, depth + 1) for each in (value.func, *value.args, *value.keywords.values()))
        if isinstance(value, type):
            return is_own(value.__module__)
        wrapped = inspect.getattr_static(value, "__wrapped__", None)
        return is_own(type(value).__module__) or (
            isinstance(wrapped, FunctionType) and self._is_own(wrapped, depth + 1)
        )

    def _text(self, value: Any) -> str:
        """A value as text; never raises."""
        if isinstance(value, str) and not isinstance(value, Enum):
            return repr(without_place(str(value)))
        if isinstance(value, _PLAIN) and not isinstance(value, Enum | np.generic):
            return repr(value)
        self._n_values += 1
        if id(value) in self._stack or len(self._stack) > _DEEPEST or self._n_values > _MOST_VALUES:
            return "..."
        self._stack.add(id(value))
        try:
            return self._described(value)
        except Exception:  # odd objects may raise at every touch
            return _name(type(value))
        finally:
            self._stack.discard(id(value))

    def _described(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return f"tensor {value.dtype} {list(value.shape)} {_sum(tensor_bytes(value))}"
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            if array.dtype.hasobject:
                return f"array {array.shape} {self._text(array.tolist())}"
            return f"array {array.dtype.str} {array.shape} {_sum(np.ascontiguousarray(array).tobytes())}"
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return f"{self._text(value.__func__)} of {self._text(value.__self__)}"
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, functools.partial):
            return f"partial {self._text(value.func)} {self._text(value.args)} {self._text(value.keywords)}"
        if isinstance(value, Enum):
            return f"{type(value).__qualname__}.{value.name}={self._text(value.value)}"
        if isinstance(value, property | staticmethod | classmethod | functools.cached_property):
            return self._text(_function_in(value))
        if isinstance(value, Mapping):
            return self._table(_name(type(value)), ((self._text(key), inner) for key, inner in value.items()))
        if isinstance(value, set | frozenset):
            return f"set {sorted(self._text(each) for each in value)}"
        if isinstance(value, tuple | list | deque):
            if all(type(each) in (bool, int, float, type(None)) for each in value):
                return f"{type(value).__qualname__} {_sum(repr(list(value)).encode())}"
            return f"{type(value).__qualname__} [{', '.join(self._text(each) for each in value)}]"
        return self._object(value)

    def _object(self, value: Any) -> str:
        cls = type(value)
        wrapped = inspect.getattr_static(value, "__wrapped__", None)
        if isinstance(wrapped, FunctionType):  # functools.lru_cache and the like
            return self._text(wrapped)
        if isinstance(value, BuiltinFunctionType) or not hasattr(cls, "__module__"):
            return _name(value)
        own = is_own(cls.__module__)
        if own or dataclasses.is_dataclass(value) or isinstance(value, SimpleNamespace | Namespace):
            fields = _attributes(value)
        elif cls.__module__.partition(".")[0] in KNOWN and not callable(getattr(value, "__next__", None)):
            fields = dict(getattr(value, "__dict__", {}))
        else:
            fields = {}
        held = ((name, v) for name, v in fields.items() if not name.startswith("_") and name not in self._state)
        return self._table(self._text(cls) if own else _name(cls), held)

    def _table(self, title: str, items: Iterable[tuple[str, Any]]) -> str:
        return f"{title} {{{', '.join(f'{name}: {self._text(inner)}' for name, inner in sorted(items, key=_first))}}}"

    def _module(self, module: nn.Module) -> str:
        if id(module) in self._places:
            return f"layer {self._places[id(module)]!r}"
        texts = [without_addresses(repr(module)), *(f"{n}={self._text(t)}" for n, t in module.state_dict().items())]
        for path, part in module.named_modules():
            own = _has_own_base(type(part))
            texts += [self._text(type(part))] if own else []
            for name, value in sorted(vars(part).items()):
                if not name.startswith("_") and name not in self._state and name != "training":
                    texts.append(f"{path}.{name}={self._text(value) if own else _plain(value)}")
        return f"net {texts}"

    def _class(self, cls: type) -> str:
        if not _has_own_base(cls):
            return _name(cls)
        if id(cls) in self._done:
            return f"class {cls.__qualname__}"
        self._done.add(id(cls))
        texts = []
        own = [base for base in cls.__mro__ if is_own(base.__module__)]
        for base in own:
            file = self._file_of(base)
            source = self._source(file) if file else None
            text = source.text(base.__qualname__) if source else None
            texts.append(f"class {base.__qualname__}: {text}")
            for name, value in sorted(vars(base).items()):
                is_value = not callable(value) and _function_in(value) is None and not inspect.isdatadescriptor(value)
                counts = not name.startswith("_") and name not in self._state
                if is_value and counts and not issubclass(cls, Enum):
                    texts.append(f"{name}={self._text(value)}")
        return "\n".join([*texts, *(self._text(function) for function in _reachable(cls))])

    def _function(self, function: FunctionType) -> str:
        code = function.__code__
        if not self._is_own(function):
            return _name(function)
        if id(code) in self._done and not function.__closure__:
            return f"function {code.co_qualname}"
        self._done.add(id(code))
        texts = [f"function {code.co_qualname}"]
        source = None
        if is_own(function.__globals__.get("__name__")):
            source = self._source(code.co_filename)
            texts.append((source.text(code.co_qualname) if source else None) or _compiled(code))
            names = _names(code)
            for name in sorted(names & function.__globals__.keys()):
                value = function.__globals__[name]
                if not name.startswith("__") and self._stays(name, value, source):
                    texts.append(f"{name}={self._read(value, names)}")
        texts += [self._text(given) for given in (function.__defaults__, function.__kwdefaults__) if given]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__" and self._stays(name, _content(cell), source):
                texts.append(f"{name}={self._text(_content(cell))}")
        return "\n".join(texts)

    def _stays(self, name: str, value: Any, source: _Source | None) -> bool:
        """Whether a global or a closure is the same after the net has run."""
        if isinstance(value, FunctionType | type | ModuleType):
            return True
        # Of code without a source nobody knows what it changes.
        return name not in self._changing_names and (source is not None or isinstance(value, _PLAIN))

    def _read(self, value: Any, names: set[str]) -> str:
        """A global; of a module of the user's, or of what the command line said, what is read of it."""
        if not isinstance(value, SimpleNamespace | Namespace) and not (
            isinstance(value, ModuleType) and is_own(value.__name__)
        ):
            return self._text(value)
        held = {name: vars(value)[name] for name in names & vars(value).keys() if not name.startswith("__")}
        held = {name: inner for name, inner in held.items() if inner is not value}
        return self._table(type(value).__name__, held.items())


def _has_own_base(cls: type) -> bool:
    if cls.__module__.startswith("torch.nn.modules."):  # most layers, and a net has hundreds
        return False
    return any(is_own(base.__module__) for base in cls.__mro__)


def _hooks_of(part: nn.Module) -> Iterator[tuple[str, Any]]:
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        yield from ((kind, hook) for hook in getattr(part, kind, {}).values())


def _function_in(value: Any) -> FunctionType | None:
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


def _reachable(cls: type) -> list[FunctionType]:
    """Methods that a call reaches: of a layer from `forward`, of anything else all."""
    wanted = [name for base in cls.__mro__ for name in vars(base) if name not in _BUILDING and is_own(base.__module__)]
    if issubclass(cls, nn.Module):
        wanted = ["forward", *(name for name in wanted if name.startswith("__") and name != "__repr__")]
    seen: dict[str, None] = {}
    found: dict[int, FunctionType] = {}
    while wanted:
        name = wanted.pop()
        if name in seen or name in _BUILDING:
            continue
        seen[name] = None
        for base in cls.__mro__:
            function = _function_in(vars(base).get(name))
            if function is not None:
                found[id(function)] = function
                wanted += [used for used in sorted(_names(function.__code__)) if used not in seen]
    functions = [
        function
        for function in found.values()
        if is_own(function.__globals__.get("__name__"))
        and not function.__code__.co_qualname.startswith("__create_fn__")  # what a dataclass has made
    ]
    return sorted(functions, key=lambda function: function.__code__.co_qualname)


def _names(code: CodeType) -> set[str]:
    """Globals and attributes that code reads, that of its inner functions too."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _compiled(code: CodeType) -> str:
    """Code that has no source."""
    constants = [
        _compiled(c) if isinstance(c, CodeType) else str(sorted(map(repr, c))) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _reached(root: nn.Module, path: str) -> Any:
    value: Any = root
    for name in path.split(".") if path else ():
        value = getattr(value, name, None)
    return value


def _plain(value: Any) -> str:
    return repr(value) if isinstance(value, bool | int | float | str | None) else ""


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _first(item: tuple[str, Any]) -> str:
    return item[0]


def _sum(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
