"""Which device the work runs on, and what kind of machine that is."""

from __future__ import annotations

import torch

from shiftlens.errors import InputError


def resolve_device(name: str = "auto") -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device that is really there.

    Raises
    ------
    InputError
        A name that torch does not know, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; expected auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported; expected auto, cpu or cuda")
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index is None or device.index < torch.cuda.device_count())
    ):
        raise InputError(f"device {name!r} was asked for, but torch sees no such GPU")
    return device


def machine_kind(device: torch.device) -> str:
    """What decides the last bits of a result: the CPU's vector unit as torch names it, or the GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
