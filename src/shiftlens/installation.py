"""What shiftlens runs on: versions, devices, number formats, caches, optional packages."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from shiftlens.data.torchvision_sets import cache_folder
from shiftlens.devices import has_bfloat16, machine_kind, resolve_device

FOR_DEVELOPERS = ("test", "docs", "dev")
"""Extras that no command needs."""


def describe_installation() -> dict[str, Any]:
    """Describe the installation and the machine; nothing is downloaded, no model is loaded.

    Returns
    -------
    dict
        `versions` (package to version; those without which nothing runs), `device` and `devices`, `formats` (number
        format to what it means on `device`), `threads`, `caches` (what to folder), `extras` (extra to package to
        version; None where the package is not installed), and `problems`: one line for each package that is older
        than shiftlens promises to work with.

    Examples
    --------
    >>> sorted(describe_installation())
    ['caches', 'device', 'devices', 'extras', 'formats', 'problems', 'threads', 'versions']
    """
    versions: dict[str, str | None] = {"shiftlens": version("shiftlens"), "python": platform.python_version()}
    extras: dict[str, dict[str, str | None]] = {}
    problems = []
    for line in requires("shiftlens") or ():
        wanted = Requirement(line)
        found = _installed(wanted.name)
        extra = _extra_of(wanted)
        if extra in FOR_DEVELOPERS:
            continue
        (versions if extra is None else extras.setdefault(extra, {}))[wanted.name] = found
        if found is not None and not wanted.specifier.contains(found, prereleases=True):
            problems.append(f"{wanted.name} {found} is installed, shiftlens needs {wanted.specifier}")
    device = resolve_device()
    return {
        "versions": versions,
        "device": machine_kind(device),
        "devices": _gpus(),
        "formats": _formats(device),
        "threads": torch.get_num_threads(),
        "caches": _caches(),
        "extras": extras,
        "problems": problems,
    }


def installation_lines(found: dict[str, Any]) -> list[str]:
    """The same as text, one line each, to paste into an issue."""
    versions = {name: each for name, each in found["versions"].items() if name not in ("shiftlens", "python")}
    lines = [
        f"shiftlens {found['versions']['shiftlens']}, Python {found['versions']['python']}, {platform.platform()}",
        f"packages: {', '.join(f'{name} {each}' for name, each in versions.items())}",
        f"device: {found['device']}, {found['threads']} threads; GPUs: {', '.join(found['devices']) or 'none'}",
        f"number formats: {'; '.join(f'{name} {what}' for name, what in found['formats'].items())}",
        f"caches: {'; '.join(f'{what} {place}' for what, place in found['caches'].items())}",
    ]
    for extra, packages in found["extras"].items():
        missing = [name for name, each in packages.items() if each is None]
        here = [f"{name} {each}" for name, each in packages.items() if each is not None]
        lack = [f"not installed: {', '.join(missing)} (pip install 'shiftlens[{extra}]')"] if missing else []
        lines.append(f"extra {extra}: {'; '.join([*([', '.join(here)] if here else []), *lack])}")
    return [*lines, *(f"problem: {each}" for each in found["problems"])]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extra_of(wanted: Requirement) -> str | None:
    """The extra that a requirement belongs to, None for what is always installed."""
    if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
        return None
    extras = metadata("shiftlens").get_all("Provides-Extra") or []
    return next((extra for extra in extras if wanted.marker.evaluate({"extra": extra})), None)


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]


def _formats(device: torch.device) -> dict[str, str]:
    how = "in hardware" if has_bfloat16(device) else "emulated, slower than float32"
    known = {"float32": "IEEE", "float64": "IEEE", "bfloat16": how}
    return known | ({"tf32": "in hardware"} if device.type == "cuda" and has_bfloat16(device) else {})


def _caches() -> dict[str, str]:
    hub = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    return {"data": str(cache_folder()), "torchvision": torch.hub.get_dir(), "huggingface": str(hub)}
