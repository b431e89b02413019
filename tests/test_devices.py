"""What a machine is called: two that round differently must not be called alike."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch

from shiftlens import devices
from shiftlens.devices import machine_kind, number_format, refuse_gone, resolve_device
from shiftlens.errors import DeviceError, InputError

CPU = torch.device("cpu")


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    def become(unit: str, **found: bool) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: unit)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"sse": True, **found}, raising=False)

    return become


def test_units_for_bfloat16_tell_cpus_of_one_vector_unit_apart(cpu: Any) -> None:
    kinds = []
    for found in ({}, {"avx512_bf16": True}, {"avx512_bf16": True, "amx_bf16": True, "amx_fp16": False}):
        cpu("AVX512", **found)
        kinds.append(machine_kind(CPU))
    assert kinds == [
        "cpu AVX512 (bfloat16: emulated)",
        "cpu AVX512 (bfloat16: avx512_bf16)",
        "cpu AVX512 (bfloat16: avx512_bf16, amx_bf16)",
    ]
    # What earlier versions called all of them is none of them.
    assert "cpu AVX512" not in kinds


def test_a_cpu_without_such_units_is_called_as_before(cpu: Any) -> None:
    cpu("AVX2", avx_ne_convert=False)
    assert machine_kind(CPU) == "cpu AVX2"
    cpu("DEFAULT", bf16=True)
    assert machine_kind(CPU) == "cpu DEFAULT (bfloat16: bf16)"


def test_a_torch_without_the_list_is_asked_in_its_own_way(cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu("AVX512")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert machine_kind(CPU) == "cpu AVX512 (bfloat16: avx512_bf16)"


def test_this_machine_has_one_name() -> None:
    assert machine_kind(CPU) == machine_kind(CPU)
    assert machine_kind(CPU).startswith(f"cpu {torch.backends.cpu.get_cpu_capability()}")


@cache  # torch says it once in a process
def too_old() -> bool:
    warnings.warn(
        "CUDA initialization: The NVIDIA driver on your system is too old (found version 10010).", stacklevel=2
    )
    return False


def test_a_driver_that_torch_rejects_leaves_the_cpu_only_to_auto(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", too_old)
    for remembered in (too_old, devices._tell_once, devices._said_of_cuda):
        remembered.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [resolve_device("auto"), resolve_device("auto"), resolve_device("cpu")] == [CPU] * 3
    (said,) = caplog.records
    assert said.getMessage().startswith("computing on the CPU, since torch cannot use this machine's GPU: CUDA init")
    with pytest.raises(InputError, match=r"'cuda:0' was asked for, but torch sees no such GPU: .*driver .* is too old"):
        resolve_device("cuda:0")
    devices._said_of_cuda.cache_clear()


def test_a_gpu_that_is_lost_is_told_and_one_that_is_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_gone(CPU, "nothing")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    refuse_gone(torch.device("cuda"), "nothing")

    def gone(device: torch.device) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr(torch.cuda, "synchronize", gone)
    with pytest.raises(DeviceError, match=r"^the GPU cuda:1 failed: CUDA error: unspecified launch failure; go on$"):
        refuse_gone(torch.device("cuda:1"), "go on")


def test_a_gpu_by_number_is_the_current_one_while_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams and recordings are made on torch's current GPU, whatever the tensors are on."""
    entered: list[torch.device] = []

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        entered.append(device)
        yield

    monkeypatch.setattr(torch.cuda, "device", current)
    for name in ("cuda:1", "cuda", "cpu"):
        with number_format("float32", torch.device(name)):
            pass
    assert entered == [torch.device("cuda:1")]
