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
from shiftlens.naming import one_line, printable
from shiftlens.nn.repair_mark import without_mark
from shiftlens.paths import kind_of

StateDict = dict[str, Any]

WRAPPER_KEYS: tuple[str, ...] = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights beside other things."""

_MAX_WRAPPING = 4
_LONGEST_NAME = 80  # of a tensor, in an error
_SLACK = 2**20  # bytes by which the entries of a zip file may exceed it: none does

_PLAIN_PICKLE = (
    "weights: {path} is a plain pickle, which can run code when it is read; expected a safetensors file or"
    " torch.save(model.state_dict(), path)"
)


def read_weights(path: str | Path) -> StateDict:
    """Read tensors by name from a safetensors file or a PyTorch file, onto the CPU whatever device saved them.

    A PyTorch file is read with `weights_only=True`: tensors and plain containers, never code. Weights under a key
    `state_dict`, `model_state_dict` or `model` are found; `_orig_mod.` (from `torch.compile`) is taken out of names.

    Parameters
    ----------
    path
        A file; what it holds is told from its first bytes, not from its name.

    Returns
    -------
    dict
        Tensor by name, in the file's order.

    Raises
    ------
    InputError
        A path that is not a readable file, a file that would have to run code, or that holds no table of tensors.
    """
    path = Path(path)
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
        return _without_compile(read_safetensors(path))
    return _without_compile(_find_tensors(_read_torch(path), path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU; `InputError` when it is torn or not one."""
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"weights: {path} is no readable safetensors file: {one_line(error)}") from None


def _read_torch(path: Path) -> object:
    if zipfile.is_zipfile(path):
        _refuse_archive(path)
    try:
        # An open file, not its name: by the name alone torch would take a pickle called .safetensors for such a file.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old storage formats: nothing that the user can act on here
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_why_refused(path, error)) from None
    except Exception as error:  # torch's reader raises whatever a damaged file makes it raise, assertions included
        if "magic number" in str(error) and _is_plain_pickle(path):
            raise InputError(_PLAIN_PICKLE.format(path=path)) from None
        raise InputError(f"weights: {path} is no readable safetensors or PyTorch file: {one_line(error)}") from None


def _refuse_archive(path: Path) -> None:
    """Refuse a zip file that holds a program, or that would be larger in memory than it is on disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"weights: {path} is no readable PyTorch file: {one_line(error)}") from None
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise InputError(f"weights: {path} is a TorchScript program, expected weights (save model.state_dict())")
    unpacked, stored = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > stored + _SLACK:
        raise InputError(
            f"weights: {path} has {stored:,} bytes and would unpack to {unpacked:,}: its entries are compressed or "
            "overlapping, which torch.save never writes; expected torch.save(model.state_dict(), path)"
        )


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


def _find_tensors(content: object, path: Path) -> StateDict:
    for _ in range(_MAX_WRAPPING):
        if not isinstance(content, Mapping):
            raise InputError(f"weights: {path} holds {type(content).__name__}, expected a table of tensors by name")
        if any(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}
        inner = next((content[key] for key in WRAPPER_KEYS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            keys = ", ".join(_short(key) for key in list(content)[:5]) or "nothing"
            raise InputError(
                f"weights: {path} holds no tensors; it has {keys}; expected them at the top or under"
                f" {', '.join(WRAPPER_KEYS)}"
            )
        content = inner
    raise InputError(f"weights: {path} nests its weights too deeply")


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


def fit_weights(module: nn.Module, state: StateDict, what: str) -> None:
    """Put weights into a net, every one of them, or change nothing and say what does not fit.

    Parameters
    ----------
    module
        The net; its tensors keep their dtype and device.
    state
        Tensor by name. A `module.` before every name is understood. Absent counters `num_batches_tracked` and the
        second name of a tensor that the net uses twice are no fault.
    what
        Names net and file in the error.

    Raises
    ------
    InputError
        The first missing name, the first unexpected name and the first other shape, and how many there are of each.
    """
    own = module.state_dict(keep_vars=True)
    compiled = {name.replace("_orig_mod.", ""): name for name in own if "_orig_mod." in name}
    state = {compiled.get(name, name): value for name, value in _without_wrapper(state, set(own)).items()}
    misfit = describe_misfit({name: value for name, value in own.items() if isinstance(value, Tensor)}, state, set(own))
    if misfit:
        raise InputError(f"weights do not fit {what}: {misfit}")
    try:
        module.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"weights do not fit {what}: {one_line(error)}") from None


def describe_misfit(own: Mapping[str, Tensor], state: StateDict, known: set[str] | None = None) -> str:
    """What does not fit between a net's tensors and a file's, in one line; empty when all fits."""
    present = {id(own[name]) for name in own if name in state}
    missing = [
        name
        for name, value in without_mark(own).items()
        if name not in state and id(value) not in present and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in (own if known is None else known)]
    reshaped = [
        name
        for name, value in own.items()
        if name in state and tuple(getattr(state[name], "shape", ())) != tuple(value.shape)
    ]
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
