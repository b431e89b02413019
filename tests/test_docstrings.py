"""Every example in a docstring runs, and prints what it shows."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl

ROOT = Path(sl.__file__).parent
MODULES = sorted(
    ".".join(("shiftlens", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    known = {"np": np, "torch": torch, "nn": nn, "sl": sl}
    found = doctest.testmod(module, extraglobs={key: value for key, value in known.items() if key not in vars(module)})
    assert found.failed == 0


def test_an_example_that_is_wrong_is_found() -> None:
    runner = doctest.DocTestRunner(verbose=False)
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    runner.run(test, out=lambda text: None)
    assert runner.failures == 1
