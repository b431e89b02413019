"""A run between two epochs: one file with weights, momenta and the record of all that decided them.

The record lies in the header of the tensors' file, so that one rename makes both valid together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from shiftlens.errors import InputError, StoreError
from shiftlens.models.runs import write_atomically
from shiftlens.models.runspec import MODEL_JSON
from shiftlens.naming import one_line
from shiftlens.paths import kind_of
from shiftlens.storage.locking import disk_errors
from shiftlens.training.recipe import differences

CHECKPOINT = "checkpoint.safetensors"
RECORD = "training.json"
KIND = "training"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` by name (`net.*`, `momentum.*`) and the record that `training.json` shows."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors under a prefix, by the rest of their names."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(prefix + ".")}


def save_checkpoint(
    out: Path, net: Mapping[str, Tensor], momenta: Mapping[str, Tensor], record: Mapping[str, Any]
) -> None:
    """Replace the checkpoint of a run; killed at any moment, the old one or the new one is there, whole."""
    tensors = {f"net.{name}": t for name, t in net.items()} | {f"momentum.{name}": t for name, t in momenta.items()}
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(dict(record), sort_keys=True, allow_nan=False)
    write_whole(out / CHECKPOINT, to_safetensors(plain, metadata={"record": text}))


def load_checkpoint(out: Path) -> Checkpoint | None:
    """Read the checkpoint of a run, None if there is none; `StoreError` if broken or of another kind or version."""
    path = out / CHECKPOINT
    if not _is_there(path):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("record", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__}); delete it to start anew") from error
    _check_kind(path, record)
    return Checkpoint(tensors, record)


def save_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write `training.json`, the run's record and learning curve for people and programs."""
    text = json.dumps(dict(record), indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_whole(out / RECORD, text.encode())


def load_finished(out: Path) -> dict[str, Any] | None:
    """The record of a run that has come to its end in this directory, else None; `StoreError` as above."""
    path = out / RECORD
    if not _is_there(path) or not (out / MODEL_JSON).exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__})") from error
    _check_kind(path, record)
    return dict(record) if record.get("complete") else None


def _check_kind(path: Path, record: Any) -> None:
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise StoreError(f"{path} is not the record of a training run")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {str(record.get('schema_version'))[:60]}, this version reads {SCHEMA_VERSION}"
        )
    for key, kind in (("asked", dict), ("epochs", list), ("schedule", dict), ("machines", list)):
        if not isinstance(record.get(key, kind()), kind):
            raise StoreError(f"{path}: {key} must be a JSON {'object' if kind is dict else 'list'}")
    if not isinstance(record.get("asked"), dict):
        raise StoreError(f"{path} does not say what was asked for")


def _is_there(path: Path) -> bool:
    """Whether a file lies there; a pipe or a device in its place is refused, not waited for."""
    if kind_of(path) == "file":
        return True
    if path.exists():
        raise StoreError(f"{path} is no file; delete it to start anew")
    return False


def check_same_run(out: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of other settings, images or seed; says which differ, and how."""
    found = differences(stored, asked)
    if found:
        raise InputError(
            f"{out} holds a run of other settings: {'; '.join(found)}. Choose another --out, or the same settings"
        )


@contextmanager
def believed(out: Path) -> Iterator[None]:
    """One `StoreError` for whatever a missing key, another type or another shape in a stranger's files raises."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        raise StoreError(f"{out} holds a training that does not fit its own record ({why}); start anew") from error


def write_whole(target: Path, content: bytes) -> None:
    """Write a file so that a reader, a kill or a power loss finds the old content or the new one."""
    with disk_errors(target, "write", "what was there before is safe"):
        write_atomically(target, content)
