"""What each repair does to one trained net: the table of docs/benchmarks/repair-study.md.

    python benchmarks/repairs.py cures --data-root DATA --work repairs-work --out docs/benchmarks/repairs.json
    python benchmarks/repairs.py sizes --data-root DATA --work repairs-work --out docs/benchmarks/sizes.json
    python benchmarks/repairs.py habits --data-root DATA --work repairs-work --out docs/benchmarks/habits.json
    python benchmarks/repairs.py confirm --data-root DATA --skip 1000 --limit 2000 --work repairs-work --out fresh.json

`cures` repairs `pretrained:vgg-cifar10` with every padding mode and down-sampling: as it is, with batch norm
re-estimated, and after a short fine-tuning; nets that were fine-tuned are compared with the net that was fine-tuned
as long and kept its padding. `sizes` trains nets of half width from scratch at 32 and at 33 px. `habits` leaves the
architecture alone: fine-tuning with larger shifts, scores averaged over small shifts, content moved to the middle.
`confirm` holds the best of them against each other on images that had no part in the choice. Every arm is swept over
the same images and shifts and compared with `shiftlens.compare`. Nets and sweeps are kept in `--work`: stopped
anywhere, the same command goes on. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

import shiftlens as sl
from header import header, of_machine
from shiftlens import surgery
from shiftlens.cli.console import Shell
from shiftlens.data.imageset import ImageSet
from shiftlens.models.wrapping import Model
from shiftlens.stats import Skipped
from shiftlens.training import TrainSettings, train

GRID = sl.ShiftGrid(8, step=2)
TITLES = {
    "cures": "Repairs of one net",
    "sizes": "Input sizes",
    "habits": "One net, other methods",
    "confirm": "Fresh images",
}
CURES: dict[str, tuple[str | None, str | None]] = {
    "zeros": (None, None),
    "replicate": ("replicate", None),
    "reflect": ("reflect", None),
    "circular": ("circular", None),
    "partial": ("partial", None),
    "distribution": ("distribution", None),
    "blur": (None, "blur"),
    "polyphase": (None, "polyphase"),
    "replicate + blur": ("replicate", "blur"),
}
"""Padding and down-sampling of each arm; `zeros` is the net as it is."""
CANDIDATES = {
    "zeros, fine-tuned": "run-zeros--fine-tuned",
    "blur, fine-tuned": "run-blur--fine-tuned",
    "zeros, fine-tuned, shifts of up to 8 px": "run-habit-8",
    "blur, fine-tuned, shifts of up to 8 px": "run-blur-8",
}
"""Looked best on the first images of the other studies, and the two together; the first is what they are held to."""
QUANTITIES = {
    "accuracy": "at-rest",
    "accuracy_within_8px": "near",
    "retained_area": "retained",
    "worst_of_radius": "worst",
}
"""Columns of the table, and the paired difference that goes with each."""
STAGES = ("as it is", "re-estimated", "fine-tuned")
SIZES = ("stride", "max3", "max")


def cure(model: Model, stage: str, name: str, images: ImageSet, out: Path) -> Model:
    """One arm's net: a run directory, made if it is not there."""
    if not out.exists():
        fixed, edits = surgery.repair(model, *CURES[name]) if any(CURES[name]) else (model, [])
        healed = []
        if stage == "re-estimated":
            fixed, facts = surgery.reestimate(fixed, images)
            healed = [facts]
        elif stage == "fine-tuned":
            with Shell().progress(f"fine-tuning {name}", "steps") as report:
                fixed, facts = surgery.finetune(fixed, images, progress=report)
            healed = [facts]
        origin = surgery.origin_of("pretrained:vgg-cifar10", model)
        surgery.save_repaired(out, fixed, origin, edits, healed=healed)
    return sl.load_model(out)


def marks_of_nothing(model: Model) -> float | None:
    """Artefact energy of the last map of a blank input; None where that map is 0 or a single cell."""
    found = sl.features(model).layers[-1].scores.artefact_energy
    return None if isinstance(found, Skipped) else float(found)


def measured(model: Model, images: ImageSet, out: Path) -> None:
    """One arm's sweep, taken up where it stopped."""
    with Shell().progress(f"sweep {out.stem}", "evaluations") as report:
        sl.sweep(model, images, GRID, out=out, engine="direct", progress=report)


def cures(args: argparse.Namespace, images: ImageSet, training: ImageSet) -> Iterator[dict[str, Any]]:
    """All arms of one trained net, and two comparisons; what there is, after every cure."""
    model = sl.load_model("pretrained:vgg-cifar10")
    energies: dict[str, float | None] = {}
    paths: dict[str, Path] = {}
    for name in CURES:
        for stage in STAGES:
            if (stage, name) == ("re-estimated", "zeros"):
                continue
            label = f"{name}, {stage}"
            stem = label.replace(", ", "--").replace(" ", "-")
            net = cure(model, stage, name, training, args.work / f"run-{stem}")
            energies[label] = marks_of_nothing(net)
            paths[label] = args.work / f"{stem}.zarr"
            measured(net, images, paths[label])
        if len(paths) > 2:
            yield {
                "comparisons": [
                    compared(
                        paths,
                        [label for label in paths if label.endswith(stages)],
                        f"zeros, {stages[0]}",
                        args.work / f"pictures-{stages[0].replace(' ', '-')}",
                    )
                    for stages in (STAGES[:2], STAGES[2:])
                ],
                "empty_energy": energies,
                "n_training_images": len(training),
            }


def sizes(args: argparse.Namespace, images: ImageSet, training: ImageSet) -> Iterator[dict[str, Any]]:
    """Nets of half width from scratch at 32 and 33 px, a comparison for each pair; what there is, after each pair."""
    comparisons = []
    for seed in range(args.seeds):
        for downsample in SIZES:
            paths = {}
            for size in (32, 33):
                label = f"{downsample}, {size} px, seed {seed}"
                stem = f"{downsample}-{size}-{seed}"
                settings = TrainSettings(
                    downsample=downsample, size=(size, size), width=32, epochs=args.epochs, glance=0
                )
                with Shell().progress(f"training {stem}", "steps") as report:
                    train(training, out=args.work / f"run-{stem}", seed=seed, settings=settings, progress=report)
                paths[label] = args.work / f"{stem}.zarr"
                measured(sl.load_model(args.work / f"run-{stem}"), images, paths[label])
            pictures = args.work / f"pictures-{downsample}-{seed}"
            comparisons.append(compared(paths, list(paths), next(iter(paths)), pictures))
            yield {"comparisons": comparisons, "n_training_images": len(training), "epochs": args.epochs}


def habits(args: argparse.Namespace, images: ImageSet, training: ImageSet) -> Iterator[dict[str, Any]]:
    """The same net with other habits: what it is shown in a fine-tuning, and what it is shown at inference."""
    model = sl.load_model("pretrained:vgg-cifar10")
    assert isinstance(model.module, nn.Module)
    paths = {"as it is": args.work / "habit-none.zarr"}
    measured(model, images, paths["as it is"])
    for shift in (2, 8):
        label, out = f"fine-tuned, shifts of up to {shift} px", args.work / f"run-habit-{shift}"
        shown_wider(out, None, args.epochs, training, shift)
        paths[label] = args.work / f"habit-{shift}.zarr"
        measured(sl.load_model(out), images, paths[label])
    wrapped = {
        "mean over shifts of 1 px": sl.nn.ShiftAverage2d(model.module, radius=1),
        "content to the middle": sl.nn.ContentAligned2d(model.module, radius=8),
    }
    seen = model.preprocessing
    for label, net in wrapped.items():
        paths[label] = args.work / f"habit-{label.replace(' ', '-')}.zarr"
        changed = sl.wrap(net.eval(), mean=seen.mean, std=seen.std, size=32, class_names=model.class_names, name=label)
        measured(changed, images, paths[label])
    found = compared(paths, list(paths), next(iter(paths)), args.work / "pictures-habits")
    yield {"comparisons": [found], "n_training_images": len(training), "epochs": args.epochs}


def shown_wider(out: Path, downsample: str | None, epochs: int, images: ImageSet, shift: int = 8) -> None:
    """A run directory of the net, with another down-sampling, fine-tuned with shifts of up to so many pixels."""
    if out.exists():
        return
    model = sl.load_model("pretrained:vgg-cifar10")
    fixed, edits = surgery.repair(model, None, downsample) if downsample else (model, [])
    with Shell().progress(f"fine-tuning {out.name}", "steps") as report:
        settings = surgery.FineTuning(epochs=epochs, shift=shift)
        fixed, facts = surgery.finetune(fixed, images, settings, progress=report)
    surgery.save_repaired(out, fixed, surgery.origin_of("pretrained:vgg-cifar10", model), edits, healed=[facts])


def confirm(args: argparse.Namespace, images: ImageSet, training: ImageSet) -> Iterator[dict[str, Any]]:
    """What looked best in the other studies, on images that had no part in the choice."""
    paths: dict[str, Path] = {}
    for label, run in CANDIDATES.items():
        if run == "run-blur-8":
            shown_wider(args.work / run, "blur", args.epochs, training)
        paths[label] = args.work / f"confirm-{run}.zarr"
        measured(sl.load_model(args.work / run), images, paths[label])
    found = compared(paths, list(paths), next(iter(paths)), args.work / "pictures-confirm")
    yield {"comparisons": [found], "n_training_images": len(training)}


STUDIES = {"cures": cures, "sizes": sizes, "habits": habits, "confirm": confirm}


def compared(paths: dict[str, Path], chosen: list[str], baseline: str, pictures: Path) -> dict[str, Any]:
    """The object of `shiftlens compare --json` without its sentences; the pictures go to the working directory."""
    result = sl.compare([paths[label] for label in chosen], baseline, chosen)
    result.plot(pictures)
    return {key: value for key, value in result.to_dict().items() if key != "findings"}


def shown(value: float | None, interval: list[float | None], scale: float = 1, digits: int = 1) -> str:
    """A value with its interval; an end beyond the grid is open."""
    if value is None:
        return "not measured"
    low, high = ("..." if end is None else f"{scale * end:.{digits}f}" for end in interval)
    return f"{scale * value:.{digits}f} [{low}, {high}]"


def verdict(arm: dict[str, Any], quantity: str) -> str:
    """Points against the baseline, what that says, and what would have been found if it says nothing."""
    found = arm["differences"].get(quantity)
    if found is None:
        return "not measured"
    text = shown(found["value"], found["interval"])
    if found["verdict"] in ("better", "worse"):
        return f"**{text}** {found['verdict']}"
    return f"{text}, detectable {found['detectable']:.1f}" if found["detectable"] is not None else text


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    grid = result["grid"]
    lines = [
        f"# {TITLES[result['study']]}",
        "",
        f"`{result['command']}` on {of_machine(result['machine'])}. {result['n_images']:,} test images "
        f"(JPEG-compressed copies) under shifts of up to {grid['max_shift']} px in steps of {grid['step']}; training "
        f"used {result['n_training_images']:,} images. Brackets: 95 % over images, not over trainings. Bold: holds "
        "after correction for all tests of its table; else the smallest detectable difference.",
    ]
    marks = result.get("empty_energy", {})
    for each in result["comparisons"]:
        base = each["baseline"]
        lines += [
            "",
            f"Against `{base}` ({each['n_images']:,} images x {each['n_shifts']} shifts; {each['n_tests']} tests; "
            f"areas in pixels of the {each['pixels_of']}):",
            "",
            "| net | accuracy at (0, 0), % | against | mean within 8 px, % | against | 95 % retained within, px² | "
            "against | right under all shifts of 4 px, % | against | artefact energy, blank input, % |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        against = {arm["name"]: arm for arm in each["against"]}
        for row in each["rows"]:
            arm = against.get(row["name"])
            cells = [f"`{row['name']}`"]
            for key, quantity in QUANTITIES.items():
                scale = 1 if key == "retained_area" else 100
                cells.append(shown(row[key], row[f"{key}_interval"], scale, 0 if key == "retained_area" else 1))
                cells.append(verdict(arm, quantity) if arm else "")
            energy = marks.get(row["name"])
            cells.append("" if energy is None else f"{100 * energy:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="test images in every sweep")
    parser.add_argument("--skip", type=int, default=0, help="test images that another study was made on")
    parser.add_argument("--training-images", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=3, help="of the trainings of `sizes` and `habits`")
    parser.add_argument("--seeds", type=int, default=2, help="of the nets of `sizes`")
    parser.add_argument("--work", type=Path, default=Path("repairs-work"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    images = sl.load_images("cifar10", split="test", data_root=args.data_root, limit=args.skip + args.limit)
    images = images.subset(range(args.skip, len(images))) if args.skip else images
    training = sl.load_images("cifar10", split="train", data_root=args.data_root, limit=args.training_images)
    about = header() | {
        "study": args.study,
        "data": images.digest,
        "n_images": len(images),
        "grid": {"max_shift": 8, "step": 2},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for found in STUDIES[args.study](args, images, training):
        args.out.write_text(json.dumps(about | found, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(table(about | found))


if __name__ == "__main__":
    main()
