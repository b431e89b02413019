"""SECURITY.md claims nothing that no test holds, and the corpus is as large as it is said to be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from hostile import corpus_data, corpus_runs, corpus_weights, corpus_zarr
from hostile.corpus_words import NAMES, NUMBERS

ROOT = Path(__file__).resolve().parents[2]


def test_each_claim_names_a_test_that_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 12
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not test or test in functions, f"{file}::{test}"


def test_the_readme_and_contributing_lead_there() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "(SECURITY.md)" in (ROOT / name).read_text(encoding="utf-8"), name


def test_the_corpus_is_large() -> None:
    tables = (
        corpus_weights.WEIGHTS,
        corpus_runs.RUNS,
        corpus_data.PICTURES,
        corpus_data.FOLDERS,
        corpus_data.PARQUET,
        corpus_zarr.SWEEPS,
        corpus_zarr.FEATURES,
        corpus_zarr.ARITHMETIC,
        NAMES,
        NUMBERS,
    )
    assert sum(map(len, tables)) > 300
