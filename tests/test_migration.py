"""What the changelog's section "Migration" says of names and options that went; older files are in the stores' tests.

Sweeps of schema version 1 and 2: `sweeps/test_integrity.py`; feature runs of version 1: `lens/test_feature_edits.py`;
sweeps that another shiftlens began: `sweeps/test_store.py`; `sweep --verify`: `cli/test_verify_command.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.narrative.comparison_result import Comparison
from shiftlens.narrative.comparison_rows import Row
from shiftlens.narrative.finding import Finding
from sweeps import small_sweeps as small

MIGRATION = (Path(__file__).parents[1] / "CHANGELOG.md").read_text().split("### Migration")[1].split("\n### ")[0]


@pytest.mark.parametrize(
    ("option", "commands"),
    [("--seed", ("sweep", "inspect", "foveation", "plot")), ("--device", ("findings", "plot", "compare", "report"))],
)
def test_options_to_leave_out_are_refused_by_name(
    option: str, commands: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"`{option}`" in MIGRATION
    for command in commands:
        assert main([command, option, "0"]) == 2
        assert f"No such option: {option}" in capsys.readouterr().err


def test_names_that_went_have_their_successors(tmp_path: Path) -> None:
    paths = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for path in paths:
        small.fill(small.create(path))
    made = sl.compare(paths)
    assert "`ImageSet.from_pictures` is gone" in MIGRATION
    assert all(f"`{name}`" in MIGRATION for name in ("Comparison.means", "Row.unshifted", "maps.png", "report(out=)"))
    assert isinstance(made, Comparison)
    assert isinstance(made.rows[0], Row)
    assert made.means.shape[0] == 2
    assert made.rows[0].unshifted.unit == "share"
    assert not hasattr(made, "accuracy")
    assert not hasattr(made.rows[0], "accuracy")
    assert "maps.png" in {file.name for file in made.plot(tmp_path / "pictures").files}
    assert not (tmp_path / "pictures" / "accuracies.png").exists()
    assert not hasattr(sl.ImageSet, "from_pictures")
    with pytest.raises(TypeError, match="path"):
        sl.report(paths, path=tmp_path / "r.html")  # type: ignore[call-arg]
    assert not (tmp_path / "r.html").exists()
    assert Finding("kind", "A statement.", which="x").statement == "A statement."
