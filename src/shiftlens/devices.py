"""Which device the work runs on, what kind of machine that is, and a heap that keeps its pages."""

from __future__ import annotations

import ctypes
import logging
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn

from shiftlens.errors import DeviceError, InputError
from shiftlens.naming import one_line

logger = logging.getLogger(__name__)

# Numbers of mallopt(3) in glibc's malloc.h, with the library's own defaults.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_DEFAULTS = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 128 * 1024, _TOP_PAD: 128 * 1024}
_ROOMY = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 256 * 2**20}

_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Those of the following that multiply; the others only convert."""
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "sve_bf16")
"""Instruction sets of x86 and ARM, as torch names them."""


def resolve_device(name: str = "auto", *, apple: bool = False) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device that is really there; `apple`: `mps` will do too.

    `auto` takes the CPU where torch cannot use a GPU that is there, and says so once.

    Raises
    ------
    InputError
        A name that torch does not know, or a GPU that is not there.
    """
    if name == "auto":
        has_cuda, problem = _cuda()
        if problem:
            _tell_once(f"computing on the CPU, since torch cannot use this machine's GPU: {problem}")
        return torch.device("cuda" if has_cuda else "cpu")
    expected = "auto, cpu, cuda or mps" if apple else "auto, cpu or cuda"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; expected {expected}") from None
    if device.type == "mps" and not apple:
        raise InputError(f"device {name!r} is for sweeps only; expected {expected}")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {name!r} is not supported; expected {expected}")
    if device.type == "cpu":
        return device
    n_there, problem = (int(torch.backends.mps.is_available()), "")
    if device.type == "cuda":
        has_cuda, problem = _cuda()
        n_there = torch.cuda.device_count() if has_cuda else 0
    if (device.index or 0) >= n_there:
        raise InputError(
            f"device {name!r} was asked for, but torch sees no such GPU{f': {problem}' if problem else ''}"
        )
    return device


def _cuda() -> tuple[bool, str]:
    """Whether torch can use an NVIDIA GPU, and what it says of one that it cannot use: its driver is too old, say."""
    said = _said_of_cuda()  # before anybody else asks
    there = torch.cuda.is_available()
    return there, "" if there else said


@cache
def _said_of_cuda() -> str:
    """Torch says it once in a process, when it is first asked."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.is_available()
    return one_line(Warning(said[-1].message)) if said else ""


@cache
def _tell_once(text: str) -> None:
    logger.warning("%s", text)


def refuse_gone(device: torch.device, then: str) -> None:
    """Say that a GPU cannot compute any more in this process, and what `then`; nothing for one that can, and a CPU.

    Raises
    ------
    DeviceError
        The GPU is lost, or a kernel of the net broke off and took all that was on the GPU with it.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise DeviceError(f"the GPU {device} failed: {one_line(error)}; {then}") from error


def tensors_of(device: torch.device) -> torch.device:
    """Where windows and outcomes are that a net on a device works on: on the CPU for Apple's, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def machine_kind(device: torch.device) -> str:
    """What decides the last bits of a result: the CPU's vector unit as torch names it, or the GPU's name.

    A CPU's units for bfloat16 are named too: with the same vector unit some have none and torch emulates them.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"mps {platform.machine()} (macOS {platform.mac_ver()[0]})"
    unit, units = torch.backends.cpu.get_cpu_capability(), _bfloat16_units()
    # Plans of earlier versions say just "cpu AVX512", of either kind: that matches neither.
    if units or unit == "AVX512":
        return f"cpu {unit} (bfloat16: {', '.join(units) or 'emulated'})"
    return f"cpu {unit}"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself, so that it is faster than float32 there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and any(name in _PRODUCTS for name in _bfloat16_units())


def _bfloat16_units() -> tuple[str, ...]:
    """Those that this CPU has."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return tuple(name for name in _BFLOAT16_UNITS if found.get(name))
    # Older versions of torch have no such list: what they ask for themselves.
    asked = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    return tuple(name for name, query in asked.items() if getattr(torch.cpu, query, bool)())


@contextmanager
def roomy_heap(device: torch.device) -> Iterator[None]:
    """Stop the C library from handing large blocks back to the system after each use.

    A net frees and asks again for some hundred megabytes a batch. By default every such block is mapped anew and
    cleared page by page, which takes a tenth (forward) to a fifth (training) of the time. Only glibc has these
    switches; elsewhere, and for a GPU, nothing happens.
    """
    libc = _glibc() if device.type == "cpu" else None
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


@contextmanager
def number_format(name: str, device: torch.device) -> Iterator[None]:
    """Let a GPU multiply as the format's name says while this lasts: `tf32` in TF32, every other one as IEEE has it.

    torch ships with TF32 (10 bits of each factor) on for the convolutions of float32 nets and off for their matrix
    products. What `float32` means must depend neither on that nor on what a user's script has set. A GPU that is named
    by number is torch's current one meanwhile: streams and recordings are made on that. On other devices nothing
    happens.
    """
    if device.type != "cuda":
        yield
        return
    before = _multiplying()
    on, word = (True, "tf32") if name == "tf32" else (False, "ieee")
    try:
        _multiply((on, on, word, word, word))
        with nullcontext() if device.index is None else torch.cuda.device(device):
            yield
    finally:
        _multiply(before)


_Multiplying = tuple[bool | None, bool | None, str, str, str]


def _multiplying() -> _Multiplying:
    """Torch's older switches for products and cuDNN (None: not readable beside the newer ones), and the newer ones."""
    older: list[bool | None] = []
    for module in (torch.backends.cuda.matmul, torch.backends.cudnn):
        try:
            older.append(bool(module.allow_tf32))
        except RuntimeError:  # the two kinds contradict each other
            older.append(None)
    cudnn: Any = torch.backends.cudnn
    newer = (torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision)
    return older[0], older[1], str(newer[0]), str(newer[1]), str(newer[2])


def _multiply(how: _Multiplying) -> None:
    """Set both kinds: the compiler reads the older ones, and refuses to where they contradict the newer ones."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if how[0] is not None:
        matmul.allow_tf32 = how[0]
    if how[1] is not None:
        cudnn.allow_tf32 = how[1]
    matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = how[2:]


def give_back(device: torch.device) -> None:
    """Hand pages that hold nothing back to the system, also those between pages in use.

    A roomy heap is a patchwork after a while, of holes that the next block does not fit: without this, a sweep of 2,000
    images x 4,225 shifts on two threads had grown to 3.6 GB. Meant for once a chunk, since the pages are cleared anew.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is not None:
        libc.malloc_trim(0)


def on_side_stream(work: Callable[[], None], times: int = 1) -> None:
    """Run work on another stream of the GPU, as recording asks for beforehand: libraries set themselves up in it."""
    aside = _side_stream(torch.cuda.current_device())
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(times):
            work()
    torch.cuda.current_stream().wait_stream(aside)


@cache
def _side_stream(index: int) -> torch.cuda.Stream:
    """One for each GPU: every stream keeps the memory that was used on it."""
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]  # torch says no types here


def captured(work: Callable[[], None]) -> Callable[[], None]:
    """Record work as a CUDA graph, without doing it; what is returned does it, each time with the same tensors.

    Raises
    ------
    Exception
        Whatever the work raises, and torch for what cannot be recorded.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # musl has a mallopt too, which does nothing.
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def input_dtype(module: nn.Module) -> torch.dtype:
    """The number format of a net's input: that of its first floating-point weights.

    A net that only computes some of its steps in double takes float32, as long as any of its weights are.
    """
    weights = [*module.parameters(), *module.buffers()]
    found = list(dict.fromkeys(tensor.dtype for tensor in weights if tensor.is_floating_point()))
    if not found or (found[0] == torch.float64 and torch.float32 in found):
        return torch.float32
    return found[0]
