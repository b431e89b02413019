"""What crosses the engine's door: the plan of a sweep, and the result of a chunk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from numpy.typing import NDArray

from shiftlens.errors import StoreError

ENGINES = ("direct", "dedup")
DTYPES = ("float32", "bfloat16", "float64", "tf32")
"""Number formats by name; `tf32` is float32 with products in TF32, which only NVIDIA's GPUs have."""
CONTROLS = ("occlusion", "flip", "canvas")


@dataclass(frozen=True)
class Plan:
    """How a sweep is computed; all that can move its last bits.

    `engine` names the path, `dtype` what the net computes in, `batch_size` the windows in one forward pass.
    `machine` is what the bits depend on besides: the CPU's vector unit or the GPU.

    Of the path `dedup`: `cut` is the number of operations that run once for all shifts of an image, `shared` their
    share of the net's multiply-adds (0 to 1), `fewer` how many times fewer multiply-adds the whole sweep takes.

    `n_threads`: threads that torch computes a forward pass with, where several do not run side by side.

    `settle`: windows whose two best scores are closer are evaluated again in float32 (`settling`), 0 for none.

    `cut_short`: there was no time to try all ways (`budget`), so a faster one may have been missed; no result depends
    on it.
    """

    engine: str
    dtype: str
    batch_size: int
    channels_last: bool
    fold_batch_norm: bool
    compiled: bool
    device: str
    machine: str
    cut: int = 0
    shared: float = 0.0
    fewer: float = 1.0
    cut_short: bool = False
    settle: float = 0.0
    n_threads: int = 1

    def to_json(self) -> str:
        """One line of JSON with sorted keys; what sweeps once had no word of is only there where it says something."""
        values = asdict(self)
        for late in ("cut_short", "settle", "n_threads"):
            if values[late] == getattr(Plan, late):
                del values[late]
        return json.dumps(values, sort_keys=True)

    def in_float32(self) -> Plan:
        """Every window on its own in float32, on the same device: what a faster way is held against."""
        plain = replace(self, engine="direct", dtype="float32", batch_size=min(64, self.batch_size), compiled=False)
        return replace(plain, cut=0, shared=0.0, fewer=1.0, settle=0.0, n_threads=1)

    def as_reference(self) -> Plan:
        """The same on the CPU where the device is Apple's, whose results are held against those."""
        return replace(self, device="cpu") if self.device.startswith("mps") else self

    def by_tensors(self) -> Plan:
        """The same by the number format of its tensors: those of TF32 are float32."""
        return replace(self, dtype="float32") if self.dtype == "tf32" else self

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read a stored plan.

        Raises
        ------
        StoreError
            Text that is no plan of this version.
        """
        try:
            values = json.loads(text)
            plan = Plan(**values)
        except (TypeError, ValueError) as error:
            raise StoreError(f"stored plan cannot be read by this version ({error}): {text[:200]!r}") from None
        kinds = {"str": str, "int": int, "bool": bool, "float": float}
        for field in fields(Plan):
            if type(getattr(plan, field.name)) is not kinds[str(field.type)]:
                raise StoreError(f"stored plan has {field.name}={getattr(plan, field.name)!r}, expected {field.type}")
        known = plan.engine in ENGINES and plan.dtype in DTYPES
        if not known or plan.batch_size < 1 or plan.cut < 0 or plan.n_threads < 1 or not 0 <= plan.settle < math.inf:
            raise StoreError(f"stored plan names what this version does not have: {text[:200]!r}")
        return plan


ChunkResult = dict[str, NDArray[Any]]
"""What one chunk of images gave, by variable of the task: arrays [image, dy, dx] or [image, object, dy, dx], or of an
accumulator the sum over the chunk. As the engine makes them class numbers are int64, floats as the task declares them.
"""
