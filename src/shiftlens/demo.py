"""The main job on the embedded images: train a small VGG, sweep it, look into it, say and show what came out.

For segmentation and detection, a net that is shipped is swept on scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shiftlens import figures
from shiftlens.arithmetic import inspect
from shiftlens.data.images import ImageSet, load_images
from shiftlens.errors import InputError
from shiftlens.evaluation import Evaluation, evaluate
from shiftlens.lens.feature_maps import features
from shiftlens.models.loading import Model, load_model
from shiftlens.naming import Printed, count_of, unknown_name
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.findings import findings
from shiftlens.narrative.rendering import as_text
from shiftlens.reporting import Item, Report, report
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import run_sweep
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tiles.doctor import tile_report
from shiftlens.tiles.tile_result import TileReport
from shiftlens.training import TrainSettings, train

MAX_SHIFT = 32
"""The picture's size: all 4,225 shifts of 32 x 32 pixels."""

WIDTH = 16
"""Channels of the demo net's first level: a quarter of `vgg8`'s, so that the whole takes minutes without a GPU."""


NETS = {"segmentation": "pretrained:unet-digits", "detection": "pretrained:detector-digits"}
"""The shipped net for each task that has one."""

N_TILED, TILE = 8, 48
"""Scenes that are also cut into tiles, and the side of a tile in pixels: half a scene's."""

N_KEPT = 4
"""Scenes whose masks or boxes are kept for the page."""

N_SCENES, SCENE_SHIFT = 30, 8
"""Scenes, and the largest shift in pixels: all phases of a net with stride 8, both ways."""


class Narrator(Protocol):
    """What the demo needs of whoever runs it: remarks and progress."""

    def say(self, text: str) -> None:
        """One remark."""
        ...

    def progress(self, what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A progress report for one step."""
        ...


@dataclass(frozen=True, repr=False)
class DemoResult(Printed):
    """Where everything is, the VGG's accuracy to start from, what the sweep shows, and what a segmenter's tiles do."""

    files: tuple[Path, ...]
    evaluation: Evaluation | None
    sweep: Sweep
    findings: Findings
    report: Report
    tiles: TileReport | None = None

    def lines(self) -> list[str]:
        """How good it is unshifted, how large the strong area is, and all warnings and notes."""
        strong = self.findings.named("retained-95")
        told = [strong.statement] if strong else []
        unshifted = self.evaluation.lines() if self.evaluation else []
        tiled = self.tiles.lines()[:3] if self.tiles else []
        return [*unshifted, *told, *map(str, self.findings.with_severity("warn", "note")), *tiled]


def run(
    out: Path,
    narrator: Narrator,
    *,
    device: str = "auto",
    seed: int = 0,
    max_shift: int = MAX_SHIFT,
    limit: int | None = None,
) -> DemoResult:
    """Train, sweep, draw, diagnose and report on `digits`; run again, it goes on where it stopped.

    Parameters
    ----------
    out
        Directory for the run, the sweep, the feature maps, the pictures, `findings.txt` and `report.html`; made if it
        is not there.
    narrator
        Told what happens.
    device, seed
        As everywhere.
    max_shift, limit
        Smaller numbers make a quicker, coarser demo (the tests do).
    """
    train_images = load_images("digits", split="train")
    test_images = load_images("digits", split="test", limit=limit)
    narrator.say(f"1/6 training a small VGG on {count_of(len(train_images), 'handwritten digit')}")
    with narrator.progress("training", "steps") as step:
        train(
            train_images,
            test_images,
            out=out / "run",
            seed=seed,
            device=device,
            settings=TrainSettings(arch="vgg8", width=WIDTH),
            progress=step,
        )
    model = load_model(str(out / "run"), device=device)
    evaluation = evaluate(model, test_images, device=device)
    grid = ShiftGrid(max_shift)
    narrator.say(f"2/6 evaluating {count_of(len(test_images), 'test image')} under all {grid.n_shifts:,} shifts")
    with narrator.progress("sweeping", "evaluations") as step:
        sweep, _ = run_sweep(model, test_images, grid, out=out / "digits.zarr", device=device, progress=step)
    narrator.say("3/6 drawing")
    pictures = figures.plot(sweep, out)
    narrator.say("4/6 measuring sides, irregularities and intervals")
    found = findings(sweep, seed=seed)
    text = _written(found, out)
    narrator.say("5/6 looking at what the net sees in an empty picture, and on average")
    with narrator.progress("looking", "images") as step:
        maps = features(model, average=test_images, out=out / "features.zarr", device=device, seed=seed, progress=step)
    page = out / "report.html"
    narrator.say(f"6/6 writing {page}: open it in a browser")
    arithmetic = inspect(model, maps.size)
    made = report([sweep, maps, arithmetic], page, title="shiftlens demo: a small VGG on digits", seed=seed)
    files = (out / "run", out / "digits.zarr", out / "features.zarr", *pictures.files, text, made.path)
    return DemoResult(files, evaluation, sweep, found, made)


def run_task(
    task: str,
    out: Path,
    narrator: Narrator,
    *,
    device: str = "auto",
    seed: int = 0,
    max_shift: int = SCENE_SHIFT,
    limit: int = N_SCENES,
) -> DemoResult:
    """Sweep the shipped net of a task on `digits-scenes`, draw, diagnose and report; the arguments are those of `run`.

    Raises
    ------
    InputError
        A task that no shipped net is for.
    """
    if task not in NETS:
        raise unknown_name("task of the demo", task, ("classification", *NETS))
    images, grid = load_images("digits-scenes", split="test", limit=limit), ShiftGrid(max_shift)
    model = load_model(NETS[task], device=device)
    n = 5 if task == "segmentation" else 4
    narrator.say(f"1/{n} evaluating {len(images):,} scenes under all {grid.n_shifts:,} shifts by {model.name}")
    with narrator.progress("sweeping", "evaluations") as step:
        place = out / f"{task}.zarr"
        sweep, _ = run_sweep(
            model, images, grid, out=place, task=task, keep_outputs=N_KEPT, device=device, progress=step
        )
    narrator.say(f"2/{n} drawing")
    pictures = figures.plot(sweep, out)
    narrator.say(f"3/{n} measuring sides, irregularities and intervals")
    found = findings(sweep, seed=seed)
    text = _written(found, out)
    tiles, tile_files = _tiled(model, images, task, out, narrator, device, seed) if n == 5 else (None, ())
    page = out / "report.html"
    narrator.say(f"{n}/{n} writing {page}: open it in a browser")
    items: list[Item] = [sweep] if tiles is None else [sweep, tiles]
    made = report(items, page, title=f"shiftlens demo: {task} of digits", seed=seed)
    files = (out / f"{task}.zarr", *pictures.files, text, *tile_files, made.path)
    return DemoResult(files, None, sweep, found, made, tiles)


def _tiled(
    model: Model, images: ImageSet, task: str, out: Path, narrator: Narrator, device: str, seed: int
) -> tuple[TileReport, tuple[Path, ...]]:
    """What tiles do to the first scenes, and the files that say so."""
    some, path = images.limit(N_TILED), out / "tiles.zarr"
    narrator.say(f"4/5 comparing tiles of {TILE} px with the whole image on {count_of(len(some), 'scene')}")
    with narrator.progress("tiling", "images") as step:
        found = tile_report(model, some, TILE, task=task, out=path, device=device, seed=seed, progress=step)
    return found, (path, *figures.plot_tiles(found, out).files)


def _written(found: Findings, out: Path) -> Path:
    text = out / "findings.txt"
    try:
        text.write_text("\n\n".join(map(_paragraph, found)) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {text}: {error.strerror or error}") from None
    return text


def _paragraph(finding: Finding) -> str:
    return as_text(finding.severity, finding.statement, finding.evidence, finding.action)
