"""A study from its file to its table: what is missing is run, whatever stopped it before."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from small_studies import TINY
from torch import nn

import shiftlens as sl
from shiftlens.studies import study_runs, study_workers
from shiftlens.studies.crop_views import of_crops
from shiftlens.studies.measures import SWEEP
from shiftlens.studies.study_file import Study, read_study
from shiftlens.studies.study_folder import StudyFolder
from shiftlens.studies.study_page import write_claims


def changed(**tables: Any) -> dict[str, Any]:
    """The tiny study with some keys replaced."""
    return {**copy.deepcopy(TINY), **tables}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> sl.StudyResult:
    return sl.study(TINY, tmp_path_factory.mktemp("study") / "whole")


def table(result: sl.StudyResult) -> dict[str, Any]:
    plain = result.to_dict()
    return {key: plain[key] for key in ("arms", "contrasts", "claims", "n_runs", "n_missing", "n_failed")}


def test_a_study_ends_in_a_table_a_page_a_group_and_pictures(finished: sl.StudyResult) -> None:
    assert (finished.n_runs, finished.n_missing, finished.failed) == (4, 0, [])
    stored = xr.open_zarr(finished.path / "study.zarr", consolidated=False)
    assert stored["value"].dims == ("arm", "seed", "measure")
    assert stored.attrs["complete"]
    expected = [finished.runs["zeros", seed].values["black.near"] for seed in (0, 1)]
    assert stored["value"].sel(arm="zeros", measure="black.near").values.tolist() == expected
    page = (finished.path / "study.html").read_text(encoding="utf-8")
    assert "script-src" in page
    assert "<script" not in page
    assert ">black.near (%)</th>" in page
    [row] = [row for row in finished.lines() if row.startswith("near ")]
    assert any("not corrected; verdicts at 5 % after Holm" in line for line in finished.lines())
    assert (SWEEP["side_x"].unit, SWEEP["side_y"].unit) == ("points", "points")
    for cell in re.split(r"  +", row):
        assert cell in page
    assert {path.name for path in finished.files} >= {"contrasts-points.png", "arms-black-near.png"}


def test_a_sweep_of_a_run_says_the_same_as_the_sweep_itself(finished: sl.StudyResult) -> None:
    made = sl.open_sweep(finished.path / "runs" / "zeros" / "seed-0" / "black.zarr")
    values = finished.runs["zeros", 0].values
    assert values["black.unshifted"] == pytest.approx(100 * float(made.accuracy.sel(dy=0, dx=0)))
    assert values["black.near"] == pytest.approx(100 * float(made.accuracy.mean()))  # all within 8 px
    right = made.dataset["prediction"].values == made.dataset["label"].values[:, None, None]
    always = right[:, [0, 1, 1, 1, 2], [1, 0, 1, 2, 1]].all(1)  # the corners are further than 4 px
    assert values["black.worst"] == pytest.approx(100 * always.mean())


def test_views_that_move_by_a_pixel() -> None:
    # Class 1 where the middle of the image is bright: a lone bright pixel there is missed by a moved view.
    class Middle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.zeros(len(x)), x[:, :, 2, 2].mean(1) - 0.5], 1)

    pixels = np.zeros((3, 3, 9, 9), np.uint8)
    pixels[0] = 255
    pixels[1, :, 4, 4] = 255
    images = sl.ImageSet(pixels, [1, 1, 0])
    made = of_crops(sl.wrap(Middle(), mean=0, std=1, size=5), images)
    assert made["accuracy"] == 100
    assert made["fooled"] == pytest.approx(100 / 3)
    assert made["chosen_accuracy"] == 100  # the crop goes along with the pixel
    assert made["chosen_fooled"] == 0


class Killed(BaseException):
    """What ends a process, as far as a test in one process can."""


def test_killed_anywhere_it_resumes_and_ends_in_the_same_table(
    finished: sl.StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After the training of the first run, after the sweep of the second, within the reading of the third.
    for step, n_before in (("train", 1), ("_swept", 2), ("of_sweep", 2)):
        calls, real = [], getattr(study_runs, step)

        def dies(*args: Any, real: Any = real, calls: list[int] = calls, n: int = n_before, **kwargs: Any) -> Any:
            calls.append(1)
            made = real(*args, **kwargs)
            if len(calls) == n:
                raise Killed
            return made

        with monkeypatch.context() as patch:
            patch.setattr(study_runs, step, dies)
            with pytest.raises(Killed):
                sl.study(TINY, tmp_path / "s")
    assert 0 < len(list((tmp_path / "s").glob("runs/*/*/result.json"))) < 4
    assert table(sl.study(TINY, tmp_path / "s")) == table(finished)


def test_seeds_and_arms_added_later_reuse_what_is_there(
    finished: sl.StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sl.study(changed(seeds=1), tmp_path / "s")
    assert "one seed" in " ".join(first.notes)
    [one] = first.to_dict()["contrasts"]
    assert (one["estimate"], one["verdict"]) == (None, "undecided")
    assert "at least 2 seeds" in one["reason"]
    made = []
    real = study_runs.run_once

    def counted(study: Study, arm: str, seed: int, *args: Any, **kwargs: Any) -> Any:
        made.append((arm, seed))
        return real(study, arm, seed, *args, **kwargs)

    monkeypatch.setattr(study_workers, "run_once", counted)
    assert table(sl.study(TINY, tmp_path / "s")) == table(finished)
    assert made == [("zeros", 1), ("circular", 1)]


@pytest.mark.slow
def test_a_process_killed_at_any_moment_loses_no_finished_run(finished: sl.StudyResult, tmp_path: Path) -> None:
    given, out = tmp_path / "study.json", tmp_path / "s"
    given.write_text(json.dumps(TINY))
    script = f"import json, shiftlens as sl; sl.study(json.load(open({str(given)!r})), {str(out)!r})"
    for wanted in ("runs/zeros/seed-0/net/*", "runs/circular/seed-0/black.zarr", "runs/zeros/seed-1/*.zarr"):
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(out.glob(wanted)):
            time.sleep(0.02)
        process.kill()
        process.wait()
    kept = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/*/result.json")}
    assert kept
    assert table(sl.study(TINY, out)) == table(finished)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


@pytest.mark.slow
def test_runs_on_a_cluster_give_the_same_table(finished: sl.StudyResult, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    assert table(sl.study(TINY, tmp_path / "s", cluster="local:2")) == table(finished)


def test_a_cluster_computes_on_cores(tmp_path: Path) -> None:
    with pytest.raises(sl.InputError, match="expected device auto or cpu, got cuda"):
        sl.study(TINY, tmp_path / "s", cluster="local", device="cuda")


def test_minutes_stop_between_runs_and_a_plan_runs_nothing(tmp_path: Path) -> None:
    planned = sl.study(TINY, tmp_path / "s", plan=True)
    assert (planned.n_missing, planned.seconds_left is not None) == (4, True)
    for seconds, said in ((0.2, "less than a minute"), (31, "about 31 s"), (600, "about 10 min")):
        assert f"4 missing, {said} left" in replace(planned, seconds_left=seconds).lines()[0]
    assert not (tmp_path / "s").exists()
    seen: list[tuple[int, int]] = []
    stopped = sl.study(TINY, tmp_path / "s", minutes=0, progress=lambda *now: seen.append(now))
    assert stopped.n_missing == 4
    assert seen == [(0, 4)]  # the time a run takes counts from here
    assert "4 of 4 runs are missing" in " ".join(stopped.lines())


def test_a_directory_of_another_file_names_the_keys_that_differ(finished: sl.StudyResult) -> None:
    other = changed(
        training=TINY["training"] | {"epochs": 2}, sweeps={"black": {"max_shift": 8, "step": 4, "limit": 20}}
    )
    with pytest.raises(sl.InputError, match=r"training\.epochs was 1, now 2") as caught:
        sl.study(other, finished.path)
    assert "sweeps.black.max_shift was 4, now 8" in str(caught.value)
    with pytest.raises(sl.StoreError, match=r"must be the directory of a study"):
        sl.study(TINY, finished.path / "runs")


def test_a_directory_whose_first_writer_was_killed_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".study.json.12345.partial").touch()
    assert sl.study(TINY, tmp_path, plan=True).n_missing == 4


def test_a_record_of_an_older_version_lacks_keys_that_came_later(finished: sl.StudyResult) -> None:
    record = finished.path / "study.json"
    plain = json.loads(record.read_text())
    del plain["study"]["arms"]["zeros"]["cut"]
    record.write_text(json.dumps(plain))
    assert sl.study(TINY, finished.path, plan=True).n_missing == 0


def test_a_run_that_diverges_is_kept_and_counted_beside_one_with_every_measure(tmp_path: Path) -> None:
    wild = {"zeros": {"cut": True}, "wild": {"recipe": {"lr_first": 1e30, "lr_shift": 1e30}}}
    contrasts = [{"name": "wild", "arm": "wild", "against": "zeros", "measure": "black.near"}]
    factors, few = TINY["factors"] | {"padding": "zeros", "size": 24, "width": 1}, {"images": 10}
    every = {"features": few, "probe": few, "neurons": few, "crops": few, "consistency": {"protocols": ["roll"]}}
    asked = changed(seeds=1, arms=wild, factors=factors, contrasts=contrasts, claims={}, **every)
    made = sl.study(asked, tmp_path / "s")
    [failed] = made.failed
    assert "diverged" in (failed.failed or "")
    assert any("wild, seed 0 failed" in note for note in made.notes)
    assert made.to_dict()["n_failed"] == 1
    # The other net went well: everything that was asked for is there.
    assert made.study.measures.keys() - made.runs["zeros", 0].values.keys() <= {"black.fooled", "crops.fooled"}
    layers = made.dataset["layer_value"].sel(arm="zeros", seed=0, layer_measure="probe.r2").values
    assert made.values("zeros", "probe.r2")[0] == pytest.approx(np.nanmean(layers))
    again = sl.study(asked, tmp_path / "s")
    assert (again.n_missing, len(again.failed)) == (0, 1)
    assert np.isnan(again.values("wild", "black.near")).all()


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"factors": {"padding": ["zeros", "circlar"]}}, "did you mean 'circular'"),
        ({"factors": {"augmentation": "wide"}}, "did you mean 'wide-shift'"),
        ({"factors": {"paddin": "zeros"}}, "did you mean 'padding'"),
        ({"training": {"recipe": {"momentm": 0.5}}}, "did you mean 'momentum'"),
        ({"seeds": 0}, "seeds must be distinct and at least one"),
        ({"factors": {"size": 3}}, "too small"),
        ({"arms": {"../x": {}}}, "also that of a folder"),
        ({"contrasts": [{"name": "c", "arm": "zero", "measure": "black.near"}]}, "did you mean 'zeros'"),
        ({"contrasts": [{"name": "c", "arm": "zeros", "measure": "black.nea"}]}, "did you mean 'black.near'"),
        ({"sweeps": {"black": {"fill": "blak"}}}, "did you mean 'black'"),
    ],
)
def test_bad_input_is_one_line_with_the_nearest_name(tables: dict[str, Any], expected: str) -> None:
    with pytest.raises(sl.InputError, match=re.escape(expected)):
        read_study(changed(**tables))


def test_every_json_key_is_documented(finished: sl.StudyResult) -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    part = text[text.index("\n## study\n") :].split("\n## ")[1]
    plain = finished.to_dict()
    made = {*plain, *plain["arms"][0], *plain["arms"][0]["measures"]["black.near"], *plain["contrasts"][0]}
    assert made - {word for code in re.findall(r"`([^`]+)`", part) for word in re.findall(r"\w+", code)} == set()


def test_claims_are_written_from_the_results(finished: sl.StudyResult, tmp_path: Path) -> None:
    text = write_claims(finished, tmp_path / "claims.md").read_text(encoding="utf-8")
    verdict = finished.of_claim("padding")[0]
    assert f"## Zeros help: {verdict}" in text
    assert "black.near of zeros less black.near of circular" in text
    assert "What would change it: More seeds." in text


def test_the_page_of_claims_is_that_of_the_committed_runs(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    asked, folder = read_study(root / "benchmarks" / "claims.toml"), StudyFolder(root / "benchmarks" / "claims")
    made = write_claims(sl.StudyResult(asked, folder.path, folder.results(asked)), tmp_path / "claims.md")
    assert made.read_text(encoding="utf-8") == (root / "docs" / "claims.md").read_text(encoding="utf-8")


def test_the_studies_of_the_repository_can_be_read() -> None:
    folder = Path(__file__).parents[2] / "benchmarks"
    claims = read_study(folder / "claims.toml")
    assert len(claims.claims) == 9  # the rows of the table of claims
    assert {each.claim for each in claims.contrasts} >= set(claims.claims)
    assert read_study(folder / "claims-choices.toml").data.held_out
    page = (folder.parent / "docs" / "how-to" / "run-a-study.md").read_text(encoding="utf-8")
    [described] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert list(read_study(tomllib.loads(described)).variants) == ["zeros", "replicate", "circular", "strided"]


def test_the_command(finished: sl.StudyResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from shiftlens.cli import main

    file = tmp_path / "study.toml"
    file.write_text("seeds = 2\n[data]\nimages = 'digits'\n[factors]\npadding = 'zeroes'\n")
    assert main(["study", str(file), "--out", str(tmp_path / "s")]) == 2
    assert "did you mean 'zeros'" in capsys.readouterr().err
    file.write_text("seeds = 1\n[data]\ntrain_limit = 100\n[factors]\narch = 'vgg6'\nwidth = 2\nsize = 16\n")
    assert main(["study", str(file), "--out", str(tmp_path / "s"), "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_missing"] == 1
