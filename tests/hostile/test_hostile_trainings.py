"""`train` asked to go on with a run that somebody else began."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as to_safetensors

from hostile.commands import DATA, Ground
from hostile.corpus_weights import safetensors_bytes
from hostile.machinery import Case, check, run
from hostile.payloads import pickled

pytestmark = pytest.mark.timeout(300)


def _record(**facts: object) -> str:
    return json.dumps({"kind": "training", "schema_version": 1, "complete": True, "asked": {}} | facts)


def _with_record(text: str) -> Callable[[Path], bytes]:
    return lambda folder: to_safetensors({"net.x": torch.zeros(1)}, {"record": text})


CHECKPOINTS: dict[str, Callable[[Path], bytes]] = {
    "a pickle": pickled,
    "empty": lambda f: b"",
    "a lying header": lambda f: safetensors_bytes(b"{}", length=2**60),
    "no record": lambda f: to_safetensors({"net.x": torch.zeros(1)}),
    "a record a hundred thousand deep": _with_record("[" * 100_000),
    "a record of nonsense": _with_record(_record(asked=[1], epochs="\x1b[2J")),
    "a record of another kind": _with_record(_record(kind="\x1b[2J")),
    "a record of version 10**4000": _with_record(_record(schema_version="9" * 4000)),
    "a record of another run": _with_record(_record(asked={"seed": "\x1b[2J[red]" * 3})),
}

RECORDS: dict[str, str] = {
    "not UTF-8": "\udcff",
    "a hundred thousand deep": "[" * 100_000,
    "a list": "[]",
    "nonsense": _record(epochs="\x1b[2J", asked=7),
    "another run": _record(asked={"seed": "\x1b[2J"}, epochs=[]),
}


def _refused(tmp_path: Path, ground: Ground, out: Path, says: str) -> None:
    line = DATA["train"](ground, f"folder:{ground.pictures}", tmp_path)
    line[-1] = str(out)
    check(Case(lambda f: f, says=says), tmp_path / "case", "train", lambda: run(*line))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(tmp_path: Path, ground: Ground, name: str) -> None:
    out = tmp_path / "case" / "run"
    out.mkdir(parents=True)
    (out / "checkpoint.safetensors").write_bytes(CHECKPOINTS[name](tmp_path / "case"))
    _refused(tmp_path, ground, out, "run")


@pytest.mark.parametrize("name", RECORDS)
def test_records(tmp_path: Path, ground: Ground, name: str) -> None:
    out = Path(shutil.copytree(ground.run, tmp_path / "case" / "run"))
    (out / "training.json").write_bytes(RECORDS[name].encode("utf-8", "surrogateescape"))
    _refused(tmp_path, ground, out, "run")


@pytest.mark.parametrize("file", ["checkpoint.safetensors", "training.json"])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, ground: Ground, file: str, target: str) -> None:
    out = Path(shutil.copytree(ground.run, tmp_path / "case" / "run"))
    if target == "pipe":
        os.mkfifo(out / file)
    else:
        (out / file).symlink_to(target)
    _refused(tmp_path, ground, out, "is no file")


BELIEVED: dict[str, dict[str, object]] = {
    "no schedule": {"epochs": [], "machines": []},
    "a schedule of nonsense": {"epochs": [], "machines": [], "schedule": {"n_steps": "\x1b[2J"}},
    "epochs of nonsense": {"epochs": ["\x1b[2J"], "machines": [], "schedule": {"n_steps": 1}},
    "no epochs": {"epochs": [], "machines": [], "schedule": {"n_steps": 1}},
}


@pytest.mark.parametrize("name", BELIEVED)
@pytest.mark.parametrize("finished", [False, True])
def test_a_record_of_the_same_settings_may_be_nonsense_all_the_same(
    tmp_path: Path, ground: Ground, monkeypatch: pytest.MonkeyPatch, name: str, finished: bool
) -> None:
    monkeypatch.setattr("shiftlens.training.loop.check_same_run", lambda *_: None)
    text = _record(**BELIEVED[name])
    out = tmp_path / "case" / "run"
    if finished:
        shutil.copytree(ground.run, out)
        (out / "training.json").write_text(text)
    else:
        out.mkdir(parents=True)
        (out / "checkpoint.safetensors").write_bytes(_with_record(text)(out))
    _refused(tmp_path, ground, out, "does not fit its own record")
