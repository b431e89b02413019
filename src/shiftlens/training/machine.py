"""What the machine can do for a training step: number format, a heap that keeps its pages, the same sums every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from shiftlens.devices import roomy_heap


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of the convolutions: `auto` is bfloat16 where the machine has instructions for it."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # Elsewhere bfloat16 is emulated, slower than float32.
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else torch.float32


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """Within the block, steps on `device` are fast (CPU), or repeat to the last bit and float32 is float32 (CUDA)."""
    with roomy_heap(device) if device.type == "cpu" else _deterministic_cuda(device):
        yield


@contextmanager
def _deterministic_cuda(device: torch.device) -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    try:
        with torch.cuda.device(device):  # a recorder takes the streams of the current one
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
