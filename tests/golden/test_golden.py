"""What every command says as JSON, apart from its sentences: a change of the code's shape must not change it.

`PYTHONPATH=src:tests python tests/golden/test_golden.py` writes `golden.json` again; look at the difference before you
commit it.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).with_name("golden.json")
NET = ("--model", f"{Path(__file__).with_name('net.py')}:ridge")
MIRRORED = ("--model", f"{Path(__file__).with_name('net.py')}:mirrored", "--input-size", "32")
SMALL = (*NET, "--input-size", "32")
MOST_LISTED = 12
UNSTABLE = {"seconds", "shifts_per_second", "peak_memory_bytes", "version", "machine", "rate", "size_bytes"}
"""Keys whose numbers depend on the machine or the day."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", *SMALL, "--data", "digits", "--split", "test", "--shift", "1", "0"),
    "sweep": (
        *(
            "sweep",
            *SMALL,
            "--data",
            "digits",
            "--split",
            "test",
            "--limit",
            "120",
            "--max-shift",
            "3",
            "--dtype",
            "float32",
        ),
        *("--engine", "direct", "--control", "occlusion,flip,canvas", "--out", "one.zarr"),
    ),
    "sweep adaptive": (
        *(
            "sweep",
            *SMALL,
            "--data",
            "digits",
            "--split",
            "test",
            "--max-shift",
            "2",
            "--dtype",
            "float32",
            "--engine",
            "direct",
        ),
        *("--half-width", "12", "--out", "few.zarr"),
    ),
    "repair": ("repair", "--model", "pretrained:vgg-cifar10", "--padding", "reflect", "--out", "repaired"),
    "sweep repaired": (
        *("sweep", *MIRRORED, "--data", "digits", "--split", "test", "--limit", "120", "--max-shift", "3"),
        *("--dtype", "float32", "--engine", "direct", "--out", "two.zarr"),
    ),
    "findings": ("findings", "one.zarr"),
    "findings adaptive": ("findings", "few.zarr"),
    "compare": ("compare", "one.zarr", "two.zarr"),
    "consistency": ("consistency", *SMALL, "--data", "digits", "--split", "test", "--limit", "100"),
    "inspect": ("inspect", *NET, "--size", "32"),
    "features": (
        "features",
        *SMALL,
        "--average",
        "digits",
        "--split",
        "test",
        "--limit",
        "60",
        "--out",
        "features.zarr",
    ),
    "findings features": ("findings", "features.zarr"),
    "foveation": ("foveation", *NET, "--size", "32", "--out", "paths.npy"),
    "kernels": ("kernels", *SMALL),
    "neurons": ("neurons", *SMALL, "--data", "digits", "--split", "test", "--limit", "60"),
    "plot": ("plot", "one.zarr", "--out", "pictures"),
    "report": ("report", "one.zarr", "two.zarr", "features.zarr", "--out", "report.html"),
}


def said(value: Any) -> Any:
    """A JSON value without its sentences: keys, numbers, short words; long lists by a few numbers each."""
    if isinstance(value, dict) and value.keys() == {"data", "dtype", "shape"}:
        numbers = np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"]).newbyteorder("<"))
        return said(numbers.astype(np.float64).tolist())
    if isinstance(value, dict):
        return {key: said(item) for key, item in sorted(value.items()) if key not in UNSTABLE}
    if isinstance(value, list):
        numbers = _numbers(value)
        if numbers and len(numbers) > MOST_LISTED:
            finite = [n for n in numbers if math.isfinite(n)]
            return {"n": len(numbers), "sum": math.fsum(finite), "squares": math.fsum(n * n for n in finite)}
        return [said(item) for item in value]
    if isinstance(value, str):
        return value if re.fullmatch(r"[a-z][a-z0-9_%-]{0,48}", value) else "..."
    return value


def _numbers(value: list[Any]) -> list[float] | None:
    """All numbers of nested lists of numbers; None where there is anything else among them."""
    found: list[float] = []
    for item in value:
        if isinstance(item, list):
            inner = _numbers(item)
            if inner is None:
                return None
            found += inner
        elif isinstance(item, int | float) and not isinstance(item, bool):
            found.append(float(item))
        else:
            return None
    return found


def page_data(page: Path) -> Any:
    """What the report's script reads."""
    (text,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def run_all() -> dict[str, Any]:
    """Every command in the current folder, one after another: what each prints as JSON, without sentences."""
    from shiftlens.cli import main

    found: dict[str, Any] = {}
    for name, words in COMMANDS.items():
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*words, "--json", "--quiet"])
        assert code == 0, f"{name}: {err.getvalue()}"
        found[name] = said(json.loads(out.getvalue()))
    found["page"] = said(page_data(Path("report.html")))
    return found


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Places where two values differ by more than arithmetic on another machine does."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lost = [f"{where}.{key} is gone" for key in expected.keys() - found.keys()]
        return lost + [
            d
            for key in expected.keys() & found.keys()
            for d in differences(expected[key], found[key], f"{where}.{key}")
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [
            d for k, pair in enumerate(zip(expected, found, strict=True)) for d in differences(*pair, f"{where}[{k}]")
        ]
    if isinstance(expected, float) and isinstance(found, int | float):
        near = math.isclose(expected, found, rel_tol=2e-3, abs_tol=1e-4)
        return [] if near else [f"{where}: expected {expected}, got {found}"]
    return [] if expected == found else [f"{where}: expected {expected!r:.80}, got {found!r:.80}"]


def test_every_command_says_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert differences(json.loads(GOLDEN.read_text()), run_all()) == []


def test_a_planted_difference_is_found() -> None:
    assert differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.1]}) == [".a[1]: expected 2.0, got 2.1"]
    assert differences({"a": 1, "b": 2}, {"a": 1}) == [".b is gone"]


if __name__ == "__main__":
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = run_all()
    GOLDEN.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    sys.exit(0)
