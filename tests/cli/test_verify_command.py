"""`shiftlens verify`: what is torn is told in lines, in JSON and by the exit code; `--reuse` of a whole one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from shiftlens.cli import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("verify")
    (folder / "net.py").write_text(
        "import torch\n\n\ndef make():\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 10))\n"
    )
    command = ["sweep", "--model", f"{folder / 'net.py'}:make", "--mean", "0", "--limit", "4", "--max-shift", "1"]
    assert main([*command, "--out", str(folder / "s.zarr"), "--quiet"]) == 0
    return folder / "s.zarr", command


def test_a_whole_sweep_ends_with_0(finished: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["verify", str(finished[0])]) == 0
    assert capsys.readouterr().out == f"{finished[0]}: 1 of 1 chunks are there and right\n"


def test_a_torn_chunk_ends_with_2_and_the_same_command_mends_it(
    finished: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(finished[0], tmp_path / "s.zarr"))
    (out / "loss" / "c" / "0" / "0" / "0").write_bytes(b"torn")
    capsys.readouterr()
    assert main(["verify", str(out), "--json"]) == 2
    captured = capsys.readouterr()
    values = json.loads(captured.out)
    assert captured.err == ""
    assert (values["ok"], values["n_chunks"], values["n_whole"], values["out"]) == (False, 1, 0, str(out))
    assert [(f["what"], f["chunk"], f["images"]) for f in values["faults"]] == [("torn", 0, [0, 3])]
    assert main([*finished[1], "--out", str(out), "--quiet"]) == 0
    assert main(["verify", str(out)]) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["verify", "nothing.zarr"], "no sweep at nothing.zarr"),
        (["verify"], "Missing argument 'S.zarr'"),
        (["sweep", "--verify", "s.zarr"], "verify is a command of its own (shiftlens verify s.zarr)"),
        (["sweep", "--out", "s.zarr"], "Missing option '--model'"),
        (["sweep", "--model", "x"], "Missing option '--out'"),
        (["sweep", "--model", "{net}:make", "--mean", "0", "--out", ""], "out must name the result"),
    ],
)
def test_bad_use_is_one_line(
    finished: tuple[Path, list[str]], options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([option.format(net=finished[0].parent / "net.py") for option in options]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1


def test_more_images_than_last_time(
    finished: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*finished[1][:-4], "--limit", "8", "--max-shift", "1", "--out", str(tmp_path / "more.zarr")]
    capsys.readouterr()
    assert main([*command, "--reuse", str(finished[0])]) == 0
    captured = capsys.readouterr()
    assert f"reusing the results of 4 images from {finished[0]}" in captured.err
    assert "8 of 1,797 images x 9 shifts" in captured.out
    assert main([*command, "--reuse", str(tmp_path / "nothing.zarr")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
