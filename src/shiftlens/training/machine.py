"""What the machine can do for a training step: number format, a heap that keeps its pages, the same sums every time."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Numbers of mallopt(3) in glibc's malloc.h, with the library's own defaults.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_DEFAULTS = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 128 * 1024, _TOP_PAD: 128 * 1024}
_ROOMY = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 256 * 2**20}


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
    """Within the block, steps on `device` are fast (CPU) and repeat to the last bit (CUDA)."""
    with _roomy_heap() if device.type == "cpu" else _deterministic_cuda():
        yield


@contextmanager
def _deterministic_cuda() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextmanager
def _roomy_heap() -> Iterator[None]:
    """Stop the C library from handing large blocks back to the system after each use.

    A step frees and asks again for some hundred megabytes. By default every such block is mapped anew and cleared page
    by page, which is about a fifth of the step. Only glibc has these switches; elsewhere nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    for option, value in _ROOMY.items():
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _DEFAULTS.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has a mallopt too, which does nothing.
    return libc if hasattr(libc, "gnu_get_libc_version") else None
