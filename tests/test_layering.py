"""The house: an import goes from a higher floor to a strictly lower one, and importing costs what it may."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shiftlens

ROOT = Path(shiftlens.__file__).parent

# errors.py is the ground under floor 0: everybody may use it.
FLOORS = {
    "errors": -1,
    "given": 0,
    "indexing": 0,
    "naming": 0,
    "stats": 0,
    "devices": 1,
    "styling": 0,
    "paths": 1,
    "progress_bar": 1,
    "sequential": 1,
    "shifts": 1,
    "nn": 1,
    "data": 2,
    "graph": 2,
    "models": 3,
    "storage": 3,
    "tasks": 1,
    "arithmetic": 4,
    "engine": 4,
    "evaluation": 4,
    "pasting": 4,
    "position_map": 1,
    "protocols": 4,
    "training": 4,
    "exporting": 5,
    "sweeps": 5,
    "analysis": 6,
    "cluster": 6,
    "lens": 6,
    "surgery": 6,
    "tiles": 6,
    "figures": 7,
    "sweeping": 7,
    "narrative": 8,
    "gate": 9,
    "integrations": 8,
    "reporting": 9,
    "demo": 10,
    "studies": 10,
    "installation": 10,
    "result_schema": 7,
    "explorer": 10,
    "cli": 11,
    "__init__": 12,
    "__main__": 12,
}


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports_of(source: str) -> set[str]:
    """Dotted names under `shiftlens` that a source text imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("shiftlens.RELATIVE")
    return {name for name in found if name == "shiftlens" or name.startswith("shiftlens.")}


def breaches(room: str, source: str) -> list[str]:
    """What in a source text of `room` breaks the floor table."""
    wrong = []
    for name in sorted(imports_of(source)):
        parts = name.split(".")
        target = parts[1] if len(parts) > 1 else "__init__"
        if target not in FLOORS:
            target = "__init__"  # a public name taken from the package root, or a relative import
        if target == room and room != "__init__":
            continue  # files of one room; their cycles are found below
        if FLOORS[target] >= FLOORS[room]:
            wrong.append(f"{room} (floor {FLOORS[room]}) imports {name} (floor {FLOORS[target]})")
    return wrong


def all_files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def test_no_file_has_the_name_of_another() -> None:
    names = [path.stem for path in all_files() if path.stem != "__init__"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_room_is_in_the_table() -> None:
    assert {room_of(path) for path in all_files()} <= set(FLOORS)


@pytest.mark.parametrize("path", all_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    assert breaches(room_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "planted"),
    [
        ("shifts", "from shiftlens.engine.evaluators import make_plan"),
        ("indexing", "import shiftlens.shifts"),
        ("sweeps", "def f():\n    from shiftlens.cluster.ray_workers import Cluster"),
        ("sweeps", "def f():\n    from shiftlens.cli import main"),
        ("nn", "from shiftlens import sweep"),
        ("stats", "from shiftlens.indexing import RULES"),
        ("analysis", "from ..errors import InputError"),
    ],
)
def test_a_planted_upward_import_is_found(room: str, planted: str) -> None:
    assert breaches(room, planted) != []


def test_no_room_has_an_import_cycle() -> None:
    names = {".".join(("shiftlens", *path.relative_to(ROOT).with_suffix("").parts)): path for path in all_files()}
    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        wanted = imports_of(path.read_text())
        edges[name] = {t for w in wanted for t in (w, w.rpartition(".")[0]) if t in names and t != name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join((*trail, name))}"
        if name in done:
            return
        for target in edges[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in names:
        visit(name, ())


def test_no_room_has_the_name_of_a_public_function() -> None:
    # The import system would put the module in the function's place.
    assert not {room_of(path) for path in all_files()} & (set(shiftlens.__all__) - {"nn"})


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running `code`."""
    script = f"{code}\nimport sys; print(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(run.stdout.split())


HEAVY = {"torch", "torchvision", "xarray", "zarr", "scipy", "matplotlib", "jinja2", "sklearn", "pyarrow", "timm", "ray"}


def test_dir_lists_the_public_names_only() -> None:
    assert sorted(dir(shiftlens)) == sorted([*shiftlens.__all__, "__version__"])


def test_the_package_root_loads_nothing_heavy() -> None:
    assert not loaded_after("import shiftlens") & HEAVY


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from shiftlens.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['sweep', '--help'])"
    )
    assert not loaded_after(code) & HEAVY


def test_the_import_budget_can_be_broken() -> None:
    assert "torch" in loaded_after("import shiftlens; shiftlens.ShiftGrid")
