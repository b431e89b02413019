"""What every benchmark's JSON says first: the command that made it, and the machine and versions that it ran with."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision


def header(**about: object) -> dict[str, Any]:
    """`kind`, `schema_version`, `command` and `machine`, then what the benchmark has to say of itself."""
    script, *given = sys.argv
    # Where things lie on one machine is nobody else's business.
    shown = [Path(word).name if Path(word).is_absolute() else word for word in given]
    command = " ".join(["python", f"benchmarks/{Path(script).name}", *shown])
    return {"kind": "benchmark", "schema_version": 1, "command": command, "machine": machine(), **about}


def machine() -> dict[str, Any]:
    name = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return {
        "processor": name,
        "vector_unit": torch.backends.cpu.get_cpu_capability(),
        "matrix_unit": bool(torch.cpu._is_amx_tile_supported()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }


def of_machine(m: dict[str, Any]) -> str:
    """The same for people."""
    return (
        f"{m['cores']} cores {m['processor']} ({m['vector_unit']}, {'with' if m['matrix_unit'] else 'without'} matrix "
        f"unit), torch {m['torch']}, Python {m['python']}"
    )
