"""The workflows: the project's own, and the one that the gate's page shows to be pasted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from shiftlens.cli.app import app

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parent.parent


def runs(workflow: dict[str, Any]) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def options_of(command: str) -> set[str]:
    import typer

    group = typer.main.get_command(app)
    found = group.get_command(group.make_context("shiftlens", ["-h"], resilient_parsing=True), command)
    assert found is not None, command
    return {word for each in found.params for word in (*each.opts, *each.secondary_opts)}


def shiftlens_calls(lines: list[str]) -> list[list[str]]:
    calls = [shlex.split(part) for line in lines for part in line.split("&&")]
    return [words[1:] for words in calls if words[:1] == ["shiftlens"]]


def pasted() -> dict[str, Any]:
    text = (ROOT / "docs" / "how-to" / "gate-in-ci.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml[^\n]*\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1])


def test_the_projects_own_has_its_four_jobs_and_every_python_version() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert set(workflow["jobs"]) == {"lint", "test", "docs", "wheel"}
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("which", ["own", "pasted"])
def test_every_shiftlens_command_in_them_exists_with_its_options(which: str) -> None:
    own = ROOT / ".github" / "workflows" / "ci.yml"
    workflow = pasted() if which == "pasted" else yaml.safe_load(own.read_text(encoding="utf-8"))
    calls = [words for words in shiftlens_calls(runs(workflow)) if not words[0].startswith("-")]
    assert len(calls) >= 2
    for command, *words in calls:
        unknown = {word for word in words if word.startswith("--")} - options_of(command)
        assert unknown == set(), command


def test_the_gate_file_of_the_page_is_one(tmp_path: Path) -> None:
    from shiftlens.gate.limits import Gate, read_gate

    text = (ROOT / "docs" / "how-to" / "gate-in-ci.md").read_text(encoding="utf-8")
    found = re.search(r"```toml[^\n]*\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "gate.toml").write_text(found[1])
    table = read_gate(tmp_path / "gate.toml")
    of_other_tasks = {"max_border_ratio", "max_tile_mismatch", "max_tile_mismatch_with_overlap"}
    assert all(f"`{name}`" in text for name in of_other_tasks)
    absolute = {name for name in Gate.model_fields if name.startswith(("min_", "max_"))} - of_other_tasks
    # Every key but those of a metric that is better when it is lower, which stand under [metrics.loss].
    assert absolute - set(table) == {"max_unshifted", "max_near"}
    assert Gate.checked(table, "page").mode == "strict"
