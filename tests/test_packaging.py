"""Wheel and sdist hold what a stranger needs to run it, and nothing else."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
WEIGHTS = ("vgg-cifar10", "unet-digits", "detector-digits")


def tracked(folder: str) -> set[str]:
    found = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("not a checkout: which files belong to it is not known")
    return {line.removeprefix("src/") for line in found.stdout.splitlines()}


def test_the_wheel_is_every_file_of_the_package_and_no_other(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if name.startswith("shiftlens/")}
    assert package == tracked("src/shiftlens")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"shiftlens"}
    wanted = [f"weights/{net}/{file}" for net in WEIGHTS for file in ("CARD.md", "model.json", "model.safetensors")]
    wanted += ["web/report.html.j2", "web/vendor/plotly-LICENSE.txt", "py.typed"]
    assert {f"shiftlens/{name}" for name in wanted} <= package
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_has_the_source_and_no_tests_or_benchmarks(tmp_path: Path) -> None:
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in tracked("src/shiftlens")} <= names
    assert {name for name in names if not name.startswith("src/")} == {
        "CHANGELOG.md", "CITATION.cff", "LICENSE", "PKG-INFO", "README.md", "SECURITY.md", "hatch_build.py",
        "pyproject.toml", ".gitignore",
    }  # fmt: skip


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == project["version"]


def test_badges_say_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = project["requires-python"].removeprefix(">=")
    for name, says in (("python", f"{lowest} or newer"), ("license", project["license"])):
        badge = (ROOT / "docs" / "images" / "badges" / f"{name}.svg").read_text(encoding="utf-8")
        assert f">{says}<" in badge, "drawn by pybadges: docs/maintaining.md"
        assert f"badges/{name}.svg" in (ROOT / "README.md").read_text(encoding="utf-8")
