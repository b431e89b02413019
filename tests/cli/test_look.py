"""`findings` and `plot` as a user meets them: sentences, table, map, JSON, and one line for what cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from test_commands import failing

from shiftlens.cli import main
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeps.sweep_store import SweepStore
from sweeps import small_sweeps as small

KEYS = {"id", "question", "severity", "statement", "value", "unit", "interval", "p_value", "evidence", "remedy"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    hostile = {"class_names": ("[red]a", "\x1b[31mb", "c"), "model": "net.py:\x1b[31mmake"}
    made = small.create(tmp_path_factory.mktemp("sweeps") / "s.zarr", controls=("flip", "occlusion"), **hostile)
    for control in (None, "flip", "occlusion"):
        small.fill(made, control)
    return made


def test_findings_json_keeps_its_contract(store: SweepStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["findings", str(store.path), str(store.path), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)["findings"]
    assert all(set(each) >= KEYS for each in found)
    assert {each["severity"] for each in found} <= {"info", "note", "warn"}
    assert {each["question"] for each in found} == {"A"}
    assert {each["sweep"] for each in found} == {str(store.path)}
    half = len(found) // 2
    assert found[:half] == found[half:]
    assert "measuring" in captured.err
    # The intervals of a bootstrap depend on the seed, the numbers do not.
    assert main(["findings", str(store.path), "--json", "--seed", "1", "-q"]) == 0
    again = json.loads(capsys.readouterr().out)["findings"]
    assert [each["value"] for each in again] == [each["value"] for each in found[:half]]
    assert [each["interval"] for each in again] != [each["interval"] for each in found[:half]]


def test_sizes_that_matter_are_settable(store: SweepStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["findings", str(store.path), "--thresholds", "points=100, nats=100,px=100", "--json", "-q"]) == 0
    assert not [each for each in json.loads(capsys.readouterr().out)["findings"] if each["severity"] == "warn"]
    assert "names with numbers, such as points=1,nats=0.1" in failing(
        capsys, "findings", str(store.path), "--thresholds", "points", "-q"
    )
    assert "threshold of at least 0 points, got -1" in failing(
        capsys, "findings", str(store.path), "--thresholds", "points=-1", "-q"
    )


def test_findings_are_sentences_and_a_table(store: SweepStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["findings", str(store.path)]) == 0
    out = capsys.readouterr().out
    assert "7 images x 15 shifts" in out
    assert "info  Unshifted, accuracy is " in out
    assert "'[red]a'" in out or "'\\x1b[31mb'" in out
    assert "\x1b" not in out
    assert "X" not in out.splitlines()[2]
    row = next(line for line in out.splitlines() if line.startswith("retained-50"))
    assert "px²" in row
    assert "How" not in out
    assert main(["findings", str(store.path), "--map", "--evidence"]) == 0
    more = capsys.readouterr().out
    assert "X is (0, 0)" in more
    assert "Wilson" in more
    assert len(more) > len(out)


def test_plot_writes_pictures_and_says_which(
    store: SweepStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(store.path), "--out", str(tmp_path / "p"), "--json"]) == 0
    files = [Path(name) for name in json.loads(capsys.readouterr().out)["files"]]
    names = {"accuracy", "loss", "profile", "sides", "classes", "control-flip", "control-occlusion"}
    assert {path.stem for path in files} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
    assert main(["plot", str(store.path), "--out", str(tmp_path / "v"), "--format", "svg", "-q"]) == 0
    assert capsys.readouterr().out.count("wrote ") == 7
    assert (tmp_path / "v" / "loss.svg").read_text().startswith("<?xml")


def test_an_incomplete_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = small.create(tmp_path / "s.zarr", controls=("flip",))
    result = small.numbers(7)
    path, out = str(made.path), str(tmp_path / "p")
    for command in (["findings", path, "--partial"], ["plot", path, "--out", out, "--partial"]):
        assert "0 of 7 images are there" in failing(capsys, *command, "--quiet")
    made.main.write(1, small.cut(result, made.main.span(1)))
    made.main.write(2, small.cut(result, made.main.span(2)))
    for command in (["findings", path], ["plot", path, "--out", out]):
        line = failing(capsys, *command, "--quiet")
        assert "4 of 7 images are there" in line
        assert "--partial" in line
    assert not Path(out).exists()
    assert main(["findings", path, "--partial", "--json"]) == 0
    found = {each["id"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert "4 of 7 images" in found["incomplete"]["statement"]
    share = (result["prediction"] == small.labels(7)[:, None, None])[3:, 1, 2].mean()
    assert found["accuracy-at-rest"]["value"] == pytest.approx(share)
    assert main(["findings", path, "--partial", "--map", "-q"]) == 0
    assert "4 images x 15 shifts" in capsys.readouterr().out
    assert main(["plot", path, "--out", out, "--partial", "-q"]) == 0
    assert (Path(out) / "accuracy.png").is_file()


def test_what_is_no_sweep_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = zarr.open_group(tmp_path / "foreign.zarr", mode="w", attributes={"kind": "weather"})
    foreign.create_array("temperature", data=np.zeros(3))
    (tmp_path / "photo.png").write_bytes(b"x")
    sweep = small.create(tmp_path / "s.zarr")
    small.fill(sweep)
    cases = [
        (["findings", str(tmp_path / "foreign.zarr")], "'weather'"),
        (["plot", str(tmp_path / "foreign.zarr"), "--out", "p"], "'weather'"),
        (["findings", str(tmp_path / "photo.png")], "it is a file"),
        (["findings", str(tmp_path / "nothing.zarr")], "nothing is there"),
        (["plot", str(tmp_path / "nothing.zarr"), "--out", "p"], "nothing is there"),
        (["plot", str(sweep.path), "--out", str(tmp_path / "photo.png")], "cannot write the picture"),
        (["plot", str(sweep.path), "--out", "p", "--format", "jpg"], "'jpg'"),
        (["findings", str(sweep.path), "--device", "cpu"], "No such option: --device"),
        (["findings"], "S.zarr"),
        (["plot", str(sweep.path)], "--out"),
    ]
    for command, expected in cases:
        quiet = [] if command == ["findings"] else ["--quiet"]
        assert expected in failing(capsys, *command, *quiet), command


@pytest.mark.parametrize(
    ("grid", "n", "changes"),
    [
        (ShiftGrid((0, 4), 2), 7, {}),
        (ShiftGrid((4, 0), 1), 7, {}),
        (ShiftGrid((60, 60), 30), 7, {"image_size": (30, 30)}),
        (ShiftGrid(2), 1, {}),
        (ShiftGrid(2), 6, {"n_classes": 3, "class_names": ()}),
    ],
    ids=["one row", "one column", "coarse and blank", "one image", "no names"],
)
def test_odd_sweeps_on_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grid: ShiftGrid, n: int, changes: dict[str, object]
) -> None:
    made = small.create(tmp_path / "s.zarr", n=n, grid=grid, **changes)
    numbers = small.numbers(n, grid.shape)
    for chunk in range(made.main.n_chunks):
        made.main.write(chunk, small.cut(numbers, made.main.span(chunk)))
    made.main.finish()
    assert main(["findings", str(made.path), "--map", "-q"]) == 0
    assert "Not measured" in capsys.readouterr().out
    assert main(["plot", str(made.path), "--out", str(tmp_path / "p"), "-q"]) == 0
    assert (tmp_path / "p" / "accuracy.png").is_file()


@pytest.mark.parametrize("command", ["findings", "plot"])
def test_help_is_instant_and_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Example: shiftlens" in capsys.readouterr().out
    code = (
        "import sys, contextlib, io\nfrom shiftlens.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main(['{command}', '--help'])\n"
        "print(sorted({'torch', 'matplotlib', 'xarray', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
