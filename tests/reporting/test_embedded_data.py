"""The numbers in the page's script data, as they were when this was written.

`python -m reporting.test_embedded_data` in `tests/` writes them anew; do that only where a number is meant to change.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reporting.planted import Page, sweep, unpacked
from shiftlens.reporting import report

GOLDEN = Path(__file__).with_name("embedded_data.json")
NAMES = ("id", "kind", "unit", "colours", "map", "rule")
"""Texts that the page's script decides by; all others are for people."""


def digest(data: Any, path: str = "") -> dict[str, Any]:
    """For each array its shape, how many numbers it has, their sum and one that depends on their order."""
    if isinstance(data, dict) and "dtype" in data:
        values = unpacked(data).astype(np.float64).ravel()
        return {path: [data["dtype"], *data["shape"], *_sums(values)]}
    if isinstance(data, dict):
        return {key: value for name in data for key, value in digest(data[name], f"{path}/{name}").items()}
    if isinstance(data, list) and data and all(each is None or isinstance(each, int | float) for each in data):
        return {path: [len(data), *_sums(np.array(data, np.float64))]}
    if isinstance(data, list):
        return {key: value for k, each in enumerate(data) for key, value in digest(each, f"{path}/{k}").items()}
    return {} if isinstance(data, str) and path.rpartition("/")[2] not in NAMES else {path: data}


def _sums(values: Any) -> list[float]:
    known = np.isfinite(values)
    weights = np.cos(np.arange(len(values)))
    return [int(known.sum()), float(values[known].sum()), float((weights * values)[known].sum())]


def embedded(place: Path) -> dict[str, Any]:
    """The digest of a report on two sweeps, one with controls, and their comparison."""
    one = sweep(place / "one.zarr", centre=(1.5, 0), controls=("occlusion", "flip", "canvas"))
    data = Page(report([one, sweep(place / "other.zarr", edge=4.0)], place / "r.html").path).data
    return digest({name: data[name] for name in ("sweeps", "comparisons", "features")})


def test_the_numbers_are_what_they_were(tmp_path: Path) -> None:
    golden, found = json.loads(GOLDEN.read_text()), embedded(tmp_path)
    assert found.keys() == golden.keys()
    for path, wanted in golden.items():
        if isinstance(wanted, list):
            assert found[path][:-2] == wanted[:-2], path
            # exp of float32 differs in the last bit between processors, and 4 bytes keep that bit.
            close = 1e-6 if wanted[0] == "f4" else 1e-9
            assert found[path][-2:] == pytest.approx(wanted[-2:], rel=close, abs=close), path
        else:
            assert found[path] == wanted, path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = (f"{json.dumps(path)}: {json.dumps(value)}" for path, value in embedded(Path(folder)).items())
        GOLDEN.write_text("{\n" + ",\n".join(rows) + "\n}\n")
