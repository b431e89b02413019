"""Weights from a file, without running anything that the file says, and into a net, or a line on what does not fit."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from shiftlens.errors import InputError
from shiftlens.models.programs import refuse_program
from shiftlens.naming import one_line, printable, unknown_name
from shiftlens.nn.repair_mark import without_mark
from shiftlens.paths import kind_of

StateDict = dict[str, Any]

WRAPPER_KEYS: tuple[str, ...] = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights beside other things."""

_MAX_WRAPPING = 4
_LIGHTNING = b"pytorch-lightning_version"
_LONGEST_NAME = 80  # of a tensor, in an error
_SLACK = 2**20  # bytes by which the entries of a zip file may exceed it: none does

_PLAIN_PICKLE = (
    "weights: {path} is a plain pickle, which can run code when it is read; expected a safetensors file or"
    " torch.save(model.state_dict(), path)"
)


def read_weights(path: str | Path, key: str | None = None, notes: list[str] | None = None) -> StateDict:
    """Tensors by name from a safetensors or PyTorch file (told by its first bytes), onto the CPU, in the file's order.

    A PyTorch file is read with `weights_only=True`: tensors and plain containers, never code. Weights under a key
    `state_dict`, `model_state_dict` or `model` are found, else the only table of tensors, or the one that `key` names
    (`ema`, `ema.shadow`); `_orig_mod.` (from `torch.compile`) is taken out of names. What a reader of results must know
    of this is appended to `notes`.

    `InputError`: no readable file, one that would have to run code or is a program, no table of tensors, or several.
    """
    path, notes = Path(path), [] if notes is None else notes
    kind = kind_of(path)
    if kind != "file":
        what = "is a folder, expected a file" if kind == "folder" else "does not exist"
        raise InputError(f"weights: {path} {what}")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"weights: {path} cannot be read: {error.strerror}") from None
    if len(head) == 9 and head[8:9] == b"{":
        return _without_compile(_find_tensors(read_safetensors(path), path, key, notes))
    refuse_program(path, "weights")
    return _without_compile(_find_tensors(_read_torch(path, notes), path, key, notes))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU; `InputError` when it is torn or not one."""
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"weights: {path} is no readable safetensors file: {one_line(error)}") from None


def _read_torch(path: Path, notes: list[str]) -> object:
    foreign: list[str] = []
    if zipfile.is_zipfile(path):
        _refuse_archive(path)
        foreign = _foreign_in_lightning(path)
    if foreign:
        listed = ", ".join(_short(name) for name in foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        notes.append(f"weights: {path} holds settings of Lightning ({listed}), which are not read")
    try:
        # An open file, not its name: by the name alone torch would take a pickle called .safetensors for such a file.
        stand_ins = torch.serialization.safe_globals([(type("Unread", (_Unread,), {}), name) for name in foreign])
        with path.open("rb") as file, warnings.catch_warnings(), stand_ins:
            warnings.simplefilter("ignore")  # about old storage formats: nothing that the user can act on here
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_why_refused(path, error)) from None
    except Exception as error:  # torch's reader raises whatever a damaged file makes it raise, assertions included
        if "magic number" in str(error) and _is_plain_pickle(path):
            raise InputError(_PLAIN_PICKLE.format(path=path)) from None
        raise InputError(f"weights: {path} is no readable safetensors or PyTorch file: {one_line(error)}") from None


def _refuse_archive(path: Path) -> None:
    """Refuse a zip file that would be larger in memory than it is on disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"weights: {path} is no readable PyTorch file: {one_line(error)}") from None
    unpacked, stored = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > stored + _SLACK:
        raise InputError(
            f"weights: {path} has {stored:,} bytes and would unpack to {unpacked:,}: its entries are compressed or "
            "overlapping, which torch.save never writes; expected torch.save(model.state_dict(), path)"
        )


class _Unread:
    """Stands for an object of a class that is not imported: takes whatever it is made of, and does nothing with it."""

    def __new__(cls, *_: object, **__: object) -> _Unread:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def __setitem__(self, *_: object) -> None: ...

    def append(self, _: object) -> None: ...

    def extend(self, _: object) -> None: ...


def _foreign_in_lightning(path: Path) -> list[str]:
    """Classes and functions that the settings in a Lightning checkpoint name; none for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or _LIGHTNING not in archive.read(pickles[0]):
                return []
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged file: what reads it says so
        return []


def _why_refused(path: Path, error: pickle.UnpicklingError) -> str:
    # PyTorch's message is a page long; the one fact in it is the name that the file wants called.
    named = re.search(r"GLOBAL (\S+)|(?:global|class|function) [`']?([\w.]+)", str(error))
    name = next((group for group in named.groups() if group), None) if named else None
    if name is not None and "weights_only" in str(error).lower():
        return (
            f"weights: {path} refused: reading it would run code ({printable(name)}); expected tensors only,"
            " as torch.save(model.state_dict(), path) or safetensors write them"
        )
    # The reason stands behind this mark, on its line or the next. No torch.save writes the newer pickle protocols, to
    # which an operand that is not supported belongs, unless it is told to, and then into a zip file.
    _, mark, reason = str(error).partition("WeightsUnpickler error:")
    reason = reason.partition("Check the documentation of torch.load")[0].strip() if mark else str(error)
    if (not reason or reason.startswith("Unsupported operand")) and _is_plain_pickle(path):
        return _PLAIN_PICKLE.format(path=path)
    return f"weights: {path} is no readable PyTorch file: {one_line(ValueError(reason or 'torch gives no reason'))}"


def _is_plain_pickle(path: Path) -> bool:
    """Whether a file begins as pickles of protocol 2 or later do, and is not the zip file that torch.save writes."""
    with path.open("rb") as file:
        head = file.read(2)
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= pickle.HIGHEST_PROTOCOL


def _find_tensors(content: object, path: Path, key: str | None, notes: list[str]) -> StateDict:
    if key is not None:
        tables = _tables(content) if isinstance(content, Mapping) else {}
        if key not in tables:
            raise unknown_name(f"weights key in {path}:", key, [_short(name) for name in tables])
        return tables[key]
    for _ in range(_MAX_WRAPPING):
        if not isinstance(content, Mapping):
            raise InputError(f"weights: {path} holds {type(content).__name__}, expected a table of tensors by name")
        if any(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}
        inner = next((content[key] for key in WRAPPER_KEYS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            tables = _tables(content)
            listed = ", ".join(_short(name) for name in list(tables)[:8])
            if len(tables) == 1:
                notes.append(f"weights: {path}: taken from the key {listed}")
                return next(iter(tables.values()))
            if tables:
                raise InputError(
                    f"weights: {path} holds several tables of tensors ({listed}): name one (--weights-key KEY, "
                    "weights_key=)"
                )
            keys = ", ".join(_short(key) for key in list(content)[:5]) or "nothing"
            raise InputError(
                f"weights: {path} holds no tensors; it has {keys}; expected them at the top or under"
                f" {', '.join(WRAPPER_KEYS)}"
            )
        content = inner
    raise InputError(f"weights: {path} nests its weights too deeply")


def _tables(content: Mapping[Any, Any]) -> dict[str, StateDict]:
    """Tables of tensors by name, at any key: "net", or "ema.shadow" further down; each object is looked at once."""
    found: dict[str, StateDict] = {}
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), content)]
    for where, table in waiting:  # grows on the way
        if id(table) in seen or not all(isinstance(name, str) for name in table):
            continue  # an optimiser counts its parameters
        seen.add(id(table))
        inner = {name: value for name, value in table.items() if isinstance(value, Mapping)}
        if where and not inner and any(isinstance(value, Tensor) for value in table.values()):
            found[".".join(where)] = dict(table)
        elif len(where) < _MAX_WRAPPING:
            waiting += [((*where, name), value) for name, value in inner.items()]
    return found


def _without_compile(state: StateDict) -> StateDict:
    return {name.replace("_orig_mod.", ""): value for name, value in state.items()}


def _without_wrapper(state: StateDict, expected: set[str]) -> StateDict:
    """Take `module.` (from DataParallel and its kin) off the names, unless the net itself has such names."""
    while True:
        counters = {"n_averaged"} - expected  # what torch.optim.swa_utils keeps beside the weights
        names = state.keys() - counters
        if not names or not all(name.startswith("module.") for name in names) or names & expected:
            return state
        state = {name: state[name] for name in state if name in names}
        consume_prefix_in_state_dict_if_present(state, "module.")


def named_as(module: nn.Module, state: StateDict, notes: list[str]) -> StateDict:
    """The same tensors by the names that the net has for them, where a prefix of all names is the difference."""
    own = module.state_dict(keep_vars=True)
    compiled = {name.replace("_orig_mod.", ""): name for name in own if "_orig_mod." in name}
    state = {compiled.get(name, name): value for name, value in _without_wrapper(state, set(own)).items()}
    if state.keys() & own.keys():
        return state
    parts = next(iter(state), "").split(".")[:-1]
    for n_parts in range(1, min(len(parts), _MAX_WRAPPING) + 1):
        prefix = ".".join(parts[:n_parts]) + "."
        if not all(name.startswith(prefix) for name in state):
            break
        shorter = {name.removeprefix(prefix): value for name, value in state.items()}
        renamed = {compiled.get(name, name): value for name, value in shorter.items()}
        missing, unexpected, _ = _misfits(own, renamed, set(own))
        if not missing and not unexpected:
            notes.append(f"weights: {_short(prefix)} is taken off every name")
            return renamed
    return state


def fit_weights(module: nn.Module, state: StateDict, what: str, notes: list[str] | None = None) -> None:
    """Put weights into a net, every one of them, or change nothing and say what does not fit.

    The net's tensors keep their dtype and device. A prefix before every name (`module.`, `model.`) is understood.
    Absent counters `num_batches_tracked` and the second name of a tensor that the net uses twice are no fault.
    `InputError` names net and file by `what`, and the first missing name, unexpected name and other shape.
    """
    own = module.state_dict(keep_vars=True)
    state = named_as(module, state, [] if notes is None else notes)
    misfit = describe_misfit({name: value for name, value in own.items() if isinstance(value, Tensor)}, state, set(own))
    if misfit:
        raise InputError(f"weights do not fit {what}: {misfit}")
    try:
        module.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"weights do not fit {what}: {one_line(error)}") from None


def _misfits(own: Mapping[str, Any], state: StateDict, known: set[str]) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing, unexpected, and of another shape."""
    present = {id(own[name]) for name in own if name in state}
    missing = [
        name
        for name, value in without_mark(own).items()
        if name not in state and id(value) not in present and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in known]
    reshaped = [
        name
        for name, value in own.items()
        if name in state and tuple(getattr(state[name], "shape", ())) != tuple(getattr(value, "shape", ()))
    ]
    return missing, unexpected, reshaped


def describe_misfit(own: Mapping[str, Tensor], state: StateDict, known: set[str] | None = None) -> str:
    """What does not fit between a net's tensors and a file's, in one line; empty when all fits."""
    missing, unexpected, reshaped = _misfits(own, state, set(own) if known is None else known)
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing (first: {_short(missing[0])})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected (first: {_short(unexpected[0])})")
    if reshaped:
        name = reshaped[0]
        theirs = list(getattr(state[name], "shape", ()))
        parts.append(
            f"{len(reshaped)} of another shape"
            f" (first: {_short(name)}, {list(own[name].shape)} in the net, {theirs} in the file)"
        )
    return ", ".join(parts)


def _short(name: object) -> str:
    """A name from a file, which may be anybody's, fit for one line."""
    text = printable(str(name)[:_LONGEST_NAME])
    return text if len(str(name)) <= _LONGEST_NAME else f"{text}..."


def refuse_non_finite(module: nn.Module, what: str) -> None:
    """Refuse a net that is broken before it starts, naming the tensor.

    Parameters must be finite; buffers must hold no NaN, and the statistics of a normalisation no infinity (a mask may).
    """
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            continue
        strict = name in parameters or name.endswith(("running_mean", "running_var"))
        broken = ~torch.isfinite(value) if strict else torch.isnan(value)
        n_broken = int(broken.sum())
        if n_broken:
            kind = "NaN or infinite" if strict else "NaN"
            raise InputError(f"weights of {what}: {n_broken} of {value.numel()} numbers in {name} are {kind}")
