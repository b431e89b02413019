"""Small sweeps with known numbers, for the tests of what lies on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.engine.evaluators import prepare
from shiftlens.engine.outcomes import Chunk
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeps import runner
from shiftlens.sweeps.header import SweepHeader, software_versions
from shiftlens.sweeps.sweep_store import SweepStore

PLAN = Plan("direct", "float32", 64, False, False, False, "cpu", "cpu X")

HEADER = SweepHeader(
    model="net.py:factory",
    model_digest="sha256:aaaa",
    model_notes=("a note",),
    data="digits",
    data_digest="sha256:bbbb",
    data_notes=(),
    n_classes=3,
    class_names=("a", "b", "c"),
    image_size=(6, 7),
    grid=ShiftGrid((2, 4), 2),
    fill=Fill.parse("0.123456789"),
    plan=PLAN,
    n_parameters=10,
    n_macs=None,
    strides=(2, 4),
    preprocessing=Preprocessing((0.5,), (0.25,), (6, 7), None, "bilinear", True),
    training={"epochs": 3, "augmentation": {"shift": 2}},
    software=software_versions(),
)


def header(**changes: Any) -> SweepHeader:
    return HEADER.model_copy(update=changes)


def numbers(n: int, shape: tuple[int, int] = (3, 5), n_classes: int = 3, seed: int = 0) -> ChunkResult:
    """Random but lawful results of `n` images."""
    random = np.random.default_rng(seed)
    return {
        "prediction": random.integers(0, n_classes, (n, *shape)),
        "loss": random.exponential(size=(n, *shape)).astype(np.float32),
        "confidence": random.uniform(0.1, 1, (n, *shape)).astype(np.float16),
    }


def cut(result: ChunkResult, span: slice) -> ChunkResult:
    return {name: values[span] for name, values in result.items()}


def labels(n: int) -> NDArray[np.int64]:
    return np.arange(n, dtype=np.int64) % 3


def create(path: Path, n: int = 7, chunk_size: int = 3, controls: tuple[str, ...] = (), **changes: Any) -> SweepStore:
    index = np.arange(n, dtype=np.int64) * 10
    return SweepStore.create(path, header(**changes), labels(n), index, chunk_size=chunk_size, controls=controls)


def fill(store: SweepStore, control: str | None = None, *, finish: bool = True) -> ChunkResult:
    group = store.group(control)
    result = numbers(group.n_images, seed=0 if control is None else 1)
    for chunk in range(group.n_chunks):
        group.write(chunk, cut(result, group.span(chunk)))
    if finish:
        group.finish()
    return result


def tree(path: Path) -> dict[str, bytes]:
    """Every file below `path` with its bytes."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def edit(group: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the attributes of a group as somebody with an editor would."""
    file = group / "zarr.json"
    document = json.loads(file.read_text())
    change(document["attributes"])
    file.write_text(json.dumps(document, indent=2))  # as Zarr writes it


class Net(nn.Module):
    """A net whose answer depends on where the picture [1, 6, 8] is."""

    def __init__(self, n_classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4 * 6 * 8, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.conv(x).relu().flatten(1))
        return scores


def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Every picture that an evaluator is given from now on, with the control; grows as the test runs."""
    given: list[tuple[str, bytes]] = []

    def spy(*args: Any) -> Any:
        evaluator = prepare(*args)

        begin = evaluator.begin_chunk

        def spied(chunk: Chunk) -> Any:
            given.extend((chunk.control or "", picture.tobytes()) for picture in chunk.images)
            return begin(chunk)

        evaluator.begin_chunk = spied  # type: ignore[method-assign]
        return evaluator

    monkeypatch.setattr(runner, "prepare", spy)
    return given
