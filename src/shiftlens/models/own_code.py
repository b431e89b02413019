"""What of a net is the user's own: the code that its `forward` reaches, and the values which that code reads.

Known packages (`KNOWN`), Python itself and whatever is installed beside them are named and not looked into. Read is the
source, without comments, layout and docstrings; where there is none (typed into a session), the compiled code. Two
things are left out, or every call would make another model of the same net: names that begin with `_`, and what the
code itself changes while the net runs. Nothing here depends on memory addresses, on the order of sets and
dictionaries, or on the folder that the code lies in.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import re
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from shiftlens.models.source_code import (
    KNOWN,
    Source,
    Sources,
    changed_in,
    compiled,
    content_of,
    function_in,
    has_own_base,
    is_own,
    names_in,
    reachable,
    without_addresses,
    without_place,
)

_MOST_VALUES = 20_000
_DEEPEST = 40

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range, torch.dtype, re.Pattern)


def own_parts(root: nn.Module) -> list[str]:
    """What is the user's own in a net, as texts; empty for a net of known classes that nothing was hung on.

    It never raises: what cannot be looked into is named by its type.
    """
    try:
        return _Walk(root).parts()
    except Exception as error:  # odd objects may raise at every touch
        return [f"not looked into: {type(error).__name__}"]


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes, row by row, whatever its device."""
    plain = tensor.detach().dequantize() if tensor.is_quantized else tensor.detach()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    flat = plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.stride(0) != 1:  # a single number may have any stride, and count as contiguous
        flat = torch.empty(flat.shape, dtype=flat.dtype).copy_(flat)
    return flat.view(torch.uint8).numpy().data


class _Walk:
    """One walk through a net."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._places = {id(part): path for path, part in root.named_modules()}
        self._sources = Sources()
        self._done: set[int] = set()
        self._stack: set[int] = set()
        self._n_values = 0
        self._state: set[str] = set()  # attributes that change while the net runs
        self._changing_names: set[str] = set()  # globals and closures that do

    def parts(self) -> list[str]:
        found = []
        modules = list(self._root.named_modules())
        classes = dict.fromkeys(type(part) for _, part in modules if has_own_base(type(part)))
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
        if not has_own_base(type(part)) or name.startswith("_"):
            return False
        return not isinstance(value, bool | int | float | str | None)  # these count already

    def _generated(self, path: str, part: nn.Module) -> Iterator[str]:
        """Buffers that are not saved, and code that torch made."""
        if has_own_base(type(part)):
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

    def _find_state(self, modules: list[tuple[str, nn.Module]], classes: Iterable[type], hooks: Iterable[Any]) -> None:
        """Which attributes, globals and closures are changed by what `forward` and the hooks reach, by bare names."""
        values = [value for _, part in modules for value in vars(part).values()]
        objects = [cls for cls in dict.fromkeys(map(type, values)) if is_own(cls.__module__)]
        functions = map(function_in, (value for value in (*values, *hooks) if self._is_own(value)))
        codes = [function.__code__ for function in functions if function]
        bases = [base for cls in (*classes, *objects) for base in cls.__mro__ if is_own(base.__module__)]
        files = dict.fromkeys(self._sources.file_of(base) for base in bases)
        files |= dict.fromkeys(code.co_filename for code in codes)
        sources = [source for file in files if file and (source := self._sources.at(file)) is not None]
        wanted = ["forward", "__call__", "<lambda>", *(code.co_name for code in codes)]
        self._state, self._changing_names = changed_in(sources, wanted)

    def _is_own(self, value: Any, depth: int = 0) -> bool:
        """Whether something that can be called is, or holds, code of the user's."""
        if depth > 4 or not callable(value) or isinstance(value, nn.Module | BuiltinFunctionType):
            return False
        if isinstance(value, FunctionType):
            inner = [content_of(cell) for cell in value.__closure__ or ()]
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
            return self._text(function_in(value))
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
        held = (f"{name}: {self._text(inner)}" for name, inner in sorted(items, key=itemgetter(0)))
        return f"{title} {{{', '.join(held)}}}"

    def _module(self, module: nn.Module) -> str:
        if id(module) in self._places:
            return f"layer {self._places[id(module)]!r}"
        texts = [without_addresses(repr(module)), *(f"{n}={self._text(t)}" for n, t in module.state_dict().items())]
        for path, part in module.named_modules():
            own = has_own_base(type(part))
            texts += [self._text(type(part))] if own else []
            for name, value in sorted(vars(part).items()):
                if not name.startswith("_") and name not in self._state and name != "training":
                    plain = repr(value) if isinstance(value, bool | int | float | str | None) else ""
                    texts.append(f"{path}.{name}={self._text(value) if own else plain}")
        return f"net {texts}"

    def _class(self, cls: type) -> str:
        if not has_own_base(cls):
            return _name(cls)
        if id(cls) in self._done:
            return f"class {cls.__qualname__}"
        self._done.add(id(cls))
        texts = []
        own = [base for base in cls.__mro__ if is_own(base.__module__)]
        for base in own:
            file = self._sources.file_of(base)
            source = self._sources.at(file) if file else None
            text = source.text(base.__qualname__) if source else None
            texts.append(f"class {base.__qualname__}: {text}")
            for name, value in sorted(vars(base).items()):
                is_value = not callable(value) and function_in(value) is None and not inspect.isdatadescriptor(value)
                counts = not name.startswith("_") and name not in self._state
                if is_value and counts and not issubclass(cls, Enum):
                    texts.append(f"{name}={self._text(value)}")
        return "\n".join([*texts, *(self._text(function) for function in reachable(cls))])

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
            source = self._sources.at(code.co_filename)
            texts.append((source.text(code.co_qualname) if source else None) or compiled(code))
            names = names_in(code)
            for name in sorted(names & function.__globals__.keys()):
                value = function.__globals__[name]
                if not name.startswith("__") and self._stays(name, value, source):
                    texts.append(f"{name}={self._read(value, names)}")
        texts += [self._text(given) for given in (function.__defaults__, function.__kwdefaults__) if given]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__" and self._stays(name, content_of(cell), source):
                texts.append(f"{name}={self._text(content_of(cell))}")
        return "\n".join(texts)

    def _stays(self, name: str, value: Any, source: Source | None) -> bool:
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
        held = ((name, vars(value)[name]) for name in names & vars(value).keys() if not name.startswith("__"))
        return self._table(type(value).__name__, (each for each in held if each[1] is not value))


def _hooks_of(part: nn.Module) -> Iterator[tuple[str, Any]]:
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        yield from ((kind, hook) for hook in getattr(part, kind, {}).values())


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _reached(root: Any, path: str) -> Any:
    return functools.reduce(lambda value, name: getattr(value, name, None), filter(None, path.split(".")), root)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _sum(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
