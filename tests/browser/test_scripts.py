"""The page's scripts are type-checked and linted, where the tools for it are at hand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import shiftlens
from shiftlens.explorer import serving as explorer
from shiftlens.reporting.page import SCRIPTS, STAGE_SCRIPTS

HERE = Path(__file__).parent
WEB = Path(shiftlens.__file__).parent / "web"
OWN = sorted({name for name in (*SCRIPTS, *STAGE_SCRIPTS, *explorer.SCRIPTS) if not name.startswith("vendor/")})


def run(tool: str, *arguments: str, text: str | None = None) -> None:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"needs {tool}: npm install --global typescript eslint")
    done = subprocess.run(
        [found, *arguments], cwd=HERE, input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types() -> None:
    run("tsc", "-p", str(HERE / "tsconfig.json"))


def test_lint() -> None:
    for name in OWN:
        # As text: eslint takes no files outside the folder of its settings.
        text = (WEB / name).read_text(encoding="utf-8")
        run("eslint", "--config", "eslint.config.mjs", "--stdin", "--stdin-filename", name, text=text)


def test_the_colours_of_classes_on_a_map_stand_once() -> None:
    texts = {name: (WEB / name).read_text(encoding="utf-8") for name in OWN}
    assert [name for name, text in texts.items() if '"#0072b2", "#999999"]' in text] == ["stage_parts.js"]
    # A page that uses it loads it first.
    for loaded in (SCRIPTS, STAGE_SCRIPTS, explorer.SCRIPTS):
        users = [loaded.index(name) for name in loaded if "ShiftlensParts." in texts.get(name, "")]
        assert loaded.index("stage_parts.js") < min(users)


def test_every_script_is_checked() -> None:
    checked = {Path(each).name for each in json.loads((HERE / "tsconfig.json").read_text())["files"]}
    assert checked == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_every_script_says_what_it_is_and_is_strict(name: str) -> None:
    lines = (WEB / name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("// ")
    code = next(line for line in lines if not line.startswith("//"))
    assert code == '"use strict";'
    # At most one name of each goes out, under the project's own prefix.
    names = re.findall(r"^const (\w+)", "\n".join(lines), re.MULTILINE)
    assert len(names) <= 1
    assert all(each.startswith("Shiftlens") for each in names)
