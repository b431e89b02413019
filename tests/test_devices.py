"""What a machine is called: two that round differently must not be called alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from shiftlens.devices import machine_kind

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
