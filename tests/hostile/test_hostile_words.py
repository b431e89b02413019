"""Names and numbers that are typed, or pasted from elsewhere: one line, and nothing that steers a terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostile.commands import Ground
from hostile.corpus_words import NAMES, NUMBERS
from hostile.machinery import assert_calm, run

pytestmark = pytest.mark.timeout(300)

TEXTS: dict[str, list[str]] = {
    "--model": ["evaluate", "--model", "{}", "--data", "folder:{pictures}"],
    "--model of inspect": ["inspect", "--model", "{}", "--size", "16"],
    "--model of foveation": ["foveation", "--model", "torchvision:{}", "--size", "16", "--out", "{out}/x.npy"],
    "--weights": ["kernels", "--model", "{net}:make", "--weights", "{}", "--input-size", "16"],
    "a factory": ["evaluate", "--model", "{net}:{}", "--data", "folder:{pictures}"],
    "--data": ["evaluate", "--model", "{run}", "--data", "{}"],
    "a folder": ["evaluate", "--model", "{run}", "--data", "folder:{out}/{}"],
    "a parquet": ["evaluate", "--model", "{run}", "--data", "parquet:{out}/{}"],
    "a set": ["evaluate", "--model", "{run}", "--data", "torchvision:{}"],
    "--data-root": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--data-root", "{out}/{}"],
    "--fill": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--fill", "{}"],
    "--control": ["sweep", "--model", "{run}", "--max-shift", "1", "--control", "{}", "--out", "{out}/s.zarr"],
    "--engine": ["sweep", "--model", "{run}", "--max-shift", "1", "--engine", "{}", "--out", "{out}/s.zarr"],
    "--dtype": ["sweep", "--model", "{run}", "--max-shift", "1", "--dtype", "{}", "--out", "{out}/s.zarr"],
    "--device": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--device", "{}"],
    "a sweep": ["findings", "{out}/{}"],
    "--names": ["compare", "{sweep}", "{sweep}", "--names", "a,{}"],
    "--plots": ["compare", "{sweep}", "{sweep}", "--plots", "{out}/{}"],
    "--format": ["plot", "{sweep}", "--out", "{out}/p", "--format", "{}"],
    "--input": ["features", "--model", "{run}", "--input", "{}", "--out", "{out}/f.zarr"],
    "--layers": ["features", "--model", "{run}", "--layers", "{}", "--out", "{out}/f.zarr"],
    "--layers of foveation": ["foveation", "--model", "{run}", "--size", "16", "--layers", "{}:{}", "--out", "{out}/x"],
    "--padding": ["repair", "--model", "{run}", "--padding", "{}", "--out", "{out}/r"],
    "--only": ["repair", "--model", "{run}", "--padding", "reflect", "--only", "{}", "--out", "{out}/r"],
    "--arch": ["train", "--arch", "{}", "--data", "folder:{pictures}", "--out", "{out}/t"],
    "--protocol": ["consistency", "--model", "{run}", "--data", "folder:{pictures}", "--protocol", "{}"],
    "--title": ["report", "{inspection}", "--title", "{}", "--out", "{out}/r.html"],
    "a report's place": ["report", "{inspection}", "--out", "{out}/{}.html"],
    "a command": ["{}"],
    "an option": ["evaluate", "--{}"],
}

COUNTS: dict[str, list[str]] = {
    "--limit": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--limit", "{}"],
    "--shift": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--shift", "{}", "{}"],
    "--fill": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--fill", "{}"],
    "--mean": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--mean", "{}"],
    "--std": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--std", "{}"],
    "--input-size": ["evaluate", "--model", "{run}", "--data", "folder:{pictures}", "--input-size", "{}"],
    "--max-shift": [
        "sweep",
        "--model",
        "{run}",
        "--data",
        "folder:{pictures}",
        "--max-shift",
        "{}",
        "--out",
        "{out}/s",
    ],
    "--step": ["sweep", "--model", "{run}", "--max-shift", "1", "--step", "{}", "--out", "{out}/s.zarr"],
    "--size": ["inspect", "--model", "{run}", "--size", "{}"],
    "--seed": ["findings", "{sweep}", "--seed", "{}"],
    "--margin": ["compare", "{sweep}", "{sweep}", "--margin", "{}"],
    "--passes": ["consistency", "--model", "{run}", "--data", "folder:{pictures}", "--passes", "{}"],
    "--epochs": ["train", "--data", "folder:{pictures}", "--epochs", "{}", "--minutes", "1", "--out", "{out}/t"],
    "--minutes": ["train", "--data", "folder:{pictures}", "--epochs", "1", "--minutes", "{}", "--out", "{out}/t"],
    "--lr": ["repair", "--model", "{run}", "--finetune-epochs", "1", "--lr", "{}", "--out", "{out}/r"],
}


def filled(line: list[str], ground: Ground, out: Path, value: str) -> list[str]:
    places = {name: str(path) for name, path in vars(ground).items()} | {"out": str(out)}
    return [_one(part, places, value) for part in line]


def _one(part: str, places: dict[str, str], value: str) -> str:
    for name, path in places.items():
        part = part.replace(f"{{{name}}}", path)
    return part.replace("{}", value)


@pytest.mark.parametrize("option", TEXTS)
def test_names(tmp_path: Path, ground: Ground, option: str) -> None:
    for number, value in enumerate(NAMES.values()):
        out = tmp_path / str(number) / "a" / "b" / "c" / "d"  # deep enough that a climb stays in the test's own folder
        out.mkdir(parents=True)
        assert_calm(run(*filled(TEXTS[option], ground, out, value)))


@pytest.mark.parametrize("option", COUNTS)
def test_numbers(tmp_path: Path, ground: Ground, option: str) -> None:
    for number, value in enumerate(NUMBERS.values()):
        out = tmp_path / str(number)
        out.mkdir()
        assert_calm(run(*filled(COUNTS[option], ground, out, value)))


def test_a_name_that_is_no_text_is_shown_by_its_bytes(ground: Ground, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    found = run("features", "--model", str(ground.run), "--input", name, "--out", str(tmp_path / "f.zarr"))
    assert found.code == 2
    assert r"\udcff.png" in found.line
