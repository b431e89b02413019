"""Every public class and function has an example, and every example in a docstring runs and prints what it shows."""

from __future__ import annotations

import doctest
import importlib
import inspect
import shutil
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import example_files
import shiftlens as sl
from made_once import once

ROOT = Path(sl.__file__).parent
MODULES = {
    ".".join(("shiftlens", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    for needed in (each for each in example_files.NAMES if f'"{each}' in text):
        there = once(tmp_path_factory, "example_files", example_files.make) / needed
        (shutil.copytree if there.is_dir() else shutil.copyfile)(there, tmp_path / needed)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    known = {"np": np, "torch": torch, "nn": nn, "sl": sl}
    found = doctest.testmod(module, extraglobs={key: value for key, value in known.items() if key not in vars(module)})
    assert found.failed == 0
    reached = sum(len(each.examples) for each in doctest.DocTestFinder().find(module))
    assert reached == sum(line.lstrip().startswith(">>> ") for line in text.splitlines())  # none lost by a decorator


def without_example(module: ModuleType) -> list[str]:
    """The public classes and functions of a module whose docstring has no example that is run."""
    named = {name: getattr(module, name) for name in module.__all__}
    callables = {name: each for name, each in named.items() if isinstance(each, type | FunctionType)}
    return [name for name, each in callables.items() if not _examples(each)]


def _examples(each: type | FunctionType) -> list[doctest.Example]:
    # A class without a docstring would be given that of its base class.
    own = inspect.cleandoc(each.__doc__ or "")
    return [found for found in doctest.DocTestParser().get_examples(own) if not found.options.get(doctest.SKIP)]


@pytest.mark.parametrize("module", [sl, sl.nn], ids=["sl", "sl.nn"])
def test_every_public_name_has_an_example(module: ModuleType) -> None:
    assert without_example(module) == []


def test_a_name_without_an_example_is_found() -> None:
    def shown() -> None:
        """Add.

        >>> 1 + 1
        2
        """

    def skipped() -> None:
        """Add.

        >>> 1 + 1  # doctest: +SKIP
        """

    class Inherited(sl.ShiftGrid):
        pass

    module = ModuleType("made_up")
    module.__all__ = ["number", "shown", "skipped", "Inherited"]
    vars(module).update(number=3, shown=shown, skipped=skipped, Inherited=Inherited)
    assert without_example(module) == ["skipped", "Inherited"]


def test_an_example_that_is_wrong_is_found() -> None:
    runner = doctest.DocTestRunner(verbose=False)
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    runner.run(test, out=lambda text: None)
    assert runner.failures == 1
