"""`compare` as a user meets it: table, sentences in groups, JSON, pictures, one line for what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.shifts import ShiftGrid
from sweeps import small_sweeps as small

N, REACH = 120, 5
NEAR = f"mean accuracy up to {REACH} px"
"""The grid ends before the 8 px that are near elsewhere."""

GRID = {"grid": ShiftGrid(REACH), "image_size": (32, 32), "fill": sl.Fill.parse("black")}


def write(path: Path, keeps: int, seed: int, **changes: object) -> Path:
    """A net that is right on nearly all images up to `keeps` px, and on few beyond."""
    rng = np.random.default_rng(seed)
    store = small.create(path, n=N, chunk_size=50, **{**GRID, **changes})
    group = store.group(None)
    result = small.numbers(N, (2 * REACH + 1, 2 * REACH + 1), seed=seed)
    d = np.arange(-REACH, REACH + 1)
    likely = np.where(np.hypot(d[:, None], d[None, :]) <= keeps, 0.95, 0.2)
    right = rng.random((N, 1, 1)) * 0.3 + 0.7 * rng.random(result["prediction"].shape) < likely
    result["prediction"][:] = np.where(right, group.labels[:, None, None], (group.labels[:, None, None] + 1) % 3)
    for chunk in range(group.n_chunks):
        group.write(chunk, small.cut(result, group.span(chunk)))
    group.finish()
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    where = tmp_path_factory.mktemp("sweeps")
    made = [
        write(where / "zeros.zarr", 3, 0, n_macs=209_392_640, n_parameters=4_694_346),
        write(where / "symmetric.zarr", 4, 1, n_macs=209_392_640, n_parameters=4_694_346),
        write(where / "[red]x.zarr", 2, 2, n_parameters=812),
    ]
    return [str(path) for path in made]


def test_json_is_what_python_returns(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *paths, "--json", "--seed", "4"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said.pop("files") == []
    assert said == sl.compare(paths, seed=4).to_dict()
    verdicts = {each["name"]: each["differences"]["near"]["verdict"] for each in said["against"]}
    assert verdicts == {"symmetric": "better", "[red]x": "worse"}


def test_the_table_and_the_groups(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *paths, "-q", "--evidence"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "3 sweeps on the same 120 images x 121 shifts"
    assert out.count("-> See where") == 2
    assert f"difference: {NEAR}" in " ".join(out.split())
    row = {line.split()[0]: line for line in lines[6:14] if line.split()}
    assert row["zeros"].split()[-5:] == ["4.7", "M", "209.4", "M", "baseline"]
    found = sl.compare(paths)
    d = found.rows[1].difference
    assert f"{d.value:+.2f} [{d.lo:+.2f}, {d.hi:+.2f}]" in row["symmetric"]
    assert f"{100 * found.rows[1].unshifted.value:.1f}" in row["symmetric"]
    assert f"{found.rows[1].retained_area.value:.0f}" in row["symmetric"]
    assert " 812 " in row["[red]x"]
    order = [out.index(f"\n{h}\n") for h in ("Improved", "Got worse", "Inconclusive", "Shift by shift", "Caveats")]
    assert order == sorted(order)
    improved = out[order[0] : order[1]]
    assert f"'symmetric' exceeds 'zeros' in {NEAR}" in improved
    assert "'[red]x' is below 'zeros'" in out[order[1] : order[2]]
    assert "interval: Student t over images. Paired, image by image" in out
    assert all(each.statement in out for each in found.findings)
    assert "\x1b" not in out


def test_five_lines_come_first_and_the_rest_is_asked_for(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *paths, "-q"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = sl.compare(paths)
    which, how_much, where, cost, unknown = (line.partition(": ")[2] for line in lines[1:6])
    better, worse = "'symmetric' is better than 'zeros'", "'[red]x' is worse"
    assert which == f"In {NEAR}, {better}; {worse}."
    said = [found.findings.named(f"difference-near-{k}") for k in (1, 2)]
    assert all(each is not None and f"{abs(each.value or 0):.1f} points [" in how_much for each in said)
    assert how_much.startswith("'symmetric' +")
    assert where.startswith("Shift by shift, 'symmetric' is better than 'zeros' at ")
    assert cost.startswith("'symmetric': accuracy at (0, 0) ")
    assert "as many multiply-adds; as many parameters" in cost
    n = sum(len(each.undecided) for each in found.against)
    assert unknown.startswith(f"{n} of ")
    for each in found.against:
        assert (f"for '{each.name}': " in unknown) == bool(each.undecided)
    assert lines[-1].startswith(f"{len(found.findings)} findings in all: --all")
    assert len(" ".join(lines[1:6]).split()) < 160
    assert "Improved" not in lines
    assert main(["compare", *paths, "-q", "--all"]) == 0
    assert {"Improved", "Got worse", "Caveats"} <= {*capsys.readouterr().out.splitlines()}
    # A sweep of the same net under another name is said without asking.
    assert main(["compare", paths[0], paths[0], "--names", "a,b", "-q"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "are of the same model" in out
    assert f"In {NEAR}, 'b' does not differ significantly from 'a'." in out


def test_names_and_pictures(paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "pictures"
    command = ["compare", *paths[:2], "--names", "old, new", "--plots", str(where), "--format", "svg", "-q"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "'new' is better than 'old'" in out
    files = [where / f"{name}.svg" for name in ("differences", "maps", "profiles")]
    assert [line for line in out.splitlines() if line.startswith("wrote")] == [f"wrote {file}" for file in files]
    assert all(file.stat().st_size > 5000 for file in files)
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(file) for file in files]


def test_bad_use_is_one_line(paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write(tmp_path / "mean.zarr", 3, 0, fill=sl.Fill.parse("mean"))
    file = tmp_path / "file"
    file.write_text("")
    for arguments, said in (
        ([paths[0]], "expected at least 2 sweeps to compare, got 1"),
        ([paths[0], str(other)], "mean cannot be compared with zeros: expected the same fill, black, got mean"),
        ([*paths[:2], "--names", "a"], "expected 2 names, one a sweep, got 1: a"),
        ([*paths[:2], "--format", "jpg"], "unknown picture format 'jpg'"),
        ([*paths[:2], "--margin", "0"], "expected a margin between 0 and 100 points, got 0.0"),
        ([*paths[:2], "--plots", str(file)], "cannot write the picture"),
        ([paths[0], str(tmp_path / "none.zarr")], "nothing is there"),
    ):
        assert main(["compare", *arguments, "-q"]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
