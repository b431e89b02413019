"""A detector and a segmenter, repaired, swept again, compared and reported: on one row of a few shifts."""

from __future__ import annotations

from pathlib import Path

import pytest

import shiftlens as sl
from narrative.commands import parse
from reporting.planted import Page
from shiftlens.surgery import origin_of, save_repaired

GRID = sl.ShiftGrid((0, 4), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task", "metric"),
    [("detector", "detection", "recall"), ("unet", "segmentation", "mean IoU")],
)
def test_a_repaired_net_is_compared_in_the_words_of_its_task(
    model: str, task: str, metric: str, tmp_path: Path
) -> None:
    images = sl.load_images("digits-scenes", split="test", limit=3)
    spec, run = f"pretrained:{model}-digits", tmp_path / "reflect"
    before = sl.load_model(spec)
    after, edits = sl.repair(before, padding="reflect")
    save_repaired(run, after, origin_of(spec, before), edits)
    assert len(edits) > 5
    assert all("zeros -> reflect" in str(edit) for edit in edits)
    sweeps = [
        sl.sweep(arm, images, GRID, out=tmp_path / f"{name}.zarr", task=task, engine="direct", dtype="float32")
        for name, arm in (("zeros", before), ("reflect", sl.load_model(run)))
    ]
    # The run directory holds the same net.
    again = sl.evaluate(after, images, task=task)
    first = sweeps[1].mean_of(sweeps[1].metrics[0]).sel(dx=0, dy=0)
    assert again.to_dict()[sweeps[1].metrics[0].name] == pytest.approx(float(first), abs=1e-5)
    made = sl.compare(sweeps, names=["zeros", "reflect"])
    assert made.metric.called == metric
    text = " ".join([*(f"{question} {answer}" for question, answer in made.summary), *map(str, made.findings)])
    assert f"mean {metric.removeprefix('mean ')} up to 4 px along x, every 2 px" in text
    assert "mean mean" not in text
    for wrong in ("accuracy", "nan", "None", "_iou"):
        assert wrong not in text, text[max(0, text.find(wrong) - 100) : text.find(wrong) + 60]
    page = Page(sl.report(sweeps, tmp_path / "r.html").path)
    assert page.visible.count("Objects, places and phases") == 2
    assert "Comparison against zeros" in page.visible
    assert "accuracy" not in page.visible.replace("pixel accuracy", "").replace("Pixel accuracy", "")
    for finding in sl.findings(sweeps[1]):
        if finding.action is not None and finding.action.command[:1] == ("shiftlens",):
            parse(finding.action.command)
