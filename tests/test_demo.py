"""The demo ends with pictures and with sentences, and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shiftlens import demo
from shiftlens.cli import main
from shiftlens.errors import InputError
from shiftlens.training import TrainSettings


class Silent:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def progress(self, what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: None


def test_the_demo_ends_with_pictures_and_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One epoch of a thin net: the way through is tested here, not the digits.
    monkeypatch.setattr(demo, "TrainSettings", lambda arch, width: TrainSettings(arch=arch, width=4, epochs=1))
    narrator = Silent()
    result = demo.run(tmp_path / "out", narrator, max_shift=3, limit=30)
    assert [text[:3] for text in narrator.said] == ["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"]
    names = {path.name for path in result.files}
    assert {"run", "digits.zarr", "accuracy.png", "loss.png", "profile.png", "sides.png", "findings.txt"} <= names
    assert result.files[-1] == tmp_path / "out" / "report.html"
    page = result.files[-1].read_text(encoding="utf-8")
    assert all(f'id="{part}"' in page for part in ("sweep-0", "features-0", "inspection-0"))
    assert "Not in this report. " in page
    assert "<code>shiftlens repair" in page
    assert all(path.exists() for path in result.files)
    text = (tmp_path / "out" / "findings.txt").read_text(encoding="utf-8")
    assert all(each.statement in text for each in result.findings)
    lines = result.lines()
    for each in result.findings:
        shown = each.severity != "info" or each.id == "retained-95"
        assert any(each.statement in line for line in lines) == shown, each.id
    before = text
    (tmp_path / "out" / "findings.txt").unlink()
    result.files[-1].unlink()
    assert demo.run(tmp_path / "out", narrator, max_shift=3, limit=30).findings == result.findings
    assert (tmp_path / "out" / "findings.txt").read_text(encoding="utf-8") == before
    assert result.files[-1].read_text(encoding="utf-8") == page
    (tmp_path / "out" / "findings.txt").unlink()
    (tmp_path / "out" / "findings.txt").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*findings\.txt"):
        demo.run(tmp_path / "out", narrator, max_shift=3, limit=30)


@pytest.mark.parametrize(("task", "metric"), [("segmentation", "mean_iou"), ("detection", "recall")])
def test_the_demo_of_another_task_sweeps_a_shipped_net(task: str, metric: str, tmp_path: Path) -> None:
    narrator = Silent()
    result = demo.run_task(task, tmp_path, narrator, max_shift=1, limit=4)
    n = 5 if task == "segmentation" else 4
    assert [text[:3] for text in narrator.said] == [f"{k}/{n}" for k in range(1, n + 1)]
    assert 'id="stage-over-0"' in result.report.path.read_text(encoding="utf-8")
    assert ("Tiled inference" in result.report.path.read_text(encoding="utf-8")) == (n == 5)
    assert {"tiles.zarr", "seams.png"} <= {path.name for path in result.files} or n == 4
    assert float(result.sweep.mean_of(metric).sel(dx=0, dy=0)) > 0.5
    assert result.files[0] == tmp_path / f"{task}.zarr"
    assert all(path.exists() for path in result.files)
    assert "nan" not in "\n".join(result.lines())


def test_the_demo_knows_its_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--task", "detect", "--out", str(tmp_path / "d")]) == 2
    assert "did you mean 'detection'" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
